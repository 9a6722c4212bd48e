//! Which metrics there are, and what the counters of a dashboard say after each kind of request: the same
//! for `quorate` and for a real `etcd`, which is found on the PATH, or a line that begins with `skipped:`
//! is printed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, SnapshotRequest, TxnRequest,
};
use quorate_tests::process::{Program, Server, http, locate};
use tonic::Status;
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

const LEASE: i64 = 77;
const DEADLINE: Duration = Duration::from_secs(30);

enum Ask {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(i64),
    Grant,
    Revoke,
}

/// What a request adds: ranges, puts, deletions, transactions; and by which label its time is counted.
struct Case {
    ask: Ask,
    is_ok: bool,
    adds: [u64; 4],
    timed: &'static [&'static str],
}

fn case(ask: Ask, is_ok: bool, adds: [u64; 4], timed: &'static [&'static str]) -> Case {
    Case { ask, is_ok, adds, timed }
}

fn range(key: &'static str, revision: i64) -> RangeRequest {
    RangeRequest { key: key.into(), revision, ..RangeRequest::default() }
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "1".into(), ..PutRequest::default() }
}

fn delete(key: &'static str, prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), prev_kv, ..DeleteRangeRequest::default() }
}

/// A transaction with so many compares, each of which holds, and `ops`.
fn txn<const N: usize>(compares: usize, ops: [Op; N]) -> Ask {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: "a".into(),
        target_union: Some(TargetUnion::Value("1".into())),
        ..Compare::default()
    };
    Ask::Txn(TxnRequest {
        compare: vec![compare; compares],
        success: ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect(),
        failure: Vec::new(),
    })
}

/// Every expectation was read from etcd 3.7.3.
fn cases() -> Vec<Case> {
    const RANGE_OK: &[&str] =
        &["range{success=\"true\"}", "request{success=\"true\",type=\"Range\"}"];
    const RANGE_FAILED: &[&str] =
        &["range{success=\"false\"}", "request{success=\"false\",type=\"Range\"}"];
    const PUT: &[&str] = &["request{success=\"true\",type=\"Put\"}"];
    const DELETE: &[&str] = &["request{success=\"true\",type=\"DeleteRange\"}"];
    const TXN: &[&str] = &["request{success=\"true\",type=\"Txn\"}"];
    const READ_TXN: &[&str] = &["request{success=\"true\",type=\"ReadonlyTxn\"}"];
    const COMPACTION: &[&str] = &["request{success=\"true\",type=\"Compaction\"}"];
    let put_with = |prev_kv, ignore_value, lease| {
        let value = if ignore_value { "".into() } else { "1".into() };
        Ask::Put(PutRequest { prev_kv, ignore_value, lease, value, ..put("a") })
    };
    vec![
        case(Ask::Put(put("a")), true, [0, 1, 0, 0], PUT),
        case(put_with(true, false, 0), true, [1, 1, 0, 1], PUT),
        case(put_with(false, true, 0), true, [1, 1, 0, 1], PUT),
        case(put_with(false, false, 5), false, [0, 0, 0, 0], PUT),
        case(Ask::Put(put("")), false, [0, 0, 0, 0], &[]),
        case(Ask::Range(range("a", 0)), true, [1, 0, 0, 0], RANGE_OK),
        case(Ask::Range(range("none", 0)), true, [1, 0, 0, 0], RANGE_OK),
        case(Ask::Range(range("a", 900)), false, [1, 0, 0, 0], RANGE_FAILED),
        case(txn(1, [Op::RequestPut(put("b"))]), true, [1, 1, 0, 0], TXN),
        case(txn(2, [Op::RequestPut(put("b"))]), true, [2, 1, 0, 1], TXN),
        case(txn(0, [Op::RequestPut(put("b")), Op::RequestPut(put("c"))]), true, [0, 2, 0, 1], TXN),
        case(
            txn(2, [Op::RequestPut(put("b")), Op::RequestRange(range("c", 0))]),
            true,
            [3, 1, 0, 2],
            TXN,
        ),
        case(txn(1, [Op::RequestRange(range("c", 0))]), true, [2, 0, 0, 1], READ_TXN),
        case(txn(1, []), true, [1, 0, 0, 0], READ_TXN),
        case(
            txn(0, [Op::RequestDeleteRange(delete("c", true)), Op::RequestPut(put("d"))]),
            true,
            [1, 1, 1, 1],
            TXN,
        ),
        case(Ask::Delete(delete("none", false)), true, [0, 0, 1, 0], DELETE),
        case(Ask::Delete(delete("b", true)), true, [1, 0, 1, 1], DELETE),
        case(Ask::Grant, true, [0; 4], &["request{success=\"true\",type=\"LeaseGrant\"}"]),
        case(put_with(false, false, LEASE), true, [0, 1, 0, 0], PUT),
        case(Ask::Revoke, true, [0, 0, 1, 0], &["request{success=\"true\",type=\"LeaseRevoke\"}"]),
        case(Ask::Revoke, false, [0; 4], &["request{success=\"true\",type=\"LeaseRevoke\"}"]),
        case(Ask::Compact(2), true, [0; 4], COMPACTION),
        case(Ask::Compact(2), false, [0; 4], COMPACTION),
    ]
}

