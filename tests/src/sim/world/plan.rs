//! The sizes of one run: everything shrunk, so that few requests meet every mechanism.

use quorate_server::replica::{AutoCompaction, FlushLimits};

use crate::sim::rng::Rng;
use crate::sim::workload::Shape;

/// How a run is set up.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) clients: usize,
    /// Keys or rows that one step of anything looks at.
    pub(super) step: usize,
    pub(super) member: MemberPlan,
    /// So many requests of a hundred are about leases.
    pub(super) lease_percent: u64,
    /// One in so many requests gives space back.
    pub(super) defragment_one_in: u64,
    /// And surely so after this many.
    pub(super) defragment_at: Option<u64>,
}

/// How the member of a run is set up.
#[derive(Clone, Debug)]
pub(super) struct MemberPlan {
    pub(super) seed: u64,
    pub(super) store: StorePlan,
    pub(super) window_bytes: u64,
    pub(super) flush: FlushLimits,
    pub(super) catchup_entries: u64,
    pub(super) fragment_bytes: usize,
    pub(super) watch_log_bytes: usize,
    pub(super) quota_bytes: Option<u64>,
    pub(super) auto_compaction: AutoCompaction,
    /// How often what is left of leases is written down.
    pub(super) lease_checkpoint_ms: Option<u64>,
}

/// How its storage is set up.
#[derive(Clone, Debug)]
pub(super) struct StorePlan {
    pub(super) segment_bytes: u64,
    pub(super) segments_max: usize,
    pub(super) cache_bytes: usize,
    pub(super) checkpoint_bytes: u64,
    pub(super) reserve_bytes: u64,
}

impl Plan {
    /// Draws a plan.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let keys = *rng.pick(&[4, 12, 40]);
        let weights = [25, 40, 12, 25, *rng.pick(&[2, 6]), 4];
        Self {
            shape: Shape {
                keys,
                value_bytes_max: *rng.pick(&[40, 300]),
                txn_depth_max: 2,
                weights,
            },
            clients: *rng.pick(&[1, 3, 6]),
            step: *rng.pick(&[2, 5, 20]),
            member: MemberPlan::draw(rng),
            lease_percent: *rng.pick(&[0, 10, 25]),
            defragment_one_in: 60,
            defragment_at: None,
        }
    }

    /// The plan of the workload whose every disk operation is cut: small, and the same for ever.
    pub(super) fn of_cuts(rng: &mut Rng) -> Self {
        let weights = [10, 50, 12, 20, 10, 2];
        let member = MemberPlan {
            store: StorePlan {
                segment_bytes: 4 << 10,
                segments_max: 2,
                checkpoint_bytes: 3000,
                ..StorePlan::draw(rng)
            },
            window_bytes: 1000,
            flush: FlushLimits {
                batch_bytes: 1500,
                log_bytes: 64 << 20,
                interval_ticks: 10,
                unflushed_bytes_max: 3000,
            },
            catchup_entries: 5,
            quota_bytes: None,
            auto_compaction: AutoCompaction::Off,
            lease_checkpoint_ms: Some(2000),
            ..MemberPlan::draw(rng)
        };
        Self {
            shape: Shape { keys: 8, value_bytes_max: 200, txn_depth_max: 1, weights },
            clients: 2,
            step: 5,
            member,
            lease_percent: 12,
            defragment_one_in: 1000,
            defragment_at: Some(60),
        }
    }
}

impl MemberPlan {
    fn draw(rng: &mut Rng) -> Self {
        let batch_bytes = *rng.pick(&[500, 2000, 8000]);
        Self {
            seed: rng.next_u64(),
            store: StorePlan::draw(rng),
            window_bytes: *rng.pick(&[0, 2000, 20_000]),
            flush: FlushLimits {
                batch_bytes,
                log_bytes: *rng.pick(&[4000, 64 << 20]),
                interval_ticks: *rng.pick(&[2, 10, 40]),
                unflushed_bytes_max: batch_bytes * 2,
            },
            catchup_entries: *rng.pick(&[0, 10, 5000]),
            fragment_bytes: *rng.pick(&[100, 600, 1 << 20]),
            watch_log_bytes: *rng.pick(&[400, 3000, 1 << 20]),
            quota_bytes: rng.one_in(4).then_some(30_000),
            auto_compaction: match rng.below(6) {
                0 => AutoCompaction::Revision { retention: 15, interval_ticks: 8 },
                1 => AutoCompaction::Periodic { retention_ticks: 20, hour_ticks: 1000 },
                _ => AutoCompaction::Off,
            },
            lease_checkpoint_ms: *rng.pick(&[None, Some(2000), Some(5000)]),
        }
    }
}

impl StorePlan {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            segment_bytes: *rng.pick(&[4 << 10, 8 << 10, 64 << 10]),
            segments_max: *rng.pick(&[1, 2, 5]),
            cache_bytes: *rng.pick(&[4 << 10, 1 << 20]),
            checkpoint_bytes: *rng.pick(&[2000, 10_000, 1 << 20]),
            reserve_bytes: 64 << 10,
        }
    }
}
