//! What a watch has shown is there for ever.

use super::Invariant;
use crate::sim::history::{Event, History};

/// A member holds every revision that any response to a watcher has named, whatever happened since:
/// what is not durable is shown to nobody. What is in them is
/// [`WatchesEqualHistory`](super::WatchesEqualHistory)'s business.
pub struct WatchedIsRecovered;

impl Invariant for WatchedIsRecovered {
    fn name(&self) -> &'static str {
        "watched is recovered"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        let Event::Inspected { state } = event else { return Ok(()) };
        let (newest, current) = (history.watched().newest(), state.current_revision);
        if newest > current {
            return Err(format!(
                "a watch showed revision {newest}, and the member is at {current}"
            ));
        }
        Ok(())
    }
}
