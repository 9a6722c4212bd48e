//! What clients saw and what a member held, put in order by revision.
//!
//! Replies to writes carry their revision, so the order of writes needs no search: a [`History`] applies
//! them to its model by revision, as soon as all before are known. A write without a reply is
//! *unknown*: it may have happened. Which ones did is read from the member's rows at the next
//! [`Event::Inspected`]: each revision that no reply explains must be exactly one unknown write.
//!
//! ```text
//! begun 1 put a, begun 2 put b, replied 2 at revision 3, crashed
//! inspected: (2,0) a, (3,0) b      revision 2 is explained by the unknown write 1
//! ```
//!
//! The model is never compacted: what compactions allow to be missing is the invariants' business.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::{RequestOp, TxnRequest};
use quorate_proto::mvccpb::KeyValue;

use super::leases::LEASE_IDS;
use super::watching::{Told, Watched, WatcherId};
use crate::model::{Model, Refusal, Reply, Request, Version};

/// Names a request of a run.
pub type OpId = u64;

/// What a run reports, in the order in which it happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A client sent a request.
    Begun {
        /// Its name, never used before.
        op: OpId,
        /// What it asks.
        request: &'a Request,
    },
    /// A client got the reply; headers normalised.
    Replied {
        /// To what.
        op: OpId,
        /// The reply.
        reply: &'a Reply,
    },
    /// A client was refused: nothing happened.
    Refused {
        /// What was refused.
        op: OpId,
        /// Why.
        refusal: Refusal,
    },
    /// A client was sent away for a reason that is not the request's (no room, no leader yet): nothing
    /// happened.
    Shed {
        /// What was not done.
        op: OpId,
    },
    /// A client gave up, or was told that the outcome is not known.
    Unknown {
        /// What may have happened.
        op: OpId,
    },
    /// A client was told something about one of its watchers.
    Watched {
        /// Which.
        watcher: WatcherId,
        /// What.
        told: &'a Told,
    },
    /// The member stopped; whatever was under way is unknown.
    Stopped,
    /// Rows that the member has just applied. They name the revision at which a lease ended: no reply does,
    /// and when it is inspected they may be compacted.
    Applied {
        /// Ascending.
        rows: &'a [StoredRow],
    },
    /// Everything that the member holds, after it has applied all that it will.
    Inspected {
        /// What it holds.
        state: &'a StoredState,
    },
}

/// What a member holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredState {
    /// Its current revision.
    pub current_revision: i64,
    /// Its compact revision.
    pub compact_revision: i64,
    /// Every row that it holds, ascending.
    pub rows: Vec<StoredRow>,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// The key that changed.
    pub key: Bytes,
    /// When, and what it became.
    pub version: Version,
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What was asked.
    pub request: Request,
    /// The newest revision that any client knew of when it was sent.
    pub known_before: i64,
    /// The newest compaction that was acknowledged when it was sent.
    pub compacted_before: i64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It is under way.
    Open,
    /// It was answered.
    Replied(Reply),
    /// It was refused.
    Refused(Refusal),
    /// It was not done, whatever it asked.
    Shed,
    /// It may have happened.
    Unknown,
    /// It was unknown, and happened at this revision.
    Found(i64),
}

/// A request whose answer could be compared with the model.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Which.
    pub op: OpId,
    /// What the model says. Of a refusal: what it would have answered instead, if it knows no moment
    /// at which the refusal was right.
    pub expected: Result<Reply, Refusal>,
}

/// The newest that may be at some moment.
#[derive(Clone, Copy, Debug)]
struct Newest {
    /// The newest revision.
    revision: i64,
    /// The newest compaction, -1 for none.
    compaction: i64,
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct History {
    model: Model,
    ops: BTreeMap<OpId, Recorded>,
    /// Acknowledged writes by their revision.
    writes: BTreeMap<i64, OpId>,
    /// Answered requests that wait until the model has come to their revision.
    waiting: BTreeMap<(i64, OpId), ()>,
    /// Of refused requests, what may have been when they were refused.
    refused_by: BTreeMap<OpId, Newest>,
    settled: Vec<Settled>,
    /// Rows of revisions that the model does not have yet.
    applied: StoredState,
    watched: Watched,
    known: i64,
    compacted: i64,
    unexplained: Option<i64>,
}

impl History {
    /// An empty record.
    pub fn new() -> Self {
        let mut model = Model::new();
        LEASE_IDS.for_each(|id| model.grant_lease(id));
        Self { model, known: 1, compacted: -1, ..Self::default() }
    }

