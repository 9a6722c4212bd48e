//! The header of an event response promises nothing that is still to come.

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told, revision_of};

/// The revision in the header of a response with events is not below theirs, and everything of the
/// watcher up to it is sent with this response.
pub struct WatchHeadersAreTrue;

impl Invariant for WatchHeadersAreTrue {
    fn name(&self) -> &'static str {
        "watch headers are true"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        history.watched().heard().iter().try_for_each(|heard| check(heard, history))
    }
}

fn check(heard: &Heard, history: &History) -> Result<(), String> {
    let Told::Events { events, revision, .. } = &heard.told else { return Ok(()) };
    let Some(last) = events.last().map(revision_of) else { return Ok(()) };
    let watcher = heard.watcher;
    if *revision < last {
        return Err(format!("watcher {watcher} was sent revision {last} under header {revision}"));
    }
    match heard.wish.due(history.model(), last, *revision).first().map(revision_of) {
        Some(missing) => Err(format!(
            "watcher {watcher} was sent events up to {last} under header {revision}, and not those \
             of {missing}"
        )),
        None => Ok(()),
    }
}
