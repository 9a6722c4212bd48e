//! Every number that the member counts, under etcd's names where the meaning is etcd's.

use std::sync::atomic::AtomicU64;

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::{Family, GrpcMetrics, MethodKind, process};

/// The registry, and the numbers by room.
pub struct Metrics {
    registry: Registry,
    /// Per gRPC method.
    pub grpc: GrpcMetrics,
    /// Log and state store.
    pub disk: DiskMetrics,
    /// How much there is, and how much there may be.
    pub space: SpaceMetrics,
    /// Keys and revisions.
    pub mvcc: MvccMetrics,
    /// Watches.
    pub watch: WatchMetrics,
    /// Compactions of keys.
    pub compaction: CompactionMetrics,
    /// Leases.
    pub lease: LeaseMetrics,
    /// Leader and log.
    pub raft: RaftMetrics,
    /// Entries into state.
    pub apply: ApplyMetrics,
    /// Requests on their way.
    pub requests: RequestMetrics,
    /// Health checks.
    pub health: HealthMetrics,
    /// What etcd has no name for.
    pub own: OwnMetrics,
}

/// Log and state store.
#[allow(missing_docs)] // The help texts say it.
pub struct DiskMetrics {
    pub wal_fsync_seconds: Histogram,
    pub wal_write_seconds: Histogram,
    pub wal_write_bytes: IntGauge,
    pub commit_seconds: Histogram,
    pub snapshot_seconds: Histogram,
    pub defrag_seconds: Histogram,
    pub defrag_inflight: IntGauge,
}

/// How much there is, and how much there may be.
#[allow(missing_docs)] // The help texts say it.
pub struct SpaceMetrics {
    pub db_total_bytes: IntGauge,
    pub db_in_use_bytes: IntGauge,
    pub db_file_bytes: IntGauge,
    pub disk_free_bytes: IntGaugeVec,
    pub disk_low_bytes: IntGaugeVec,
    pub quota_bytes: IntGauge,
    pub alarms: IntGaugeVec,
}

/// Keys and revisions.
#[allow(missing_docs)] // The help texts say it.
pub struct MvccMetrics {
    pub ranges: IntCounter,
    /// Those beside the owner.
    pub reads: ReadCounts,
    pub puts: IntCounter,
    pub deletes: IntCounter,
    pub txns: IntCounter,
    pub put_bytes: IntGauge,
    pub keys: IntGauge,
    pub current_revision: IntGauge,
    pub compact_revision: IntGauge,
    pub hash_seconds: Histogram,
    pub hash_revision_seconds: Histogram,
}

/// What was read beside the owner; the ranges and transactions of [`MvccMetrics`] are these and those
/// that were applied.
#[derive(Debug, Default)]
#[allow(missing_docs)] // The names say it.
pub struct ReadCounts {
    pub ranges: AtomicU64,
    /// Those of more than one range.
    pub txns: AtomicU64,
}

/// Watches.
#[allow(missing_docs)] // The help texts say it.
pub struct WatchMetrics {
    pub streams: IntGauge,
    pub watchers: IntGauge,
    pub slow_watchers: IntGauge,
    pub events: IntCounter,
}

/// Compactions of keys.
#[allow(missing_docs)] // The help texts say it.
pub struct CompactionMetrics {
    pub keys: IntCounter,
    pub total_ms: Histogram,
    pub last: Gauge,
}

/// Leases.
#[allow(missing_docs)] // The help texts say it.
pub struct LeaseMetrics {
    pub granted: IntCounter,
    pub revoked: IntCounter,
    pub renewed: IntCounter,
    pub expired: IntCounter,
    pub ttl_seconds: Histogram,
}

/// Leader and log.
#[allow(missing_docs)] // The help texts say it.
pub struct RaftMetrics {
    pub has_leader: IntGauge,
    pub is_leader: IntGauge,
    pub is_learner: IntGauge,
    pub leader_changes: IntCounter,
    pub proposals_committed: IntGauge,
    pub proposals_applied: IntGauge,
    pub proposals_pending: IntGauge,
    pub proposals_failed: IntCounter,
    pub snapshot_installs: IntGauge,
    pub id: IntGaugeVec,
    pub known_peers: IntGaugeVec,
}

