//! Committed entries into state: commands, alarms, members, and what a flush carries. Pure.

mod flush;
mod records;

pub use flush::{FlushBatch, Table, TableRow};
pub use records::{Alarm, AlarmKind, Member};
