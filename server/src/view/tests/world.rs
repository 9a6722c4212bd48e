//! A key space, its store and the naive history, driven step by step.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::mvcc::tests::model::{Answer, Event, Model, Read};
use crate::mvcc::tests::store::Store;
use crate::mvcc::{
    Applied, DeleteRange, KeySpace, Limits, MvccError, Op, Outcome, Put, RangeQuery, Revision,
    Standing, Txn, Unflushed,
};
use crate::view::{HashRead, Pin, RangeRead, ReadError, View};

pub(super) struct World {
    pub(super) view: Arc<View>,
    pub(super) store: Store,
    pub(super) model: Model,
    in_flight: Option<(Unflushed, Durable)>,
    /// What a crash now would come back to.
    pub(super) durable: Durable,
    /// Events whose deletion has been confirmed.
    deleted: BTreeSet<Revision>,
    /// After a restart, what was deleted before may be deleted again, and is counted until then.
    is_total_exact: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub(super) model: Model,
    pub(super) standing: Standing,
}

/// A read under way, and what it must give.
pub(super) enum Reading {
    Range { read: Box<RangeRead>, out: Vec<Bytes>, expected: Read },
    Hash { read: Box<HashRead>, expected: (u32, i64, i64) },
    Reply { outcome: Outcome, pin: Option<Arc<Pin>>, answer: Answer },
}

impl World {
    pub(super) fn new(window_bytes_max: u64) -> Self {
        let view = View::new(KeySpace::new(Limits { window_bytes_max }));
        let standing = Standing {
            revision: 1,
            compact_scheduled: -1,
            compact_begun: -1,
            compact_finished: -1,
        };
        Self {
            view,
            store: Store::default(),
            model: Model::new(),
            in_flight: None,
            durable: Durable { model: Model::new(), standing },
            deleted: BTreeSet::new(),
            is_total_exact: true,
        }
    }