/// Entries into state.
#[allow(missing_docs)] // The help texts say it.
pub struct ApplyMetrics {
    pub seconds: HistogramVec,
    pub slow: IntCounter,
}

/// Requests on their way.
#[allow(missing_docs)] // The help texts say it.
pub struct RequestMetrics {
    pub range_seconds: HistogramVec,
    pub request_seconds: HistogramVec,
    pub clients: IntCounterVec,
    pub reads_slow: IntCounter,
    pub reads_failed: IntCounter,
}

/// Health checks.
#[allow(missing_docs)] // The help texts say it.
pub struct HealthMetrics {
    pub success: IntCounter,
    pub failures: IntCounter,
    pub result: IntGaugeVec,
    pub checks: IntCounterVec,
}

/// What etcd has no name for.
#[allow(missing_docs)] // The help texts say it.
pub struct OwnMetrics {
    pub ready: IntGauge,
    pub raft_term: IntGauge,
    pub value_reads: IntCounter,
    pub connections: IntGauge,
    pub log_sync_stalled_seconds: Gauge,
    pub index_lock_wait_seconds_max: Gauge,
    pub index_lock_hold_seconds_max: Gauge,
}

impl Metrics {
    /// Registers everything at zero. `methods` are those of the API; see [`GrpcMetrics::new`].
    pub fn new(methods: &[(&str, &str, MethodKind)], extensive: bool) -> Self {
        let registry = Registry::new();
        register_constants(&registry);
        Self {
            grpc: GrpcMetrics::new(&registry, methods, extensive),
            disk: DiskMetrics::new(&registry),
            space: SpaceMetrics::new(&registry),
            mvcc: MvccMetrics::new(&registry),
            watch: WatchMetrics::new(&registry),
            compaction: CompactionMetrics::new(&registry),
            lease: LeaseMetrics::new(&registry),
            raft: RaftMetrics::new(&registry),
            apply: ApplyMetrics::new(&registry),
            requests: RequestMetrics::new(&registry),
            health: HealthMetrics::new(&registry),
            own: OwnMetrics::new(&registry),
            registry,
        }
    }

    /// For rooms that bring metrics of their own, through [`Family`].
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Says once which versions run: etcd's, the cluster's and ours.
    pub fn set_versions(&self, etcd: &str, cluster: &str, own: &str) {
        let server = Family::new(&self.registry, "etcd_");
        let version = server.gauges(
            "server_version",
            "1 for the version of etcd whose behaviour this is.",
            &["server_version"],
        );
        version.with_label_values(&[etcd]).set(1);
        let version = server.gauges(
            "cluster_version",
            "1 for the version of the cluster.",
            &["cluster_version"],
        );
        let minor = cluster.rsplit_once('.').map_or(cluster, |(minor, _)| minor);
        version.with_label_values(&[minor]).set(1);
        let build = Family::new(&self.registry, "quorate_").gauges(
            "build_info",
            "1 for the version of Quorate.",
            &["version"],
        );
        build.with_label_values(&[own]).set(1);
    }

    /// Says once which features are on: name, stage as etcd has it, and whether.
    pub fn set_features(&self, features: &[(&str, &str, bool)]) {
        let server = Family::new(&self.registry, "etcd_server_");
        let about = "1 for a feature that is on, 0 for one that is off.";
        let enabled = server.gauges("feature_enabled", about, &["name", "stage"]);
        for (name, stage, on) in features {
            enabled.with_label_values(&[*name, *stage]).set((*on).into());
        }
    }

    /// All numbers in Prometheus' text format, sorted by name, and those of the process.
    pub fn text(&self) -> String {
        let mut text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default();
        process::append(&mut text);
        text
    }
}

