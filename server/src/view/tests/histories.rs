//! Random histories: every read sees exactly its revision, whatever happens between its steps.

use bytes::Bytes;
use proptest::prelude::*;

use super::world::{Reading, World};
use crate::mvcc::tests::requests;
use crate::mvcc::{DeleteRange, Put, RangeQuery, Txn};
use crate::view::{PIN_MS_MAX, Point, ReadError};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(Put),
    Delete(DeleteRange),
    Txn(Txn),
    Compact {
        back: i64,
    },
    /// Out of a log.
    CompactAt(i64),
    Walk {
        keys: usize,
    },
    Cut {
        deletions: usize,
    },
    Land,
    Evict,
    Range {
        query: RangeQuery,
        back: i64,
    },
    Hash {
        back: i64,
    },
    Get(Bytes),
    Read {
        which: usize,
        steps: usize,
    },
    Expire,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => requests::put().prop_map(Step::Put),
        3 => requests::delete().prop_map(Step::Delete),
        8 => requests::txn().prop_map(Step::Txn),
        3 => (0..12i64).prop_map(|back| Step::Compact { back }),
        8 => (1..30usize).prop_map(|keys| Step::Walk { keys }),
        5 => (1..30usize).prop_map(|deletions| Step::Cut { deletions }),
        5 => Just(Step::Land),
        8 => Just(Step::Evict),
        6 => (requests::query(), -1..12i64)
            .prop_map(|(query, back)| Step::Range { query, back }),
        3 => (0..12i64).prop_map(|back| Step::Hash { back }),
        2 => requests::key().prop_map(Step::Get),
        20 => (any::<usize>(), 1..4usize)
            .prop_map(|(which, steps)| Step::Read { which, steps }),
        1 => Just(Step::Expire),
    ]
}

/// A world and the reads under way in it.
pub(super) struct History {
    pub(super) world: World,
    readings: Vec<Reading>,
    /// How often the clock ran past all pins: reads begun before may end as compacted.
    readings_expired: usize,
}

impl History {
    pub(super) fn new(window_bytes_max: u64) -> Self {
        Self::of(World::new(window_bytes_max))
    }

    pub(super) fn of(world: World) -> Self {
        Self { world, readings: Vec::new(), readings_expired: 0 }
    }

    pub(super) fn finish_reads(&mut self) {
        while !self.readings.is_empty() {
            self.read(0, 1);
        }
    }

    pub(super) fn take(&mut self, step: &Step) {
        let world = &mut self.world;
        let begun = match step {
            Step::Put(put) => world.put(put),
            Step::Delete(delete) => world.delete(delete),
            Step::Txn(txn) => world.txn(txn),
            Step::Range { query, back } => world.range(query.clone(), world.model.current - back),
            Step::Hash { back } => world.hash(world.model.current - back),
            Step::Compact { back } => {
                world.compact(world.model.current - back);
                None
            }
            Step::CompactAt(revision) => {
                world.compact(*revision);
                None
            }
            Step::Walk { keys } => {
                world.compact_step(*keys);
                None
            }
            Step::Cut { deletions } => {
                world.cut(*deletions);
                None
            }
            Step::Land => {
                world.land();
                None
            }
            Step::Evict => {
                world.view.evict();
                None
            }
            Step::Get(key) => {
                check_get(world, key);
                None
            }
            Step::Read { which, steps } => {
                self.read(*which, *steps);
                None
            }
            Step::Expire => {
                world.view.pass(PIN_MS_MAX);
                assert_eq!(world.view.oldest_pin(), None);
                self.readings_expired = self.readings.len();
                None
            }
        };
        self.readings.extend(begun);
    }

    fn read(&mut self, which: usize, steps: usize) {
        for _ in 0..steps {
            if self.readings.is_empty() {
                return;
            }
            let at = which % self.readings.len();
            let reading = self.readings.remove(at);
            let is_expired = at < self.readings_expired;
            match self.world.step(reading) {
                Ok(Some(reading)) => self.readings.insert(at, reading),
                Ok(None) => self.readings_expired -= usize::from(is_expired),
                Err(error) => {
                    assert!(is_expired && matches!(error, ReadError::Compacted), "{error:?}");
                    self.readings_expired -= 1;
                }
            }
        }
    }

    /// Ends all reads, flushes and compacts all there is.
    pub(super) fn settle(&mut self) {
        self.finish_reads();
        assert_eq!(self.world.view.oldest_pin(), None);
        // The first two rounds make the last schedule durable; then each flush takes one compaction.
        for round in 0.. {
            while self.world.view.compaction_runnable() {
                self.world.compact_step(10);
            }
            if round > 1 && !self.world.view.read().has_deletions() {
                break;
            }
            assert!(round < 1000, "compactions come to an end");
            self.world.land();
            self.world.cut(usize::MAX);
            self.world.land();
        }
        let space = self.world.view.read();
        assert!(!space.has_deletions());
        assert_eq!(space.finished_compaction(), self.world.model.compacted);
        let sizes = space.sizes();
        assert_eq!(sizes.total_bytes, sizes.in_use_bytes);
        let left = self.world.model.left_by(self.world.model.compacted);
        assert_eq!(sizes.in_use_bytes, left.iter().map(|event| event.cost_bytes()).sum::<u64>());
        let rows = self.world.store.rows.lock();
        let stored: Vec<_> =
            rows.values().map(|row| (row.key.as_bytes().to_vec(), row.stored.to_vec())).collect();
        let left: Vec<_> = left.iter().map(|event| (event.row_key(), event.stored())).collect();
        assert_eq!(stored, left);
    }
}

fn check_get(world: &World, key: &Bytes) {
    let query = plain(key);
    let expected = world.model.read(&query, (i64::MAX, i64::MAX)).kvs.pop();
    if let Some(Point { revision, stored }) = world.view.get(&query) {
        assert_eq!(revision, world.model.current);
        assert_eq!(stored.map(|stored| stored.to_vec()), expected);
    } else {
        assert!(expected.is_some(), "a missing key needs no store");
    }
}

pub(super) fn plain(key: &Bytes) -> RangeQuery {
    RangeQuery {
        keys: crate::mvcc::KeyRange::single(key.clone()),
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        bounds: crate::mvcc::RevisionBounds::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_read_sees_exactly_its_revision(
        steps in prop::collection::vec(step(), 1..250),
        window_bytes_max in prop::sample::select(vec![0u64, 200, 2000, 1 << 20]),
    ) {
        let mut history = History::new(window_bytes_max);
        for step in &steps {
            history.take(step);
        }
        history.settle();
    }
}
