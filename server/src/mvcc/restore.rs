//! The key space after a restart: a checkpoint of the index, and the rows after it.

use super::compaction::Compaction;
use super::index::{CheckpointError, Index, Version};
use super::{KeySpace, Limits, Row, stored};

/// Builds a key space from what is on disk.
pub struct Restorer {
    limits: Limits,
    index: Index,
}

/// Where the key space stood, as the state store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The current revision.
    pub revision: i64,
    /// The compaction that readers see; -1 for none.
    pub compact_scheduled: i64,
    /// The last compaction of which rows may be gone from the store; -1 for none.
    pub compact_begun: i64,
    /// The last compaction whose deletions are all in the store; -1 for none. Below
    /// `compact_scheduled`, or if the checkpoint is older than it, the compaction is done again.
    pub compact_finished: i64,
}

/// A row that cannot be read back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {0:?} of the state store cannot be read")]
pub struct DamagedRow(pub super::RowKey);

impl KeySpace {
    /// Begins to restore a key space.
    pub fn restore(limits: Limits) -> Restorer {
        Restorer { limits, index: Index::new() }
    }
}

impl Restorer {
    /// Takes a chunk of a checkpoint. All chunks of one come first, in their order.
    ///
    /// # Errors
    /// [`CheckpointError`]: the checkpoint is unusable; start anew without it.
    pub fn checkpoint_chunk(&mut self, chunk: &[u8]) -> Result<(), CheckpointError> {
        self.index.decode_slice(chunk)
    }

    /// Takes a row that is newer than the checkpoint and all rows before.
    ///
    /// # Errors
    /// [`DamagedRow`]: the start must stop.
    pub fn row(&mut self, row: &Row) -> Result<(), DamagedRow> {
        let kv = stored::decode(&row.stored).ok_or(DamagedRow(row.key))?;
        let revision = row.key.revision();
        let stored_bytes = u32::try_from(row.stored.len()).map_err(|_| DamagedRow(row.key))?;
        if row.key.is_tombstone() {
            self.index.restore_tombstone(&kv.key, revision, stored_bytes)
        } else {
            let version = Version {
                revision,
                create_revision: kv.numbers.create_revision,
                version: kv.numbers.version,
                lease: kv.numbers.lease,
                stored_bytes,
            };
            self.index.restore_put(&kv.key, version)
        }
        .map_err(|_| DamagedRow(row.key))
    }

    /// The key space, with an empty window.
    pub fn finish(self, standing: Standing) -> KeySpace {
        let compaction = Compaction::restored(
            standing.compact_scheduled,
            standing.compact_begun,
            standing.compact_finished,
        );
        KeySpace::restored(self.limits, self.index, standing.revision, compaction)
    }
}
