//! What is written in the background, one step at a time.
//!
//! A [`Flusher`] owns the state store. It flushes batches, writes checkpoints of the index, and gives
//! space back. Each [`Flusher::step`] is short and says what it finished; whoever drives it (a thread,
//! or the simulator) decides when the next one comes. A waiting batch always goes first.
//!
//! ```text
//! add(batch)   step: Busy, Busy, Flushed        at most a few thousand rows per step
//!              step: Busy, .., Checkpointed     after 64 MiB of flushed rows, before a compaction
//!              step: Busy, .., Rewritten        when more than half of the file is free
//!              step: Idle
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint::{
    CHECKPOINT_BYTES, CHUNK_BYTES_MAX, CheckpointError, CheckpointHead, CheckpointReport,
    CheckpointWriter,
};
use super::fs::{SharedFs, Space, is_out_of_files, is_storage_full};
use super::state::{
    FlushError, FlushProgress, FlushReport, OpenError, Rewrite, RewriteError, RewriteProgress,
    RewriteReport, StateStore,
};
use crate::mutants::{self, Mutant};
use crate::state_machine::FlushBatch;
use crate::view::{CheckpointRead, CompactionHold, View};

/// Rows and deletions that one step of a flush writes: some milliseconds.
const FLUSH_STEP_ROWS: usize = 4000;

/// Rows that one step of a rewrite copies.
const REWRITE_STEP_ROWS: usize = 2000;

/// Flushes after which a rewrite that could not be made is tried again.
const REWRITE_RETRY_FLUSHES: u32 = 100;

/// So much more room, or a share of a small disk, and it is tried again before that.
const REWRITE_RETRY_BYTES: u64 = 64 << 20;

/// Flushes after which a checkpoint that could not be written is tried again: what was written was in
/// vain. Twice as many each time, until one is complete.
const CHECKPOINT_RETRY_FLUSHES: u32 = 100;

/// How often that doubles.
const CHECKPOINT_RETRY_DOUBLINGS: u32 = 6;

/// Where checkpoints go and whose they are.
#[derive(Clone, Debug)]
pub struct FlusherOptions {
    /// The folder of the checkpoints.
    pub index_dir: PathBuf,
    /// The cluster.
    pub cluster_id: u64,
    /// Flushed bytes after which a new checkpoint is written.
    pub checkpoint_bytes: u64,
}

impl FlusherOptions {
    /// A checkpoint after every [`CHECKPOINT_BYTES`].
    pub fn new(index_dir: PathBuf, cluster_id: u64) -> Self {
        Self { index_dir, cluster_id, checkpoint_bytes: CHECKPOINT_BYTES }
    }
}

/// The state store and what is being done to it.
pub struct Flusher {
    fs: SharedFs,
    options: FlusherOptions,
    view: Arc<View>,
    store: StateStore,
    next: Option<FlushBatch>,
    is_flushing: bool,
    disk_is_low: bool,
    checkpoint: Checkpointing,
    rewrite: Rewriting,
}

#[derive(Default)]
struct Checkpointing {
    under_way: Option<(CheckpointRead, CheckpointWriter)>,
    /// The next one is wanted. It begins when the compactions are finished that have begun.
    wanted: Option<CompactionHold>,
    /// The revision at which the last one was begun, whatever became of it.
    tried_at: i64,
    flushed_bytes: u64,
    /// The revision of the newest one; 0 for none.
    revision: i64,
    /// Flushes to wait before one is wanted again.
    pause_flushes: u32,
    /// How many have been given up since the last one that was completed.
    given_up: u32,
}

#[derive(Default)]
struct Rewriting {
    under_way: Option<Rewrite>,
    is_wanted: bool,
    /// The end has begun: what is left is for the next start.
    is_over: bool,
    /// Flushes to wait before space is looked at again.
    pause_flushes: u32,
    room_at_skip: RoomAtSkip,
}

