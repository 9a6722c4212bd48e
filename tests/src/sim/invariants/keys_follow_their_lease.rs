//! A lease has exactly the keys whose newest version names it.

use crate::sim::leases::SeenLeases;

/// The keys attached to each lease are the live keys that have it, and no live key has a lease that is gone:
/// the end of a lease took all of its keys.
pub struct KeysFollowTheirLease;

impl KeysFollowTheirLease {
    /// Its name.
    pub const NAME: &'static str = "keys follow their lease";

    /// Looks at the leases and the keys of a member.
    ///
    /// # Errors
    /// Which key or lease is wrong.
    pub fn check(seen: &SeenLeases) -> Result<(), String> {
        for (key, id) in &seen.of_keys {
            match seen.leases.get(id) {
                None => return Err(format!("{key:?} has lease {id}, which is gone")),
                Some(lease) if !lease.keys.contains(key) => {
                    return Err(format!("{key:?} is not attached to its lease {id}"));
                }
                Some(_) => {}
            }
        }
        for (id, lease) in &seen.leases {
            let foreign = lease.keys.iter().find(|key| seen.of_keys.get(*key) != Some(id));
            if let Some(key) = foreign {
                return Err(format!("{key:?} is attached to lease {id}, and has another"));
            }
        }
        Ok(())
    }
}
