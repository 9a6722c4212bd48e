//! Quorate: a replicated key-value store that speaks the etcd v3 API.
//!
//! # Bird's eye
//!
//! A pure core inside a thin shell. The core ([`replica`], with [`consensus`], [`state_machine`],
//! [`mvcc`], [`lease`] and [`view`] in it, and [`watch`] beside it) has no I/O, no clock and no entropy:
//! events go in, effects come out, and
//! the same events give the same effects on every member and in every run. The shell performs them.
//!
//! ```text
//!         gRPC, health, metrics
//!            api/   http/
//!               |  Handle: bounded lanes of events         reads and watches: on the caller's thread,
//!               v                                          past the owner, through View and Hub
//!   +-------- runtime/ : ONE owner thread ---------------------+          |
//!   |  event -> Replica::handle -> settle -> effects in order  |          v
//!   |  Replica = consensus (raft) + state_machine + requests   |<---- view/ + mvcc/
//!   +----------------------------------------------------------+
//!        | append + fdatasync          | batches, in the background
//!     storage/wal                   storage/state (redb)
//! ```
//!
//! # The life of a write
//!
//! 1. `api` validates a request, encodes it as the command of an entry, and hands it to the owner.
//! 2. The owner takes everything that waits, proposes it as one batch, and appends raft's entries to
//!    the log. **One `fdatasync` covers whatever arrived during the last one.** Nothing that depends
//!    on it leaves before it.
//! 3. What is committed is applied in order: key index and recent window change under one lock, once
//!    per entry. Compares that need a value are the only reads of stored rows in apply.
//! 4. The waiting request is answered. Previous versions and ranges of a transaction are read by the
//!    member that answers, afterwards, at their revisions, under a pin.
//! 5. Later the flusher writes the rows in revision order into the state store, together with the
//!    applied index, in one durable transaction. Until then the log holds them.
//!
//! # The life of a read
//!
//! A linearizable read asks for a read index first (a member that leads alone needs none), then reads
//! the [`view`] at a fixed revision, in steps of at most 1,000 keys under a read lock: first the
//! index, then the recent window, and only after a miss the state store. It pins its revision, so
//! compaction leaves alone what it still needs. A list of a million keys never stalls a write; what does is
//! a transaction that writes and first compares the values of as many, because all members must decide it
//! at the same point of the log.
//!
//! # The life of a watch
//!
//! A watcher is a cursor on the revisions, kept by the [`watch`] hub beside the owner. The owner only
//! says that something was applied; the runtime that serves the sockets takes the new rows from the
//! recent window, finds the groups of watchers that they concern, and wakes their streams. A stream
//! pulls when its client can take more, and copies the rows, which are in wire form already, behind a
//! small head. Whoever is behind reads window and store first, in stretches, and joins the others by
//! revision.
//!
//! # The life of a lease
//!
//! Grants, revocations and checkpoints are commands; which keys hang on a lease follows from the puts.
//! When a [`lease`] ends is known to the member that leads alone: its ticks move a clock, a renewal moves
//! a deadline, and what is over is revoked by a command, which deletes all its keys in one revision.
//!
//! # Invariants
//!
//! - An acknowledged write is on the disks of a quorum, synced. No flag changes that.
//! - A row, once written, never changes. Deletion is by compaction, in ascending order.
//! - The window evicts a row only after readers can see its flush.
//! - The applied index is stored with the data that it describes, in the same transaction: nothing is
//!   applied twice.
//! - An I/O error of log or store ends the process; it never becomes a reply.
//! - Only `consensus` names the raft crate, only `storage` names redb; generated protobuf types stop
//!   at `api`, `state_machine` and `storage`. `tests/tests/tidy.rs` enforces the table of imports.
//!
//! # Deliberately absent
//!
//! A cache of replies, a lease-based read, a timer that delays a sync, a queue that clients can fill
//! without a bound, a lock that is held over an await.

pub mod api;
pub mod config;
pub mod consensus;
pub mod handle;
pub mod http;
pub mod lease;
pub mod listen;
pub mod mutants;
pub mod mvcc;
pub mod replica;
pub mod runtime;
pub mod server;
pub mod state_machine;
pub mod storage;
pub mod telemetry;
pub mod view;
pub mod watch;
