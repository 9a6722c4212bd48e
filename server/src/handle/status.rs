//! What the owner publishes about itself for replies, health and metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lease::LeaseCounts;
use crate::mvcc::Sizes;
use crate::replica::RaftState;

/// Counters and gauges written by the owner, read by everyone with relaxed loads.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each name says it.
pub struct Status {
    pub cluster_id: AtomicU64,
    pub member_id: AtomicU64,
    pub raft: RaftStatus,
    pub space: SpaceStatus,
    pub room: RoomStatus,
    pub leases: LeaseStatus,
    pub log_sync: LogSync,
    /// The index is complete and reads of keys are served.
    pub ready: AtomicBool,
}

/// Where this member stands in raft.
#[derive(Debug, Default)]
#[allow(missing_docs)] // See `RaftState`.
pub struct RaftStatus {
    pub term: AtomicU64,
    pub leader_id: AtomicU64,
    pub is_learner: AtomicBool,
    pub commit_index: AtomicU64,
    pub applied_index: AtomicU64,
    pub proposals_pending: AtomicU64,
    pub proposals_failed: AtomicU64,
    pub leader_changes: AtomicU64,
    /// The one that is read to decide something: stored with release, loaded with acquire.
    pub leads_alone: AtomicBool,
}

impl RaftStatus {
    /// Sets all of them. `leads_alone` comes first: a read must not take this member for the only
    /// leader too long.
    pub fn publish(&self, raft: &RaftState) {
        self.leads_alone.store(raft.leads_alone, Ordering::Release);
        self.term.store(raft.term, Ordering::Relaxed);
        self.leader_id.store(raft.leader_id, Ordering::Relaxed);
        self.commit_index.store(raft.commit_index, Ordering::Relaxed);
        self.applied_index.store(raft.applied_index, Ordering::Relaxed);
        self.proposals_pending.store(raft.proposals_pending, Ordering::Relaxed);
        self.proposals_failed.store(raft.proposals_failed, Ordering::Relaxed);
        self.leader_changes.store(raft.leader_changes, Ordering::Relaxed);
    }
}

/// How much there is, and how much there may be.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each name says it.
pub struct SpaceStatus {
    /// Logical size with what compaction has yet to delete.
    pub db_size_bytes: AtomicI64,
    /// Logical size.
    pub db_size_in_use_bytes: AtomicI64,
    /// Size of the state store's file.
    pub db_file_bytes: AtomicI64,
    pub quota_bytes: AtomicI64,
}

impl SpaceStatus {
    /// Sets the logical sizes.
    pub fn publish(&self, sizes: Sizes) {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.db_size_bytes.store(size(sizes.total_bytes), Ordering::Relaxed);
        self.db_size_in_use_bytes.store(size(sizes.in_use_bytes), Ordering::Relaxed);
    }
}

/// What is left on the file systems of this member.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each name says it.
pub struct RoomStatus {
    pub data: FileSystemStatus,
    /// The same as `data` unless the log is elsewhere.
    pub log: FileSystemStatus,
    /// The log found no room for its next segment when it last tried.
    pub log_is_short: AtomicBool,
}

/// What is left on one, in bytes.
#[derive(Debug, Default)]
pub struct FileSystemStatus {
    /// Free for this process.
    pub free_bytes: AtomicI64,
    /// Below this much writes that add are refused.
    pub low_bytes: AtomicI64,
}

impl FileSystemStatus {
    /// Sets both.
    pub fn publish(&self, free_bytes: u64, low_bytes: u64) {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.free_bytes.store(size(free_bytes), Ordering::Relaxed);
        self.low_bytes.store(size(low_bytes), Ordering::Relaxed);
    }
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

/// What the owner asked of the log's disk and has no answer to: a write or a sync. While it lasts nobody is
/// answered.
#[derive(Debug)]
pub struct LogSync {
    origin: Instant,
    /// When that was, in microseconds after `origin`, and one more; 0 while there is none.
    began_us: AtomicU64,
}

impl Default for LogSync {
    fn default() -> Self {
        Self { origin: Instant::now(), began_us: AtomicU64::new(0) }
    }
}

impl LogSync {
    /// Asks the disk by `work`, at `now`. Only the owner calls this. One that refused counts as one that did
    /// not answer: the process ends.
    pub fn during<T, E>(&self, now: Instant, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.begin(now);
        let done = work()?;
        self.end();
        Ok(done)
    }

    /// The disk is asked at `now`. Only the owner calls this.
    pub fn begin(&self, now: Instant) {
        self.began_us.store(self.since_origin_us(now).saturating_add(1), Ordering::Relaxed);
    }

    /// The disk has answered. Only the owner calls this.
    pub fn end(&self) {
        self.began_us.store(0, Ordering::Relaxed);
    }

    /// How long the disk has not answered at `now`; zero if nothing was asked of it.
    pub fn pending(&self, now: Instant) -> Duration {
        match self.began_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_micros(self.since_origin_us(now).saturating_sub(began - 1)),
        }
    }

    fn since_origin_us(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.origin);
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_pending_from_its_begin_to_its_end() {
        let sync = LogSync::default();
        let at = |seconds| sync.origin + Duration::from_secs(seconds);
        assert_eq!(sync.pending(at(9)), Duration::ZERO);
        for began in [0, 5] {
            sync.begin(at(began));
            assert_eq!(sync.pending(at(began)), Duration::ZERO);
            assert_eq!(sync.pending(at(12)), Duration::from_secs(12 - began));
            assert_eq!(sync.pending(sync.origin), Duration::ZERO, "a clock that was read before");
            sync.end();
            assert_eq!(sync.pending(at(13)), Duration::ZERO);
        }
    }
}