    /// What a restart found.
    pub(super) fn restored(
        view: Arc<View>,
        store: Store,
        durable: Durable,
        stored: &BTreeSet<Revision>,
    ) -> Self {
        let model = durable.model.clone();
        let events = model.events.iter().map(|event| Revision::new(event.at.0, event.at.1));
        let deleted = events.filter(|at| !stored.contains(at)).collect();
        Self { view, store, model, in_flight: None, durable, deleted, is_total_exact: false }
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Option<Reading> {
        let applied = self.view.write().txn(txn, &Model::lease_known, &self.store).unwrap();
        let answer = self.model.txn(txn);
        self.applied(applied, answer)
    }

    pub(super) fn put(&mut self, put: &Put) -> Option<Reading> {
        // Whether a lease is known is decided before a plain put gets here.
        let put = Put { lease: put.lease.map(|lease| lease.min(99)), ..put.clone() };
        let applied = self.view.write().put(&put, &self.store).unwrap();
        let answer = self.model.txn(&only(Op::Put(put)));
        self.applied(applied, answer.map(first))
    }

    pub(super) fn delete(&mut self, delete: &DeleteRange) -> Option<Reading> {
        let applied = self.view.write().delete_range(delete);
        let answer = self.model.txn(&only(Op::DeleteRange(delete.clone())));
        self.applied(Ok(applied), answer.map(first))
    }

    /// As the committer: the reply's reads are pinned right after the entry.
    fn applied(
        &self,
        applied: Result<Applied, MvccError>,
        answer: Result<Answer, MvccError>,
    ) -> Option<Reading> {
        assert_eq!(self.view.current_revision(), self.model.current);
        let (applied, answer) = match (applied, answer) {
            (Ok(applied), Ok(answer)) => (applied, answer),
            (applied, answer) => {
                assert_eq!(applied.map(|_| ()), answer.map(|_| ()));
                return None;
            }
        };
        assert_eq!(applied.revision, self.model.current);
        let pin = oldest_read(&applied.outcome)
            .map(|revision| Arc::new(self.view.pin(revision.max(1)).unwrap()));
        Some(Reading::Reply { outcome: applied.outcome, pin, answer })
    }

    pub(super) fn compact(&mut self, revision: i64) {
        let compacted = self.view.write().compact(revision);
        assert_eq!(compacted, self.model.compact(revision));
    }

    pub(super) fn compact_step(&mut self, keys_max: usize) {
        let oldest = self.view.oldest_pin();
        let finished = self.view.write().compact_step(keys_max, oldest);
        if let Some(revision) = finished {
            assert!(oldest.is_none_or(|oldest| oldest >= revision), "a pin holds it back");
            assert!(revision <= self.durable.standing.compact_scheduled, "the store knows of it");
            // Between two walks the index holds exactly what the compaction left.
            let left: u64 = self.model.left_by(revision).iter().map(|row| row.cost_bytes()).sum();
            assert_eq!(self.view.sizes().in_use_bytes, left);
        }
    }

    pub(super) fn cut(&mut self, deletions_max: usize) {
        if self.in_flight.is_some() {
            return;
        }
        let unflushed = self.view.take_unflushed(deletions_max);
        let space = self.view.read();
        assert!(unflushed.deletions.len() <= deletions_max);
        assert_eq!(space.unflushed_bytes(), 0);
        let standing = Standing {
            revision: space.current_revision(),
            compact_scheduled: space.compact_revision(),
            compact_begun: space.begun_compaction(),
            compact_finished: space.finished_compaction(),
        };
        drop(space);
        self.in_flight = Some((unflushed, Durable { model: self.model.clone(), standing }));
    }

    /// The flush is durable, and readers can see it. The owner hears of that later.
    pub(super) fn land(&mut self) {
        let Some((unflushed, durable)) = self.in_flight.take() else { return };
        self.store.insert(&unflushed.rows);
        self.check_tombstones(&unflushed);
        self.store.delete(&unflushed.deletions);
        self.deleted.extend(unflushed.deletions.iter().map(|row| row.revision()));
        let revision = durable.standing.revision;
        self.durable = durable;
        self.view.flushed(revision, &unflushed.deletions);
        self.check();
    }

    /// A tombstone goes only when no put of its generation is left.
    fn check_tombstones(&self, unflushed: &Unflushed) {
        let going: Vec<Revision> = unflushed.deletions.iter().map(|row| row.revision()).collect();
        for row in unflushed.deletions.iter().filter(|row| row.is_tombstone()) {
            let at = row.revision();
            let event = |event: &&Event| event.at == (at.main, at.sub);
            let tombstone = self.model.events.iter().find(event).unwrap();
            for before in &self.model.events {
                let moment = Revision::new(before.at.0, before.at.1);
                if before.key == tombstone.key && moment < at {
                    let is_gone = self.deleted.contains(&moment) || going.contains(&moment);
                    assert!(is_gone, "{moment} is left behind its tombstone {at}");
                }
            }
        }
    }

    /// Sizes and what a finished compaction promises.
    pub(super) fn check(&self) {
        let sizes = self.view.sizes();
        let is_left =
            |event: &&Event| !self.deleted.contains(&Revision::new(event.at.0, event.at.1));
        let total = self.model.events.iter().filter(is_left).map(Event::cost_bytes).sum::<u64>();
        if self.is_total_exact {
            assert_eq!(sizes.total_bytes, total);
        }
        assert!(sizes.in_use_bytes <= sizes.total_bytes && total <= sizes.total_bytes);
        let finished = self.view.finished_compaction();
        let left: Vec<_> = self.model.left_by(finished).iter().map(|event| event.at).collect();
        for event in &self.model.events {
            let is_gone = self.deleted.contains(&Revision::new(event.at.0, event.at.1));
            assert!(left.contains(&event.at) || is_gone, "{event:?} after compaction {finished}");
        }
        let now = (i64::MAX, 0);
        let live = self.model.all(&crate::mvcc::tests::model::everything(), now).len();
        assert_eq!(self.view.key_count(), live as u64);
    }

    pub(super) fn range(&self, query: RangeQuery, revision: i64) -> Option<Reading> {
        let pin = match self.view.pin(revision) {
            Ok(pin) => Arc::new(pin),
            Err(ReadError::Compacted) => {
                assert!(revision > 0 && revision < self.model.compacted);
                return None;
            }
            Err(error) => {
                assert!(matches!(error, ReadError::FutureRevision));
                assert!(revision > self.model.current);
                return None;
            }
        };
        let at = Revision::end_of(pin.revision());
        let expected = self.model.read(&query, (at.main, at.sub));
        let read = Box::new(self.view.range(query, at, pin));
        Some(Reading::Range { read, out: Vec::new(), expected })
    }

    pub(super) fn hash(&self, revision: i64) -> Option<Reading> {
        let read = self.view.hash_kv(revision).ok()?;
        let at = if revision <= 0 { self.model.current } else { revision };
        let expected = (self.model.hash(at), self.model.compacted, at);
        Some(Reading::Hash { read: Box::new(read), expected })
    }

    /// One step; `None` when the read is complete, and was right.
    pub(super) fn step(&self, reading: Reading) -> Result<Option<Reading>, ReadError> {
        match reading {
            Reading::Range { mut read, mut out, expected } => {
                let Some(summary) = read.step(&self.store, &mut out)? else {
                    return Ok(Some(Reading::Range { read, out, expected }));
                };
                assert_eq!(as_read(out, summary.count, summary.more), expected);
                Ok(None)
            }
            Reading::Hash { mut read, expected } => {
                let Some(found) = read.step(&self.store)? else {
                    return Ok(Some(Reading::Hash { read, expected }));
                };
                let found = (found.hash, found.compact_revision, found.hash_revision);
                assert_eq!(found, expected);
                Ok(None)
            }
            Reading::Reply { outcome, pin, answer } => {
                assert_eq!(self.fill(&outcome, pin.as_ref())?, answer);
                Ok(None)
            }
        }
    }

    /// Fills a reply as the API does.
    fn fill(&self, outcome: &Outcome, pin: Option<&Arc<Pin>>) -> Result<Answer, ReadError> {
        Ok(match outcome {
            Outcome::Put { revision, prev } => {
                let prev = self.stored(prev.as_slice(), pin)?.pop();
                Answer::Put { revision: *revision, prev }
            }
            Outcome::DeleteRange { revision, deleted, prev } => {
                let prev = self.stored(prev, pin)?;
                Answer::Delete { revision: *revision, deleted: *deleted, prev }
            }
            Outcome::Range { revision, at, query } => {
                let pin = pin.expect("a range is pinned").clone();
                let mut read = self.view.range(query.clone(), *at, pin);
                let mut out = Vec::new();
                let summary = loop {
                    if let Some(summary) = read.step(&self.store, &mut out)? {
                        break summary;
                    }
                };
                let read = as_read(out, summary.count, summary.more);
                Answer::Range { revision: *revision, read }
            }
            Outcome::Txn { succeeded, outcomes, .. } => {
                let answers = outcomes.iter().map(|outcome| self.fill(outcome, pin));
                Answer::Txn { succeeded: *succeeded, answers: answers.collect::<Result<_, _>>()? }
            }
        })
    }

    fn stored(&self, at: &[Revision], pin: Option<&Arc<Pin>>) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut out = Vec::new();
        if !at.is_empty() {
            let pin = pin.expect("previous versions are pinned");
            self.view.stored(at, pin, &self.store, &mut out)?;
        }
        Ok(out.iter().map(|stored| stored.to_vec()).collect())
    }
}

fn as_read(out: Vec<Bytes>, count: i64, more: bool) -> Read {
    Read { kvs: out.iter().map(|stored| stored.to_vec()).collect(), count, more }
}

fn only(op: Op) -> Txn {
    Txn { compares: Vec::new(), success: vec![op], failure: Vec::new() }
}

fn first(answer: Answer) -> Answer {
    match answer {
        Answer::Txn { mut answers, .. } => answers.remove(0),
        answer => answer,
    }
}

/// The rule of `replica::committer`, in other words: one revision before what is replaced or half done.
fn oldest_read(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Put { prev: None, .. } => None,
        Outcome::DeleteRange { prev, .. } if prev.is_empty() => None,
        Outcome::Put { revision, .. } | Outcome::DeleteRange { revision, .. } => Some(revision - 1),
        Outcome::Range { at, .. } => Some(at.main - i64::from(at.sub != i64::MAX)),
        Outcome::Txn { outcomes, .. } => outcomes.iter().filter_map(oldest_read).min(),
    }
}
