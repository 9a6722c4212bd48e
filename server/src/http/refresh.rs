//! Numbers that the owner publishes, copied into the registry when they are asked for.

use std::sync::atomic::Ordering::Relaxed;

use crate::handle::Handle;
use crate::telemetry::{IntCounter, Metrics};

/// Copies status, members and alarms into `metrics`.
pub(super) fn refresh(metrics: &Metrics, handle: &Handle) {
    let (status, raft, space) = (handle.status(), &metrics.raft, &metrics.space);
    let member_id = status.member_id.load(Relaxed);
    let leader_id = status.raft.leader_id.load(Relaxed);
    raft.has_leader.set((leader_id != 0).into());
    raft.is_leader.set((leader_id != 0 && leader_id == member_id).into());
    raft.is_learner.set(status.raft.is_learner.load(Relaxed).into());
    raft.proposals_committed.set(gauge(status.raft.commit_index.load(Relaxed)));
    raft.proposals_applied.set(gauge(status.raft.applied_index.load(Relaxed)));
    raft.proposals_pending.set(gauge(status.raft.proposals_pending.load(Relaxed)));
    raise(&raft.proposals_failed, status.raft.proposals_failed.load(Relaxed));
    raise(&raft.leader_changes, status.raft.leader_changes.load(Relaxed));
    space.quota_bytes.set(status.space.quota_bytes.load(Relaxed));
    if member_id != 0 {
        raft.id.with_label_values(&[format!("{member_id:x}").as_str()]).set(1);
    }
    raft.known_peers.reset();
    for member in handle.members().iter() {
        let ids = [member_id, member.id].map(|id| format!("{id:x}"));
        raft.known_peers.with_label_values(&[ids[0].as_str(), ids[1].as_str()]).set(1);
    }
    let (lease, counts) = (&metrics.lease, &status.leases);
    raise(&lease.granted, counts.granted.load(Relaxed));
    raise(&lease.revoked, counts.revoked.load(Relaxed));
    raise(&lease.renewed, counts.renewed.load(Relaxed));
    raise(&lease.expired, counts.expired.load(Relaxed));
    space.alarms.reset();
    for alarm in handle.alarms().iter() {
        let member_id = format!("{:x}", alarm.member_id);
        space.alarms.with_label_values(&[member_id.as_str(), alarm.kind.name()]).set(1);
    }
    let mvcc = &metrics.mvcc;
    let own_bytes = handle.record_bytes();
    space.db_total_bytes.set(status.space.db_size_bytes.load(Relaxed) + own_bytes);
    space.db_in_use_bytes.set(status.space.db_size_in_use_bytes.load(Relaxed) + own_bytes);
    space.db_file_bytes.set(status.space.db_file_bytes.load(Relaxed));
    for (holds, left) in [("data", &status.room.data), ("log", &status.room.log)] {
        space.disk_free_bytes.with_label_values(&[holds]).set(left.free_bytes.load(Relaxed));
        space.disk_low_bytes.with_label_values(&[holds]).set(left.low_bytes.load(Relaxed));
    }
    metrics.own.raft_term.set(gauge(status.raft.term.load(Relaxed)));
    let ready = status.ready.load(Relaxed);
    metrics.own.ready.set(ready.into());
    if ready {
        let counts = handle.view().counts();
        raise(&mvcc.puts, counts.puts);
        raise(&mvcc.deletes, counts.deletes);
        raise(&mvcc.ranges, counts.ranges + mvcc.reads.ranges.load(Relaxed));
        raise(&mvcc.txns, counts.txns + mvcc.reads.txns.load(Relaxed));
        mvcc.put_bytes.set(gauge(counts.put_bytes));
        mvcc.keys.set(gauge(handle.view().key_count()));
        let watches = handle.watches().hub().counts();
        metrics.watch.streams.set(gauge(watches.streams));
        metrics.watch.watchers.set(gauge(watches.watchers));
        metrics.watch.slow_watchers.set(gauge(watches.behind));
        raise(&metrics.watch.events, watches.events);
        raise(&metrics.compaction.keys, counts.compacted_rows);
        raise(&metrics.own.value_reads, counts.value_reads);
        mvcc.current_revision.set(handle.view().current_revision());
        mvcc.compact_revision.set(handle.view().compact_revision());
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