/// Registers what etcd counts and a lone member without users never changes.
fn register_constants(registry: &Registry) {
    let server = Family::new(registry, "etcd_server_");
    server.counter("heartbeat_send_failures_total", "Heartbeats that a slow leader sent too late.");
    server.counter("learner_promote_successes", "Learners that became voters.");
    let debug = Family::new(registry, "etcd_debugging_");
    debug.gauge("auth_revision", "The revision of users and roles.").set(1);
}

impl DiskMetrics {
    fn new(registry: &Registry) -> Self {
        let disk = Family::new(registry, "etcd_disk_");
        Self {
            wal_fsync_seconds: disk.histogram(
                "wal_fsync_duration_seconds",
                "Time to sync the log, in seconds.",
                0.001,
                14,
            ),
            wal_write_seconds: disk.histogram(
                "wal_write_duration_seconds",
                "Time to write to the log, in seconds.",
                0.001,
                14,
            ),
            wal_write_bytes: disk.gauge("wal_write_bytes_total", "Bytes written to the log."),
            commit_seconds: disk.histogram(
                "backend_commit_duration_seconds",
                "Time to commit a flush to the state store, in seconds.",
                0.001,
                14,
            ),
            snapshot_seconds: disk.histogram(
                "backend_snapshot_duration_seconds",
                "Time to send a snapshot to a client, in seconds.",
                0.01,
                17,
            ),
            defrag_seconds: disk.histogram(
                "backend_defrag_duration_seconds",
                "Time to give space of the state store back, in seconds.",
                0.1,
                13,
            ),
            defrag_inflight: disk.gauge("defrag_inflight", "1 while space is being given back."),
        }
    }
}

impl SpaceMetrics {
    fn new(registry: &Registry) -> Self {
        let mvcc = Family::new(registry, "etcd_mvcc_");
        let server = Family::new(registry, "etcd_server_");
        let debug = Family::new(registry, "etcd_debugging_server_");
        let own = Family::new(registry, "quorate_");
        Self {
            db_total_bytes: mvcc.gauge("db_total_size_in_bytes", "Size of the data, in bytes."),
            db_in_use_bytes: mvcc.gauge(
                "db_total_size_in_use_in_bytes",
                "Size of the data without what is compacted, in bytes.",
            ),
            db_file_bytes: own.gauge("state_store_file_bytes", "Size of the state store's file."),
            disk_free_bytes: own.gauges("disk_free_bytes", "Free on the file system.", &["holds"]),
            disk_low_bytes: own.gauges(
                "disk_low_bytes",
                "NOSPACE is raised when less than this is free on the file system.",
                &["holds"],
            ),
            quota_bytes: server.gauge("quota_backend_bytes", "The quota, in bytes."),
            alarms: debug.gauges("alarms", "1 for a raised alarm.", &["server_id", "alarm_type"]),
        }
    }
}

impl MvccMetrics {
    fn new(registry: &Registry) -> Self {
        let mvcc = Family::new(registry, "etcd_mvcc_");
        let debug = Family::new(registry, "etcd_debugging_mvcc_");
        Self {
            ranges: mvcc.counter("range_total", "Ranges read on this member."),
            reads: ReadCounts::default(),
            puts: mvcc.counter("put_total", "Puts applied on this member."),
            deletes: mvcc.counter("delete_total", "Deletions applied on this member."),
            txns: mvcc.counter(
                "txn_total",
                "Reads and changes of more than one operation on this member.",
            ),
            put_bytes: debug
                .gauge("total_put_size_in_bytes", "Bytes of keys and values put on this member."),
            keys: debug.gauge("keys_total", "Keys."),
            current_revision: debug.gauge("current_revision", "The current revision."),
            compact_revision: debug.gauge("compact_revision", "The compacted revision."),
            hash_seconds: mvcc.histogram(
                "hash_duration_seconds",
                "Time to hash the state store, in seconds.",
                0.01,
                15,
            ),
            hash_revision_seconds: mvcc.histogram(
                "hash_rev_duration_seconds",
                "Time to hash the keys at a revision, in seconds.",
                0.01,
                15,
            ),
        }
    }
}

