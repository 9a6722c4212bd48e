//! How a member ends, and that it hears first what arrived first.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use prost::Message as _;
use quorate_proto::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest};
use quorate_server::consensus;
use quorate_server::handle::Handle;
use quorate_server::mvcc::{Limits, RowsError};
use quorate_server::replica::{self, AutoCompaction, FlushLimits, LeaseConfig};
use quorate_server::runtime::{
    Assembled, Beside, Options, Owner, Progress, RunError, SegmentJob, Setup, Surroundings,
    assemble, recover, start,
};
use quorate_server::state_machine::{FlushBatch, Member};
use quorate_server::storage::data_dir::MadeWith;
use quorate_server::storage::wal::WalOptions;
use quorate_server::telemetry::Metrics;
use quorate_tests::sim::fs::SimFs;

/// Hands batches to nobody: what flushes is dead.
struct Dead;

impl Beside for Dead {
    fn flush(&mut self, _: FlushBatch) {}

    fn prepare(&mut self, job: SegmentJob) {
        job.run();
    }
}

/// A member that is alone.
fn alone() -> (Setup, Options) {
    let member = Member { id: 1, name: "one".into(), ..Member::default() };
    let setup = Setup {
        fs: SimFs::new(1).shared(),
        data_dir: PathBuf::from("data"),
        wal_dir: None,
        cluster_id: 7,
        initial_members: vec![member.clone()],
        member: member.clone(),
        made_with: MadeWith::default(),
        incarnation: 9,
        may_create: true,
        wal: WalOptions { segment_bytes: 8192, segments_max: 2 },
        cache_bytes: 1 << 20,
        limits: Limits { window_bytes_max: 1000 },
    };
    let options = Options {
        replica: replica::Config {
            member,
            consensus: consensus::Config::new(1, 3),
            request_ticks: 70,
            flush: FlushLimits {
                batch_bytes: 1000,
                log_bytes: 1 << 20,
                interval_ticks: 10,
                unflushed_bytes_max: 10_000,
            },
            auto_compaction: AutoCompaction::Off,
            disarm_below_bytes: None,
            lease: LeaseConfig { checkpoint_ms: None, extend_ms: 1000, retry_ms: 7000 },
            boot_nonce: 1,
        },
        tick: Duration::from_millis(100),
        first_request_id: 1,
        request_bytes_max: 1 << 20,
        fragment_bytes: 1 << 20,
        watch_log_bytes_max: 1 << 20,
        quota_bytes: None,
        lease_ttl_min_s: 2,
        request_timeout: None,
        slow_apply: Duration::MAX,
        checkpoint_bytes: 1 << 20,
        reserve_bytes: 0,
    };
    (setup, options)
}

/// One that leads.
fn leader() -> (Owner<Dead>, Handle) {
    let (setup, options) = alone();
    let recovered = recover(&setup, &Progress::default()).expect("the disk works");
    let metrics = Arc::new(Metrics::new(&[], false));
    let surroundings = Surroundings { metrics, rewrites: channel().0 };
    let Assembled { core, handle, .. } =
        assemble(&setup, recovered, options, surroundings).expect("the log goes on");
    let mut owner = Owner::new(core, handle.clone(), Dead);
    while !owner.published().raft.leads_alone {
        owner.tick(Duration::from_millis(100)).expect("the disk works");
        owner.round().expect("the disk works");
    }
    (owner, handle)
}

/// Seed 508: the flusher failed in the moment in which the member was asked to stop. The owner had not
/// heard of it, and waited for a flush that nobody was doing.
#[test]
fn an_orderly_end_hears_that_the_flusher_failed_just_before() {
    let (mut owner, handle) = leader();
    handle.fail(&RowsError::Io("the disk is gone".into()));
    let ended = owner.begin_stop(Ok(()));
    assert!(matches!(ended, Err(RunError::Failed(why)) if why.ends_with("the disk is gone")));
}

#[test]
fn an_orderly_end_hears_that_the_flusher_fails_while_it_waits_for_it() {
    let (mut owner, handle) = leader();
    owner.begin_stop(Ok(())).unwrap();
    assert!(!owner.flush_rest().unwrap(), "a batch is with the flusher");
    handle.fail(&RowsError::Io("the disk is gone".into()));
    let delivery = handle.mailbox().take(Instant::now());
    assert!(matches!(owner.take(delivery), Err(RunError::Failed(_))));
}

/// The flusher went on for as long as the process, with a data dir that another process could lock.
#[tokio::test]
async fn a_member_that_has_ended_has_no_thread_left_that_writes() {
    for fails in [true, false] {
        let (setup, options) = alone();
        let recovered = recover(&setup, &Progress::default()).expect("the disk works");
        let metrics = Arc::new(Metrics::new(&[], false));
        let running = start(&setup, recovered, options, metrics).expect("threads can be had");
        if fails {
            running.handle.fail(&RowsError::Io("the disk is gone".into()));
        } else {
            running.handle.stop();
        }
        assert_eq!(running.ended().await.is_err(), fails);
        assert_eq!(Arc::strong_count(&setup.fs), 1, "whoever writes has the file system");
        assert!(setup.fs.lock(&setup.data_dir.join("lock")).is_ok());
    }
}

/// The time of a lease ran out while a sync hung, and its renewal waited behind the sync.
#[test]
fn a_renewal_that_arrived_before_a_late_tick_is_heard_before_it() {
    const TTL_S: i64 = 1;
    let (mut owner, handle) = leader();
    let mut context = Context::from_waker(Waker::noop());
    let lease_grant = Some(LeaseGrantRequest { ttl: TTL_S, id: 7 });
    let grant = InternalRaftRequest { lease_grant, ..InternalRaftRequest::default() };
    let mut granted = Box::pin(handle.propose(grant.encode_to_vec().into()));
    assert!(granted.as_mut().poll(&mut context).is_pending());
    owner.take(handle.mailbox().take(Instant::now())).unwrap();
    owner.round().unwrap();
    owner.tick(Duration::from_millis(100)).unwrap();
    owner.round().unwrap();

    let mut renewed = Box::pin(handle.renew(7));
    assert!(renewed.as_mut().poll(&mut context).is_pending());
    assert!(!owner.take_then_tick(Instant::now(), Duration::from_secs(1)).unwrap());
    owner.round().unwrap();
    assert_eq!(owner.published().leases.renewed, 1);
    assert!(owner.lessor().knows(7), "it has its time again");
    owner.take_then_tick(Instant::now(), Duration::from_secs(1)).unwrap();
    owner.round().unwrap();
    assert!(!owner.lessor().knows(7), "it ends when nobody renews it");
}
