//! What the owner publishes about itself for replies, health and metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::lease::LeaseCounts;

/// Counters and gauges written by the owner, read by everyone with relaxed loads.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each name says it; sizes are in bytes.
pub struct Status {
    pub cluster_id: AtomicU64,
    pub member_id: AtomicU64,
    pub term: AtomicU64,
    /// 0 while there is no leader.
    pub leader_id: AtomicU64,
    pub is_learner: AtomicBool,
    pub commit_index: AtomicU64,
    pub applied_index: AtomicU64,
    pub proposals_pending: AtomicU64,
    pub proposals_failed: AtomicU64,
    pub leader_changes: AtomicU64,
    /// Logical size with what compaction has yet to delete.
    pub db_size_bytes: AtomicI64,
    /// Logical size.
    pub db_size_in_use_bytes: AtomicI64,
    /// Size of the state store's file.
    pub db_file_bytes: AtomicI64,
    pub quota_bytes: AtomicI64,
    pub leases: LeaseStatus,
    /// This member leads and is the only voter: reads of the view are linearizable as they are.
    pub leads_alone: AtomicBool,
    /// The index is complete and reads of keys are served.
    pub ready: AtomicBool,
}

/// What was done to leases since the start.
#[derive(Debug, Default)]
#[allow(missing_docs)] // See `LeaseCounts`.
pub struct LeaseStatus {
    pub granted: AtomicU64,
    pub revoked: AtomicU64,
    pub renewed: AtomicU64,
    pub expired: AtomicU64,
}

impl LeaseStatus {
    /// Sets all of them.
    pub fn publish(&self, counts: &LeaseCounts) {
        self.granted.store(counts.granted, Ordering::Relaxed);
        self.revoked.store(counts.revoked, Ordering::Relaxed);
        self.renewed.store(counts.renewed, Ordering::Relaxed);
        self.expired.store(counts.expired, Ordering::Relaxed);
    }
}
