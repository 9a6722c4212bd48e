//! A compaction takes what it may take, and nothing else.

use std::collections::BTreeSet;

use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::response_op::Response as Answer;
use quorate_proto::etcdserverpb::{TxnRequest, TxnResponse};

use super::Invariant;
use crate::model::{Reply, Request, Version};
use crate::sim::history::{Event, Fate, History, StoredState, revisions_named};

/// What a member holds at and below its compact revision are rows of the history, among them every
/// one that a read at the compact revision needs; and a read or a hash below an acknowledged compaction is
/// refused, in the branches that a transaction takes too, as is a compaction of nothing new.
pub struct CompactionSparesTheReadable;

impl Invariant for CompactionSparesTheReadable {
    fn name(&self) -> &'static str {
        "compaction spares the readable"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        match event {
            Event::Inspected { state } => {
                asked_for(state, history)?;
                rows(state, history)
            }
            Event::Replied { op, reply } => refused(*op, reply, history),
            _ => Ok(()),
        }
    }
}

/// The compact revision is one that somebody asked for.
fn asked_for(state: &StoredState, history: &History) -> Result<(), String> {
    let asks = |request: &Request| matches!(request, Request::Compact(compaction) if compaction.revision == state.compact_revision);
    let mut asked =
        history.ops().filter(|(_, op)| !matches!(op.fate, Fate::Refused(_) | Fate::Shed));
    if state.compact_revision == -1 || asked.any(|(_, op)| asks(&op.request)) {
        return Ok(());
    }
    Err(format!("the compact revision is {}, which nobody asked for", state.compact_revision))
}

fn rows(state: &StoredState, history: &History) -> Result<(), String> {
    let compacted = state.compact_revision;
    let name = |key: &[u8], version: &Version| (key.to_vec(), version.main, version.sub);
    let below = |version: &Version| version.main <= compacted;
    let held: BTreeSet<_> = state
        .rows
        .iter()
        .filter(|row| below(&row.version))
        .map(|row| name(&row.key, &row.version))
        .collect();
    let model = history.model();
    let mut written = BTreeSet::new();
    for (key, version) in model.rows().filter(|(_, version)| below(version)) {
        written.insert(name(key, version));
        let shown = version.kv.is_some() && model.at(key, compacted) == version.kv.as_ref();
        if shown && !held.contains(&name(key, version)) {
            return Err(format!("compacted at {compacted}, and {key:?} of {version:?} is missing"));
        }
    }
    match held.difference(&written).next() {
        Some(stranger) => Err(format!("nobody wrote the row {stranger:?}")),
        None => Ok(()),
    }
}

/// A reply to what had to be refused, because of a compaction that was acknowledged before it was sent.
fn refused(op: u64, reply: &Reply, history: &History) -> Result<(), String> {
    let Some(recorded) = history.op(op) else { return Ok(()) };
    let compacted = recorded.compacted_before;
    let request = &recorded.request;
    let named = match (request, reply) {
        (Request::Txn(txn), Reply::Txn(reply)) => {
            let mut read = Vec::new();
            read_by_txn(txn, reply, &mut read);
            read
        }
        _ => revisions_named(request),
    };
    let is_gone = |revision: &i64| match request {
        Request::Compact(_) => *revision <= compacted,
        _ => *revision < compacted,
    };
    match named.into_iter().find(is_gone) {
        Some(revision) => Err(format!(
            "{op} was answered about revision {revision} after the compaction at {compacted}: {request:?}"
        )),
        None => Ok(()),
    }
}

/// Every revision that a transaction has read at, but not "now": those of the branches that it took.
fn read_by_txn(txn: &TxnRequest, reply: &TxnResponse, read: &mut Vec<i64>) {
    let taken = if reply.succeeded { &txn.success } else { &txn.failure };
    for (op, answer) in taken.iter().zip(&reply.responses) {
        match (&op.request, &answer.response) {
            (Some(Op::RequestRange(range)), _) if range.revision != 0 => read.push(range.revision),
            (Some(Op::RequestTxn(nested)), Some(Answer::ResponseTxn(reply))) => {
                read_by_txn(nested, reply, read);
            }
            _ => {}
        }
    }
}