impl WatchMetrics {
    fn new(registry: &Registry) -> Self {
        let debug = Family::new(registry, "etcd_debugging_mvcc_");
        Self {
            streams: debug.gauge("watch_stream_total", "Watch streams."),
            watchers: debug.gauge("watcher_total", "Watchers."),
            slow_watchers: debug.gauge("slow_watcher_total", "Watchers that are behind."),
            events: debug.counter("events_total", "Events sent by this member."),
        }
    }
}

impl CompactionMetrics {
    fn new(registry: &Registry) -> Self {
        let debug = Family::new(registry, "etcd_debugging_mvcc_db_compaction_");
        Self {
            keys: debug.counter("keys_total", "Revisions removed by compactions."),
            total_ms: debug.histogram(
                "total_duration_milliseconds",
                "Time from a compaction to its last durable deletion, in milliseconds.",
                100.0,
                14,
            ),
            last: debug.fraction("last", "Unix time when the last compaction was finished."),
        }
    }
}

impl LeaseMetrics {
    fn new(registry: &Registry) -> Self {
        let lease = Family::new(registry, "etcd_debugging_lease_");
        let server = Family::new(registry, "etcd_debugging_server_");
        Self {
            granted: lease.counter("granted_total", "Leases granted."),
            revoked: lease.counter("revoked_total", "Leases revoked."),
            renewed: lease.counter("renewed_total", "Renewals of leases seen by the leader."),
            expired: server.counter("lease_expired_total", "Leases whose time was over."),
            ttl_seconds: lease.histogram(
                "ttl_total",
                "Time to live of the leases granted by this member, in seconds.",
                1.0,
                24,
            ),
        }
    }
}

impl RaftMetrics {
    fn new(registry: &Registry) -> Self {
        let server = Family::new(registry, "etcd_server_");
        let network = Family::new(registry, "etcd_network_");
        Self {
            has_leader: server.gauge("has_leader", "1 if there is a leader."),
            is_leader: server.gauge("is_leader", "1 if this member leads."),
            is_learner: server.gauge("is_learner", "1 if this member only learns."),
            leader_changes: server.counter("leader_changes_seen_total", "Changes of the leader."),
            proposals_committed: server
                .gauge("proposals_committed_total", "The last committed entry of the log."),
            proposals_applied: server
                .gauge("proposals_applied_total", "The last applied entry of the log."),
            proposals_pending: server.gauge("proposals_pending", "Proposals that wait."),
            proposals_failed: server.counter("proposals_failed_total", "Proposals that failed."),
            snapshot_installs: server
                .gauge("snapshot_apply_in_progress_total", "1 while a snapshot is installed."),
            id: server.gauges("id", "1 for the ID of this member.", &["server_id"]),
            known_peers: network.gauges(
                "known_peers",
                "1 for each member that this one knows.",
                &["Local", "Remote"],
            ),
        }
    }
}

impl ApplyMetrics {
    fn new(registry: &Registry) -> Self {
        let server = Family::new(registry, "etcd_server_");
        Self {
            seconds: server.histograms(
                ("apply_duration_seconds", "Time to apply an entry, in seconds."),
                &["version", "op", "success"],
                0.0001,
                20,
            ),
            slow: server.counter(
                "slow_apply_total",
                "Entries that took longer to apply than --warning-apply-duration.",
            ),
        }
    }
}

impl RequestMetrics {
    fn new(registry: &Registry) -> Self {
        let server = Family::new(registry, "etcd_server_");
        Self {
            range_seconds: server.histograms(
                ("range_duration_seconds", "Time to read a range, in seconds."),
                &["success"],
                0.0001,
                20,
            ),
            request_seconds: server.histograms(
                ("request_duration_seconds", "Time of a request, in seconds."),
                &["type", "success"],
                0.001,
                14,
            ),
            clients: server.counters(
                "client_requests_total",
                "Requests by the version of the client's API.",
                &["type", "client_api_version"],
            ),
            reads_slow: server.counter(
                "slow_read_indexes_total",
                "Linearizable reads that got no index in time.",
            ),
            reads_failed: server.counter(
                "read_indexes_failed_total",
                "Linearizable reads that were refused an index.",
            ),
        }
    }
}

