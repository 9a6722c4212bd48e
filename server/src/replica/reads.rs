//! Linearizable reads: one round of read index in flight for all that wait.
//!
//! A read waits for two facts: a quorum confirmed our leadership after it arrived, and this replica
//! applied everything that was committed by then. The first rules out a deposed leader, the second a
//! lagging state machine (raft thesis, section 6.4). Requests that arrive while a round is under way
//! wait for the next one.
//!
//! ```text
//! read 1 arrives        round A starts for [1]
//! read 2, 3 arrive      they wait
//! A confirmed at 17     [1] waits until 17 is applied; round B starts for [2, 3]
//! ```

use super::event::{Effect, Reply, RequestError, RequestId};
use crate::consensus::Consensus;

/// Ticks after which an unanswered round is asked again; etcd retries after 500 ms.
const RETRY_TICKS: u64 = 5;

/// Reads on their way to linearizability.
pub(super) struct Reads {
    /// Makes every attempt's context unique: member, boot nonce, counter.
    member_id: u64,
    boot_nonce: u64,
    attempts: u64,
    waiting: Vec<Waiting>,
    round: Option<Round>,
    /// Confirmed rounds, ascending by index, until they are applied.
    confirmed: Vec<(u64, Vec<Waiting>)>,
}

struct Waiting {
    id: RequestId,
    deadline_tick: u64,
}

struct Round {
    context: Vec<u8>,
    term: u64,
    sent_tick: u64,
    reads: Vec<Waiting>,
}

impl Reads {
    pub(super) fn new(member_id: u64, boot_nonce: u64) -> Self {
        let (waiting, confirmed) = (Vec::new(), Vec::new());
        Self { member_id, boot_nonce, attempts: 0, waiting, round: None, confirmed }
    }

    pub(super) fn add(&mut self, id: RequestId, deadline_tick: u64) {
        self.waiting.push(Waiting { id, deadline_tick });
    }

    /// Starts a round if reads wait and none is under way, or asks again if one got no answer.
    ///
    /// Raft drops requests silently while it has no leader or the leader has committed nothing yet,
    /// so an answer may never come.
    pub(super) fn send(&mut self, now_tick: u64, consensus: &mut Consensus) {
        let stale =
            self.round.as_ref().is_some_and(|round| now_tick >= round.sent_tick + RETRY_TICKS);
        if stale && let Some(round) = self.round.take() {
            self.waiting.splice(0..0, round.reads);
        }
        if self.round.is_some() || self.waiting.is_empty() {
            return;
        }
        self.attempts += 1;
        let words = [self.member_id, self.boot_nonce, self.attempts];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        if consensus.read_index(&context).is_err() {
            // Without a leader, or before its first commit: tried again at the next tick or change.
            return;
        }
        let reads = std::mem::take(&mut self.waiting);
        let term = consensus.soft_state().term;
        self.round = Some(Round { context, term, sent_tick: now_tick, reads });
    }

    /// Takes raft's answer. One to an earlier attempt or of another term says nothing.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64, term: u64) {
        if let Some(round) =
            self.round.take_if(|round| round.context == context && round.term == term)
        {
            self.confirmed.push((index, round.reads));
        }
    }

    /// Answers every read whose index has been applied.
    pub(super) fn release(&mut self, applied_index: u64, effects: &mut Vec<Effect>) {
        while self.confirmed.first().is_some_and(|(index, _)| *index <= applied_index) {
            for read in self.confirmed.remove(0).1 {
                effects.push(Effect::Reply { id: read.id, reply: Reply::ReadReady });
            }
        }
    }

    /// A new leader or none: what was under way has to be asked by the client again.
    pub(super) fn fail_round(&mut self, effects: &mut Vec<Effect>) {
        for read in self.round.take().into_iter().flat_map(|round| round.reads) {
            let reply = Reply::Failed(RequestError::LeaderChanged);
            effects.push(Effect::Reply { id: read.id, reply });
        }
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now_tick: u64, effects: &mut Vec<Effect>) {
        let lists = std::iter::once(&mut self.waiting)
            .chain(self.round.as_mut().map(|round| &mut round.reads))
            .chain(self.confirmed.iter_mut().map(|(_, reads)| reads));
        for reads in lists {
            reads.retain(|read| {
                let alive = read.deadline_tick > now_tick;
                if !alive {
                    let reply = Reply::Failed(RequestError::Timeout);
                    effects.push(Effect::Reply { id: read.id, reply });
                }
                alive
            });
        }
    }
}
