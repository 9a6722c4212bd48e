//! Everything that a running member holds, read past its API.

use quorate_proto::mvccpb::KeyValue;
use quorate_server::mvcc::{Revision, RowsError};
use quorate_server::view::ReadError;

use super::member::Life;
use crate::sim::history::{StoredRow, StoredState};
use prost::Message as _;

/// Rows that are read at once.
const SCAN_ROWS: usize = 500;
/// What a row costs beside its key and its stored bytes: the quota's definition.
const ROW_OVERHEAD_BYTES: u64 = 16;

/// What a member holds, and what the quota should say of it.
pub(super) struct Inspection {
    pub(super) state: StoredState,
    /// Of all rows, in bytes.
    pub(super) cost_bytes: u64,
}

/// Reads it: rows that are flushed from the state store, the others from the window.
///
/// # Errors
/// What cannot be read.
pub(super) fn inspect(life: &Life) -> Result<Inspection, String> {
    let view = life.handle.view();
    let state = StoredState {
        current_revision: view.current_revision(),
        compact_revision: view.compact_revision(),
        rows: Vec::new(),
    };
    let mut inspection = Inspection { state, cost_bytes: 0 };
    let flushed = life.flushed_revision();
    stored(life, &mut inspection)?;
    recent(life, flushed, &mut inspection)?;
    Ok(inspection)
}

fn stored(life: &Life, inspection: &mut Inspection) -> Result<(), String> {
    let mut next = Revision::default();
    loop {
        let mut slice = Vec::new();
        let scanned = life.handle.rows().scan(next, SCAN_ROWS, &mut slice);
        scanned.map_err(|error| error.to_string())?;
        for row in &slice {
            inspection.add(row.key.revision(), &row.stored, row.key.is_tombstone())?;
        }
        let Some(last) = slice.last().filter(|_| slice.len() == SCAN_ROWS) else { return Ok(()) };
        let last = last.key.revision();
        next = Revision::new(last.main, last.sub + 1);
    }
}

fn recent(life: &Life, flushed: i64, inspection: &mut Inspection) -> Result<(), String> {
    let view = life.handle.view();
    let pin = view.pin(0).map_err(|error| error.to_string())?;
    for main in flushed + 1..=inspection.state.current_revision {
        for sub in 0.. {
            let revision = Revision::new(main, sub);
            let mut row = Vec::new();
            match view.stored(&[revision], &pin, life.handle.rows().as_ref(), &mut row) {
                Ok(()) => {}
                Err(ReadError::Rows(RowsError::Missing(_))) => break,
                Err(error) => return Err(error.to_string()),
            }
            let Some(stored) = row.pop() else { break };
            // A tombstone is stored as its key alone; nothing else has no revision.
            let is_tombstone =
                KeyValue::decode(stored.clone()).is_ok_and(|kv| kv.mod_revision == 0);
            inspection.add(revision, &stored, is_tombstone)?;
        }
    }
    Ok(())
}

impl Inspection {
    fn add(&mut self, at: Revision, stored: &[u8], is_tombstone: bool) -> Result<(), String> {
        let kv = KeyValue::decode(stored).map_err(|error| format!("row {at:?}: {error}"))?;
        let row_key_bytes = if is_tombstone { 18 } else { 17 };
        self.cost_bytes += row_key_bytes + stored.len() as u64 + ROW_OVERHEAD_BYTES;
        let (key, kv) = (kv.key.clone(), (!is_tombstone).then_some(kv));
        self.state.rows.push(StoredRow::new(key, (at.main, at.sub), kv));
        Ok(())
    }
}