#[test]
fn dashboards_count_what_etcd_counts() -> Outcome {
    let ours = Program::quorate(locate::built_quorate()?);
    check(&Server::start(&ours)?)?;
    let Some(path) = locate::tool("etcd", "dashboards_count_what_etcd_counts") else {
        return Ok(());
    };
    check(&Server::start(&Program::etcd(path))?)
}

#[test]
fn the_time_of_a_snapshot_is_counted_once_it_is_sent() -> Outcome {
    snapshot_is_counted(&Server::start(&Program::quorate(locate::built_quorate()?))?)?;
    let Some(path) = locate::tool("etcd", "the_time_of_a_snapshot_is_counted_once_it_is_sent")
    else {
        return Ok(());
    };
    snapshot_is_counted(&Server::start(&Program::etcd(path))?)
}

fn snapshot_is_counted(server: &Server) -> Outcome {
    const COUNT: &str = "etcd_disk_backend_snapshot_duration_seconds_count";
    let count_is = |count: u64| -> anyhow::Result<bool> {
        let (_, page) = http::get(server.address(), "/metrics")?;
        Ok(page.lines().any(|line| line == format!("{COUNT} {count}")))
    };
    assert!(count_is(0)?, "{}", server.name());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(server.url())?.connect().await?;
        let mut parts =
            MaintenanceClient::new(channel).snapshot(SnapshotRequest {}).await?.into_inner();
        while parts.message().await?.is_some() {}
        anyhow::Ok(())
    })?;
    // The client has the last part before the server is done with it.
    let deadline = Instant::now() + DEADLINE;
    while !count_is(1)? {
        anyhow::ensure!(Instant::now() < deadline, "{} does not count it", server.name());
    }
    Ok(())
}

/// What the README says is absent.
const ABSENT: [&str; 13] = [
    "etcd_debugging_disk_backend_commit_*",
    "etcd_mvcc_db_open_read_transactions",
    "etcd_debugging_mvcc_db_compaction_pause_*",
    "etcd_debugging_mvcc_index_compaction_pause_*",
    "etcd_snap_*",
    "etcd_debugging_snap_*",
    "etcd_debugging_server_watch_send_loop_*",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_store_*",
    "etcd_grpc_proxy_*",
    "go_*",
    "etcd_server_go_version",
    "promhttp_*",
];

