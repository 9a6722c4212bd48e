//! Random histories: the index and a naive model say the same, always.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;

/// When, stored bytes, and the version unless it is a tombstone.
type ModelRow = (Revision, u32, Option<Version>);

/// All rows of each key, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    keys: BTreeMap<Vec<u8>, Vec<ModelRow>>,
}

impl Model {
    pub(super) fn next_version(&self, key: &[u8], at: Revision, stored_bytes: u32) -> Version {
        let (create_revision, version) = match self.at(key, Revision::end_of(i64::MAX)) {
            Some(before) => (before.create_revision, before.version + 1),
            None => (at.main, 1),
        };
        let lease = at.main % 3 - 1;
        Version { revision: at, create_revision, version, lease, stored_bytes }
    }

    pub(super) fn push(&mut self, key: &[u8], row: ModelRow) {
        self.keys.entry(key.to_vec()).or_default().push(row);
    }

    pub(super) fn at(&self, key: &[u8], at: Revision) -> Option<Version> {
        let rows = self.keys.get(key)?;
        rows.iter().rev().find(|row| row.0 <= at)?.2
    }

    fn visible(&self, range: &KeyRange, at: Revision) -> Vec<(Vec<u8>, Version)> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| Some((key.clone(), self.at(key, at)?))).collect()
    }

    fn rows_bytes(&self) -> u64 {
        let rows = self.keys.values().flatten();
        rows.map(|row| u64::from(row.1) + if row.2.is_some() { 33 } else { 34 }).sum()
    }

    /// What a compaction leaves, and what it drops.
    pub(super) fn compact(&mut self, upto: i64) -> Vec<(RowKey, u32)> {
        let mut dropped = Vec::new();
        for rows in self.keys.values_mut() {
            let newest = rows.iter().filter(|row| row.0.main <= upto).map(|row| row.0).max();
            rows.retain(|&(at, stored_bytes, version)| {
                let needed = Some(at) == newest && (version.is_some() || at.main == upto);
                if at.main > upto || needed {
                    return true;
                }
                dropped.push((RowKey::new(at, version.is_none()), stored_bytes));
                false
            });
        }
        self.keys.retain(|_, rows| !rows.is_empty());
        dropped
    }

    fn upto(&self, at: Revision) -> Self {
        let mut model = self.clone();
        model.keys.values_mut().for_each(|rows| rows.retain(|row| row.0 <= at));
        model.keys.retain(|_, rows| !rows.is_empty());
        model
    }
}

/// Asserts that all questions to the index have the model's answers.
pub(super) fn assert_same(index: &Index, model: &Model, ranges: &[KeyRange], slice: usize) {
    let now = Revision::end_of(i64::MAX);
    assert_eq!(index.tree.check(), model.keys.len());
    assert_eq!(index.rows_bytes(), model.rows_bytes());
    assert_eq!(index.live(), model.visible(&KeyRange::all(), now).len() as u64);
    let mut moments = vec![now, Revision::default()];
    for (key, rows) in &model.keys {
        assert_eq!(index.latest(key), model.at(key, now));
        for &(at, ..) in rows {
            for moment in [at, Revision::end_of(at.main), Revision::end_of(at.main - 1)] {
                assert_eq!(index.at(key, moment), model.at(key, moment), "{key:?} at {moment}");
            }
        }
        moments.extend(rows.last().map(|row| row.0));
    }
    for (at, range) in ranges.iter().enumerate() {
        assert_eq!(index.count(range), model.visible(range, now).len() as u64, "{range:?}");
        let moment = moments[at % moments.len()];
        assert_eq!(walk_all(index, range, moment, slice), model.visible(range, moment));
        assert_eq!(keep_all(index, moment.main, slice), {
            let visible = model.visible(&KeyRange::all(), Revision::end_of(moment.main));
            visible.iter().map(|(_, version)| version.revision).collect::<Vec<_>>()
        });
    }
}