    /// Every change up to the newest revision that is explained without a gap.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A request by its name.
    pub fn op(&self, op: OpId) -> Option<&Recorded> {
        self.ops.get(&op)
    }

    /// Every request.
    pub fn ops(&self) -> impl Iterator<Item = (OpId, &Recorded)> {
        self.ops.iter().map(|(op, recorded)| (*op, recorded))
    }

    /// Acknowledged writes in the order of their revisions.
    pub fn writes(&self) -> impl Iterator<Item = (i64, OpId)> {
        self.writes.iter().map(|(revision, op)| (*revision, *op))
    }

    /// The newest revision in any reply, 1 before the first.
    pub fn known_revision(&self) -> i64 {
        self.known
    }

    /// The newest acknowledged compaction, -1 before the first.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// Requests that the last event allowed to compare.
    pub fn settled(&self) -> &[Settled] {
        &self.settled
    }

    /// What watchers were told.
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// The revision at the last inspection that is no request's whole effect.
    pub fn unexplained(&self) -> Option<i64> {
        self.unexplained
    }

    /// How many requests may still happen, or may have happened unseen.
    pub fn unresolved(&self) -> usize {
        self.ops.values().filter(|op| matches!(op.fate, Fate::Open | Fate::Unknown)).count()
    }

    /// The newest revision that may exist by now.
    pub fn newest_possible(&self) -> i64 {
        let writes = self.writes.range(self.model.revision() + 1..).count();
        let possible = writes + self.unresolved();
        self.model.revision().saturating_add(i64::try_from(possible).unwrap_or(i64::MAX))
    }

    /// Records an event.
    pub fn record(&mut self, event: &Event<'_>) {
        self.settled.clear();
        self.watched.forget_heard();
        match event {
            Event::Begun { op, request } => self.begin(*op, request),
            Event::Replied { op, reply } => self.reply(*op, reply),
            Event::Refused { op, refusal } => {
                self.set_fate(*op, Fate::Refused(*refusal));
                self.waiting.insert((self.known, *op), ());
                self.refused_by.insert(*op, self.newest());
            }
            Event::Shed { op } => self.set_fate(*op, Fate::Shed),
            Event::Unknown { op } => self.set_fate(*op, Fate::Unknown),
            Event::Stopped => {
                for recorded in self.ops.values_mut().filter(|op| op.fate == Fate::Open) {
                    recorded.fate = Fate::Unknown;
                }
            }
            Event::Applied { rows } => self.applied.rows.extend_from_slice(rows),
            Event::Inspected { state } => self.inspect(state),
            Event::Watched { watcher, told } => self.watched.hear(*watcher, told),
        }
        self.settle();
        self.watched.settle(&self.model);
    }

    fn begin(&mut self, op: OpId, request: &Request) {
        let recorded = Recorded {
            request: request.clone(),
            known_before: self.known,
            compacted_before: self.compacted,
            fate: Fate::Open,
        };
        let before = self.ops.insert(op, recorded);
        assert!(before.is_none(), "a scenario names each request once, and {op} twice");
    }

    fn reply(&mut self, op: OpId, reply: &Reply) {
        if matches!(reply, Reply::LeaseRevoke(_)) {
            // It may have had a revision of its own or none: the rows will tell.
            self.known = self.known.max(reply.revision());
            if !matches!(self.ops[&op].fate, Fate::Found(_)) {
                self.set_fate(op, Fate::Unknown);
            }
            return;
        }
        self.set_fate(op, Fate::Replied(reply.clone()));
        self.known = self.known.max(reply.revision());
        if let (Request::Compact(compaction), Reply::Compact(_)) = (&self.ops[&op].request, reply) {
            self.compacted = self.compacted.max(compaction.revision);
        } else if reply.has_changed() {
            // A second write at a revision is `RevisionsWithoutGaps`' to report.
            self.writes.entry(reply.revision()).or_insert(op);
        } else {
            self.waiting.insert((reply.revision(), op), ());
        }
    }

    fn set_fate(&mut self, op: OpId, fate: Fate) {
        let recorded = self.ops.get_mut(&op).expect("a request begins before it ends");
        recorded.fate = fate;
    }

    /// Applies acknowledged writes as far as they are known, and compares what waited for them.
    fn settle(&mut self) {
        self.settle_waiting();
        loop {
            let revision = self.model.revision() + 1;
            let Some(&op) = self.writes.get(&revision) else {
                if self.settle_revocation(revision) {
                    continue;
                }
                break;
            };
            let expected = self.model.call(&self.ops[&op].request);
            let changed = expected.as_ref().is_ok_and(Reply::has_changed);
            self.settled.push(Settled { op, expected });
            if !changed {
                // The member changed what the model would not have: nothing after it can be compared.
                self.writes.remove(&revision);
                return;
            }
            self.settle_waiting();
        }
        let known = self.model.revision();
        self.applied.rows.retain(|row| row.version.main > known);
    }

