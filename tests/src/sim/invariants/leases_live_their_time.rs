//! No lease ends before its time.

use crate::sim::leases::{Promises, SeenLeases};

/// A lease that was granted or renewed, and acknowledged, is there until its time to live since the client
/// asked is over, unless somebody asked to revoke it.
pub struct LeasesLiveTheirTime;

impl LeasesLiveTheirTime {
    /// Its name.
    pub const NAME: &'static str = "leases live their time";

    /// Looks at the leases of a member.
    ///
    /// # Errors
    /// Which lease is gone too early.
    pub fn check(promises: &Promises, seen: &SeenLeases) -> Result<(), String> {
        for (&id, promise) in &promises.leases {
            if !seen.leases.contains_key(&id) && !promises.may_be_gone(id) {
                let now_ms = promises.now_ms;
                return Err(format!("lease {id} is gone at {now_ms} ms: {promise:?}"));
            }
        }
        Ok(())
    }
}
