//! Clients of leases, and what is looked at after each turn of a member.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::etcdserverpb::LeaseRevokeRequest;

use super::clients::Ask;
use super::member::{Life, TICK_ELAPSED_MS_MAX};
use crate::model::{Refusal, Request};
use crate::sim::history::{OpId, leases_named};
use crate::sim::invariants::{
    KeysFollowTheirLease, LeasesEndInTime, LeasesEqualTheHistory, LeasesLiveTheirTime, Violation,
    named,
};
use crate::sim::leases::{Asked, Promises};
use crate::sim::rng::Rng;

/// How long a pause is, in milliseconds.
const PAUSE_MS: u64 = 60_000;

/// The times to live that are asked for, in seconds.
const TTLS_S: [i64; 5] = [2, 3, 6, 6, 15];

/// After this much time every lease that nobody renews must have ended, in milliseconds.
pub(super) const QUIET_MS: u64 = LeasesEndInTime::LATE_MS_MAX + 16_000;

/// Leases of one run.
#[derive(Default)]
pub(super) struct Leasing {
    promises: Promises,
    /// Those that the member had when it was last looked at.
    present: BTreeSet<i64>,
    /// Requests under way that name leases, all of which were granted, and acknowledged, when they were sent.
    naming: BTreeMap<OpId, Vec<i64>>,
    /// Time that passed since the last tick, beside the tick's own.
    paused_ms: u64,
}

/// What a client does about leases.
pub(super) enum Wish {
    Ask(Ask),
    Revoke(i64),
}

impl Leasing {
    /// The member is paused.
    pub(super) fn pause(&mut self) {
        self.paused_ms += PAUSE_MS;
    }

    /// How long the next tick takes.
    pub(super) fn next_tick(&mut self, rng: &mut Rng) -> u64 {
        let elapsed_ms = *rng.pick(&[100, 100, 300, 900]) + std::mem::take(&mut self.paused_ms);
        self.promises.pass(elapsed_ms, elapsed_ms.min(TICK_ELAPSED_MS_MAX));
        elapsed_ms
    }

    /// What a client does next. Few leases at a time, so that their stories are long.
    pub(super) fn wish(&mut self, rng: &mut Rng) -> Option<Wish> {
        let asked = self.promises.asked_now();
        let ids: Vec<i64> = self.present.iter().copied().collect();
        let choice = if ids.is_empty() { 0 } else { rng.below(10) };
        match choice {
            0 | 1 => {
                let id = self.promises.unused()?;
                let ttl_s = *rng.pick(&TTLS_S);
                self.promises.grant_asked(id, ttl_s);
                Some(Wish::Ask(Ask::Grant { id, ttl_s, asked }))
            }
            2 => {
                let id = *rng.pick(&ids);
                self.promises.revoke_asked(id);
                Some(Wish::Revoke(id))
            }
            _ => {
                let id = *rng.pick(&ids);
                self.promises.renew_asked(id);
                Some(Wish::Ask(Ask::Renew { id, asked }))
            }
        }
    }

    /// A grant or renewal was answered with a time to live, 0 for no lease, or was not.
    pub(super) fn answered(
        &mut self,
        (id, asked): (i64, Asked),
        ttl_s: Option<i64>,
    ) -> Result<(), Violation> {
        match ttl_s {
            None => self.promises.not_promised(id),
            Some(0) if self.promises.may_be_gone(id) => self.promises.not_promised(id),
            Some(0) => {
                let text = format!("a renewal says that lease {id} is gone");
                return named(LeasesLiveTheirTime::NAME, Err(text));
            }
            Some(ttl_s) => {
                let promised_s = self.promises.leases.get(&id).map(|promise| promise.ttl_s);
                if promised_s != Some(ttl_s) {
                    let text = format!("lease {id} has {ttl_s} s, and not {promised_s:?}");
                    return named(LeasesEqualTheHistory::NAME, Err(text));
                }
                self.promises.promised(id, asked);
            }
        }
        Ok(())
    }

    /// A request is sent.
    pub(super) fn begun(&mut self, op: OpId, request: &Request) {
        let ids = leases_named(request);
        if !ids.is_empty() && ids.iter().all(|id| self.promises.is_granted(*id)) {
            self.naming.insert(op, ids);
        }
    }

    /// A request has an end: it was refused, or not.
    pub(super) fn ended(
        &mut self,
        op: OpId,
        request: &Request,
        refusal: Option<Refusal>,
    ) -> Result<(), Violation> {
        let ids = self.naming.remove(&op);
        let Some(ids) = ids.filter(|_| refusal == Some(Refusal::LeaseNotFound)) else {
            return Ok(());
        };
        let revocations = u64::from(matches!(request, Request::LeaseRevoke(_)));
        let refused = LeasesLiveTheirTime::refused(&self.promises, &ids, revocations);
        named(LeasesLiveTheirTime::NAME, refused)
    }

    /// A revocation was answered.
    pub(super) fn revoked(&mut self, id: i64) {
        self.promises.revoked(id);
    }

    /// A member has applied all that it knew, and begins to serve.
    pub(super) fn begin_life(&mut self) {
        self.paused_ms = 0;
        self.naming.clear();
        self.promises.begin_life();
    }

    /// Time of the member since it began to serve, in milliseconds.
    pub(super) fn served_ms(&self) -> u64 {
        self.promises.served_ms
    }

    /// The leases that a client may name in a put: those that are there, and one that may be gone.
    pub(super) fn to_name(&self) -> Vec<i64> {
        let last = self.promises.leases.keys().next_back();
        self.present.iter().chain(last).copied().collect()
    }

    /// Looks at a member that has applied all that it knew; returns the ends of leases that were seen.
    pub(super) fn look(&mut self, life: &Life) -> Result<Vec<Request>, Violation> {
        let seen = life.leases();
        let lived = LeasesLiveTheirTime::check(&self.promises, &seen);
        named(LeasesLiveTheirTime::NAME, lived)?;
        named(LeasesEndInTime::NAME, LeasesEndInTime::check(&self.promises, &seen))?;
        let equal = LeasesEqualTheHistory::check(&mut self.promises, &seen);
        named(LeasesEqualTheHistory::NAME, equal)?;
        named(KeysFollowTheirLease::NAME, KeysFollowTheirLease::check(&seen))?;
        let present = seen.leases.keys().copied().collect();
        let before = std::mem::replace(&mut self.present, present);
        let ended = before.difference(&self.present);
        Ok(ended.map(|&id| Request::LeaseRevoke(LeaseRevokeRequest { id })).collect())
    }
}
