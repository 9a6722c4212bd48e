//! Compaction by the clock, and who waits for one to be finished.

use super::event::{Effect, Reply, RequestId};

/// When history is compacted without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep this many ticks of history.
    Periodic {
        /// How far back history stays readable.
        retention_ticks: u64,
        /// Ticks in an hour, the longest interval between two compactions.
        hour_ticks: u64,
    },
    /// Keep this many revisions, looked at every `interval_ticks`.
    Revision {
        /// How many revisions stay readable.
        retention: i64,
        /// Ticks between two compactions; etcd's is five minutes.
        interval_ticks: u64,
    },
}

/// Proposes compactions as etcd's compactor does, counted in ticks.
pub(super) struct AutoCompactor {
    mode: AutoCompaction,
    next_tick: u64,
    /// Revisions at past samples, oldest first (periodic mode).
    samples: std::collections::VecDeque<i64>,
    last_success_tick: u64,
    compacted_once: bool,
    last_revision: i64,
}

/// Samples per interval; etcd's `retryDivisor`.
const SAMPLES_PER_INTERVAL: u64 = 10;

impl AutoCompactor {
    pub(super) fn new(mode: AutoCompaction) -> Self {
        Self {
            mode,
            next_tick: 0,
            samples: std::collections::VecDeque::new(),
            last_success_tick: 0,
            compacted_once: false,
            last_revision: 0,
        }
    }

    /// The revision to compact now, if it is time and this member leads. One that does not looks at the
    /// revision all the same, as in etcd: should it lead tomorrow, it knows what was there today.
    pub(super) fn tick(
        &mut self,
        now_tick: u64,
        current_revision: i64,
        leads: bool,
    ) -> Option<i64> {
        if now_tick < self.next_tick {
            return None;
        }
        let revision = match self.mode {
            AutoCompaction::Off => return None,
            AutoCompaction::Revision { retention, interval_ticks } => {
                let first = self.next_tick == 0;
                self.next_tick = now_tick + interval_ticks;
                if first {
                    return None;
                }
                current_revision - retention
            }
            AutoCompaction::Periodic { retention_ticks, hour_ticks } => {
                let interval = retention_ticks.min(hour_ticks).max(1);
                self.sample(now_tick, (interval, retention_ticks), current_revision)?
            }
        };
        if !leads || revision <= 0 || revision == self.last_revision {
            return None;
        }
        self.last_revision = revision;
        self.last_success_tick = now_tick;
        self.compacted_once = true;
        Some(revision)
    }

    /// Periodic mode: remembers the current revision, and names the one of a retention ago.
    fn sample(
        &mut self,
        now_tick: u64,
        (interval, retention): (u64, u64),
        current_revision: i64,
    ) -> Option<i64> {
        let every = (interval / SAMPLES_PER_INTERVAL).max(1);
        let kept = usize::try_from(retention / every).unwrap_or(usize::MAX).saturating_add(1);
        let oldest = self.samples.front().copied();
        self.samples.push_back(current_revision);
        if self.samples.len() > kept {
            self.samples.pop_front();
        }
        self.next_tick = now_tick + every;
        let wait = if self.compacted_once { interval } else { retention };
        if now_tick.saturating_sub(self.last_success_tick) < wait {
            return None;
        }
        oldest
    }
}

/// The most requests that wait for compactions: they may have to as long as a reader needs what is to be
/// deleted, and whoever gave up still counts.
const WAITS_MAX: usize = 1000;

/// Requests that wait until a compaction's deletions are durable.
#[derive(Default)]
pub(super) struct CompactionWaits(Vec<(i64, RequestId)>);

impl CompactionWaits {
    /// Adds a request, unless too many wait.
    pub(super) fn add(&mut self, revision: i64, id: RequestId) -> bool {
        let has_room = self.0.len() < WAITS_MAX;
        if has_room {
            self.0.push((revision, id));
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn release(&mut self, finished: i64, effects: &mut Vec<Effect>) {
        self.0.retain(|&(revision, id)| {
            if revision <= finished {
                effects.push(Effect::Reply { id, reply: Reply::CompactionFinished });
            }
            revision > finished
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a compactor over `ticks`, with one new revision per tick.
    fn run(mode: AutoCompaction, ticks: u64) -> Vec<(u64, i64)> {
        run_leading_from(0, mode, ticks)
    }

    fn run_leading_from(first: u64, mode: AutoCompaction, ticks: u64) -> Vec<(u64, i64)> {
        let mut compactor = AutoCompactor::new(mode);
        (0..=ticks)
            .filter_map(|tick| {
                let current = i64::try_from(tick).unwrap() + 1;
                compactor.tick(tick, current, tick >= first).map(|revision| (tick, revision))
            })
            .collect()
    }

    #[test]
    fn who_begins_to_lead_compacts_what_it_saw_a_retention_ago() {
        let mode = AutoCompaction::Periodic { retention_ticks: 100, hour_ticks: 36_000 };
        let compactions = run_leading_from(250, mode, 260);
        let [(tick, revision)] = compactions[..] else { panic!("{compactions:?}") };
        let age = i64::try_from(tick).unwrap() + 1 - revision;
        assert_eq!(tick, 250);
        assert!((100..=120).contains(&age), "compacted {age} ticks back");
        let mode = AutoCompaction::Revision { retention: 50, interval_ticks: 30 };
        assert_eq!(run_leading_from(61, mode, 100), [(90, 41)]);
    }

    #[test]
    fn periodic_compaction_keeps_the_retention_readable() {
        let mode = AutoCompaction::Periodic { retention_ticks: 100, hour_ticks: 36_000 };
        let compactions = run(mode, 400);
        assert_eq!(compactions.first().map(|&(tick, _)| tick), Some(100));
        assert!(compactions.len() >= 3, "{compactions:?}");
        for (tick, revision) in compactions {
            let age = i64::try_from(tick).unwrap() + 1 - revision;
            assert!((100..=120).contains(&age), "compacted {age} ticks back");
        }
    }

    #[test]
    fn a_long_retention_is_compacted_every_hour() {
        let mode = AutoCompaction::Periodic { retention_ticks: 300, hour_ticks: 100 };
        let compactions = run(mode, 1000);
        let ticks: Vec<u64> = compactions.iter().map(|&(tick, _)| tick).collect();
        assert_eq!(ticks[0], 300);
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 100), "{ticks:?}");
    }

    #[test]
    fn revision_compaction_keeps_that_many_revisions() {
        let mode = AutoCompaction::Revision { retention: 50, interval_ticks: 30 };
        assert_eq!(run(mode, 100), [(60, 11), (90, 41)]);
        assert_eq!(run(AutoCompaction::Off, 100), []);
    }
}
