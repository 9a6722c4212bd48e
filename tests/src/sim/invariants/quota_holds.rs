//! The quota holds.

/// What requests that were admitted before may add: the quota is looked at before they wait.
const SLACK_BYTES: u64 = 20_000;

/// What is in use exceeds the quota by no more than what was admitted before it was reached.
pub struct QuotaHolds;

impl QuotaHolds {
    /// The name of the invariant.
    pub const NAME: &'static str = "the quota holds";

    /// A member with this quota (`None` for no bound) has so many bytes in use.
    ///
    /// # Errors
    /// By how much it is too many.
    pub fn uses(quota_bytes: Option<u64>, in_use_bytes: u64) -> Result<(), String> {
        match quota_bytes {
            Some(quota_bytes) if in_use_bytes > quota_bytes + SLACK_BYTES => {
                Err(format!("{in_use_bytes} bytes in use of {quota_bytes}"))
            }
            _ => Ok(()),
        }
    }
}