impl HealthMetrics {
    fn new(registry: &Registry) -> Self {
        let server = Family::new(registry, "etcd_server_");
        Self {
            success: server.counter("health_success", "Health checks that succeeded."),
            failures: server.counter("health_failures", "Health checks that failed."),
            result: server.gauges("healthcheck", "The last result of a check.", &["type", "name"]),
            checks: server.counters(
                "healthchecks_total",
                "Results of checks.",
                &["type", "name", "status"],
            ),
        }
    }
}

impl OwnMetrics {
    fn new(registry: &Registry) -> Self {
        let own = Family::new(registry, "quorate_");
        Self {
            ready: own.gauge("ready", "1 when keys are served."),
            raft_term: own.gauge("raft_term", "The term of raft."),
            value_reads: own.counter(
                "apply_value_reads_total",
                "Stored values that applying had to read from the state store.",
            ),
            connections: own.gauge("client_connections", "Connections of clients."),
            log_sync_stalled_seconds: own.fraction(
                "log_sync_stalled_seconds",
                "For how long the disk has not answered a write or a sync of the log, once it is longer than an \
                 election timeout; else 0.",
            ),
            index_lock_wait_seconds_max: own.fraction(
                "index_lock_wait_seconds_max",
                "The longest that applying waited for readers of the index since the start.",
            ),
            index_lock_hold_seconds_max: own.fraction(
                "index_lock_hold_seconds_max",
                "The longest that applying kept readers from the index since the start.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let methods = [
            ("etcdserverpb.KV", "Range", MethodKind::Unary),
            ("s.W", "Watch", MethodKind::BidiStream),
        ];
        let metrics = Metrics::new(&methods, true);
        metrics.set_versions("3.7.3", "3.7.0", "0.1.0");
        metrics.set_features(&[("AllBeta", "BETA", false), ("FastLeaseKeepAlive", "BETA", true)]);
        metrics
    }

    #[test]
    fn names_types_and_buckets_are_printed_as_etcd_prints_them() {
        let metrics = metrics();
        metrics.raft.proposals_committed.set(4);
        metrics.disk.wal_fsync_seconds.observe(0.003);
        let text = metrics.text();
        for line in [
            "# TYPE etcd_server_proposals_committed_total gauge",
            "etcd_server_proposals_committed_total 4",
            "# TYPE etcd_server_health_success counter",
            "etcd_server_health_success 0",
            "# TYPE etcd_mvcc_put_total counter",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_count 1",
            "etcd_server_version{server_version=\"3.7.3\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "quorate_build_info{version=\"0.1.0\"} 1",
            "etcd_server_feature_enabled{name=\"AllBeta\",stage=\"BETA\"} 0",
            "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
            "# TYPE etcd_server_slow_apply_total counter",
            "etcd_server_slow_read_indexes_total 0",
            "etcd_server_read_indexes_failed_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn every_method_and_code_is_there_at_zero() {
        let metrics = metrics();
        let text = metrics.text();
        let labels = "grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 0"),
            format!("grpc_server_handled_total{{grpc_code=\"DataLoss\",{labels}}} 0"),
            format!("grpc_server_msg_sent_total{{{labels}}} 0"),
            format!("grpc_server_handling_seconds_count{{{labels}}} 0"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        let codes =
            text.lines().filter(|line| line.starts_with("grpc_server_handled_total{")).count();
        assert_eq!(codes, 2 * 17);
        metrics.grpc.method(1).ended(99, 0.0);
        assert_eq!(metrics.grpc.method(1).handled(2), 1, "a code that is none counts as Unknown");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_describes_itself() {
        let text = metrics().text();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
            "os_fd_limit",
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            assert!(
                line.is_some_and(|line| !line.ends_with(" 0") || name.contains("cpu")),
                "{name}"
            );
        }
    }
}
