//! Progress is told of what has been sent.

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Told, revision_of};

/// Whoever is told how far it has come, alone or with all watchers of its stream, has been sent every
/// event up to that revision.
pub struct ProgressIsTrue;

impl Invariant for ProgressIsTrue {
    fn name(&self) -> &'static str {
        "progress is true"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        for heard in history.watched().heard() {
            let Told::Progress { revision } = heard.told else { continue };
            let due = heard.wish.due(history.model(), heard.upto, revision);
            if let Some(missing) = due.first().map(revision_of) {
                let (watcher, upto) = (heard.watcher, heard.upto);
                return Err(format!(
                    "watcher {watcher} had everything up to {upto}, and was told of {revision} before \
                     the events of {missing}"
                ));
            }
        }
        Ok(())
    }
}