impl Rewriting {
    /// One could not be made.
    fn skip(&mut self) {
        (self.under_way, self.room_at_skip) = (None, RoomAtSkip::Unknown);
        self.pause_flushes = REWRITE_RETRY_FLUSHES;
    }

    /// Looks whether there is more room than when it could not be made.
    fn look(&mut self, space: Space) {
        let more_bytes = space.share_bytes(REWRITE_RETRY_BYTES);
        match self.room_at_skip {
            RoomAtSkip::Unknown => self.room_at_skip = RoomAtSkip::Bytes(space.free_bytes),
            RoomAtSkip::Bytes(bytes) if space.free_bytes >= bytes.saturating_add(more_bytes) => {
                (self.room_at_skip, self.pause_flushes) = (RoomAtSkip::None, 0);
            }
            RoomAtSkip::Bytes(_) | RoomAtSkip::None => {}
        }
    }
}

/// What was free when a rewrite could not be made.
#[derive(Clone, Copy, Default)]
enum RoomAtSkip {
    /// The last one was made.
    #[default]
    None,
    /// To be looked at, without what was copied in vain.
    Unknown,
    Bytes(u64),
}

/// What a flusher is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Activity {
    Flush,
    Checkpoint,
    Rewrite,
}

/// What a step did.
#[derive(Debug)]
pub enum Step {
    /// Nothing is left to do.
    Idle,
    /// There is more to do.
    Busy,
    /// A batch is durable, and readers see it.
    Flushed(FlushReport),
    /// A checkpoint is complete.
    Checkpointed(CheckpointReport),
    /// A checkpoint was given up; the next start is slower, nothing else.
    CheckpointSkipped(String),
    /// Unused space was given back.
    Rewritten(RewriteReport),
    /// Space could not be given back; the store goes on as it is.
    RewriteSkipped(RewriteError),
}

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The variants are the errors they hold.
pub enum FlusherError {
    #[error(transparent)]
    Flush(#[from] FlushError),
    #[error(transparent)]
    Rewrite(RewriteError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Close(#[from] OpenError),
}

impl FlusherError {
    /// Whether the file system has no room left.
    pub fn is_storage_full(&self) -> bool {
        match self {
            Self::Flush(FlushError::Failed { fault, .. })
            | Self::Rewrite(RewriteError::Store { fault, .. } | RewriteError::Copy { fault, .. })
            | Self::Close(OpenError::Failed { fault, .. }) => fault.is_storage_full(),
            Self::Checkpoint(error) => is_storage_full(&error.source),
            Self::Flush(_) | Self::Rewrite(_) | Self::Close(_) => false,
        }
    }
}

impl Checkpointing {
    /// Whether one is wanted that can be begun, or must be given up.
    fn may_begin(&self) -> bool {
        self.wanted.as_ref().is_some_and(|hold| hold.is_settled() || !hold.is_valid())
    }
}

impl FlusherError {
    /// Whether the state store does not hold what was written to it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Flush(FlushError::Failed { fault, .. })
            | Self::Rewrite(RewriteError::Store { fault, .. })
            | Self::Close(OpenError::Failed { fault, .. }) => fault.is_damage(),
            _ => false,
        }
    }
}

impl Flusher {
    /// A flusher for `store`. `checkpoint_revision` is that of the checkpoint from which the index
    /// was restored, 0 for none.
    pub fn new(
        (fs, options): (SharedFs, FlusherOptions),
        store: StateStore,
        view: Arc<View>,
        checkpoint_revision: i64,
    ) -> Self {
        let checkpoint =
            Checkpointing { revision: checkpoint_revision, ..Checkpointing::default() };
        let mut flusher = Self {
            fs,
            options,
            view,
            store,
            next: None,
            is_flushing: false,
            disk_is_low: false,
            checkpoint,
            rewrite: Rewriting::default(),
        };
        // A compaction that the store knows of begins as soon as the owner does.
        if flusher.is_outdated(false) {
            flusher.request_checkpoint();
        }
        flusher
    }

