//! Leases on the member that leads: renewals, deadlines that pass, and what is left written down.
//!
//! A member leads in this sense once it has applied an entry of its own term: everything that earlier
//! leaders decided has taken effect by then, so a revocation of theirs cannot end a lease that was renewed
//! since. What a leader decides is proposed in the same step in which its leadership was looked at.
//!
//! ```text
//! Renew 1        the lease lives                  Renewed(ttl) at once
//! Renew 2        its time is over                 waits for the revocation, then Renewed(0)
//! Renew 3        what is left is written down     checkpoint of 0 for all such; when applied, Renewed(ttl)
//! ```
//!
//! Raft may refuse what is proposed, because too much waits for its quorum or leadership is being handed
//! over. Then it entered no log: a revocation is due again after a while, a checkpoint with the next period,
//! and what renewals wait for is proposed again at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::event::{Effect, Reply, RequestError, RequestId, TimeToLive};
use super::proposals::Proposals;
use crate::lease::{Changed, Cleared, Expiry, Grant, LeaseCounts, Lessor, Renewal, Timing};
use crate::mutants::{self, Mutant};
use crate::state_machine::own;

/// Revocations by deadline that may be under way: a few milliseconds of work for apply, and enough for
/// some hundred thousand in a second.
const REVOKING_MAX: usize = 2000;

/// Leases in one checkpoint, or looked at for one; etcd's `maxLeaseCheckpointBatchSize`.
const CHECKPOINT_LEASES_MAX: usize = 1000;

/// Checkpoints that are proposed at once. The next come with the next event, at the latest a tick.
const CHECKPOINTS_MAX: usize = 4;

/// The most keys of a lease in one reply.
pub const LEASE_KEYS_MAX: usize = 10_000;

/// The most leases in one reply.
pub const LEASES_MAX: usize = 10_000;

/// Times that leases go by, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How often what is left of a lease is written down; `None` for never.
    pub checkpoint_ms: Option<u64>,
    /// What a new leader gives each lease on top: nobody renewed them while there was none.
    pub extend_ms: u64,
    /// A revocation that did not come back is proposed again after this.
    pub retry_ms: u64,
}

/// See the module's text.
pub(super) struct Leases {
    extend_ms: u64,
    expiry: Expiry,
    /// The term in which this member leads, if it does.
    term: Option<u64>,
    /// Renewals of leases whose time is over.
    revoking: Waits,
    /// Renewals that need a checkpoint of 0 before their answer.
    clearing: Waits,
    /// Of those, the leases for which none is under way yet, as they were granted.
    to_clear: BTreeSet<Grant>,
    /// Taken from there, until it is known whether raft took their checkpoints.
    in_batch: Vec<Grant>,
    renewed: u64,
    expired: u64,
}

/// Renewals by lease, each with the tick at which it times out.
#[derive(Default)]
struct Waits(BTreeMap<i64, Vec<(RequestId, u64)>>);

impl Leases {
    pub(super) fn new(config: LeaseConfig) -> Self {
        let timing = Timing {
            checkpoint_ms: config.checkpoint_ms,
            retry_ms: config.retry_ms,
            revoking_max: REVOKING_MAX,
        };
        Self {
            extend_ms: config.extend_ms,
            expiry: Expiry::new(timing),
            term: None,
            revoking: Waits::default(),
            clearing: Waits::default(),
            to_clear: BTreeSet::new(),
            in_batch: Vec::new(),
            renewed: 0,
            expired: 0,
        }
    }

    /// Lets time pass, and answers those who waited too long.
    pub(super) fn tick(&mut self, elapsed_ms: u64, now_tick: u64, effects: &mut Vec<Effect>) {
        self.expiry.pass(elapsed_ms);
        self.revoking.expire(now_tick, effects);
        self.clearing.expire(now_tick, effects);
    }

