//! What must hold in every run, one file each, and the referee who asks them all.
//!
//! Those about what clients see and members hold follow the history. Those about a member itself (how
//! it starts and ends, what it says of its size) are asked by the run, at the moment that they are
//! about.

mod a_start_uses_the_checkpoint;
mod acknowledged_is_recovered;
mod blame;
mod compaction_spares_the_readable;
mod ends_only_when_the_disk_fails;
mod errors_are_those_of_the_api;
mod every_request_is_answered;
mod hash_equals_model;
mod idle_watches_are_woken;
mod keys_follow_their_lease;
mod leases_end_in_time;
mod leases_equal_the_history;
mod leases_live_their_time;
mod linearizable_reads;
mod no_half_transaction;
mod previous_versions_are_exact;
mod progress_is_true;
mod quota_holds;
mod replies_equal_model;
mod revisions_without_gaps;
mod sizes_are_those_of_the_rows;
mod starts_again_by_itself;
#[cfg(test)]
mod tests;
mod votes_are_kept;
mod watch_headers_are_true;
mod watch_responses_fit;
mod watched_is_recovered;
mod watches_end_only_at_lost_history;
mod watches_equal_history;
mod what_is_stored_can_be_read;

use super::history::{Event, History};

pub use a_start_uses_the_checkpoint::AStartUsesTheCheckpoint;
pub use acknowledged_is_recovered::AcknowledgedIsRecovered;
pub use blame::{Blame, During, Ending};
pub use compaction_spares_the_readable::CompactionSparesTheReadable;
pub use ends_only_when_the_disk_fails::EndsOnlyWhenTheDiskFails;
pub use errors_are_those_of_the_api::ErrorsAreThoseOfTheApi;
pub use every_request_is_answered::EveryRequestIsAnswered;
pub use hash_equals_model::HashEqualsModel;
pub use idle_watches_are_woken::IdleWatchesAreWoken;
pub use keys_follow_their_lease::KeysFollowTheirLease;
pub use leases_end_in_time::LeasesEndInTime;
pub use leases_equal_the_history::LeasesEqualTheHistory;
pub use leases_live_their_time::LeasesLiveTheirTime;
pub use linearizable_reads::LinearizableReads;
pub use no_half_transaction::NoHalfTransaction;
pub use previous_versions_are_exact::PreviousVersionsAreExact;
pub use progress_is_true::ProgressIsTrue;
pub use quota_holds::QuotaHolds;
pub use replies_equal_model::RepliesEqualModel;
pub use revisions_without_gaps::RevisionsWithoutGaps;
pub use sizes_are_those_of_the_rows::SizesAreThoseOfTheRows;
pub use starts_again_by_itself::StartsAgainByItself;
pub use votes_are_kept::VotesAreKept;
pub use watch_headers_are_true::WatchHeadersAreTrue;
pub use watch_responses_fit::WatchResponsesFit;
pub use watched_is_recovered::WatchedIsRecovered;
pub use watches_end_only_at_lost_history::WatchesEndOnlyAtLostHistory;
pub use watches_equal_history::WatchesEqualHistory;
pub use what_is_stored_can_be_read::WhatIsStoredCanBeRead;

/// Something that must hold.
pub trait Invariant {
    /// Its name, as a failure prints it.
    fn name(&self) -> &'static str;

    /// Looks at an event that `history` has just recorded.
    ///
    /// # Errors
    /// What is wrong.
    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String>;
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How.
    pub text: String,
}

/// What an invariant found, under its name.
///
/// # Errors
/// The violation, if it found one.
pub fn named<T>(invariant: &'static str, found: Result<T, String>) -> Result<T, Violation> {
    found.map_err(|text| Violation { invariant, text })
}

/// Records events and asks every invariant about each.
pub struct Referee {
    history: History,
    invariants: Vec<Box<dyn Invariant>>,
}

impl Default for Referee {
    fn default() -> Self {
        Self::new()
    }
}

impl Referee {
    /// All invariants over an empty history.
    pub fn new() -> Self {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(RevisionsWithoutGaps::default()),
            Box::new(AcknowledgedIsRecovered),
            Box::new(NoHalfTransaction),
            Box::new(RepliesEqualModel),
            Box::new(LinearizableReads),
            Box::new(HashEqualsModel),
            Box::new(CompactionSparesTheReadable),
            Box::new(WatchedIsRecovered),
            Box::new(WatchesEqualHistory),
            Box::new(WatchHeadersAreTrue),
            Box::new(ProgressIsTrue),
            Box::new(PreviousVersionsAreExact),
            Box::new(WatchesEndOnlyAtLostHistory),
            Box::new(IdleWatchesAreWoken),
        ];
        Self { history: History::new(), invariants }
    }

    /// Records `event` and checks it.
    ///
    /// # Errors
    /// The first invariant that it breaks.
    pub fn observe(&mut self, event: &Event<'_>) -> Result<(), Violation> {
        self.history.record(event);
        for invariant in &mut self.invariants {
            let checked = invariant.on_event(event, &self.history);
            named(invariant.name(), checked)?;
        }
        Ok(())
    }

    /// What was recorded.
    pub fn history(&self) -> &History {
        &self.history
    }
}
