//! Crashes: what comes back is what the store knew, and the log brings the rest.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::histories::{History, Step, plain, step};
use super::world::{Durable, World};
use crate::mvcc::tests::model::everything;
use crate::mvcc::tests::store::Store;
use crate::mvcc::{KeySpace, Limits, RangeQuery, Revision, Row, Standing};
use crate::view::{CheckpointRead, CompactionHold, ReadError, View};

#[derive(Clone, Debug)]
enum Event {
    Step(Step),
    BeginCheckpoint,
    CheckpointStep,
    /// All that is left of it.
    FinishCheckpoint,
    /// As far as pins let it.
    FinishCompaction,
    Crash {
        checkpoint: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        60 => step().prop_map(Event::Step),
        4 => Just(Event::BeginCheckpoint),
        12 => Just(Event::CheckpointStep),
        3 => Just(Event::FinishCheckpoint),
        3 => Just(Event::FinishCompaction),
        2 => prop::bool::weighted(0.8).prop_map(|checkpoint| Event::Crash { checkpoint }),
    ]
}

/// A checkpoint file.
#[derive(Clone, Debug)]
struct Checkpoint {
    revision: i64,
    compact_finished: i64,
    chunks: Vec<Vec<u8>>,
}

/// A member with a disk.
struct Member {
    history: History,
    window_bytes_max: u64,
    /// All writes, as the log has them, and how many of them each cut had seen.
    log: Vec<Step>,
    cut_at: usize,
    flushed_at: usize,
    hold: Option<CompactionHold>,
    writing: Option<(CheckpointRead, Checkpoint)>,
    checkpoint: Option<Checkpoint>,
}

impl Member {
    fn new(window_bytes_max: u64) -> Self {
        Self {
            history: History::new(window_bytes_max),
            window_bytes_max,
            log: Vec::new(),
            cut_at: 0,
            flushed_at: 0,
            hold: None,
            writing: None,
            checkpoint: None,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put(_) | Step::Delete(_) | Step::Txn(_) => self.log.push(step.clone()),
            Step::Compact { back } => {
                // In the log, a compaction names its revision.
                let revision = self.history.world.model.current - back;
                self.log.push(Step::CompactAt(revision));
            }
            Step::Cut { .. } if !self.history.world.is_flushing() => self.cut_at = self.log.len(),
            Step::Land if self.history.world.is_flushing() => self.flushed_at = self.cut_at,
            _ => {}
        }
        self.history.take(step);
    }

    /// As `storage::flusher` does it.
    fn begin_checkpoint(&mut self) {
        let hold = self.hold.take().filter(CompactionHold::is_valid);
        self.hold = Some(hold.unwrap_or_else(|| self.history.world.view.hold_compactions()));
    }

    fn checkpoint_step(&mut self) {
        if let Some(hold) = self.hold.take_if(|hold| hold.is_settled()) {
            let revision = self.history.world.durable.standing.revision;
            let read = hold.checkpoint(revision);
            let compact_finished = read.compact_revision();
            let file = Checkpoint { revision, compact_finished, chunks: Vec::new() };
            self.writing = Some((read, file));
        }
        let Some((mut read, mut file)) = self.writing.take() else { return };
        let mut chunk = Vec::new();
        match read.step(&mut chunk) {
            Ok(more) => {
                file.chunks.push(chunk);
                if more {
                    self.writing = Some((read, file));
                } else {
                    self.checkpoint = Some(file);
                }
            }
            Err(error) => assert!(matches!(error, ReadError::Compacted), "{error}"),
        }
    }

    fn finish_compaction(&mut self) {
        for _ in 0..4 {
            self.take(&Step::Land);
            self.take(&Step::Cut { deletions: usize::MAX });
            self.take(&Step::Land);
            while self.history.world.view.compaction_runnable() {
                self.take(&Step::Walk { keys: 20 });
            }
        }
    }

    /// As `runtime::recovery` does it.
    fn crash(&mut self, use_checkpoint: bool) {
        let Durable { model, standing } = self.history.world.durable.clone();
        let rows: Vec<Row> = self.history.world.store.rows.lock().values().cloned().collect();
        let store = Store::default();
        store.insert(&rows);
        let limits = Limits { window_bytes_max: self.window_bytes_max };
        let mut restorer = KeySpace::restore(limits);
        let usable = |file: &&Checkpoint| standing.compact_begun <= file.revision;
        let checkpoint = self.checkpoint.as_ref().filter(usable).filter(|_| use_checkpoint);
        let (mut behind, mut standing_used) = (0, standing);
        if let Some(file) = checkpoint {
            for chunk in &file.chunks {
                restorer.checkpoint_chunk(chunk).unwrap();
            }
            behind = file.revision;
            standing_used.compact_finished = standing.compact_finished.min(file.compact_finished);
        }
        let is_behind = |row: &&Row| row.key.revision().main > behind;
        rows.iter().filter(is_behind).for_each(|row| restorer.row(row).unwrap());
        let view = View::new(restorer.finish(standing_used));
        let stored: BTreeSet<Revision> = rows.iter().map(|row| row.key.revision()).collect();
        let world = World::restored(view, store, Durable { model, standing }, &stored);
        (self.hold, self.writing) = (None, None);
        self.history = History::of(world);
        self.check_everything();
        // The log brings what the store did not have.
        self.cut_at = self.flushed_at;
        for step in &self.log[self.flushed_at..] {
            self.history.take(step);
        }
    }

