//! Agreement on one log of entries. Pure; the only room that knows the raft crate.
//!
//! [`Consensus`] is one member's part in the agreement. Its owner feeds it what happens (a tick, a
//! proposal, a message from another member, a write that reached the disk) and after that takes what
//! is [`Ready`]: what to write, what to send, what to apply. Nothing here waits or does anything by
//! itself, and the same inputs give the same outputs in every run; the only randomness is a seed.
//!
//! The life of a proposal on a lone voter, with the two turns that it needs at least:
//!
//! ```
//! use quorate_server::consensus::{Config, Consensus, Recovered, bootstrap_entries};
//!
//! let (hard_state, entries) = bootstrap_entries(&[(7, "member seven".into())]);
//! let recovered = Recovered { hard_state, entries, ..Recovered::default() };
//! let mut member = Consensus::new(Config::new(7, 1), recovered).unwrap();
//!
//! // The configuration exists only by applying it.
//! let ready = member.take_ready().unwrap();
//! let conf_state = member.apply_conf_change(&ready.committed[0]).unwrap();
//! assert_eq!(conf_state.voters, [7]);
//! member.applied(1);
//!
//! // A lone voter need not wait for an election timeout.
//! member.campaign();
//! member.propose(vec!["put".into()]).unwrap();
//! let ready = member.take_ready().unwrap();
//! assert_eq!(ready.entries.len(), 2); // The leader's own empty entry, and the command.
//! assert!(ready.committed.is_empty()); // Nothing is committed that no disk has.
//!
//! member.persisted(ready.sync.unwrap());
//! let ready = member.take_ready().unwrap();
//! assert_eq!(ready.committed[1].data, "put");
//! ```
//!
//! Invariants, each with a test:
//! - Every committed entry is handed out once, in order, without gaps, from the one after
//!   [`Recovered::applied_index`] on; never before a quorum has it on disk, and never before this
//!   member has.
//! - A message that promises something leaves only when what it promises is on disk. The gate for this
//!   is [`Consensus`]'s own: whatever is in [`Ready::messages`] may leave at once.
//! - Nothing that arrives can make the process panic: what raft would panic on is refused before.
//!
//! Absent on purpose: joint configurations, leadership leases for reads, and for now snapshots and
//! fetching entries that memory no longer holds.

mod bootstrap;
mod checks;
mod conf_change;
mod convert;
mod error;
mod gate;
mod jitter;
mod log_view;
mod message;
mod node;
mod ready;
mod recovery;
#[cfg(test)]
mod tests;
mod types;

pub use bootstrap::bootstrap_entries;
pub use error::{
    ConfChangeError, ConsensusError, DecodeError, ProposeError, ReadIndexError, StepError,
    TransferError,
};
pub use log_view::LogLimits;
pub use message::{Message, MessageKind};
pub use node::{Consensus, Progress, Status};
pub use ready::{ReadState, Ready, SoftState};
pub use recovery::{Config, Recovered};
pub use types::{ConfState, Entry, EntryKind, HardState};
