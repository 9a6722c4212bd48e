//! A member has the leases that were granted, as they were granted, and no other.

use crate::sim::leases::{Promises, SeenLeases};

/// Each lease was asked for with its time to live, was not revoked, and was never gone before; what is
/// written down of it is less than all of it. With [`LeasesLiveTheirTime`](super::LeasesLiveTheirTime): what
/// is recovered is what was acknowledged.
pub struct LeasesEqualTheHistory;

impl LeasesEqualTheHistory {
    /// Its name.
    pub const NAME: &'static str = "leases equal the history";

    /// Looks at the leases of a member, and remembers which are gone.
    ///
    /// # Errors
    /// Which lease should not be there, or not so.
    pub fn check(promises: &mut Promises, seen: &SeenLeases) -> Result<(), String> {
        for (id, lease) in &seen.leases {
            let Some(promise) = promises.leases.get(id) else {
                return Err(format!("nobody asked for lease {id}"));
            };
            if promise.is_revoked || promise.is_gone {
                return Err(format!("lease {id} is back: {promise:?}"));
            }
            if lease.ttl_s != promise.ttl_s || !(0..promise.ttl_s).contains(&lease.remaining_ttl_s)
            {
                return Err(format!("lease {id} is {lease:?}, and not {promise:?}"));
            }
        }
        for (id, promise) in &mut promises.leases {
            let was_there = promise.is_granted || promise.is_revoked;
            promise.is_gone |= was_there && !seen.leases.contains_key(id);
        }
        Ok(())
    }
}