pub(super) fn walk_all(
    index: &Index,
    range: &KeyRange,
    at: Revision,
    keys_max: usize,
) -> Vec<(Vec<u8>, Version)> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let before = seen.len();
        after = index.walk(range, after.as_deref(), at, keys_max, &mut |key, version| {
            seen.push((key.to_vec(), *version));
            seen.len() % 5 != 0
        });
        assert!(seen.len() - before <= keys_max);
        if after.is_none() {
            return seen;
        }
    }
}

fn keep_all(index: &Index, upto: i64, keys_max: usize) -> Vec<Revision> {
    let mut kept = Vec::new();
    let mut after = None;
    loop {
        after = index.keep_walk(after.as_deref(), keys_max, upto, &mut kept);
        if after.is_none() {
            return kept;
        }
    }
}

pub(super) fn encode_all(index: &Index, upto: Revision, keys_max: usize) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    let bounds = SliceBounds { keys_max, rows_max: keys_max, bytes_max: 40 * keys_max };
    let mut place = None;
    loop {
        let mut slice = Vec::new();
        place = index.encode_slice(place.as_ref(), bounds, upto, &mut slice);
        slices.push(slice);
        if place.is_none() {
            return slices;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    /// One key that gets a long history.
    Burst(Vec<u8>, usize),
    /// One revision that writes several keys.
    Transaction(Vec<Vec<u8>>),
    /// A compaction this far back, with the given slices, a put between each two.
    Compact {
        back: i64,
        slice: usize,
        between: Vec<u8>,
    },
}

pub(super) fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(&b"ab\0\xff"[..]), 1..4),
        (0..300u16).prop_map(|number| format!("/registry/{number:03}").into_bytes()),
    ]
}

