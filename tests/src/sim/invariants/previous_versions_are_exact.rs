//! The previous version in an event is the one that was there.

use quorate_proto::mvccpb;

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told, revision_of};

/// Whoever asked for previous versions gets exactly what was visible one revision before, unless that
/// moment was compacted; nobody else gets any.
pub struct PreviousVersionsAreExact;

impl Invariant for PreviousVersionsAreExact {
    fn name(&self) -> &'static str {
        "previous versions are exact"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        for heard in history.watched().heard() {
            let Told::Events { events, compacted, .. } = &heard.told else { continue };
            events.iter().try_for_each(|event| check(heard, event, *compacted, history))?;
        }
        Ok(())
    }
}

fn check(
    heard: &Heard,
    event: &mvccpb::Event,
    compacted: i64,
    history: &History,
) -> Result<(), String> {
    let Some(kv) = &event.kv else { return Ok(()) };
    let main = revision_of(event);
    let before = history.model().at(&kv.key, main - 1);
    let is_right = match &event.prev_kv {
        Some(sent) => heard.wish.prev_kv && Some(sent) == before,
        // A key that was deleted and put again in one revision has begun anew.
        None => {
            let is_create = kv.create_revision == main;
            !heard.wish.prev_kv || before.is_none() || is_create || compacted >= main
        }
    };
    if is_right {
        return Ok(());
    }
    let (watcher, sent) = (heard.watcher, &event.prev_kv);
    Err(format!("watcher {watcher}: before {main} was {before:?}, and {sent:?} was sent"))
}
