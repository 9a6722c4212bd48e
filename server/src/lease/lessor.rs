//! The replicated records of leases.
//!
//! Only entries change them, so they are equal on every member. A key is attached to one lease at most:
//! the one of its newest version; the key space reports when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::mutants::{self, Mutant};

/// The longest time to live, in seconds; etcd's `MaxLeaseTTL`.
pub const TTL_S_MAX: i64 = 9_000_000_000;

/// What a lease counts for in the quota, in bytes.
pub const LEASE_BYTES: u64 = 64;

/// The record of one lease, without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name, never 0.
    pub id: i64,
    /// What was granted, in seconds.
    pub ttl_s: i64,
    /// What was left at the last checkpoint, in seconds; 0 for none since the last renewal.
    pub remaining_ttl_s: i64,
    /// The request that granted it.
    pub granted_by: u64,
}

impl Lease {
    /// Which grant it is of.
    pub fn grant(&self) -> Grant {
        Grant { id: self.id, request: self.granted_by }
    }
}

/// One grant of a lease. The ID may be granted anew after its end, and what was decided about the old
/// lease must not concern the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The ID of the lease.
    pub id: i64,
    /// The request that granted it.
    pub request: u64,
}

/// Why an entry changes no lease. Deterministic: every member decides the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There is no such lease, or the ID cannot be one.
    #[error("requested lease not found")]
    NotFound,
    /// A lease of this ID exists.
    #[error("lease already exists")]
    Exists,
    /// The time to live is above [`TTL_S_MAX`].
    #[error("too large lease TTL")]
    TtlTooLarge,
}

/// What an entry did, for the leader's [`Expiry`](super::Expiry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// There is a new lease.
    Granted(Lease),
    /// This one is gone.
    Revoked(i64),
    /// What is left of it was written down.
    Checkpointed(Lease),
}

/// What was done since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases granted.
    pub granted: u64,
    /// Leases revoked, those that expired among them.
    pub revoked: u64,
    /// Renewals that this member answered with a time to live.
    pub renewed: u64,
    /// Leases whose deadline passed on this member, and which are revoked.
    pub expired: u64,
}

/// Every lease with its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lessor {
    records: BTreeMap<i64, Record>,
    /// Leases whose records changed since they were last taken.
    dirty: BTreeSet<i64>,
    /// What entries did since it was last taken, in their order.
    changed: Vec<Changed>,
    granted: u64,
    revoked: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    ttl_s: i64,
    remaining_ttl_s: i64,
    granted_by: u64,
    keys: BTreeSet<Bytes>,
}

impl Record {
    fn lease(&self, id: i64) -> Lease {
        let &Self { ttl_s, remaining_ttl_s, granted_by, .. } = self;
        Lease { id, ttl_s, remaining_ttl_s, granted_by }
    }
}

impl Lessor {
    /// Adds a lease of `ttl_s` seconds.
    ///
    /// # Errors
    /// `NotFound` for the ID 0, which stands for no lease; `TtlTooLarge`; `Exists`.
    pub fn grant(&mut self, grant: Grant, ttl_s: i64) -> Result<Lease, LeaseError> {
        let Grant { id, request } = grant;
        if id == 0 {
            return Err(LeaseError::NotFound);
        }
        if ttl_s > TTL_S_MAX {
            return Err(LeaseError::TtlTooLarge);
        }
        if self.records.contains_key(&id) {
            return Err(LeaseError::Exists);
        }
        let lease = Lease { id, ttl_s, remaining_ttl_s: 0, granted_by: request };
        self.restore(lease);
        self.dirty.insert(id);
        self.changed.push(Changed::Granted(lease));
        self.granted += 1;
        Ok(lease)
    }

    /// Removes a lease and returns its keys in order; the caller deletes them in the same entry.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, LeaseError> {
        let mut record = self.records.remove(&id).ok_or(LeaseError::NotFound)?;
        self.dirty.insert(id);
        self.changed.push(Changed::Revoked(id));
        self.revoked += 1;
        if mutants::on(Mutant::RevokeLeavesKey) {
            record.keys.pop_last();
        }
        Ok(record.keys.into_iter().collect())
    }

    /// Whether the lease of this grant has not ended.
    pub fn is_current(&self, grant: Grant) -> bool {
        self.records.get(&grant.id).is_some_and(|record| record.granted_by == grant.request)
    }

    /// Writes down what is left of a lease, in seconds; 0 for all of it. One that is gone meanwhile
    /// stays so, and one that was granted since has all of it.
    pub fn checkpoint(&mut self, grant: Grant, remaining_ttl_s: i64) {
        let Grant { id, request } = grant;
        let meant = |record: &&mut Record| record.granted_by == request;
        let Some(record) = self.records.get_mut(&id).filter(meant) else { return };
        record.remaining_ttl_s = remaining_ttl_s;
        self.dirty.insert(id);
        self.changed.push(Changed::Checkpointed(record.lease(id)));
    }

    /// The newest version of `key` has the lease `new` now, and the one before had `old`; 0 for none.
    pub fn reattach(&mut self, key: Bytes, old: i64, new: i64) {
        if !mutants::on(Mutant::DetachForgotten)
            && let Some(record) = self.records.get_mut(&old)
        {
            record.keys.remove(&key);
        }
        self.attach(key, new);
    }

    /// Attaches a key that was read back. A lease that is not known takes none.
    pub fn attach(&mut self, key: Bytes, lease: i64) {
        if let Some(record) = self.records.get_mut(&lease) {
            record.keys.insert(key);
        }
    }

    /// Adds a lease that was read back, without its keys.
    pub fn restore(&mut self, lease: Lease) {
        let Lease { id, ttl_s, remaining_ttl_s, granted_by } = lease;
        let record = Record { ttl_s, remaining_ttl_s, granted_by, keys: BTreeSet::new() };
        self.records.insert(id, record);
    }

    /// Whether a put may name this lease.
    pub fn knows(&self, id: i64) -> bool {
        let known = self.records.get(&id);
        known.is_some_and(|record| {
            record.remaining_ttl_s == 0 || !mutants::on(Mutant::CheckpointedUnknown)
        })
    }

    /// The record of a lease.
    pub fn get(&self, id: i64) -> Option<Lease> {
        self.records.get(&id).map(|record| record.lease(id))
    }

    /// The keys of a lease behind `after`, ascending.
    pub fn keys(&self, id: i64, after: &[u8]) -> impl Iterator<Item = &Bytes> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.records
            .get(&id)
            .into_iter()
            .flat_map(move |record| record.keys.range::<[u8], _>(behind))
    }

    /// Every lease, by ID.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        self.leases_behind(None)
    }

    /// The leases behind `after`, by ID; all without it.
    pub fn leases_behind(&self, after: Option<i64>) -> impl Iterator<Item = Lease> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).map(|(&id, record)| record.lease(id))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What leases count for in the quota, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.records.len() as u64 * LEASE_BYTES
    }

    /// Leases granted and revoked since the start.
    pub fn counts(&self) -> LeaseCounts {
        LeaseCounts { granted: self.granted, revoked: self.revoked, ..LeaseCounts::default() }
    }

    /// How many records changed since they were last taken.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Takes the IDs whose records changed since the last call, each with its record if it has one.
    pub fn take_dirty(&mut self) -> impl Iterator<Item = (i64, Option<Lease>)> {
        std::mem::take(&mut self.dirty).into_iter().map(|id| (id, self.get(id)))
    }

    /// Takes what entries did since the last call.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        std::mem::take(&mut self.changed)
    }
}
