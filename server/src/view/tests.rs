//! The view against a naive history.

mod compare;
mod edges;
mod hash;
mod histories;
mod restore;
mod world;