    /// Takes the next batch.
    ///
    /// # Panics
    /// If the one before has not been reported as flushed: the replica hands out one at a time.
    pub fn add(&mut self, batch: FlushBatch) {
        assert!(self.next.is_none() && !self.is_flushing, "one batch is under way at a time");
        self.next = Some(batch);
    }

    /// Asks for unused space to be given back, however little it is; false once the end has begun.
    pub fn request_rewrite(&mut self) -> bool {
        self.rewrite.is_wanted = !self.rewrite.is_over;
        self.rewrite.is_wanted
    }

    /// Takes what is left of the disk, looked at now and then. While it is almost full less unused space is worth
    /// giving back; and as there are hardly any flushes then, one that could not be made is tried again when
    /// there is more room.
    pub fn disk_space(&mut self, space: Space) {
        self.disk_is_low = space.is_low();
        self.rewrite.look(space);
    }

    /// Asks for a checkpoint, if anything was flushed since the last one.
    pub fn request_checkpoint(&mut self) {
        if self.store.revision() > self.checkpoint.revision && self.checkpoint.wanted.is_none() {
            self.checkpoint.wanted = Some(self.view.hold_compactions());
        }
    }

    /// Whether unused space is being given back, or is about to.
    pub fn is_rewriting(&self) -> bool {
        self.rewrite.is_wanted || self.rewrite.under_way.is_some()
    }

    /// What is under way, a flush before a checkpoint before a rewrite; `None` between two works.
    pub fn activity(&self) -> Option<Activity> {
        if self.is_flushing {
            Some(Activity::Flush)
        } else if self.checkpoint.under_way.is_some() {
            Some(Activity::Checkpoint)
        } else {
            self.rewrite.under_way.is_some().then_some(Activity::Rewrite)
        }
    }

    /// Leaves out what can wait for the next start: after this only flushes and a last checkpoint.
    pub fn begin_stop(&mut self) {
        self.rewrite = Rewriting { is_over: true, ..Rewriting::default() };
        self.request_checkpoint();
    }

    /// The store.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// Works on whatever is most urgent.
    ///
    /// # Errors
    /// [`FlusherError`]: the process must end.
    pub fn step(&mut self) -> Result<Step, FlusherError> {
        if self.is_flushing {
            return self.flush_step();
        }
        if let Some(batch) = self.next.take() {
            self.store.begin_flush(batch)?;
            self.is_flushing = true;
            return Ok(Step::Busy);
        }
        if self.checkpoint.under_way.is_some() || self.checkpoint.may_begin() {
            return self.checkpoint_step();
        }
        if self.rewrite.under_way.is_some() || self.is_rewrite_due() {
            return self.rewrite_step();
        }
        Ok(Step::Idle)
    }

    /// Closes the store.
    ///
    /// # Errors
    /// If the file cannot be written; what was flushed is safe.
    pub fn close(self) -> Result<(), FlusherError> {
        Ok(self.store.close()?)
    }

    fn flush_step(&mut self) -> Result<Step, FlusherError> {
        let FlushProgress::Done(report) = self.store.step_flush(mutants::step(FLUSH_STEP_ROWS))?
        else {
            return Ok(Step::Busy);
        };
        self.is_flushing = false;
        self.rewrite.pause_flushes = self.rewrite.pause_flushes.saturating_sub(1);
        self.checkpoint.flushed_bytes += report.bytes;
        self.checkpoint.pause_flushes = self.checkpoint.pause_flushes.saturating_sub(1);
        let is_due = self.checkpoint.flushed_bytes >= self.options.checkpoint_bytes
            || self.is_outdated(!report.deletions.is_empty());
        if is_due && self.checkpoint.pause_flushes == 0 {
            self.request_checkpoint();
        }
        Ok(Step::Flushed(report))
    }

