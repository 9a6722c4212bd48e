//! What the flusher writes in one durable transaction.

use bytes::Bytes;

use crate::mvcc::{Row, RowKey};

/// A consistent cut of the state: everything that changed since the batch before it, with the applied
/// index at which it was cut. Written whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct FlushBatch {
    /// The store generation it belongs to; a completion of an older one is ignored.
    pub generation: u64,
    /// New rows, ascending by revision.
    pub rows: Vec<Row>,
    /// Rows to delete, ascending by revision.
    pub deletions: Vec<RowKey>,
    /// Records of the small tables that replace what is there.
    pub tables: Vec<TableRow>,
    /// The last entry whose effects are in here or in an earlier batch.
    pub applied_index: u64,
    /// The current revision after that entry.
    pub revision: i64,
}

/// The small tables of the state store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Applied index, configuration, compact revisions, cluster version, level.
    Meta,
    /// Members by ID.
    Members,
    /// Members that were removed, by ID.
    RemovedMembers,
    /// Raised alarms.
    Alarms,
    /// Leases by ID.
    Leases,
}

impl Table {
    /// Every table, in a fixed order.
    pub const ALL: [Self; 5] =
        [Self::Meta, Self::Members, Self::RemovedMembers, Self::Alarms, Self::Leases];

    /// The table's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Members => "members",
            Self::RemovedMembers => "members_removed",
            Self::Alarms => "alarms",
            Self::Leases => "leases",
        }
    }
}

/// One record of a small table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Where.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
    /// Its value; `None` removes it.
    pub value: Option<Bytes>,
}
