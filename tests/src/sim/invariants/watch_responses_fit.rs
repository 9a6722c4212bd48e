//! Responses on a watch stream make sense to a client.

/// Every response has a header whose revision exists, is for a watcher that was created before or is
/// being created, comes in parts only where that is allowed, and tells progress only to those who
/// asked; and a stream comes to an end of what it has to say.
pub struct WatchResponsesFit;

impl WatchResponsesFit {
    /// Its name.
    pub const NAME: &'static str = "watch responses fit";
}
