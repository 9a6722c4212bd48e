//! Single moments at which a watcher once went without its events, or lost its history for nothing.

use super::*;
use crate::mvcc::Revision;
use crate::view::STEP_KEYS_MAX;

const ALL: (u8, u8) = (0, 1);

impl World {
    /// A world with one stream.
    fn with_a_stream() -> Self {
        let mut world = Self::new();
        world.step(Step::Open);
        world
    }

    fn advance(&mut self) {
        while self.hub.advance(&self.view, &self.store).unwrap() {}
    }

    fn rest(&mut self) {
        while self.pull(0) {}
    }

    /// Others' events push everything before them out of the log.
    fn push_out(&mut self) {
        for _ in 0..10 {
            self.write(&[(1, false)]);
            self.advance();
        }
    }

    /// What was before revision 12 is compacted, and the window gives up what it has.
    fn forget_up_to_12(&mut self) {
        self.compact(12);
        self.step(Step::Evict(100));
    }

    fn is_woken(&self) -> bool {
        self.clients[0].woken.0.load(Ordering::Relaxed)
    }

    fn watch(&mut self, keys: KeyRange, start: i64) {
        self.create(0, (keys, start), Filter::default(), false);
    }

    fn seen(&self, watch_id: i64) -> &Seen {
        &self.clients[0].watchers[&watch_id]
    }

    fn mains(&self, watch_id: i64) -> Vec<i64> {
        self.seen(watch_id).events.iter().map(|(main, _)| *main).collect()
    }
}

#[test]
fn a_group_touched_by_an_incomplete_revision_is_woken_when_that_completes() {
    let mut world = World::with_a_stream();
    world.watch(KeyRange::single("big/0".into()), 0);
    world.rest();
    let put = |n| {
        let key = Bytes::from(format!("big/{n}"));
        Op::Put(Put { key, value: Some("v".into()), lease: Some(0), prev_kv: false })
    };
    // More rows than one step takes, the watched one among the first.
    let success = (0..STEP_KEYS_MAX * 3 / 2).map(put).collect();
    let txn = Txn { compares: Vec::new(), success, failure: Vec::new() };
    world.view.write().txn(&txn, &|_| true, &world.store).unwrap().unwrap();
    world.current += 1;

    assert!(world.hub.advance(&world.view, &world.store).unwrap(), "the revision has more rows");
    world.rest();
    assert!(world.mains(100).is_empty(), "half a revision is not sent");
    assert!(!world.is_woken());
    assert!(!world.hub.advance(&world.view, &world.store).unwrap());
    assert!(world.is_woken());
    world.rest();
    assert_eq!(world.mains(100), [2]);
}

#[test]
fn an_event_that_left_the_log_before_its_revision_was_complete_is_read_again() {
    let mut world = World::with_a_stream();
    world.watch(KeyRange::single("big/0".into()), 0);
    world.rest();
    // Each is a step of its own, and more than the log holds.
    let put = |n| {
        let (key, value) = (Bytes::from(format!("big/{n}")), Bytes::from(vec![b'v'; 700]));
        Op::Put(Put { key, value: Some(value), lease: Some(0), prev_kv: false })
    };
    let txn = Txn { compares: Vec::new(), success: (0..3).map(put).collect(), failure: Vec::new() };
    world.view.write().txn(&txn, &|_| true, &world.store).unwrap().unwrap();
    world.current += 1;
    world.advance();
    world.rest();
    assert_eq!(world.mains(100), [2]);
}

#[test]
fn a_quiet_watcher_is_not_taken_for_one_far_behind_when_its_event_comes_with_many() {
    let mut world = World::with_a_stream();
    world.watch(KeyRange::single(key(7)), 0);
    world.watch(KeyRange::single(key(1)), 0);
    world.rest();
    for _ in 0..10 {
        world.write(&[(1, false)]);
    }
    world.write(&[(7, false)]);
    for _ in 0..10 {
        world.write(&[(1, false)]);
    }
    // One look at all of it; the log keeps less, and so does the window.
    world.advance();
    world.forget_up_to_12();
    world.rest();
    assert_eq!((world.seen(100).compacted, world.mains(100)), (None, vec![12]));
}

#[test]
fn a_newcomer_that_wants_more_does_not_take_what_others_were_sent_from_them() {
    let mut world = World::with_a_stream();
    quiet_watcher(&mut world);
    world.advance();
    // Of the same keys on the same stream, from far back.
    world.watch(KeyRange::single(key(7)), 5);
    world.push_out();
    world.forget_up_to_12();
    world.rest();
    assert_eq!((world.seen(100).compacted, world.mains(100)), (None, vec![12]));
    assert_eq!(world.seen(102).compacted, Some(12));
}

#[test]
fn a_watcher_is_not_served_from_a_scan_that_began_behind_what_it_wants() {
    let mut world = World::with_a_stream();
    for _ in 0..6 {
        world.write(&[(1, false)]);
    }
    world.watch(range(ALL), 6);
    world.pull(0);
    assert!(world.clients[0].scan.is_some(), "the first is behind");
    world.watch(range(ALL), 2);
    world.rest();
    assert_eq!(world.mains(100), [6, 7]);
    assert_eq!(world.mains(101), [2, 3, 4, 5, 6, 7]);
}