    /// Applies the end of a lease that is exactly what the member applied at `revision`.
    fn settle_revocation(&mut self, revision: i64) -> bool {
        let applied = std::mem::take(&mut self.applied);
        let rows = applied.at(revision);
        let found = (!rows.is_empty()).then(|| {
            let ends = |request: &Request| matches!(request, Request::LeaseRevoke(_));
            self.find_unknown(rows, (revision, false), &ends)
        });
        self.applied = applied;
        let Some(op) = found.flatten() else { return false };
        self.set_fate(op, Fate::Found(revision));
        self.settle_waiting();
        true
    }

    fn settle_waiting(&mut self) {
        while let Some((&(revision, op), ())) = self.waiting.first_key_value() {
            if revision > self.model.revision() {
                return;
            }
            self.waiting.remove(&(revision, op));
            let recorded = self.ops[&op].clone();
            let expected = self.expect((op, &recorded), revision);
            if let Fate::Refused(refusal) = recorded.fate
                && expected != Err(refusal)
                && self.refused_by.get(&op).is_some_and(|newest| revision < newest.revision)
            {
                // What made the refusal right may be acknowledged only later.
                self.waiting.insert((revision + 1, op), ());
                continue;
            }
            self.settled.push(Settled { op, expected });
        }
    }

    /// What the model says to a request that was answered at `revision` and changed nothing.
    fn expect(
        &mut self,
        (op, recorded): (OpId, &Recorded),
        revision: i64,
    ) -> Result<Reply, Refusal> {
        match (&recorded.request, &recorded.fate) {
            (_, Fate::Refused(refusal)) => self.expect_refusal((op, recorded), *refusal, revision),
            (Request::Range(range), _) => self.model.range_when(range, revision).map(Reply::Range),
            (Request::HashKv(_), Fate::Replied(Reply::HashKv(reply))) => {
                let (compacted, hashed) = (reply.compact_revision, reply.hash_revision);
                let past = self.model.hash_between(compacted, hashed);
                Ok(Reply::HashKv(quorate_proto::etcdserverpb::HashKvResponse {
                    header: reply.header,
                    ..past
                }))
            }
            (request, _) => self.answer_at(request, revision),
        }
    }

    fn answer_at(&mut self, request: &Request, revision: i64) -> Result<Reply, Refusal> {
        if revision == self.model.revision() {
            return self.model.answer(request);
        }
        self.model.as_of(revision).call(request)
    }

    /// Looks for a moment between the begin and the refusal at which the refusal was right.
    fn expect_refusal(
        &mut self,
        (op, recorded): (OpId, &Recorded),
        refusal: Refusal,
        revision: i64,
    ) -> Result<Reply, Refusal> {
        let newest = self.refused_by.get(&op).map_or(-1, |newest| newest.compaction);
        if refusal == Refusal::Compacted && is_compacted(&recorded.request, newest) {
            return Err(refusal);
        }
        // The model takes them all for known. Whether one was not is for `LeasesLiveTheirTime` to say.
        let named = leases_named(&recorded.request);
        if refusal == Refusal::LeaseNotFound && named.iter().any(|id| LEASE_IDS.contains(id)) {
            return Err(refusal);
        }
        let mut last = Err(refusal);
        for moment in recorded.known_before..=revision {
            last = self.answer_at(&recorded.request, moment);
            // Two reasons can look alike to a client.
            if last.as_ref().is_err_and(|other| other.text() == refusal.text()) {
                return Err(refusal);
            }
        }
        last
    }

    /// What may be by now.
    fn newest(&self) -> Newest {
        let begun = self.ops.values().filter_map(|op| match (&op.request, &op.fate) {
            (_, Fate::Refused(_) | Fate::Shed) => None,
            (Request::Compact(compaction), _) => Some(compaction.revision),
            _ => None,
        });
        let compaction = begun.max().unwrap_or(-1).max(-1);
        Newest { revision: self.newest_possible(), compaction }
    }

