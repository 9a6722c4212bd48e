//! A stream sleeps only while there is nothing for it.

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told, revision_of};

/// When everything that was woken has done its work, the watchers of a stream whose client reads have
/// been sent everything, and the question how far the stream is, is answered with the current revision.
pub struct IdleWatchesAreWoken;

impl Invariant for IdleWatchesAreWoken {
    fn name(&self) -> &'static str {
        "idle watches are woken"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        history.watched().heard().iter().try_for_each(|heard| check(heard, history))
    }
}

fn check(heard: &Heard, history: &History) -> Result<(), String> {
    let Told::Rest { revision, answered } = heard.told else { return Ok(()) };
    let watcher = heard.watcher;
    let due = heard.wish.due(history.model(), heard.upto, revision);
    if let Some(missing) = due.first().map(revision_of) {
        return Err(format!("watcher {watcher} sleeps, and was not sent the events of {missing}"));
    }
    match answered {
        Some(answer) if answer != Some(revision) => Err(format!(
            "the stream of watcher {watcher} was asked how far it is at {revision}, and said {answer:?}"
        )),
        _ => Ok(()),
    }
}
