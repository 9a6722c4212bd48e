//! Committed entries into state: commands, leases, alarms, members, and what a flush carries. Pure.
//!
//! Applying the same entries gives the same state on every member. A refusal is part of that: it is
//! decided here, from state alone, and every member decides it alike. The keys themselves live in the
//! [`KeySpace`](crate::mvcc::KeySpace); this room keeps what is beside them.
//!
//! ```text
//! entry 5  InternalRaftRequest{header{ID 7}, put{k, v}}  ->  Applied { id 7, Kv(revision 2) }
//! entry 6  InternalRaftRequest{header{ID 8}, alarm{..}}  ->  Applied { id 8, Alarms([..]) }
//! entry 7  (empty, a new leader's)                       ->  nothing
//! ```

mod apply;
mod command;
mod flush;
mod inventory;
pub mod own;
mod records;
mod restore;

pub use apply::{Application, ApplyError, FatalError, Response, StateMachine};
pub use command::{
    AlarmAction, Command, CommandError, Request, compare_of, encode, op_name, quota_cost_bytes,
    range_query, with_id,
};
pub use flush::{FlushBatch, Table, TableRow};
pub use inventory::Inventory;
pub use records::{Alarm, AlarmKind, ConfChange, ConfChangeKind, Member, encode_lease};
pub use restore::{Cut, RestoreError, Restored};
