//! A watch is ended as compacted only if it lacks something that is compacted.

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told};

/// The next revision that an ended watcher wants is below the compact revision. If it had everything
/// that there was, and the hub saw everything since, then something did happen to its keys below it:
/// that nothing concerned it for long is no reason. What happened before the revision that it waits for
/// counts: from there on the hub notes for its keys that they have something to read.
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
    let Some(had_all_at) = heard.had_all_at else { return Ok(()) };
    if heard.wish.changes(history.model(), had_all_at, compacted - 1).next().is_none() {
        return Err(format!(
            "watcher {watcher} had everything up to {had_all_at}, nothing concerned it since, and it \
             ended for a compaction at {compacted}"
        ));
    }
    Ok(())
}