    /// Renews a lease, or lets the request wait.
    pub(super) fn renew(
        &mut self,
        (id, deadline_tick): (RequestId, u64),
        lease: i64,
        lessor: &Lessor,
        effects: &mut Vec<Effect>,
    ) {
        if self.term.is_none() {
            effects.push(Effect::Reply { id, reply: Reply::Failed(RequestError::NoLeader) });
            return;
        }
        match self.expiry.renew(lease) {
            Renewal::Unknown => reply_renewed(id, 0, effects),
            Renewal::Renewed => {
                self.renewed += 1;
                reply_renewed(id, ttl_s(lessor, lease), effects);
            }
            Renewal::Expired => {
                self.revoking.add(lease, (id, deadline_tick));
            }
            Renewal::Checkpointed => {
                if self.clearing.add(lease, (id, deadline_tick))
                    && let Some(record) = lessor.get(lease)
                    && self.to_clear.insert(record.grant())
                {
                    self.expiry.clearing(lease);
                }
            }
        }
    }

    /// What is left of a lease, and a page of its keys behind `keys_after`.
    pub(super) fn time_to_live(
        &self,
        lease: i64,
        keys_after: Option<&Bytes>,
        lessor: &Lessor,
    ) -> Reply {
        if self.term.is_none() {
            return Reply::Failed(RequestError::NoLeader);
        }
        let Some(record) = lessor.get(lease) else { return Reply::TimeToLive(None) };
        let keys = keys_after.map_or_else(Vec::new, |after| {
            lessor.keys(lease, after).take(LEASE_KEYS_MAX).cloned().collect()
        });
        let remaining_ms = self.expiry.remaining_ms(lease).unwrap_or(0);
        Reply::TimeToLive(Some(TimeToLive { ttl_s: record.ttl_s, remaining_ms, keys }))
    }

    /// A page of the leases behind `after`, with what is left of them in milliseconds, by ID; without it
    /// where nobody knows.
    pub(super) fn list(&self, after: Option<i64>, lessor: &Lessor) -> Reply {
        let left = |id| self.expiry.remaining_ms(id).unwrap_or(u64::MAX);
        let page = lessor.leases_behind(after).take(mutants::step(LEASES_MAX));
        Reply::Leases(page.map(|lease| (left(lease.id), lease.id)).collect())
    }

    /// Takes in what entries did.
    pub(super) fn applied(&mut self, lessor: &mut Lessor, effects: &mut Vec<Effect>) {
        for changed in lessor.take_changed() {
            match changed {
                _ if self.term.is_none() => {}
                Changed::Granted(lease) => self.expiry.granted(lease),
                Changed::Revoked(lease) => {
                    self.expired += u64::from(self.expiry.revoked(lease));
                    for waits in [&mut self.revoking, &mut self.clearing] {
                        waits.take(lease).for_each(|id| reply_renewed(id, 0, effects));
                    }
                }
                Changed::Checkpointed(lease) if lease.remaining_ttl_s > 0 => {
                    self.expiry.checkpointed(lease.id, lease.remaining_ttl_s);
                }
                Changed::Checkpointed(lease) => self.cleared(lease.id, lease.ttl_s, effects),
            }
        }
    }

    /// Whether it is time to revoke leases and there is room to do so.
    pub(super) fn has_work(&self) -> bool {
        self.term.is_some() && self.expiry.has_expired()
    }

    /// Follows the leadership: `term` is the one in which this member leads and has applied an entry.
    pub(super) fn follow(
        &mut self,
        term: Option<u64>,
        lessor: &mut Lessor,
        effects: &mut Vec<Effect>,
    ) {
        if term == self.term {
            return;
        }
        for (id, _) in self.revoking.drain().chain(self.clearing.drain()) {
            effects.push(Effect::Reply { id, reply: Reply::Failed(RequestError::LeaderChanged) });
        }
        self.to_clear.clear();
        self.term = term;
        match term {
            Some(_) => self.expiry.promote(lessor.leases(), self.extend_ms),
            None => self.expiry.demote(),
        }
    }