pub(super) fn range() -> impl Strategy<Value = KeyRange> {
    (prop_oneof![Just(Vec::new()), key()], prop::option::of(prop::option::of(key()))).prop_map(
        |(start, end)| KeyRange {
            start: start.into(),
            end: match end {
                None => RangeEnd::Single,
                Some(None) => RangeEnd::Unbounded,
                Some(Some(end)) => RangeEnd::Before(end.into()),
            },
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => key().prop_map(Step::Put),
        6 => key().prop_map(Step::Delete),
        2 => (key(), 2..30usize).prop_map(|(key, puts)| Step::Burst(key, puts)),
        3 => prop::collection::btree_set(key(), 1..40)
            .prop_map(|keys| Step::Transaction(keys.into_iter().collect())),
        1 => (0..40i64, 1..20usize, key())
            .prop_map(|(back, slice, between)| Step::Compact { back, slice, between }),
    ]
}

/// Both sides of the comparison, and the clock.
#[derive(Debug)]
struct Pair {
    index: Index,
    model: Model,
    main: i64,
    compacted: i64,
}

impl Pair {
    fn put(&mut self, key: &[u8], sub: i64) {
        let at = Revision::new(self.main, sub);
        let version = self.model.next_version(key, at, 20 + self.main as u32 % 50);
        self.index.put(key, version);
        self.model.push(key, (at, version.stored_bytes, Some(version)));
    }

    fn delete(&mut self, key: &[u8]) {
        let at = Revision::new(self.main, 0);
        let live = self.model.at(key, at).is_some();
        assert_eq!(self.index.tombstone(key, at, 7), live);
        if live {
            self.model.push(key, (at, 7, None));
        }
    }

    fn compact(&mut self, upto: i64, slice: usize, between: &[u8]) {
        let mut dropped = Vec::new();
        let mut next = None;
        loop {
            let before = dropped.len();
            next = self.index.compact(next.as_deref(), slice, upto, &mut dropped);
            assert!(dropped.len() - before <= slice, "a slice is bounded in rows");
            self.assert_readable_from(upto, next.as_deref());
            self.main += 1;
            self.put(between, 0);
            if next.is_none() {
                break;
            }
        }
        let mut expected = self.model.compact(upto);
        expected.sort();
        dropped.sort();
        assert_eq!(dropped, expected);
        let mut again = Vec::new();
        assert_eq!(self.index.compact(None, usize::MAX, upto, &mut again), None);
        assert_eq!(again, []);
        self.compacted = upto;
    }

    /// In the middle of a compaction, whatever is not before it reads as if there were none: of the key
    /// that may be half done, or at the end of every key.
    fn assert_readable_from(&self, upto: i64, half_done: Option<&[u8]>) {
        let keys = self.model.keys.iter();
        for (key, rows) in keys.filter(|(key, _)| half_done.is_none_or(|half| half == *key)) {
            let later = rows.iter().map(|row| row.0).filter(|at| at.main > upto);
            for at in later.chain([Revision::end_of(upto)]) {
                assert_eq!(self.index.at(key, at), self.model.at(key, at), "{key:?} at {at}");
            }
        }
    }

    fn take(&mut self, step: &Step) {
        self.main += 1;
        match step {
            Step::Put(key) => self.put(key, 0),
            Step::Delete(key) => self.delete(key),
            Step::Burst(key, puts) => {
                for _ in 0..*puts {
                    self.main += 1;
                    self.put(key, 0);
                }
            }
            Step::Transaction(keys) => {
                keys.iter().zip(0..).for_each(|(key, sub)| self.put(key, sub));
            }
            Step::Compact { back, slice, between } => {
                self.compact((self.main - back).max(self.compacted + 1), *slice, between);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_index_is_the_map_of_all_rows(
        steps in prop::collection::vec(step(), 1..300),
        ranges in prop::collection::vec(range(), 1..20),
        slice in 1..30usize,
    ) {
        let mut pair =
            Pair { index: Index::new(), model: Model::default(), main: 1, compacted: 0 };
        for (at, step) in steps.iter().enumerate() {
            pair.take(step);
            if at % 60 == 0 || matches!(step, Step::Compact { .. }) && at % 3 == 0 {
                assert_same(&pair.index, &pair.model, &ranges, slice);
            }
        }
        assert_same(&pair.index, &pair.model, &ranges, slice);

        // A checkpoint of a moment that was not compacted, then the rows after it.
        let moment = Revision::end_of((pair.main - 30).max(pair.compacted));
        let mut restored = Index::new();
        for bytes in encode_all(&pair.index, moment, slice) {
            restored.decode_slice(&bytes).unwrap();
        }
        assert_same(&restored, &pair.model.upto(moment), &ranges, slice);
        let mut rows = Vec::new();
        for (key, of_key) in &pair.model.keys {
            rows.extend(of_key.iter().filter(|row| row.0 > moment).map(|row| (row, key)));
        }
        rows.sort_by_key(|(row, _)| row.0);
        restore(&mut restored, &rows);
        assert_same(&restored, &pair.model, &ranges, slice);

        // All rows without a checkpoint.
        let mut rows = Vec::new();
        for (key, of_key) in &pair.model.keys {
            rows.extend(of_key.iter().map(|row| (row, key)));
        }
        rows.sort_by_key(|(row, _)| row.0);
        let mut restored = Index::new();
        restore(&mut restored, &rows);
        assert_same(&restored, &pair.model, &ranges, slice);

        // Everything deleted and compacted leaves nothing.
        pair.main += 1;
        let keys: Vec<Vec<u8>> = pair.model.keys.keys().cloned().collect();
        keys.iter().for_each(|key| pair.delete(key));
        pair.index.compact(None, usize::MAX, pair.main + 1, &mut Vec::new());
        assert_same(&pair.index, &Model::default(), &ranges, slice);
    }
}

fn restore(index: &mut Index, rows: &[(&ModelRow, &Vec<u8>)]) {
    for &(&(at, stored_bytes, version), key) in rows {
        match version {
            Some(version) => index.restore_put(key, version).unwrap(),
            None => index.restore_tombstone(key, at, stored_bytes).unwrap(),
        }
    }
}