    /// Whether a compaction makes the last checkpoint useless: it may hold keys whose tombstone goes from
    /// the store. So a new one is written before the owner hears of the flush that lets the compaction
    /// begin, and, if that failed, once more when rows were deleted.
    fn is_outdated(&self, has_deleted: bool) -> bool {
        let compact_revision = self.view.compact_revision();
        let is_new =
            self.checkpoint.tried_at < compact_revision && !mutants::on(Mutant::OutdatedCheckpoint);
        self.checkpoint.revision < compact_revision && (is_new || has_deleted)
    }

    /// A full disk has no room for what is only a shortcut: the store goes on in the space it has. No more has
    /// a process that cannot open one file more. Any other error is a word of the disk that holds the store.
    fn checkpoint_step(&mut self) -> Result<Step, FlusherError> {
        match self.try_checkpoint_step() {
            Err(FlusherError::Checkpoint(error))
                if is_out_of_files(&error.source)
                    || is_storage_full(&error.source)
                        && !mutants::on(Mutant::CheckpointNeedsRoom) =>
            {
                Ok(self.give_up_checkpoint(&error.to_string()))
            }
            result => result,
        }
    }

    fn try_checkpoint_step(&mut self) -> Result<Step, FlusherError> {
        let Some((read, writer)) = &mut self.checkpoint.under_way else {
            return self.begin_checkpoint();
        };
        let mut chunk = Vec::new();
        let more = match read.step(&mut chunk) {
            Ok(_) if chunk.len() > CHUNK_BYTES_MAX => {
                return Ok(self.give_up_checkpoint("a key is too long"));
            }
            Ok(more) => more,
            Err(error) => return Ok(self.give_up_checkpoint(&error.to_string())),
        };
        if !chunk.is_empty() {
            writer.chunk(&chunk)?;
        }
        if more {
            return Ok(Step::Busy);
        }
        let Some((read, writer)) = self.checkpoint.under_way.take() else { return Ok(Step::Busy) };
        let report = writer.finish()?;
        (self.checkpoint.revision, self.checkpoint.given_up) = (read.revision(), 0);
        Ok(Step::Checkpointed(report))
    }

    fn begin_checkpoint(&mut self) -> Result<Step, FlusherError> {
        let Some(hold) = self.checkpoint.wanted.take() else { return Ok(Step::Busy) };
        let flushed_revision = self.store.revision();
        (self.checkpoint.flushed_bytes, self.checkpoint.tried_at) = (0, flushed_revision);
        if !hold.is_valid() {
            // Nothing was written: it may be wanted again at once.
            return Ok(Step::CheckpointSkipped("a compaction took too long".to_owned()));
        }
        let read = hold.checkpoint(flushed_revision);
        let head = CheckpointHead {
            flushed_revision,
            compact_revision: read.compact_revision(),
            generation: self.store.generation(),
            cluster_id: self.options.cluster_id,
        };
        let writer = CheckpointWriter::begin(self.fs.clone(), &self.options.index_dir, head)?;
        self.checkpoint.under_way = Some((read, writer));
        Ok(Step::Busy)
    }

    fn give_up_checkpoint(&mut self, reason: &str) -> Step {
        let checkpoint = &mut self.checkpoint;
        checkpoint.under_way = None;
        checkpoint.pause_flushes = CHECKPOINT_RETRY_FLUSHES << checkpoint.given_up;
        checkpoint.given_up = (checkpoint.given_up + 1).min(CHECKPOINT_RETRY_DOUBLINGS);
        Step::CheckpointSkipped(reason.to_owned())
    }

    fn is_rewrite_due(&self) -> bool {
        let is_worth = || {
            let space = || self.store.space();
            self.rewrite.pause_flushes == 0 && space().is_worth_a_rewrite(self.disk_is_low)
        };
        !self.rewrite.is_over && (self.rewrite.is_wanted || is_worth())
    }