    /// Proposes what this member decides as the leader of `term`. Nothing may come between the look at
    /// the term and the proposal.
    pub(super) fn propose(
        &mut self,
        term: Option<u64>,
        lessor: &Lessor,
        proposals: &mut Proposals,
    ) {
        if term.is_none() || term != self.term {
            return;
        }
        // A client may end and grant anew what is decided upon here, in the same batch even.
        let grant = |lease: i64| lessor.get(lease).map(|lease| lease.grant());
        self.in_batch = std::mem::take(&mut self.to_clear).into_iter().collect();
        for grants in self.in_batch.chunks(CHECKPOINT_LEASES_MAX) {
            proposals.add_internal(own::checkpoint(grants.iter().map(|&grant| (grant, 0))));
        }
        for grant in self.expiry.take_expired().into_iter().filter_map(grant) {
            if !mutants::on(Mutant::ExpiryForgotten) {
                proposals.add_internal(own::end(grant));
            }
        }
        for _ in 0..CHECKPOINTS_MAX {
            let left = self.expiry.take_checkpoints(CHECKPOINT_LEASES_MAX);
            if !left.is_empty() {
                let left =
                    left.into_iter().filter_map(|(lease, left_s)| Some((grant(lease)?, left_s)));
                proposals.add_internal(own::checkpoint(left));
            }
        }
    }

    /// Whether raft took what [`Leases::propose`] decided. Else whoever waits for it would wait in vain.
    pub(super) fn proposed(&mut self, is_taken: bool) {
        let in_batch = std::mem::take(&mut self.in_batch);
        if !is_taken {
            self.to_clear.extend(in_batch);
        }
    }

    /// What was done since the start.
    pub(super) fn counts(&self, lessor: &Lessor) -> LeaseCounts {
        LeaseCounts { renewed: self.renewed, expired: self.expired, ..lessor.counts() }
    }

    fn cleared(&mut self, lease: i64, ttl_s: i64, effects: &mut Vec<Effect>) {
        match self.expiry.cleared(lease) {
            Cleared::All => {
                for id in self.clearing.take(lease) {
                    self.renewed += 1;
                    reply_renewed(id, ttl_s, effects);
                }
            }
            // Whoever waits may have come after what the next one clears.
            Cleared::Part => {}
            Cleared::Nothing => {
                // Its time was over before: they wait for its end.
                if let Some(waiting) = self.clearing.0.remove(&lease) {
                    self.revoking.0.entry(lease).or_default().extend(waiting);
                }
            }
        }
    }
}

impl Waits {
    /// Adds a request; `true` if it is the first of its lease.
    fn add(&mut self, lease: i64, waiting: (RequestId, u64)) -> bool {
        let list = self.0.entry(lease).or_default();
        list.push(waiting);
        list.len() == 1
    }

    fn take(&mut self, lease: i64) -> impl Iterator<Item = RequestId> + use<> {
        self.0.remove(&lease).into_iter().flatten().map(|(id, _)| id)
    }

    fn drain(&mut self) -> impl Iterator<Item = (RequestId, u64)> + use<> {
        std::mem::take(&mut self.0).into_values().flatten()
    }

    /// Answers those whose time is over.
    fn expire(&mut self, now_tick: u64, effects: &mut Vec<Effect>) {
        self.0.retain(|_, waiting| {
            waiting.retain(|&(id, deadline_tick)| {
                let alive = deadline_tick > now_tick;
                if !alive {
                    let reply = Reply::Failed(RequestError::Timeout);
                    effects.push(Effect::Reply { id, reply });
                }
                alive
            });
            !waiting.is_empty()
        });
    }
}

fn reply_renewed(id: RequestId, ttl_s: i64, effects: &mut Vec<Effect>) {
    effects.push(Effect::Reply { id, reply: Reply::Renewed { ttl_s } });
}

fn ttl_s(lessor: &Lessor, lease: i64) -> i64 {
    lessor.get(lease).map_or(0, |lease| lease.ttl_s)
}
