//! Proposals on their way: collected into one batch, then awaited until they are applied.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::event::{Effect, Reply, RequestError, RequestId};
use crate::consensus::{Consensus, ProposeError};

/// The most entries between commit and apply at which proposals are still taken; etcd's bound.
pub(super) const APPLY_GAP_MAX: u64 = 5000;

/// The most bytes of such entries. What is not committed yet is bounded by raft, and what is applied but
/// not flushed by [`FlushLimits`](super::FlushLimits).
pub(super) const APPLY_GAP_BYTES_MAX: usize = 64 << 20;

/// Commands that nobody has answered yet.
#[derive(Default)]
pub(super) struct Proposals {
    /// Commands, with the request that waits for each; ours have none.
    batch: Vec<(Option<RequestId>, Bytes)>,
    /// Waiting requests with the tick at which they time out. Ids and deadlines grow together.
    pending: BTreeMap<RequestId, u64>,
    /// How many were refused or timed out since the start.
    pub(super) failed: u64,
}

impl Proposals {
    /// Takes a client's command into the next batch.
    pub(super) fn add(&mut self, id: RequestId, command: Bytes, deadline_tick: u64) {
        self.batch.push((Some(id), command));
        self.pending.insert(id, deadline_tick);
    }

    /// Proposes a change of the configuration at once; only one may be under way.
    pub(super) fn change(
        &mut self,
        (id, change): (RequestId, Bytes),
        deadline_tick: u64,
        consensus: &mut Consensus,
        effects: &mut Vec<Effect>,
    ) {
        match consensus.propose_conf_change(change) {
            Ok(()) => {
                self.pending.insert(id, deadline_tick);
            }
            Err(error) => {
                self.failed += 1;
                let reply = Reply::Failed(refusal(&error));
                effects.push(Effect::Reply { id, reply });
            }
        }
    }

    /// Takes a command of our own, for which nobody waits.
    pub(super) fn add_internal(&mut self, command: Bytes) {
        self.batch.push((None, command));
    }

    /// How many wait for their reply.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Proposes everything collected, as one message to raft; whether raft took it.
    ///
    /// A batch that raft drops was never in its log: its requests are answered at once, and who had
    /// commands of our own in it has to decide again.
    pub(super) fn send(&mut self, consensus: &mut Consensus, effects: &mut Vec<Effect>) -> bool {
        let (ids, commands): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        let error = match consensus.propose(commands) {
            Ok(()) => return true,
            Err(error) => refusal(&error),
        };
        for id in ids.into_iter().flatten().filter(|id| self.pending.remove(id).is_some()) {
            self.failed += 1;
            effects.push(Effect::Reply { id, reply: Reply::Failed(error) });
        }
        false
    }

    /// Whether this member has to answer `id`; from then on nobody does.
    pub(super) fn take(&mut self, id: RequestId) -> bool {
        self.pending.remove(&id).is_some()
    }

    /// Answers those whose time is over. Their commands may still be applied.
    pub(super) fn expire(&mut self, now_tick: u64, effects: &mut Vec<Effect>) {
        while let Some(first) = self.pending.first_entry() {
            if *first.get() > now_tick {
                return;
            }
            self.failed += 1;
            let id = *first.key();
            first.remove();
            effects.push(Effect::Reply { id, reply: Reply::Failed(RequestError::Timeout) });
        }
    }
}

fn refusal(error: &ProposeError) -> RequestError {
    match error {
        ProposeError::NoLeader => RequestError::NoLeader,
        ProposeError::TooMuchUncommitted => RequestError::TooManyRequests,
        _ => RequestError::Dropped,
    }
}