    /// Explains every revision that the member has and the model has not.
    fn inspect(&mut self, state: &StoredState) {
        self.settle();
        while self.unexplained.is_none() && self.model.revision() < state.current_revision {
            let revision = self.model.revision() + 1;
            if self.writes.contains_key(&revision) {
                self.settle();
                if self.model.revision() < revision {
                    self.unexplained = Some(revision);
                }
                continue;
            }
            let is_compacted = revision <= state.compact_revision;
            // What is left of a compacted revision may fit several requests: the one that fits as a whole
            // comes first.
            let rows = state.at(revision);
            let any = |_: &Request| true;
            let found = self.find_unknown(rows, (revision, false), &any).or_else(|| {
                is_compacted.then(|| self.find_unknown(rows, (revision, true), &any))?
            });
            match found {
                Some(op) => self.set_fate(op, Fate::Found(revision)),
                None => self.unexplained = Some(revision),
            }
            self.settle_waiting();
        }
        self.known = self.known.max(state.current_revision.min(self.model.revision()));
    }

    /// The unknown write whose whole effect is what the member holds at `revision`; it is applied.
    fn find_unknown(
        &mut self,
        rows: &[StoredRow],
        (revision, compacted): (i64, bool),
        may_be: &dyn Fn(&Request) -> bool,
    ) -> Option<OpId> {
        // A compaction has no revision of its own, and the model is never compacted.
        let unknown = |op: &Recorded| {
            matches!(op.fate, Fate::Open | Fate::Unknown)
                && !matches!(op.request, Request::Compact(_))
                && may_be(&op.request)
        };
        for (op, recorded) in self.ops.iter().filter(|(_, recorded)| unknown(recorded)) {
            let before = self.model.revision();
            let called = self.model.call(&recorded.request);
            if called.is_err() || self.model.revision() == before {
                continue;
            }
            let changes = self.model.changes_at(revision);
            if explains(&changes, rows, compacted) {
                return Some(*op);
            }
            self.model.retract();
        }
        None
    }
}

impl StoredState {
    /// The rows of one revision.
    pub fn at(&self, revision: i64) -> &[StoredRow] {
        let from = self.rows.partition_point(|row| row.version.main < revision);
        let to = self.rows.partition_point(|row| row.version.main <= revision);
        &self.rows[from..to]
    }
}

/// Whether rows are exactly these changes; those compacted may be missing.
pub fn explains(changes: &[(Bytes, Version)], rows: &[StoredRow], compacted: bool) -> bool {
    let is = |(key, version): &(Bytes, Version), row: &StoredRow| {
        *key == row.key && *version == row.version
    };
    if compacted {
        return rows.iter().all(|row| changes.iter().any(|change| is(change, row)));
    }
    changes.len() == rows.len() && changes.iter().zip(rows).all(|(change, row)| is(change, row))
}

/// Whether the oldest revision that a request names is gone after the compaction at `newest`.
fn is_compacted(request: &Request, newest: i64) -> bool {
    match (request, revisions_named(request).into_iter().min()) {
        // A compaction is refused if it asks for nothing new.
        (Request::Compact(_), Some(oldest)) => oldest <= newest,
        (_, Some(oldest)) => oldest < newest,
        (_, None) => false,
    }
}

/// Every revision that a request reads or compacts at, but not "now".
pub fn revisions_named(request: &Request) -> Vec<i64> {
    let mut named = Vec::new();
    match request {
        Request::Range(range) if range.revision > 0 => named.push(range.revision),
        Request::HashKv(hash) if hash.revision > 0 => named.push(hash.revision),
        Request::Compact(compaction) => named.push(compaction.revision),
        Request::Txn(txn) => revisions_of_txn(txn, &mut named),
        _ => {}
    }
    named
}

/// Every lease that must be there for a request to be done, whichever branches it takes.
pub fn leases_named(request: &Request) -> Vec<i64> {
    let mut named = Vec::new();
    match request {
        Request::Put(put) if put.lease != 0 => named.push(put.lease),
        Request::Txn(txn) => leases_of_txn(txn, &mut named),
        Request::LeaseRevoke(revoke) => named.push(revoke.id),
        _ => {}
    }
    named
}

fn leases_of_txn(txn: &TxnRequest, named: &mut Vec<i64>) {
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(Op::RequestPut(put)) if put.lease != 0 => named.push(put.lease),
            Some(Op::RequestTxn(nested)) => leases_of_txn(nested, named),
            _ => {}
        }
    }
}

fn revisions_of_txn(txn: &TxnRequest, named: &mut Vec<i64>) {
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(Op::RequestRange(range)) if range.revision != 0 => named.push(range.revision),
            Some(Op::RequestTxn(nested)) => revisions_of_txn(nested, named),
            _ => {}
        }
    }
}

impl StoredRow {
    /// A row by its parts; `kv` is what the key became, `None` for a deletion.
    pub fn new(key: Bytes, revision: (i64, i64), kv: Option<KeyValue>) -> Self {
        Self { key, version: Version { main: revision.0, sub: revision.1, kv } }
    }
}
