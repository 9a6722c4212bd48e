//! Writing the log, as the owner's effects ask for it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::RunError;
use super::ending::Ending;
use crate::consensus::{ConfState, HardState};
use crate::handle::LogSync;
use crate::replica::Persist;
use crate::storage::data_dir::DataDir;
use crate::storage::wal::{Preparation, Spare, Wal, WalError};
use crate::telemetry::Metrics;

/// The log with what is not written yet.
pub(super) struct LogWriter {
    wal: Wal,
    metrics: Arc<Metrics>,
    /// A hard state that may be lost. It waits for the next append and saves a write.
    hard_state: Option<HardState>,
    needs_sync: bool,
    prepared: Slot,
    next_segment: NextSegment,
}

/// What became of making the next segment ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextSegment {
    /// It is ready, or under way.
    Coming,
    /// The disk has no room for it. Writes must be refused: what is left of this one is for those who make
    /// room.
    NoRoom,
    /// The disk, or the system, refused otherwise.
    Failed,
}

/// Where the result of a [`SegmentJob`] is left. Locked for an instant by either side.
type Slot = Arc<Mutex<Option<Result<Spare, WalError>>>>;

/// The work that makes the next segment ready. Zeroing it takes as long as the disk needs for 64 MiB,
/// so it happens beside the owner.
pub struct SegmentJob {
    preparation: Preparation,
    result: Slot,
}

impl LogWriter {
    pub(super) fn new(wal: Wal, metrics: Arc<Metrics>) -> Self {
        Self {
            wal,
            metrics,
            hard_state: None,
            needs_sync: false,
            prepared: Slot::default(),
            next_segment: NextSegment::Coming,
        }
    }

    /// Appends; durable after [`LogWriter::sync_if_needed`].
    ///
    /// Like everything that asks something of the disk it has `status` say so meanwhile: an append that
    /// ends a segment waits for several syncs, and without a segment ahead for the zeros of one.
    pub(super) fn append(&mut self, persist: Persist, status: &LogSync) -> Result<(), RunError> {
        self.hard_state = persist.hard_state.or(self.hard_state);
        if persist.sync.is_none() && persist.entries.is_empty() {
            return Ok(());
        }
        let from = Instant::now();
        let append = || self.wal.append(&persist.entries, self.hard_state.as_ref());
        let written = status.during(from, append)?;
        self.hard_state = None;
        self.needs_sync |= persist.sync.is_some();
        self.metrics.disk.wal_write_seconds.observe(from.elapsed().as_secs_f64());
        self.metrics.disk.wal_write_bytes.add(i64::try_from(written).unwrap_or(0));
        Ok(())
    }

    /// Appends the configuration that the entry at `index` made.
    pub(super) fn append_conf_state(
        &mut self,
        (index, term): (u64, u64),
        conf_state: &ConfState,
        status: &LogSync,
    ) -> Result<(), RunError> {
        let append = || self.wal.append_conf_state(index, term, conf_state);
        status.during(Instant::now(), append)?;
        self.needs_sync = true;
        Ok(())
    }

