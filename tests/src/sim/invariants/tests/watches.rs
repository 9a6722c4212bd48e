//! What is wrong with a watch, and who finds it.

use quorate_proto::mvccpb;

use super::{broken, put, referee_after, state_after};
use crate::sim::history::Event;
use crate::sim::invariants::{Referee, Violation};
use crate::sim::watching::{Told, Wish};

const WATCHER: u64 = 7;

/// A watcher of `a` with previous versions, from revision 2 on, while `a` is put at 2 and 4, and
/// something else at 3 and 5.
fn referee() -> Referee {
    let requests = [put("a", "1"), put("b", "1"), put("a", "2"), put("b", "2")];
    let mut referee = referee_after(&requests.iter().collect::<Vec<_>>());
    let wish = Wish { key: "a".into(), prev_kv: true, ..Wish::default() };
    tell(&mut referee, Told::Created { wish, from: 2, revision: 1 }).unwrap();
    referee
}

fn tell(referee: &mut Referee, told: Told) -> Result<(), Violation> {
    referee.observe(&Event::Watched { watcher: WATCHER, told: &told })
}

fn event(referee: &Referee, revision: i64) -> mvccpb::Event {
    let model = referee.history().model();
    mvccpb::Event {
        kv: model.at(b"a", revision).cloned(),
        prev_kv: model.at(b"a", revision - 1).cloned(),
        ..mvccpb::Event::default()
    }
}

fn events(referee: &Referee, revisions: &[i64], header: i64) -> Told {
    let events = revisions.iter().map(|revision| event(referee, *revision)).collect();
    Told::Events { revision: header, events, compacted: 0 }
}

fn wrong(mut referee: Referee, told: Told) -> &'static str {
    broken(&mut referee, Event::Watched { watcher: WATCHER, told: &told })
}

#[test]
fn a_right_watch_passes_through_restarts() {
    let mut all = referee();
    let told = events(&all, &[2], 3);
    tell(&mut all, told).unwrap();
    let wish = Wish { key: "a".into(), prev_kv: true, ..Wish::default() };
    tell(&mut all, Told::Created { wish, from: 3, revision: 4 }).unwrap();
    let told = events(&all, &[4], 4);
    tell(&mut all, told).unwrap();
    tell(&mut all, Told::Progress { revision: 5 }).unwrap();
    tell(&mut all, Told::Rest { revision: 5, answered: Some(Some(5)) }).unwrap();
}

#[test]
fn an_event_that_is_missing_or_comes_twice_is_found() {
    let all = referee();
    let told = events(&all, &[4], 4);
    assert_eq!(wrong(all, told), "watches equal the history");
    let mut all = referee();
    let told = events(&all, &[2], 2);
    tell(&mut all, told.clone()).unwrap();
    assert_eq!(wrong(all, told), "watches equal the history");
}

#[test]
fn a_promise_of_what_is_still_to_come_is_found() {
    let all = referee();
    let told = events(&all, &[2], 4);
    assert_eq!(wrong(all, told), "watch headers are true");
    assert_eq!(wrong(referee(), Told::Progress { revision: 2 }), "progress is true");
}

#[test]
fn a_stream_that_sleeps_too_early_or_does_not_answer_is_found() {
    let rest = |answered| Told::Rest { revision: 5, answered };
    assert_eq!(wrong(referee(), rest(None)), "idle watches are woken");
    let mut all = referee();
    let told = events(&all, &[2, 4], 4);
    tell(&mut all, told).unwrap();
    assert_eq!(wrong(all, rest(Some(None))), "idle watches are woken");
}

#[test]
fn a_wrong_or_missing_previous_version_is_found() {
    let all = referee();
    let mut last = event(&all, 4);
    last.prev_kv = None;
    let told = |last, compacted| {
        let events = vec![event(&referee(), 2), last];
        Told::Events { revision: 4, events, compacted }
    };
    assert_eq!(wrong(all, told(last.clone(), 3)), "previous versions are exact");
    tell(&mut referee(), told(last.clone(), 4)).expect("it was compacted");
    last.prev_kv = last.kv.clone();
    assert_eq!(wrong(referee(), told(last, 4)), "previous versions are exact");
}

#[test]
fn an_end_without_a_loss_is_found() {
    const NAME: &str = "watches end only at lost history";
    assert_eq!(wrong(referee(), Told::Compacted { compacted: 2 }), NAME);
    tell(&mut referee(), Told::Compacted { compacted: 3 }).expect("revision 2 is compacted");
    // It had everything, and nothing has happened to its key since.
    let mut all = referee();
    let told = events(&all, &[2, 4], 4);
    tell(&mut all, told).unwrap();
    tell(&mut all, Told::Progress { revision: 4 }).unwrap();
    let write = put("b", "3");
    all.observe(&Event::Begun { op: 99, request: &write }).unwrap();
    let reply = all.history().model().clone().call(&write).unwrap();
    all.observe(&Event::Replied { op: 99, reply: &reply }).unwrap();
    assert_eq!(wrong(all, Told::Compacted { compacted: 6 }), NAME);
}

#[test]
fn a_revision_that_was_seen_and_is_gone_is_found() {
    let mut all = referee();
    tell(&mut all, Told::Progress { revision: 6 }).expect("the model has yet to come to it");
    let requests = [put("a", "1"), put("b", "1"), put("a", "2"), put("b", "2")];
    let state = state_after(&requests.iter().collect::<Vec<_>>());
    assert_eq!(broken(&mut all, Event::Inspected { state: &state }), "watched is recovered");
}
