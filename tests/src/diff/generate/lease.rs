//! Draws requests of leases, which puts and compares then name.
//!
//! Left out is what a clock or chance decides:
//!
//! - Short lives, and those below one second, for which etcd takes its shortest: a lease ends at another
//!   moment on each server. All drawn ones outlive the run, and no two end near each other.
//! - An id that the server chooses.

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::Generator;
use crate::diff::leases::LeaseOperation;
use crate::diff::operation::Operation;

/// Leases by id, from 1.
pub(super) const LEASES: i64 = 12;
/// Lives are multiples of this, in seconds, and then some by the id.
const LIFE_S: i64 = 1_000_000;
/// The longest that etcd grants.
const LIFE_MAX_S: i64 = 9_000_000_000;
/// What two leases of equal lives differ by, in seconds.
const APART_S: i64 = 10_000;

impl Generator {
    pub(super) fn lease(&mut self) -> Operation {
        let id = self.lease_id();
        Operation::Lease(match self.rng.below(20) {
            0..8 => LeaseOperation::Grant(self.grant(id)),
            8..11 => LeaseOperation::Revoke(LeaseRevokeRequest { id }),
            11..14 => LeaseOperation::KeepAlive(LeaseKeepAliveRequest { id }),
            14..18 => {
                let keys = self.rng.one_in(2);
                LeaseOperation::TimeToLive(LeaseTimeToLiveRequest { id, keys })
            }
            _ => LeaseOperation::List,
        })
    }

    fn grant(&mut self, id: i64) -> LeaseGrantRequest {
        let id = if id == 0 { 1 } else { id };
        let apart = id.clamp(-1, LEASES + 2) * APART_S;
        let ttl = match self.rng.below(20) {
            0 => self.rng.pick(&[LIFE_MAX_S + 1, i64::MAX]),
            1 => LIFE_MAX_S - LIFE_S + apart,
            _ => self.rng.between(1, 5) * LIFE_S + apart,
        };
        LeaseGrantRequest { id, ttl }
    }

    /// The name of a lease that may be there; now and then one that cannot be.
    pub(super) fn lease_id(&mut self) -> i64 {
        if self.rng.one_in(25) {
            return self.rng.pick(&[0, -1, i64::MAX, LEASES + 1]);
        }
        self.rng.between(1, LEASES)
    }
}