    /// Makes what was appended durable, if any of it has to be.
    pub(super) fn sync_if_needed(&mut self, status: &LogSync) -> Result<(), RunError> {
        if self.needs_sync {
            let from = Instant::now();
            status.during(from, || self.wal.sync())?;
            self.needs_sync = false;
            self.metrics.disk.wal_fsync_seconds.observe(from.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Gives up segments that nobody needs, beyond those that are kept; where it `is_tight` all of them, and
    /// one becomes the next segment if there is none.
    pub(super) fn release(
        &mut self,
        upto: u64,
        is_tight: bool,
        status: &LogSync,
    ) -> Result<(), RunError> {
        self.take_result();
        Ok(status.during(Instant::now(), || match is_tight {
            true => self.wal.release_all(upto),
            false => self.wal.release(upto),
        })?)
    }

    /// What kept segments take at most.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.wal.kept_bytes()
    }

    /// What became of the last job.
    pub(super) fn next_segment(&self) -> NextSegment {
        self.next_segment
    }

    /// Takes the segment that was made ready, and hands out the work for the next one.
    pub(super) fn next_job(&mut self) -> Option<SegmentJob> {
        self.take_result();
        let preparation = self.wal.preparation()?;
        Some(SegmentJob { preparation, result: self.prepared.clone() })
    }

    fn take_result(&mut self) {
        let Some(result) = self.prepared.lock().take() else { return };
        let (spare, found) = match result {
            Ok(spare) => (Some(spare), NextSegment::Coming),
            Err(error) => {
                let is_full = error.is_storage_full();
                let found = if is_full { NextSegment::NoRoom } else { NextSegment::Failed };
                // The log goes on until its segment is full, and fails there if need be. Every append
                // tries again, and what is the same each time is said once.
                if self.next_segment != found {
                    tracing::warn!(%error, "cannot prepare the next segment of the log");
                }
                (None, found)
            }
        };
        self.next_segment = found;
        self.wal.adopt(spare);
    }
}

impl SegmentJob {
    /// Does it. The log takes the result at its next append.
    pub fn run(self) {
        let result = self.preparation.run();
        *self.result.lock() = Some(result);
    }

    /// Does it on a thread, which keeps the data dir locked until it has ended.
    pub(super) fn spawn(self, data_dir: Arc<DataDir>) -> Option<Ending<()>> {
        let mut thread = None;
        self.spawn_by(|run| {
            let work = move || {
                run();
                drop(data_dir);
            };
            thread = Some(Ending::spawn("log-segment", work)?);
            Ok(())
        });
        thread
    }

    /// Has `spawn` run it beside the owner. If that cannot be, the log hears of it like of a disk that
    /// refuses, and tries again.
    fn spawn_by(self, spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>) {
        let (path, result) = (self.preparation.path().to_owned(), self.result.clone());
        if let Err(error) = spawn(Box::new(move || self.run())) {
            let operation = "start a thread that fills";
            *result.lock() = Some(Err(WalError::Io { operation, path, error }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::consensus::{Entry, EntryKind};
    use crate::storage::tests::test_fs::TestFs;
    use crate::storage::wal::{Metadata, WalOptions};

    #[test]
    fn a_released_segment_becomes_the_next_one_where_there_is_no_room() {
        let fs = TestFs::default();
        let metadata = Metadata { cluster_id: 1, member_id: 2 };
        let options = WalOptions { segment_bytes: 4096, segments_max: 5 };
        let wal = Wal::create(fs.shared(), Path::new("/d/wal"), options, metadata, 3).unwrap();
        let (mut log, status) =
            (LogWriter::new(wal, Arc::new(Metrics::new(&[], false))), LogSync::default());
        let mut index = 0;
        let mut append = |log: &mut LogWriter| {
            index += 1;
            let data = vec![1; 1000].into();
            let entries = vec![Entry { index, term: 1, kind: EntryKind::Normal, data }];
            log.append(Persist { entries, sync: Some(index), ..Persist::default() }, &status)
                .unwrap();
            log.sync_if_needed(&status).unwrap();
        };
        (0..8).for_each(|_| append(&mut log));
        fs.say_free(0);
        // As the owner does: a job behind each append, and its result with the next one.
        log.next_job().expect("none is ready").run();
        assert_eq!(log.next_segment(), NextSegment::Coming);
        log.next_job().expect("it found no room").run();
        assert_eq!(log.next_segment(), NextSegment::NoRoom);
        log.release(8, true, &status).unwrap();
        log.next_job().expect("it found no room").run();
        assert!(log.next_job().is_none(), "one is ready");
        assert_eq!(log.next_segment(), NextSegment::Coming);
        (0..4).for_each(|_| append(&mut log));
    }

    #[test]
    fn a_segment_for_which_there_was_no_thread_is_tried_again() {
        let fs = TestFs::default();
        let metadata = Metadata { cluster_id: 1, member_id: 2 };
        let options = WalOptions { segment_bytes: 4096, segments_max: 3 };
        let wal = Wal::create(fs.shared(), Path::new("/d/wal"), options, metadata, 3).unwrap();
        let mut log = LogWriter::new(wal, Arc::new(Metrics::new(&[], false)));
        let job = log.next_job().expect("none is ready");
        assert!(log.next_job().is_none(), "it is under way");
        job.spawn_by(|_| Err(io::ErrorKind::WouldBlock.into()));
        let again = log.next_job().expect("it failed");
        assert_eq!(log.next_segment(), NextSegment::Failed, "there is room");
        again.spawn_by(|run| {
            run();
            Ok(())
        });
        assert!(log.next_job().is_none(), "one is ready");
        assert_eq!(log.next_segment(), NextSegment::Coming);
    }
}
