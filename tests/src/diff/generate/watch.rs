//! Draws watches: from now on, from the past, compacted or not, and from the future.
//!
//! Left out is what etcd decides by the time that something takes, or keeps of what is over:
//!
//! - What a watcher is that ended by a compaction: etcd knows it until it is cancelled, and says only then
//!   how far the stream is. So it is cancelled at once, and whether that is answered is not compared.
//! - Progress from time to time (`progress_notify`): its first answer depends on the clock.

use bytes::Bytes;
use quorate_proto::etcdserverpb::WatchCreateRequest;

use super::Generator;
use crate::diff::operation::Operation;
use crate::diff::watches::PRESENT;

/// Names that a client chooses; those that a server gives begin with the same numbers.
const CHOSEN_MAX: i64 = 12;

impl Generator {
    pub(super) fn watch(&mut self) -> Operation {
        // The stream of those that begin in the future is the one behind the others.
        let stream = usize::try_from(self.rng.below(PRESENT as u64 + 1)).expect("a few streams");
        match self.rng.below(20) {
            0..9 => Operation::Watch(stream, self.created()),
            9..13 => Operation::CancelWatch(stream, self.rng.between(0, CHOSEN_MAX + 2)),
            13..16 => Operation::WatchProgress(stream),
            _ => Operation::CompareWatches,
        }
    }

    fn created(&mut self) -> WatchCreateRequest {
        let key = self.key();
        let range_end = self.range_end(&key);
        WatchCreateRequest {
            key,
            range_end: if self.rng.one_in(12) { Bytes::from_static(b"\0") } else { range_end },
            start_revision: self.start_revision(),
            watch_id: if self.rng.one_in(2) { self.rng.between(0, CHOSEN_MAX) } else { 0 },
            prev_kv: self.rng.one_in(2),
            fragment: self.rng.one_in(3),
            filters: match self.rng.below(10) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![1, 0, 7],
                _ => Vec::new(),
            },
            progress_notify: false,
        }
    }

    fn start_revision(&mut self) -> i64 {
        match self.rng.below(20) {
            0..7 => 0,
            7..10 => self.current - self.rng.between(0, 20).min(self.current - 1),
            10..14 => self.rng.between(self.compacted.max(1), self.current),
            14 => self.rng.between(1, self.compacted.max(1)),
            15 => self.rng.pick(&[-1, i64::MIN, 1]),
            16 => self.compacted.max(0),
            _ => self.current + self.rng.between(1, 40),
        }
    }
}
