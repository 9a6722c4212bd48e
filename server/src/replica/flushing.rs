//! When the state store gets what was applied.
//!
//! One batch is under way at a time. The next one leaves when enough bytes wait, when enough time has
//! passed, or when somebody waits for it; until then the log holds everything that is not flushed.

use super::committer::Progress;
use super::event::Effect;
use crate::mutants;
use crate::mvcc::{KeySpace, RowKey};
use crate::state_machine::{Cut, FlushBatch, StateMachine};
use crate::view::View;

/// The most deletions in one batch, so that a batch stays short.
const DELETIONS_MAX: usize = 100_000;

/// Bounds of flushing.
#[derive(Clone, Copy, Debug)]
pub struct FlushLimits {
    /// Rows of this many bytes are flushed at once.
    pub batch_bytes: u64,
    /// Applied entries of this many bytes are flushed at once: what was refused or overwrote itself adds no
    /// rows, but the log cannot give up what would be applied again at a start.
    pub log_bytes: usize,
    /// What waits longer is flushed, in ticks.
    pub interval_ticks: u64,
    /// Apply pauses while rows of this many bytes wait.
    pub unflushed_bytes_max: u64,
}

pub(super) struct Flushing {
    limits: FlushLimits,
    generation: u64,
    under_way: Option<UnderWay>,
    last_tick: u64,
    flushed_index: u64,
    /// Deletions are left over, or somebody waits.
    urgent: bool,
}

struct UnderWay {
    applied_index: u64,
    revision: i64,
    deletions: Vec<RowKey>,
}

impl Flushing {
    pub(super) fn new(limits: FlushLimits, generation: u64, flushed_index: u64) -> Self {
        Self { limits, generation, under_way: None, last_tick: 0, flushed_index, urgent: false }
    }

    /// Lets the next batch leave as soon as the present one is done.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// The last entry whose effects are durable in the state store.
    pub(super) fn flushed_index(&self) -> u64 {
        self.flushed_index
    }

    /// The last entry whose effects are there or on their way.
    pub(super) fn cut_index(&self) -> u64 {
        self.under_way.as_ref().map_or(self.flushed_index, |batch| batch.applied_index)
    }

    pub(super) fn unflushed_bytes_max(&self) -> u64 {
        self.limits.unflushed_bytes_max
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether a batch should be cut now.
    pub(super) fn is_due(&self, now_tick: u64, progress: &Progress, space: &KeySpace) -> bool {
        let is_much = space.unflushed_bytes() >= self.limits.batch_bytes
            || progress.unflushed_bytes() >= self.limits.log_bytes;
        let waited = now_tick.saturating_sub(self.last_tick) >= self.limits.interval_ticks;
        // A compaction goes on after its entry, maybe when nothing else is applied.
        let something =
            progress.applied_index > self.flushed_index || self.urgent || space.wants_flush();
        self.under_way.is_none() && something && (self.urgent || is_much || waited)
    }

    /// Cuts a batch at the last applied entry.
    pub(super) fn cut(
        &mut self,
        now_tick: u64,
        progress: &mut Progress,
        machine: &mut StateMachine,
        view: &View,
    ) -> Effect {
        progress.flushed();
        let unflushed = view.take_unflushed(mutants::step(DELETIONS_MAX));
        let space = view.read();
        let mut tables = machine.take_dirty();
        tables.extend(cut_of(progress, &space).to_rows());
        self.urgent = false;
        self.last_tick = now_tick;
        self.under_way = Some(UnderWay {
            applied_index: progress.applied_index,
            revision: space.current_revision(),
            deletions: unflushed.deletions.clone(),
        });
        Effect::Flush(FlushBatch {
            generation: self.generation,
            rows: unflushed.rows,
            deletions: unflushed.deletions,
            tables,
            applied_index: progress.applied_index,
            revision: space.current_revision(),
        })
    }

    /// The batch is durable: the window may evict. `false` for a report of another batch.
    pub(super) fn done(&mut self, generation: u64, applied_index: u64, view: &View) -> bool {
        let ours = |batch: &mut UnderWay| batch.applied_index == applied_index;
        if generation != self.generation {
            return false;
        }
        let Some(batch) = self.under_way.take_if(ours) else { return false };
        self.flushed_index = applied_index;
        view.flushed(batch.revision, &batch.deletions);
        // A full batch of deletions says that more are waiting.
        self.urgent |= batch.deletions.len() == mutants::step(DELETIONS_MAX);
        true
    }
}

/// What the state store is told beside the rows.
fn cut_of(progress: &Progress, space: &KeySpace) -> Cut {
    Cut {
        applied_term: progress.applied_term,
        conf_state: progress.conf_state.clone(),
        compact_scheduled: space.compact_revision(),
        compact_begun: space.begun_compaction(),
        compact_finished: space.finished_compaction(),
    }
}
