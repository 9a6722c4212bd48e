//! A watch is ended as compacted only if it lacks something that is compacted.

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told};

/// The next revision that an ended watcher wants is below the compact revision. If it had everything
/// that there was, and the hub saw everything since, then something did happen to its keys below it:
/// that nothing concerned it for long is no reason.
pub struct WatchesEndOnlyAtLostHistory;

impl Invariant for WatchesEndOnlyAtLostHistory {
    fn name(&self) -> &'static str {
        "watches end only at lost history"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        history.watched().heard().iter().try_for_each(|heard| check(heard, history))
    }
}

fn check(heard: &Heard, history: &History) -> Result<(), String> {
    let Told::Compacted { compacted } = heard.told else { return Ok(()) };
    let (watcher, next) = (heard.watcher, heard.upto + 1);
    if next >= compacted {
        return Err(format!(
            "watcher {watcher} wanted {next}, and ended for a compaction at {compacted}"
        ));
    }
    let mut lost = heard.wish.changes(history.model(), heard.upto, compacted - 1);
    if heard.has_all && lost.next().is_none() {
        return Err(format!(
            "watcher {watcher} had everything up to {}, nothing concerned it since, and it ended for \
             a compaction at {compacted}",
            heard.upto
        ));
    }
    Ok(())
}
