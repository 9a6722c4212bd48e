//! The messages that members exchange through the `raft` crate, on `prost`.
//!
//! `raft` 0.7 takes its messages from a crate `raft-proto` that generates them at build time, with a
//! `protoc` or with `protobuf` 2, which is no longer maintained (RUSTSEC-2024-0437). This facade takes
//! its place by `[patch.crates-io]`. It declares the same messages with the same field numbers, so that
//! the published `raft` builds unchanged and members that were built with either understand each other.
//! Payloads are [`bytes::Bytes`]: an entry that goes to four followers is one allocation.
//!
//! `raft` reaches the fields through accessors in the style of `protobuf` 2 (`get_index`,
//! `take_entries`, …); a macro in `accessors` writes them. Everything else about the messages is in
//! [`eraftpb`], and what `raft` computes on configuration changes is in `conf_change`.
//!
//! ```
//! use raft_proto::eraftpb::{Entry, EntryType};
//!
//! let mut entry = Entry { index: 7, ..Entry::default() };
//! entry.set_entry_type(EntryType::EntryConfChange);
//! assert_eq!((entry.get_index(), entry.get_data()), (7, &b""[..]));
//! ```

mod accessors;
mod conf_change;
pub mod eraftpb;
#[cfg(test)]
mod tests;

pub use conf_change::{ConfChangeI, conf_state_eq, new_conf_change_single};

/// Every message and enumeration, for a glob import.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
