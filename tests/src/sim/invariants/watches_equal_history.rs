//! A watch is the history of its keys.

use quorate_proto::mvccpb;

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told, revision_of};

/// Over all lives of a member, a watcher is sent each change of its keys from its start on: once, in
/// order, none left out, and all changes of a revision together.
pub struct WatchesEqualHistory;

impl Invariant for WatchesEqualHistory {
    fn name(&self) -> &'static str {
        "watches equal the history"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        history.watched().heard().iter().try_for_each(|heard| compare(heard, history))
    }
}

fn compare(heard: &Heard, history: &History) -> Result<(), String> {
    let Told::Events { events, .. } = &heard.told else { return Ok(()) };
    let Some(last) = events.last().map(revision_of) else { return Ok(()) };
    let due = heard.wish.due(history.model(), heard.upto, last);
    let is_same = |(sent, due): (&mvccpb::Event, &mvccpb::Event)| {
        sent.r#type == due.r#type && sent.kv == due.kv
    };
    if events.len() == due.len() && events.iter().zip(&due).all(is_same) {
        return Ok(());
    }
    let text = |events: &[mvccpb::Event]| events.iter().map(short).collect::<Vec<_>>().join(", ");
    Err(format!(
        "watcher {} of {:?} had everything up to {}, and was sent {}; due was {}",
        heard.watcher,
        heard.wish,
        heard.upto,
        text(events),
        text(&due)
    ))
}

fn short(event: &mvccpb::Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let what = if event.r#type == 0 { "put" } else { "delete" };
    format!("{} {what} {:?} version {}", kv.mod_revision, kv.key, kv.version)
}
