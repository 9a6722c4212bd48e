//! Tests.

pub mod compare;
pub mod diff;
pub mod load;
pub mod process;