    fn rewrite_step(&mut self) -> Result<Step, FlusherError> {
        self.rewrite.is_wanted = false;
        let progress = match &mut self.rewrite.under_way {
            None => match Rewrite::begin(&mut self.store) {
                Ok(rewrite) => {
                    self.rewrite.under_way = Some(rewrite);
                    return Ok(Step::Busy);
                }
                Err(error) => Err(error),
            },
            Some(rewrite) => rewrite.step(&self.store, mutants::step(REWRITE_STEP_ROWS)),
        };
        let finished = match progress {
            Ok(RewriteProgress::More) => return Ok(Step::Busy),
            Ok(RewriteProgress::CaughtUp) => match self.rewrite.under_way.take() {
                Some(rewrite) => rewrite.finish(&mut self.store),
                None => return Ok(Step::Busy),
            },
            Err(error) => Err(error),
        };
        self.rewrite.pause_flushes = REWRITE_RETRY_FLUSHES;
        match finished {
            Ok(report) => Ok(Step::Rewritten(report)),
            Err(error @ RewriteError::Store { .. }) => Err(FlusherError::Rewrite(error)),
            Err(error) if mutants::on(Mutant::RewriteNeedsDisk) => {
                Err(FlusherError::Rewrite(error))
            }
            Err(error) => {
                self.rewrite.skip();
                Ok(Step::RewriteSkipped(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mvcc::tests::store::Store;
    use crate::mvcc::{KeySpace, Limits, Put};
    use crate::storage::state::{Identity, StoreOptions};
    use crate::storage::tests::test_fs::TestFs;
    use crate::view::PIN_MS_MAX;

    const GENERATION: u64 = 3;

    #[test]
    fn a_rewrite_for_which_there_was_no_room_is_tried_again_when_there_is_more() {
        let mut rewrite = Rewriting::default();
        let mut is_due = |free_mib: u64| {
            rewrite.look(Space { free_bytes: free_mib << 20, total_bytes: 1 << 40 });
            rewrite.pause_flushes == 0
        };
        assert!(is_due(300), "none was tried");
        rewrite.skip();
        let mut is_due = |free_mib: u64| {
            rewrite.look(Space { free_bytes: free_mib << 20, total_bytes: 1 << 40 });
            rewrite.pause_flushes == 0
        };
        // The first look finds the room without the copy that was given up.
        assert_eq!([300, 300, 363, 364].map(&mut is_due), [false, false, false, true]);
    }

    /// A view with a flusher behind it that wants a checkpoint after each flush.
    struct Member {
        fs: TestFs,
        view: Arc<View>,
        flusher: Flusher,
        applied_index: u64,
    }

    impl Member {
        fn new() -> Self {
            let fs = TestFs::recording("member");
            let options = StoreOptions {
                cache_bytes: 1 << 20,
                identity: Identity { cluster_id: 7, incarnation: 9 },
                create: true,
                generation: GENERATION,
            };
            let path = Path::new("member/state.redb");
            let store = StateStore::open(fs.shared(), path, &options).unwrap().store;
            let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
            let options =
                FlusherOptions { checkpoint_bytes: 1, ..FlusherOptions::new("member".into(), 7) };
            let flusher = Flusher::new((fs.shared(), options), store, view.clone(), 0);
            Self { fs, view, flusher, applied_index: 0 }
        }

        fn put(&mut self, key: usize) {
            let put = Put {
                key: format!("key/{key:04}").into(),
                value: Some("v".into()),
                lease: Some(0),
                prev_kv: false,
            };
            self.view.write().put(&put, &Store::default()).unwrap().unwrap();
        }

        fn flush(&mut self) {
            let unflushed = self.view.take_unflushed(usize::MAX);
            let revision = self.view.current_revision();
            self.applied_index += 1;
            self.flusher.add(FlushBatch {
                generation: GENERATION,
                rows: unflushed.rows,
                deletions: unflushed.deletions.clone(),
                tables: Vec::new(),
                applied_index: self.applied_index,
                revision,
            });
            while !matches!(self.flusher.step().unwrap(), Step::Flushed(_)) {}
            self.view.flushed(revision, &unflushed.deletions);
        }

        /// What becomes of the checkpoint that is wanted, with pauses of so many milliseconds between its
        /// steps; `None` if none is.
        fn checkpoint(&mut self, pause_ms: u64) -> Option<Result<(), String>> {
            loop {
                match self.flusher.step().unwrap() {
                    Step::Idle => return None,
                    Step::Checkpointed(_) => return Some(Ok(())),
                    Step::CheckpointSkipped(reason) => return Some(Err(reason)),
                    _ => self.view.pass(pause_ms),
                }
            }
        }
    }

    #[test]
    fn a_checkpoint_may_take_longer_than_a_pin_lasts_but_not_for_ever() {
        let compacted = Some(Err("required revision has been compacted".to_owned()));
        let almost = PIN_MS_MAX - 1;
        for (keys, pause_ms, expected) in [
            (20, almost, Some(Ok(()))),
            // It expires between two steps, and nothing is compacted meanwhile.
            (20, PIN_MS_MAX, Some(Ok(()))),
            // Every step comes in time, but there are too many.
            (100, almost, compacted),
        ] {
            let mut member = Member::new();
            (0..keys).for_each(|key| member.put(key));
            member.flush();
            assert_eq!(member.checkpoint(pause_ms), expected, "{keys} keys, {pause_ms} ms");
            assert_eq!(member.view.oldest_pin(), None);
        }
    }

    /// The minute of a pin began with the wait, and what was left of it was too little to write.
    #[test]
    fn the_time_of_a_checkpoint_begins_when_it_is_written() {
        let mut member = Member::new();
        (0..20).for_each(|key| member.put(key));
        member.flush();
        member.view.pass(PIN_MS_MAX - 1);
        assert_eq!(member.checkpoint(1000), Some(Ok(())));
    }

    /// It ended the member: a checkpoint is the first to need a file of its own.
    #[test]
    fn a_checkpoint_for_which_there_is_no_file_left_is_given_up_whatever_it_needs_it_for() {
        // Its file, the sync of its folder, the names in it.
        for opens in 0..3 {
            let mut member = Member::new();
            member.put(0);
            member.flush();
            member.fs.leave_files(Some(opens));
            let given_up = member.checkpoint(0).expect("it is wanted").unwrap_err();
            assert!(given_up.ends_with("(os error 24)"), "after {opens}: {given_up}");
            member.put(1);
            member.flush();
            member.fs.leave_files(None);
            member.flusher.begin_stop();
            assert_eq!(member.checkpoint(0), Some(Ok(())));
        }
    }

    #[test]
    fn a_checkpoint_that_was_given_up_is_tried_again_after_more_flushes_each_time() {
        let mut member = Member::new();
        let mut flushes_to_next = |pause_ms| {
            for flushes in 1.. {
                member.put(flushes);
                member.flush();
                if let Some(result) = member.checkpoint(pause_ms) {
                    return (flushes, result.is_ok());
                }
            }
            unreachable!("the loop has no end")
        };
        let (fail, succeed) = (PIN_MS_MAX * 12, 0);
        assert_eq!(flushes_to_next(fail), (1, false));
        assert_eq!(flushes_to_next(fail), (100, false));
        assert_eq!(flushes_to_next(succeed), (200, true));
        assert_eq!(flushes_to_next(fail), (1, false));
        assert_eq!(flushes_to_next(succeed), (100, true));
        // A stop does not wait.
        assert_eq!(flushes_to_next(fail), (1, false));
        member.flusher.begin_stop();
        assert_eq!(member.checkpoint(0), Some(Ok(())));
    }
}
