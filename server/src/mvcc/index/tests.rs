//! The index against a map of all rows, which is what it claims to be.

mod model;
mod size;
mod slices;