    /// Every revision that can be read is what it was.
    fn check_everything(&mut self) {
        let (current, compacted) =
            (self.history.world.model.current, self.history.world.model.compacted);
        assert_eq!(self.history.world.view.current_revision(), current);
        assert_eq!(self.history.world.view.compact_revision(), compacted);
        let all = RangeQuery { keys: everything(), ..plain(&"".into()) };
        for revision in compacted.max(1)..=current {
            let back = current - revision;
            self.history.take(&Step::Range { query: all.clone(), back });
            let query = RangeQuery { count_only: true, ..all.clone() };
            self.history.take(&Step::Range { query, back });
            self.history.take(&Step::Hash { back });
        }
        self.history.finish_reads();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_member_comes_back_with_what_was_flushed_and_the_log_brings_the_rest(
        events in prop::collection::vec(event(), 1..300),
        window_bytes_max in prop::sample::select(vec![0u64, 500, 1 << 20]),
    ) {
        let mut member = Member::new(window_bytes_max);
        for event in &events {
            match event {
                Event::Step(step) => member.take(step),
                Event::BeginCheckpoint => member.begin_checkpoint(),
                Event::CheckpointStep => member.checkpoint_step(),
                Event::FinishCheckpoint => {
                    while member.writing.is_some() {
                        member.checkpoint_step();
                    }
                }
                Event::FinishCompaction => member.finish_compaction(),
                Event::Crash { checkpoint } => member.crash(*checkpoint),
            }
        }
        (member.hold, member.writing) = (None, None);
        member.history.settle();
    }
}

#[test]
fn an_unfinished_compaction_is_done_again() {
    let standing =
        Standing { revision: 3, compact_scheduled: 3, compact_begun: -1, compact_finished: -1 };
    let mut world = World::new(0);
    for value in [b"1", b"2"] {
        let put = crate::mvcc::Put {
            key: "a".into(),
            value: Some(value[..].into()),
            lease: Some(0),
            prev_kv: false,
        };
        world.put(&put);
    }
    world.cut(10);
    world.land();
    let mut restorer = KeySpace::restore(Limits { window_bytes_max: 0 });
    for row in world.store.rows.lock().values() {
        restorer.row(row).unwrap();
    }
    let mut space = restorer.finish(standing);
    assert!(space.compaction_runnable(None) && space.check_readable(2).is_err());
    assert_eq!(space.compact_step(10, None), Some(3));
    assert_eq!(space.finished_compaction(), -1);
    let deletions = space.take_unflushed(10).deletions;
    assert_eq!(format!("{deletions:?}"), "[2.0]");
    space.flushed(3, &deletions);
    assert_eq!(space.finished_compaction(), 3);
}

/// A start that used a checkpoint from the middle of a compaction never deleted what the index had
/// dropped before, and so such a checkpoint was refused: every key was read again.
#[test]
fn a_checkpoint_waits_for_the_compaction_that_began_and_keeps_the_next_from_beginning() {
    let mut member = Member::new(0);
    let put = |member: &mut Member| {
        let put = crate::mvcc::Put {
            key: "a".into(),
            value: Some("v".into()),
            lease: Some(0),
            prev_kv: false,
        };
        member.history.world.put(&put);
    };
    let flush = |member: &mut Member| {
        member.history.world.cut(10);
        member.history.world.land();
    };
    put(&mut member);
    put(&mut member);
    member.history.world.compact(3);
    flush(&mut member);
    member.history.world.compact_step(1);
    let view = member.history.world.view.clone();
    assert_eq!((view.read().begun_compaction(), view.finished_compaction()), (3, -1));
    let hold = view.hold_compactions();
    assert!(!hold.is_settled(), "2.0 is still to be deleted");
    put(&mut member);
    member.history.world.compact(4);
    flush(&mut member);
    assert!(hold.is_settled());
    assert!(!view.compaction_runnable(), "the next one waits");
    let mut read = hold.checkpoint(4);
    assert_eq!((read.revision(), read.compact_revision()), (4, 3));
    while read.step(&mut Vec::new()).unwrap() {}
    drop(read);
    assert!(view.compaction_runnable());
}
