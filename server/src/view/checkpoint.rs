//! A checkpoint of the index as of one revision, in steps, while writes go on.

use std::sync::Arc;

use bytes::Bytes;

use super::{Pin, ReadError, View};
use crate::mutants;
use crate::mvcc::Revision;

/// Keys in one chunk: few, because a key may have a long history.
const CHUNK_KEYS: usize = if cfg!(test) { 5 } else { 100 };

/// A checkpoint being written.
pub struct CheckpointRead {
    view: Arc<View>,
    pin: Pin,
    after: Option<Bytes>,
}

impl CheckpointRead {
    pub(super) fn new(view: Arc<View>, revision: i64) -> Result<Self, ReadError> {
        let pin = view.pin(revision)?;
        Ok(Self { view, pin, after: None })
    }

    /// The revision of the checkpoint.
    pub fn revision(&self) -> i64 {
        self.pin.revision()
    }

    /// Appends the next chunk to `out`; `false` when it was the last one.
    ///
    /// # Errors
    /// `Compacted` if it took longer than a pin lasts: begin again.
    pub fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        let upto = Revision::end_of(self.pin.revision());
        let space = self.view.read_pinned(&self.pin)?;
        self.after =
            space.index().encode_slice(self.after.as_deref(), mutants::step(CHUNK_KEYS), upto, out);
        Ok(self.after.is_some())
    }
}
