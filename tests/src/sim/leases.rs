//! What clients were promised about leases, in simulated time.
//!
//! A lease has no revision, so its story is apart from that of the keys: a [`Promises`] records what was
//! asked and answered, the invariants compare it with the leases that a member has. An ID is granted
//! once. Time that passes while a member does not run counts for clients, and not for the member: a pause
//! in one life of it ends no lease.
//!
//! ```text
//! asked at 10 s: grant 1, 20 s     answered      promised until 30 s, counted from the question
//! asked at 25 s: renew 1           answered      promised until 45 s
//! asked at 30 s: renew 1           no answer     promised until 45 s, and may live longer
//! paused from 30 s to 90 s                       promised until 105 s; without the 60 s after a new start
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// The IDs that clients grant. The history takes all of them for known: which one is, is decided here.
pub const LEASE_IDS: std::ops::RangeInclusive<i64> = 1..=300;

/// One lease as a member has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenLease {
    /// Its time to live, in seconds.
    pub ttl_s: i64,
    /// What was written down of it, in seconds; 0 for none.
    pub remaining_ttl_s: i64,
    /// The keys that are attached to it.
    pub keys: BTreeSet<Bytes>,
}

/// The leases of a member, after it has applied all that it knew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenLeases {
    /// By ID.
    pub leases: BTreeMap<i64, SeenLease>,
    /// The lease of each live key that has one.
    pub of_keys: BTreeMap<Bytes, i64>,
}

/// The story of one lease.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// What was asked for, in seconds.
    pub ttl_s: i64,
    /// The grant was answered.
    pub is_granted: bool,
    /// Until when it must live, in milliseconds of all time.
    pub until_ms: u64,
    /// Until when it must live, in milliseconds of this life of the member; 0 if nothing was promised in it.
    pub until_served_ms: u64,
    /// How often somebody asked to revoke it.
    pub revokes_asked: u64,
    /// That was answered.
    pub is_revoked: bool,
    /// It was seen to be gone.
    pub is_gone: bool,
    /// When anything may last have renewed it, in milliseconds of this life of the member.
    pub touched_ms: u64,
    /// Renewals and grants under way.
    pub under_way: u64,
}

/// When something was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// In milliseconds of all time.
    pub at_ms: u64,
    /// In milliseconds of this life of the member.
    pub at_served_ms: u64,
}

/// The stories of all leases.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// By ID.
    pub leases: BTreeMap<i64, Promise>,
    /// All time, in milliseconds.
    pub now_ms: u64,
    /// Time of the member since it began to serve, in milliseconds.
    pub served_ms: u64,
}

impl Promises {
    /// Time passes: `elapsed_ms` for everybody, `served_ms` of it for the member.
    pub fn pass(&mut self, elapsed_ms: u64, served_ms: u64) {
        self.now_ms += elapsed_ms;
        self.served_ms += served_ms;
    }

    /// A member begins to serve, and gives every lease its time.
    pub fn begin_life(&mut self) {
        self.served_ms = 0;
        for promise in self.leases.values_mut() {
            (promise.touched_ms, promise.under_way) = (0, 0);
            promise.until_served_ms = 0;
        }
    }

    /// The next ID that nobody has granted yet.
    pub fn unused(&self) -> Option<i64> {
        LEASE_IDS.clone().nth(self.leases.len())
    }

    /// A grant of `ttl_s` seconds was asked for.
    pub fn grant_asked(&mut self, id: i64, ttl_s: i64) {
        self.leases.insert(id, Promise { ttl_s, ..Promise::default() });
        self.touch(id, true);
    }

    /// A renewal was asked for.
    pub fn renew_asked(&mut self, id: i64) {
        self.touch(id, true);
    }

    /// The present.
    pub fn asked_now(&self) -> Asked {
        Asked { at_ms: self.now_ms, at_served_ms: self.served_ms }
    }

    /// What was asked for in this life was answered: the lease is there, and has its time.
    pub fn promised(&mut self, id: i64, asked: Asked) {
        self.touch(id, false);
        if let Some(promise) = self.leases.get_mut(&id) {
            promise.is_granted = true;
            let ttl_ms = promise.ttl_s.unsigned_abs() * 1000;
            promise.until_ms = promise.until_ms.max(asked.at_ms + ttl_ms);
            promise.until_served_ms = promise.until_served_ms.max(asked.at_served_ms + ttl_ms);
        }
    }

    /// What was asked for has another end.
    pub fn not_promised(&mut self, id: i64) {
        self.touch(id, false);
    }

    /// A revocation was asked for.
    pub fn revoke_asked(&mut self, id: i64) {
        self.leases.entry(id).or_default().revokes_asked += 1;
    }

    /// A revocation was answered.
    pub fn revoked(&mut self, id: i64) {
        self.leases.entry(id).or_default().is_revoked = true;
    }

    /// Whether the grant of a lease was answered.
    pub fn is_granted(&self, id: i64) -> bool {
        self.leases.get(&id).is_some_and(|promise| promise.is_granted)
    }

    /// Whether a lease may be gone by now although nobody broke a promise.
    pub fn may_be_gone(&self, id: i64) -> bool {
        self.may_be_gone_before(id, 0)
    }

    /// The same, but not by so many of the revocations that were asked for.
    pub fn may_be_gone_before(&self, id: i64, revocations: u64) -> bool {
        self.leases.get(&id).is_none_or(|promise| {
            !promise.is_granted
                || promise.revokes_asked > revocations
                || (promise.until_ms <= self.now_ms && promise.until_served_ms <= self.served_ms)
        })
    }

    fn touch(&mut self, id: i64, begins: bool) {
        let now_ms = self.served_ms;
        if let Some(promise) = self.leases.get_mut(&id) {
            promise.touched_ms = now_ms;
            promise.under_way =
                if begins { promise.under_way + 1 } else { promise.under_way.saturating_sub(1) };
        }
    }
}
