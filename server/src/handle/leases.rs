//! What is asked of the leader about leases, beside commands.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Event, Handle, Reply, RequestError};
use crate::replica::{LEASE_KEYS_MAX, TimeToLive};

impl Handle {
    /// Gives a lease its full time again; returns what was granted in seconds, 0 if there is no such
    /// lease. Waits if its time is over, until it is gone.
    ///
    /// # Errors
    /// [`RequestError`]; whether it was renewed is unknown then.
    pub async fn renew(&self, lease: i64) -> Result<i64, RequestError> {
        let id = self.next_id();
        let ttl_s = match self.ask_in_time(id, Event::Renew { id, lease }).await? {
            Reply::Renewed { ttl_s } => ttl_s,
            Reply::Failed(error) => return Err(error),
            reply => unreachable!("a renewal was answered with {reply:?}"),
        };
        // Only a leader's word counts, and another leader may have begun before this one gave it: so
        // leadership is shown afterwards. Whoever leads later gives every lease its time from then on.
        self.linearize().await?;
        Ok(ttl_s)
    }

    /// What is left of a lease, with its keys if they are asked for; `None` if there is no such lease.
    ///
    /// # Errors
    /// [`RequestError`]; it may be tried again.
    pub async fn time_to_live(
        &self,
        lease: i64,
        with_keys: bool,
    ) -> Result<Option<TimeToLive>, RequestError> {
        let mut keys_after = with_keys.then(Bytes::new);
        let mut keys = Vec::new();
        self.linearize().await?;
        loop {
            let id = self.next_id();
            let event = Event::TimeToLive { id, lease, keys_after };
            let mut page = match self.ask_in_time(id, event).await? {
                Reply::TimeToLive(Some(page)) => page,
                Reply::TimeToLive(None) => return Ok(None),
                Reply::Failed(error) => return Err(error),
                reply => unreachable!("a question about a lease was answered with {reply:?}"),
            };
            let is_full = page.keys.len() >= LEASE_KEYS_MAX;
            keys.append(&mut page.keys);
            keys_after = keys.last().filter(|_| is_full).cloned();
            if keys_after.is_none() {
                return Ok(Some(TimeToLive { keys, ..page }));
            }
        }
    }

    /// The leases that this member knows of, those that end first before the others.
    ///
    /// # Errors
    /// [`RequestError`]; it may be tried again.
    pub async fn leases(&self) -> Result<Vec<i64>, RequestError> {
        let mut leases = Vec::new();
        let mut after = None;
        loop {
            let id = self.next_id();
            let page = match self.ask_in_time(id, Event::ListLeases { id, after }).await? {
                Reply::Leases(page) => page,
                Reply::Failed(error) => return Err(error),
                reply => unreachable!("a list of leases was answered with {reply:?}"),
            };
            let Some(&(_, last)) = page.last() else { break };
            after = Some(last);
            leases.extend(page);
        }
        leases.sort_unstable();
        Ok(leases.into_iter().map(|(_, lease)| lease).collect())
    }

    /// An ID for a new lease: positive, and one that nobody has but by an accident of one in 2^63.
    pub fn new_lease_id(&self) -> i64 {
        loop {
            let id = scatter(self.shared.next_id.fetch_add(1, Ordering::Relaxed)) >> 1;
            if let Some(id) = i64::try_from(id).ok().filter(|id| *id > 0) {
                return id;
            }
        }
    }

    /// The shortest time to live of a lease, in seconds.
    pub fn lease_ttl_min_s(&self) -> i64 {
        self.shared.parts.lease_ttl_min_s
    }
}

/// A permutation of all numbers that leaves no pattern (the finalizer of SplitMix64): request ids are
/// unique among members and boots, and start at a random place.
fn scatter(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_scattered() {
        let words: Vec<u64> = (1..1000).map(scatter).collect();
        let far = |pair: &[u64]| (10..54).contains(&(pair[0] ^ pair[1]).count_ones());
        assert!(words.windows(2).all(far));
    }
}