#[test]
fn every_metric_of_etcd_is_here_with_its_type_or_named_as_absent() -> Outcome {
    let readme = include_str!("../../README.md");
    let unnamed: Vec<_> =
        ABSENT.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(unnamed.is_empty(), "not in the README: {unnamed:?}");
    let test = "every_metric_of_etcd_is_here_with_its_type_or_named_as_absent";
    let Some(path) = locate::tool("etcd", test) else { return Ok(()) };
    let ours = types(&Server::start(&Program::quorate(locate::built_quorate()?))?)?;
    let theirs = types(&Server::start(&Program::etcd(path))?)?;
    assert!(theirs.len() > 100, "{theirs:?}");
    let is_absent = |name: &str| {
        ABSENT.iter().any(|absent| match absent.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *absent,
        })
    };
    for (name, kind) in &theirs {
        let expected = (!is_absent(name)).then_some(kind);
        assert_eq!(ours.get(name), expected, "{name}");
    }
    Ok(())
}

/// The type of each metric by its name.
fn types(server: &Server) -> anyhow::Result<BTreeMap<String, String>> {
    let (_, page) = http::get(server.address(), "/metrics")?;
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    Ok(lines.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect())
}

fn check(server: &Server) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let channel =
        runtime.block_on(tonic::transport::Endpoint::from_shared(server.url())?.connect())?;
    let mut before = counts(server)?;
    for (at, Case { ask, is_ok, adds, timed }) in cases().into_iter().enumerate() {
        let name = format!("case {at} of {}", server.name());
        // etcd reads a key to learn at which revision it has compacted; we know it.
        let reads = u64::from(server.name() == "etcd" && is_ok && matches!(ask, Ask::Compact(_)));
        let answer = runtime.block_on(send(&channel, ask));
        assert_eq!(answer.is_ok(), is_ok, "{name}: {answer:?}");
        let after = counts(server)?;
        let names = ["range_total", "put_total", "delete_total", "txn_total"];
        let added = |name: &str| {
            after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0)
        };
        let [ranges, rest @ ..] = adds;
        assert_eq!(names.map(added), [ranges + reads, rest[0], rest[1], rest[2]], "{name}");
        let timers: Vec<&str> = (after.keys().map(String::as_str))
            .filter(|name| name.starts_with("range{") || name.starts_with("request{"))
            .filter(|name| added(name) > 0)
            .collect();
        assert_eq!(timers, timed, "{name}");
        before = after;
    }
    Ok(())
}

async fn send(channel: &Channel, ask: Ask) -> Result<(), Status> {
    let mut kv = KvClient::new(channel.clone());
    let mut lease = LeaseClient::new(channel.clone());
    match ask {
        Ask::Range(request) => kv.range(request).await.map(drop),
        Ask::Put(request) => kv.put(request).await.map(drop),
        Ask::Delete(request) => kv.delete_range(request).await.map(drop),
        Ask::Txn(request) => kv.txn(request).await.map(drop),
        Ask::Compact(revision) => {
            kv.compact(CompactionRequest { revision, physical: false }).await.map(drop)
        }
        Ask::Grant => lease.lease_grant(LeaseGrantRequest { ttl: 60, id: LEASE }).await.map(drop),
        Ask::Revoke => lease.lease_revoke(LeaseRevokeRequest { id: LEASE }).await.map(drop),
    }
}

/// The operations of the key space by name, and how often each duration was observed, by
/// `range{labels}` and `request{labels}`.
fn counts(server: &Server) -> anyhow::Result<BTreeMap<String, u64>> {
    let (_, page) = http::get(server.address(), "/metrics")?;
    let mut counts = BTreeMap::new();
    for line in page.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let operation = name.strip_prefix("etcd_mvcc_").map(str::to_owned);
        let duration = name.strip_prefix("etcd_server_").and_then(|name| {
            let (kind, labels) = name.split_once("_duration_seconds_count")?;
            matches!(kind, "range" | "request").then(|| format!("{kind}{labels}"))
        });
        if let Some(name) = operation.or(duration)
            && let Ok(value) = value.parse::<f64>()
        {
            counts.insert(name, value as u64);
        }
    }
    Ok(counts)
}
