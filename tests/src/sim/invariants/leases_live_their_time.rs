//! No lease ends before its time.

use crate::sim::leases::{Promises, SeenLeases};

/// A lease that was granted or renewed, and acknowledged, is there until its time to live since the client
/// asked is over, for everybody and, within one life, for the member, unless somebody asked to revoke it; and
/// so nobody who names it is told otherwise.
pub struct LeasesLiveTheirTime;

impl LeasesLiveTheirTime {
    /// Its name.
    pub const NAME: &'static str = "leases live their time";

    /// A request was refused for want of a lease. When it was asked, the grants of all that it names, which
    /// are `ids`, had been answered; it is itself so many of the revocations that were asked for.
    ///
    /// # Errors
    /// It, if all of them must be there.
    pub fn refused(promises: &Promises, ids: &[i64], revocations: u64) -> Result<(), String> {
        if ids.iter().any(|id| promises.may_be_gone_before(*id, revocations)) {
            return Ok(());
        }
        let stories: Vec<_> = ids.iter().map(|id| (id, promises.leases.get(id))).collect();
        Err(format!("one is said to be gone at {:?}: {stories:?}", promises.asked_now()))
    }

    /// Looks at the leases of a member.
    ///
    /// # Errors
    /// Which lease is gone too early.
    pub fn check(promises: &Promises, seen: &SeenLeases) -> Result<(), String> {
        for (&id, promise) in &promises.leases {
            if !seen.leases.contains_key(&id) && !promises.may_be_gone(id) {
                let now = promises.asked_now();
                return Err(format!("lease {id} is gone at {now:?}: {promise:?}"));
            }
        }
        Ok(())
    }
}
