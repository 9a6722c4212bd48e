//! What watches keep in memory, and how much is looked at for them.

use super::super::STEP_CONCERNS_MAX;
use super::super::deliver::PORTION_BYTES;
use super::super::stream::CONTROLS_MAX;
use super::super::stretch::{STRETCHES_BYTES_MAX, Stretch};
use super::*;
use crate::mvcc::Revision;

const LOG_BYTES_MAX: usize = 64 << 10;

impl World {
    /// A world with one stream, and a log that holds some hundred events.
    fn with_a_log() -> Self {
        let hub = Hub::new(1, FRAGMENT_BYTES, LOG_BYTES_MAX, 1);
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
        let mut world = Self { hub, view, ..Self::new() };
        world.step(Step::Open);
        world
    }

    fn watch_range(&mut self, start: impl Into<Bytes>, end: RangeEnd) {
        let range = KeyRange { start: start.into(), end };
        self.create(0, (range, 0), Filter::default(), false);
    }

    fn watch_from(&mut self, client: usize, start: i64) {
        let all = KeyRange { start: "k".into(), end: RangeEnd::Unbounded };
        self.create(client, (all, start), Filter::default(), false);
    }

    /// Events of key 0 or 1, as the hub sees them.
    fn happen(&mut self, n: u8, events: usize) {
        for _ in 0..events {
            self.write(&[(n, false)]);
            self.step(Step::Advance);
        }
    }

    fn trail_entries(&self) -> usize {
        self.hub.lock().groups.values().map(|group| group.trail.capacity()).sum()
    }
}

#[test]
fn what_groups_note_of_the_log_counts_in_its_bound() {
    let mut world = World::with_a_log();
    // All are concerned by key 0, and no two are the same.
    for n in 0..200 {
        world.watch_range("k", RangeEnd::Before(format!("k{n:03}x").into()));
    }
    world.happen(0, 300);
    // A deque has room for up to twice what is in it.
    assert!(world.trail_entries() * 8 <= LOG_BYTES_MAX, "{}", world.trail_entries());
}

#[test]
fn the_trail_of_a_quiet_group_keeps_nothing_that_left_the_log() {
    let mut world = World::with_a_log();
    world.watch_range("k0", RangeEnd::Single);
    world.happen(0, 300);
    let noted = world.trail_entries();
    world.watch_range("k1", RangeEnd::Single);
    world.happen(1, 1000);
    let inner = world.hub.lock();
    let quiet = inner.groups.values().next().unwrap();
    assert!(noted >= 200 && quiet.trail.capacity() <= 32, "{noted}, {}", quiet.trail.capacity());
    assert!(quiet.trail.newest().is_none());
    drop(inner);
    world.finish();
}

#[test]
fn a_step_ends_once_its_rows_concern_many_groups_also_within_a_revision() {
    let mut world = World::with_a_log();
    for n in 0..STEP_CONCERNS_MAX / 2 {
        world.watch_range("k", RangeEnd::Before(format!("k9{n:03}").into()));
    }
    (0..3).for_each(|_| world.write(&[(0, false)]));
    world.write(&[(0, false), (1, false), (2, false)]);
    let mut steps = Vec::new();
    loop {
        let has_more = world.hub.advance(&world.view, &world.store).unwrap();
        let inner = world.hub.lock();
        steps.push((inner.revision, inner.next));
        if !has_more {
            break;
        }
    }
    let at = |main, sub| Revision::new(main, sub).next();
    assert_eq!(steps, [(2, at(3, 0)), (4, at(5, 0)), (5, Revision::new(6, 0))]);
    world.finish();
}

#[test]
fn a_client_that_never_reads_is_owed_a_bounded_number_of_progress_notices() {
    const WATCHERS: usize = 50;
    let mut world = World::with_a_log();
    (0..WATCHERS).for_each(|_| world.watch_from(0, 0));
    let waiting = |world: &World| world.hub.lock().streams[&world.clients[0].stream].controls.len();
    (0..100).for_each(|_| world.step(Step::TellProgress(0)));
    assert!((CONTROLS_MAX..CONTROLS_MAX + WATCHERS).contains(&waiting(&world)));
    let read = |world: &mut World| {
        let portions = std::iter::from_fn(|| Some(pull_once(world, 0)).filter(|p| !p.is_empty()));
        portions.flatten().filter(|response| !response.created).count()
    };
    assert!(read(&mut world) + WATCHERS >= CONTROLS_MAX);
    world.step(Step::TellProgress(0));
    assert_eq!(read(&mut world), WATCHERS, "whoever reads again is told again");
}

/// Pulls the first client once, and runs a scan to its end; the responses.
fn pull_once(world: &mut World, index: usize) -> Vec<etcdserverpb::WatchResponse> {
    let stream = world.clients[index].stream;
    let mut sent = Sent::new(HEAD);
    match world.hub.pull(stream, &mut sent, Waker::noop()) {
        Pulled::Behind(mut scan) => {
            while !scan.step(&world.hub, &world.view, &world.store).unwrap() {}
        }
        Pulled::Idle | Pulled::More => {}
        Pulled::Closed => panic!("the stream is open"),
    }
    let mut bytes = sent.into_bytes();
    let mut responses = Vec::new();
    while bytes.has_remaining() {
        bytes.advance(1);
        let len = bytes.get_u32() as usize;
        responses.push(etcdserverpb::WatchResponse::decode(bytes.split_to(len)).unwrap());
    }
    responses
}

