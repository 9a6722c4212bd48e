//! A watch is the history of its keys.

use quorate_proto::mvccpb;

use super::Invariant;
use crate::sim::history::{Event, History};
use crate::sim::watching::{Heard, Told, revision_of};

/// Over all lives of a member, a watcher is sent each change of its keys from its start on: once, in
/// order, none left out, and all changes of a revision together. Of a revision that is compacted itself, a
/// change that another one of the same revision and key replaced may be gone, as in etcd: the compaction
/// keeps the last row of each key.
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
    let Told::Events { events, compacted, .. } = &heard.told else { return Ok(()) };
    let Some(last) = events.last().map(revision_of) else { return Ok(()) };
    let due = heard.wish.due(history.model(), heard.upto, last);
    let is_same = |(sent, due): (&mvccpb::Event, &mvccpb::Event)| {
        sent.r#type == due.r#type && sent.kv == due.kv
    };
    let are_same =
        |due: &[mvccpb::Event]| events.len() == due.len() && events.iter().zip(due).all(is_same);
    if are_same(&due) || are_same(&without_replaced(&due, *compacted)) {
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

/// The events but for those up to `compacted` that another one of the same revision and key follows.
fn without_replaced(events: &[mvccpb::Event], compacted: i64) -> Vec<mvccpb::Event> {
    let name =
        |event: &mvccpb::Event| (revision_of(event), event.kv.clone().unwrap_or_default().key);
    let is_last = |(at, event): &(usize, &mvccpb::Event)| {
        revision_of(event) > compacted
            || !events[at + 1..].iter().any(|later| name(later) == name(event))
    };
    events.iter().enumerate().filter(is_last).map(|(_, event)| event.clone()).collect()
}

fn short(event: &mvccpb::Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let what = if event.r#type == 0 { "put" } else { "delete" };
    format!("{} {what} {:?} version {}", kv.mod_revision, kv.key, kv.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_replaced_within_a_compacted_revision_may_be_gone() {
        let event = |r#type, key: &'static str, mod_revision| mvccpb::Event {
            r#type,
            kv: Some(mvccpb::KeyValue { key: key.into(), mod_revision, ..Default::default() }),
            prev_kv: None,
        };
        let all = [event(1, "a", 4), event(0, "b", 4), event(0, "a", 4), event(0, "a", 5)];
        assert_eq!(without_replaced(&all, 3), all);
        assert_eq!(without_replaced(&all, 4), all[1..]);
        assert_eq!(without_replaced(&all, 9), all[1..], "each revision keeps its last");
    }
}