/// Nothing concerned the first watcher for long; then one event does, and it is dropped from memory
/// before the client takes it. All that the client lacks is that one.
fn quiet_watcher(world: &mut World) {
    world.watch(KeyRange::single(key(7)), 0);
    world.watch(KeyRange::single(key(1)), 0);
    for _ in 0..10 {
        world.write(&[(1, false)]);
        world.advance();
        world.rest();
    }
    world.write(&[(7, false)]);
}

#[test]
fn a_quiet_watcher_whose_event_left_the_log_is_not_taken_for_one_far_behind() {
    let mut world = World::with_a_stream();
    quiet_watcher(&mut world);
    world.advance();
    world.push_out();
    world.forget_up_to_12();
    world.rest();
    assert_eq!((world.seen(100).compacted, world.mains(100)), (None, vec![12]));
}

#[test]
fn a_quiet_watcher_is_not_taken_for_one_far_behind_when_the_driver_is_late() {
    let mut world = World::with_a_stream();
    quiet_watcher(&mut world);
    for _ in 0..10 {
        world.write(&[(1, false)]);
    }
    // Among it what the hub has yet to see.
    world.forget_up_to_12();
    world.advance();
    world.rest();
    assert_eq!((world.seen(100).compacted, world.mains(100)), (None, vec![12]));
}

#[test]
fn a_put_that_made_its_key_is_sent_without_what_its_revision_deleted() {
    let mut world = World::with_a_stream();
    world.write(&[(1, false)]);
    let with_prev = Filter { prev_kv: true, ..Filter::default() };
    world.create(0, (range(ALL), 0), with_prev, false);
    let keys = KeyRange { start: key(0), end: RangeEnd::Unbounded };
    let put = Put { key: key(1), value: Some("v".into()), lease: Some(0), prev_kv: false };
    let success = vec![Op::DeleteRange(DeleteRange { keys, prev_kv: false }), Op::Put(put)];
    let txn = Txn { compares: Vec::new(), success, failure: Vec::new() };
    world.view.write().txn(&txn, &|_| true, &world.store).unwrap().unwrap();
    world.current += 1;
    // One is sent what happens, the other reads what happened.
    world.advance();
    world.create(0, (range(ALL), 3), with_prev, false);
    world.rest();
    for watch_id in [100, 101] {
        let [(_, deletion), (_, put)] = world.seen(watch_id).events.as_slice() else {
            panic!("a deletion and a put: {:?}", world.seen(watch_id));
        };
        assert_eq!((deletion.r#type, deletion.prev_kv.is_some()), (1, true));
        assert_eq!((put.r#type, &put.prev_kv), (0, &None));
    }
}

#[test]
fn the_header_of_history_says_no_revision_whose_events_are_still_to_come() {
    let mut world = World::with_a_stream();
    for _ in 0..12 {
        world.write(&[(1, false)]);
    }
    world.flush();
    world.step(Step::Evict(6));
    let (now, _) = world.view.revisions();
    world.watch(range(ALL), 2);
    let mut sent = Sent::new(HEAD);
    let waker = Waker::noop();
    let stream = world.clients[0].stream;
    let Pulled::Behind(mut scan) = world.hub.pull(stream, &mut sent, waker) else {
        panic!("it is behind")
    };
    assert!(scan.step(&world.hub, &world.view, &world.store).unwrap());
    let mut sent = Sent::new(HEAD);
    world.hub.pull(stream, &mut sent, waker);
    let mut bytes = sent.into_bytes();
    bytes.advance(5);
    let response = etcdserverpb::WatchResponse::decode(bytes).unwrap();
    let last = response.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
    assert!(last < now, "the store has only a part");
    assert_eq!(response.header.unwrap().revision, last);
}

#[test]
fn news_read_before_the_hub_moved_on_are_not_taken() {
    let mut world = World::with_a_stream();
    world.write(&[(1, false)]);
    world.step(Step::ReadNews);
    world.write(&[(1, false)]);
    // The first watcher: everything before it is done.
    world.watch(range(ALL), 0);
    world.step(Step::TakeNews);
    let at = {
        let inner = world.hub.lock();
        (inner.revision, inner.next)
    };
    assert_eq!(at, (3, Revision::new(4, 0)));
    world.write(&[(1, false)]);
    world.advance();
    world.rest();
    assert_eq!(world.mains(100), [4]);
}

#[test]
fn of_two_drivers_that_read_the_same_one_is_heard() {
    let mut world = World::with_a_stream();
    world.watch(range(ALL), 0);
    world.write(&[(1, false)]);
    world.step(Step::ReadNews);
    world.advance();
    world.step(Step::TakeNews);
    world.rest();
    assert_eq!(world.mains(100), [2]);
}