fn large(world: &mut World, value_bytes: usize) {
    let value = Some(vec![b'v'; value_bytes].into());
    let put = Op::Put(Put { key: key(1), value, lease: Some(0), prev_kv: false });
    let txn = Txn { compares: Vec::new(), success: vec![put], failure: Vec::new() };
    world.view.write().txn(&txn, &|_| true, &world.store).unwrap().unwrap();
    world.current += 1;
}

#[test]
fn history_is_sent_in_portions_whose_headers_name_what_was_sent() {
    let mut world = World::with_a_log();
    // Ten of them are a stretch, six a portion.
    (0..40).for_each(|_| large(&mut world, 10));
    world.watch_from(0, 2);
    let (mut mains, mut pulls) = (Vec::new(), 0);
    while mains.len() < 40 {
        pulls += 1;
        assert!(pulls < 200, "{mains:?}");
        for response in pull_once(&mut world, 0) {
            let Some(last) = response.events.last() else { continue };
            let last = last.kv.as_ref().unwrap().mod_revision;
            let header = response.header.unwrap().revision;
            assert!(response.encoded_len() <= 2 * PORTION_BYTES);
            assert!(response.events.len() <= 7, "{}", response.events.len());
            mains.extend(response.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision));
            assert_eq!(header, last);
        }
    }
    assert_eq!(mains, (2..42).collect::<Vec<_>>());
    assert_eq!(world.hub.lock().stretches.bytes(), 0, "dropped as soon as everybody has his part");
}

#[test]
fn clients_that_stop_reading_in_the_middle_of_history_keep_nothing_for_long() {
    let mut world = World::with_a_log();
    for _ in 0..100 {
        large(&mut world, 10);
    }
    for index in 0..60 {
        if index > 0 {
            world.step(Step::Open);
        }
        world.watch_from(index, 2);
        // One portion of a stretch is on its way, and no more is asked for.
        for _ in 0..3 {
            pull_once(&mut world, index);
        }
        let bytes = world.hub.lock().stretches.bytes();
        assert!(bytes <= STRETCHES_BYTES_MAX, "{bytes}");
    }
    assert!(world.hub.lock().stretches.bytes() > 0, "the newest are kept");
}

#[test]
fn whoever_is_pulled_after_its_scan_is_served_however_many_others_read_history() {
    let mut world = World::with_a_log();
    for _ in 0..30 {
        large(&mut world, 300);
    }
    for index in 0..20 {
        if index > 0 {
            world.step(Step::Open);
        }
        world.watch_from(index, 2);
    }
    let mut events = [0; 20];
    for _ in 0..100 {
        for (index, events) in events.iter_mut().enumerate() {
            for _ in 0..2 {
                let responses = pull_once(&mut world, index);
                *events += responses.iter().map(|response| response.events.len()).sum::<usize>();
            }
        }
    }
    assert_eq!(events, [30; 20]);
}

#[test]
fn a_stretch_is_not_taken_when_somebody_came_while_it_was_read() {
    let mut world = World::with_a_log();
    world.write(&[(1, false), (2, false)]);
    world.watch_from(0, 2);
    assert_eq!(pull_once(&mut world, 0).len(), 1, "created");
    let inner = world.hub.lock();
    assert!(inner.stretches.contains(world.clients[0].stream));
    drop(inner);
    let before = world.hub.lock().streams[&world.clients[0].stream].added;
    world.watch_range("k2", RangeEnd::Single);
    let mut inner = world.hub.lock();
    let stream = world.clients[0].stream;
    inner.stretches.remove(stream);
    let (events, groups) = (Vec::new(), BTreeMap::new());
    let stretch = Stretch { from: 2, upto: 2, added: before, events, groups };
    inner.absorb(stream, stretch);
    assert!(!inner.stretches.contains(stream));
}

#[test]
fn of_many_watchers_only_those_are_looked_at_whom_an_event_concerns() {
    const MANY: usize = 2000;
    let mut world = World::with_a_log();
    world.write(&[(0, false), (1, false)]);
    let watch = |world: &World, n: usize, start_revision| {
        let range = KeyRange::single(format!("k{}", n % (MANY / 2)).into());
        let filter = Filter::default();
        let interest = Interest {
            range,
            start_revision,
            watch_id: 0,
            filter,
            progress_notify: false,
            fragment: false,
        };
        world.hub.create(world.clients[0].stream, interest, &world.view).unwrap();
    };
    // Two of each key; two keys of eight are written.
    (0..MANY).for_each(|n| watch(&world, n, 2));
    let serve = |world: &mut World| {
        world.hub.lock().visits.set(0);
        let mut events = 0;
        for _ in 0..20 * MANY {
            let responses = pull_once(world, 0);
            events += responses.iter().map(|response| response.events.len()).sum::<usize>();
        }
        (events, world.hub.lock().visits.get())
    };
    let (events, visits) = serve(&mut world);
    assert_eq!(events, 4);
    assert!(visits <= 2 * MANY as u64, "one cursor is moved at a time: {visits}");
    world.write(&[(0, false), (1, false)]);
    world.step(Step::Advance);
    assert_eq!(serve(&mut world), (4, 4));

    // All of one group, with a portion for every second.
    (0..MANY).for_each(|_| watch(&world, 3, 0));
    serve(&mut world);
    world.write(&[(3, false)]);
    world.step(Step::Advance);
    assert_eq!(serve(&mut world), (MANY + 2, MANY as u64 + 2));
}
