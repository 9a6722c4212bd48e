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
use super::fs::SharedFs;
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
}

#[derive(Default)]
struct Rewriting {
    under_way: Option<Rewrite>,
    is_wanted: bool,
    /// Flushes to wait before space is looked at again.
    pause_flushes: u32,
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
            Self::Checkpoint(error) => error.source.kind() == std::io::ErrorKind::StorageFull,
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

    /// Asks for unused space to be given back, however little it is.
    pub fn request_rewrite(&mut self) {
        self.rewrite.is_wanted = true;
    }

    /// Asks for a checkpoint, if anything was flushed since the last one.
    pub fn request_checkpoint(&mut self) {
        if self.store.revision() > self.checkpoint.revision && self.checkpoint.wanted.is_none() {
            self.checkpoint.wanted = Some(self.view.hold_compactions());
        }
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
        self.rewrite = Rewriting { pause_flushes: u32::MAX, ..Rewriting::default() };
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
        if self.checkpoint.flushed_bytes >= self.options.checkpoint_bytes
            || self.is_outdated(!report.deletions.is_empty())
        {
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

    /// A full disk has no room for what is only a shortcut: the store goes on in the space it has.
    fn checkpoint_step(&mut self) -> Result<Step, FlusherError> {
        match self.try_checkpoint_step() {
            Err(error) if error.is_storage_full() => Ok(self.skip_checkpoint(&error.to_string())),
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
                return Ok(self.skip_checkpoint("a key is too long"));
            }
            Ok(more) => more,
            Err(error) => return Ok(self.skip_checkpoint(&error.to_string())),
        };
        if !chunk.is_empty() {
            writer.chunk(&chunk)?;
        }
        if more {
            return Ok(Step::Busy);
        }
        let Some((read, writer)) = self.checkpoint.under_way.take() else { return Ok(Step::Busy) };
        let report = writer.finish()?;
        self.checkpoint.revision = read.revision();
        Ok(Step::Checkpointed(report))
    }

    fn begin_checkpoint(&mut self) -> Result<Step, FlusherError> {
        let Some(hold) = self.checkpoint.wanted.take() else { return Ok(Step::Busy) };
        let flushed_revision = self.store.revision();
        (self.checkpoint.flushed_bytes, self.checkpoint.tried_at) = (0, flushed_revision);
        if !hold.is_valid() {
            return Ok(self.skip_checkpoint("a compaction took too long"));
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

    fn skip_checkpoint(&mut self, reason: &str) -> Step {
        self.checkpoint.under_way = None;
        Step::CheckpointSkipped(reason.to_owned())
    }

    fn is_rewrite_due(&self) -> bool {
        self.rewrite.is_wanted
            || (self.rewrite.pause_flushes == 0 && self.store.space().is_worth_a_rewrite())
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
            Err(error) => {
                self.rewrite.under_way = None;
                Ok(Step::RewriteSkipped(error))
            }
        }
    }
}
