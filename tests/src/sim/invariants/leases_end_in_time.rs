//! Every lease ends.

use crate::sim::leases::{Promises, SeenLeases};

/// A lease that nobody renews is gone some time after its time to live, in the time of a member that
/// serves.
pub struct LeasesEndInTime;

impl LeasesEndInTime {
    /// Its name.
    pub const NAME: &'static str = "leases end in time";

    /// How long after its time a lease may still be there: an election timeout that a new leader gives it,
    /// and what the simulated disk and flusher may hold apply up for, in milliseconds.
    pub const LATE_MS_MAX: u64 = 20_000;

    /// Looks at the leases of a member.
    ///
    /// # Errors
    /// Which lease lives too long.
    pub fn check(promises: &Promises, seen: &SeenLeases) -> Result<(), String> {
        for (&id, lease) in &seen.leases {
            let Some(promise) = promises.leases.get(&id).filter(|promise| promise.under_way == 0)
            else {
                continue;
            };
            let since_ms = promises.served_ms.saturating_sub(promise.touched_ms);
            if since_ms > lease.ttl_s.unsigned_abs() * 1000 + Self::LATE_MS_MAX {
                return Err(format!("lease {id} is still there {since_ms} ms later: {promise:?}"));
            }
        }
        Ok(())
    }
}
