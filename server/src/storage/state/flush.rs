//! Flushing a batch, in steps.
//!
//! One batch is one durable transaction of redb: new rows, then deletions, then the small tables and
//! the header, then the commit. A step writes a bounded number of rows; readers see nothing of the
//! batch before its last step, and a crash in between leaves the batch before it.

use redb::{Durability, WriteTransaction};

use super::StateStore;
use super::error::{Fault, FlushError, Refusal};
use super::panics;
use super::tables::{self, Appended, Header};
use crate::mutants::{self, Mutant};
use crate::mvcc::{Row, RowKey};
use crate::state_machine::FlushBatch;

/// What a finished flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Of the batch.
    pub generation: u64,
    /// Of the batch, now stored.
    pub applied_index: u64,
    /// Of the batch, now stored; readers see every row up to it.
    pub revision: i64,
    /// The deletions of the batch, now done.
    pub deletions: Vec<RowKey>,
    /// How many rows were added.
    pub rows: u64,
    /// Keys and values of the batch, in bytes.
    pub bytes: u64,
    /// What was written to the file for them, in bytes.
    pub written_bytes: u64,
    /// The length of the file now, in bytes.
    pub file_bytes: u64,
}

/// How far a flush is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlushProgress {
    /// Another step is needed.
    More,
    /// The batch is durable, and readers see it.
    Done(FlushReport),
}

/// A flush between two of its steps.
pub(super) struct Running {
    transaction: WriteTransaction,
    batch: FlushBatch,
    rows_done: usize,
    deletions_done: usize,
    header: Header,
    written_bytes_before: u64,
}

impl StateStore {
    /// Flushes a batch in one call.
    ///
    /// # Errors
    /// As [`StateStore::begin_flush`] and [`StateStore::step_flush`].
    pub fn flush(&mut self, batch: FlushBatch) -> Result<FlushReport, FlushError> {
        self.begin_flush(batch)?;
        loop {
            if let FlushProgress::Done(report) = self.step_flush(usize::MAX)? {
                return Ok(report);
            }
        }
    }

    /// Begins to flush a batch, which may be empty.
    ///
    /// # Errors
    /// [`FlushError::Refused`] if the batch does not follow what is stored: nothing happened.
    /// [`FlushError::Failed`] if the store cannot be written: the process must end.
    pub fn begin_flush(&mut self, batch: FlushBatch) -> Result<(), FlushError> {
        if let Some(refusal) = self.refusal(&batch) {
            return Err(FlushError::Refused { path: self.path().to_owned(), refusal });
        }
        self.drop_retired();
        let begun = self
            .shared
            .database()
            .and_then(|database| tables::begin(&database, Durability::Immediate));
        let transaction = begun.map_err(|fault| self.flush_failed(fault))?;
        let applied_index = match mutants::on(Mutant::DoubleApply) {
            true => self.header.applied_index.max(batch.applied_index.saturating_sub(1)),
            false => batch.applied_index,
        };
        let header = Header { applied_index, revision: batch.revision, ..self.header };
        self.running = Some(Running {
            transaction,
            batch,
            rows_done: 0,
            deletions_done: 0,
            header,
            written_bytes_before: self.meter.written_bytes(),
        });
        Ok(())
    }

