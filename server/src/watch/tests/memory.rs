//! What watches keep in memory, and how much is looked at for them.

use super::*;

const LOG_BYTES_MAX: usize = 64 << 10;

impl World {
    /// A world with one stream, and a log that holds some hundred events.
    fn with_a_log() -> Self {
        let hub = Hub::new(1, FRAGMENT_BYTES, LOG_BYTES_MAX);
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
        let mut world = Self { hub, view, ..Self::new() };
        world.step(Step::Open);
        world
    }

    fn watch_range(&mut self, start: impl Into<Bytes>, end: RangeEnd) {
        let range = KeyRange { start: start.into(), end };
        self.create(0, (range, 0), Filter::default(), false);
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
    world.finish();
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
