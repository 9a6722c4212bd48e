//! Agreement on one log of entries. Pure; the only room that knows the raft crate.

mod types;

pub use types::{ConfState, Entry, EntryKind, HardState};