    /// Writes up to `rows_max` rows and deletions of the batch that was begun; the step after the
    /// last of them commits.
    ///
    /// # Errors
    /// [`FlushError::Refused`] if the rows do not ascend: nothing is written.
    /// [`FlushError::Failed`] if the store cannot be written: the process must end.
    ///
    /// # Panics
    /// If no flush was begun.
    pub fn step_flush(&mut self, rows_max: usize) -> Result<FlushProgress, FlushError> {
        let _inside = panics::enter(&self.shared.path);
        let mut running = self.running.take().expect("begin_flush comes before its steps");
        match running.step(rows_max) {
            Ok(true) => {
                self.running = Some(running);
                return Ok(FlushProgress::More);
            }
            Ok(false) => {}
            Err(Appended::Refused(refusal)) => {
                return match running.transaction.abort() {
                    Ok(()) => Err(FlushError::Refused { path: self.path().to_owned(), refusal }),
                    Err(error) => Err(self.flush_failed(error.into())),
                };
            }
            Err(Appended::Fault(fault)) => return Err(self.flush_failed(fault)),
        }
        let Running { transaction, batch, header, written_bytes_before, .. } = running;
        transaction.commit().map_err(|error| self.flush_failed(error.into()))?;
        self.header = header;
        self.deleted(&batch.deletions);
        Ok(FlushProgress::Done(FlushReport {
            generation: batch.generation,
            applied_index: batch.applied_index,
            revision: batch.revision,
            rows: batch.rows.len() as u64,
            bytes: batch_bytes(&batch),
            written_bytes: self.meter.written_bytes() - written_bytes_before,
            file_bytes: self.meter.file_bytes(),
            deletions: batch.deletions,
        }))
    }

    /// Why `batch` must not be flushed now.
    fn refusal(&self, batch: &FlushBatch) -> Option<Refusal> {
        let stored = &self.header;
        let out_of_order = |row: &Row, ordered: fn(i64, i64) -> bool, bound| {
            (!ordered(row.key.revision().main, bound)).then_some(Refusal::Row(row.key))
        };
        if self.running.is_some() {
            Some(Refusal::Busy)
        } else if batch.generation != stored.generation {
            let stored = stored.generation;
            Some(Refusal::Generation { batch: batch.generation, stored })
        } else if batch.applied_index < stored.applied_index {
            let stored = stored.applied_index;
            Some(Refusal::AppliedIndex { batch: batch.applied_index, stored })
        } else if batch.revision < stored.revision {
            let stored = stored.revision;
            Some(Refusal::Revision { batch: batch.revision, stored })
        } else {
            let first = batch.rows.first();
            let last = batch.rows.last();
            first
                .and_then(|row| out_of_order(row, |main, stored| main > stored, stored.revision))
                .or_else(|| {
                    last.and_then(|row| {
                        out_of_order(row, |main, newest| main <= newest, batch.revision)
                    })
                })
        }
    }

    fn flush_failed(&mut self, fault: Fault) -> FlushError {
        self.shared.fail();
        FlushError::Failed { path: self.path().to_owned(), fault }
    }
}

impl Running {
    /// Whether rows or deletions are left after this step.
    fn step(&mut self, rows_max: usize) -> Result<bool, Appended> {
        let rows = upto(&self.batch.rows, self.rows_done, rows_max);
        if !rows.is_empty() {
            self.header.live_bytes += tables::append_rows(&self.transaction, rows)?;
            self.rows_done += rows.len();
            return Ok(true);
        }
        let deletions = upto(&self.batch.deletions, self.deletions_done, rows_max);
        if !deletions.is_empty() {
            let freed_bytes = tables::delete_rows(&self.transaction, deletions)?;
            self.header.live_bytes = self.header.live_bytes.saturating_sub(freed_bytes);
            self.deletions_done += deletions.len();
            return Ok(true);
        }
        tables::write_tables(&self.transaction, &self.batch.tables)?;
        self.header.write(&self.transaction)?;
        Ok(false)
    }
}

/// The next `max` of `items` after the first `done`, at least one if any is left.
fn upto<T>(items: &[T], done: usize, max: usize) -> &[T] {
    let left = &items[done..];
    &left[..left.len().min(max.max(1))]
}

fn batch_bytes(batch: &FlushBatch) -> u64 {
    let rows = batch.rows.iter().map(|row| row.key.as_bytes().len() + row.stored.len());
    let records = batch
        .tables
        .iter()
        .map(|record| record.key.len() + record.value.as_ref().map_or(0, |value| value.len()));
    rows.chain(records).sum::<usize>() as u64
}
