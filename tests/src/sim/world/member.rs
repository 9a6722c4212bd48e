//! One simulated member: the shipped server on a simulated disk, without its threads.
//!
//! Each thing that a thread does in the real process is a method here, and whoever calls them decides
//! the order: the owner's turn, a step of the flusher, the next segment, the delivery of replies.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;
use quorate_server::api;
use quorate_server::config::LimitConfig;
use quorate_server::consensus::{self, LogLimits};
use quorate_server::handle::Handle;
use quorate_server::lease::Lease;
use quorate_server::mvcc::{Limits, Revision, Row};
use quorate_server::replica::{self, LeaseConfig, Published};
use quorate_server::runtime::{
    Assembled, Beside, Options, Owner, Progress, Report, RunError, SegmentJob, Setup, SpareSpace,
    Surroundings, Work, Worker, assemble, recover,
};
use quorate_server::state_machine::{FlushBatch, Member as Listed};
use quorate_server::storage::data_dir::DataDir;
use quorate_server::storage::flusher::{Activity as Flushing, Step};
use quorate_server::storage::wal::WalOptions;
use quorate_server::telemetry::Metrics;

use super::clients::{Call, Services};
use super::plan::MemberPlan;
use crate::sim::coverage::Activity;
use crate::sim::fs::SimFs;
use crate::sim::history::StoredRow;
use crate::sim::invariants::{Ending, Violation, VotesAreKept};
use crate::sim::leases::{SeenLease, SeenLeases};

const CLUSTER_ID: u64 = 0xc1;
/// Milliseconds of a tick; nothing here measures them.
const TICK_MS: u64 = 100;
/// The most that a member takes a tick for: its election timeout.
pub(super) const TICK_ELAPSED_MS_MAX: u64 = 1000;
/// As shipped.
const LIMITS: LimitConfig = LimitConfig { txn_ops_max: 128, request_bytes_max: 1_572_864 };

/// A member with its disk, whether it runs or not.
pub(super) struct Member {
    id: u64,
    disk: SimFs,
    plan: MemberPlan,
    metrics: Arc<Metrics>,
    votes: VotesAreKept,
    boots: u64,
}

/// A running member.
pub(super) struct Life {
    owner: Owner<Aside>,
    worker: Worker,
    queue: Receiver<Work>,
    deliver: Pin<Box<dyn Future<Output = Infallible>>>,
    reserve: SpareSpace,
    worker_has_failed: bool,
    pub(super) handle: Handle,
    pub(super) services: Arc<dyn Call>,
    pub(super) report: Report,
    // Locked as long as the member runs.
    _data_dir: DataDir,
}

/// What the owner asked others to do.
pub(super) struct Aside {
    work: Sender<Work>,
    jobs: Vec<SegmentJob>,
    /// Whether the batch handed out last deletes rows.
    deletes: bool,
}

impl Beside for Aside {
    fn flush(&mut self, batch: FlushBatch) {
        self.deletes = !batch.deletions.is_empty();
        // The other end lives as long as this member.
        let _ = self.work.send(Work::Flush(batch));
    }

    fn prepare(&mut self, job: SegmentJob) {
        self.jobs.push(job);
    }
}

impl Member {
    pub(super) fn new(id: u64, disk: SimFs, plan: MemberPlan) -> Self {
        let metrics = Arc::new(Metrics::new(&api::METHODS, false));
        Self { id, disk, plan, metrics, votes: VotesAreKept::default(), boots: 0 }
    }

    pub(super) fn disk(&self) -> &SimFs {
        &self.disk
    }

    /// Starts the member.
    ///
    /// # Errors
    /// Outer: it forgot something. Inner: why it does not start.
    pub(super) fn start(&mut self) -> Result<Result<Life, Ending>, Violation> {
        self.boots += 1;
        let setup = self.setup();
        let recovered = match recover(&setup, &Progress::default()) {
            Ok(recovered) => recovered,
            Err(error) => return Ok(Err(Ending::from(&error))),
        };
        let hard_state = recovered.replica.log.hard_state;
        self.votes
            .starts(self.id, (hard_state.term, hard_state.vote))
            .map_err(|text| Violation { invariant: VotesAreKept::NAME, text })?;
        let report = recovered.report.clone();
        let (work, queue) = channel();
        let surroundings = Surroundings { metrics: self.metrics.clone(), rewrites: work.clone() };
        let assembled = match assemble(&setup, recovered, self.options(), surroundings) {
            Ok(assembled) => assembled,
            Err(error) => return Ok(Err(Ending::from(&error))),
        };
        let Assembled { handle, worker, mut reserve, data_dir, core } = assembled;
        reserve.set_aside();
        let aside = Aside { work, jobs: Vec::new(), deletes: false };
        let owner = Owner::new(core, handle.clone(), aside);
        let (kv, lease, maintenance) = api::services(handle.clone(), self.metrics.clone(), LIMITS);
        let replies = handle.clone();
        Ok(Ok(Life {
            owner,
            worker,
            queue,
            deliver: Box::pin(async move { replies.replies().deliver().await }),
            reserve,
            worker_has_failed: false,
            services: Arc::new(Services::new(kv, lease, maintenance, handle.clone())),
            handle,
            report,
            _data_dir: data_dir,
        }))
    }

    /// Looks at what a running member says about itself.
    pub(super) fn observe(&mut self, published: &Published) {
        // Only then it says so to others: it applied an entry of its own term.
        if published.raft.leads_alone {
            self.votes.leads(published.raft.term);
        }
    }

    fn setup(&self) -> Setup {
        let member = Listed {
            id: self.id,
            name: format!("m{}", self.id),
            peer_urls: vec![format!("http://m{}:2380", self.id)],
            client_urls: vec![format!("http://m{}:2379", self.id)],
            is_learner: false,
        };
        Setup {
            fs: self.disk.shared(),
            data_dir: PathBuf::from("data"),
            wal_dir: None,
            cluster_id: CLUSTER_ID,
            may_create: true,
            initial_members: vec![Listed { client_urls: Vec::new(), ..member.clone() }],
            member,
            incarnation: self.boots,
            wal: WalOptions {
                segment_bytes: self.plan.store.segment_bytes,
                segments_max: self.plan.store.segments_max,
            },
            cache_bytes: self.plan.store.cache_bytes,
            limits: Limits { window_bytes_max: self.plan.window_bytes },
        }
    }

    fn options(&self) -> Options {
        Options {
            replica: replica::Config {
                member: self.setup().member,
                consensus: consensus::Config {
                    log: LogLimits { bytes_max: 64 << 20, entries_max: self.plan.catchup_entries },
                    ..consensus::Config::new(self.id, self.plan.seed ^ self.boots)
                },
                request_ticks: 70,
                flush: self.plan.flush,
                auto_compaction: self.plan.auto_compaction,
                lease: LeaseConfig {
                    checkpoint_ms: self.plan.lease_checkpoint_ms,
                    extend_ms: TICK_ELAPSED_MS_MAX,
                    retry_ms: 7000,
                },
                disarm_below_bytes: self.plan.quota_bytes.map(|quota| quota / 10 * 9),
                boot_nonce: self.boots,
            },
            tick: Duration::from_millis(TICK_MS),
            first_request_id: (self.id << 48) | (self.boots << 8) | 1,
            request_bytes_max: LIMITS.request_bytes_max,
            fragment_bytes: self.plan.fragment_bytes,
            watch_log_bytes_max: self.plan.watch_log_bytes,
            quota_bytes: self.plan.quota_bytes,
            // The owner counts ticks; there is no runtime that could hold a timer.
            request_timeout: None,
            slow_apply: std::time::Duration::MAX,
            lease_ttl_min_s: 2,
            checkpoint_bytes: self.plan.store.checkpoint_bytes,
            reserve_bytes: self.plan.store.reserve_bytes,
        }
    }
}

impl Life {
    /// The owner takes what waits, and works it off.
    pub(super) fn owner_turn(&mut self) -> Result<(), RunError> {
        // A moment that is over: nothing waits.
        let delivery = self.handle.mailbox().take(Instant::now());
        self.owner.take(delivery)?;
        self.owner.round()
    }

    /// A tick, so many milliseconds after the last one.
    pub(super) fn tick(&mut self, elapsed_ms: u64) -> Result<(), RunError> {
        self.owner.tick(Duration::from_millis(elapsed_ms))?;
        self.owner.round()
    }

    /// One step of the flusher. What goes wrong is the owner's to hear.
    pub(super) fn worker_step(&mut self) -> Option<Step> {
        if self.worker_has_failed {
            return None;
        }
        if let Ok(work) = self.queue.try_recv() {
            self.worker.take(work);
        }
        match self.worker.step() {
            Ok(step) => Some(step),
            Err(error) => {
                // Its thread ends.
                self.worker_has_failed = true;
                self.worker.failed(&error);
                None
            }
        }
    }

    /// Makes the next segment ready, if that was asked for.
    pub(super) fn segment_step(&mut self) -> bool {
        let job = self.owner.beside().jobs.pop();
        job.map(SegmentJob::run).is_some()
    }

    pub(super) fn has_segment_job(&mut self) -> bool {
        !self.owner.beside().jobs.is_empty()
    }

    /// Hands over the replies of past rounds.
    pub(super) fn deliver(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.deliver.as_mut().poll(&mut context).is_pending(), "replies come for ever");
    }

    /// Says how much space is left.
    pub(super) fn check_space(&mut self, is_low: bool) {
        self.worker.disk_space(is_low);
    }

    /// The leases, and which keys have them.
    pub(super) fn leases(&self) -> SeenLeases {
        let lessor = self.owner.lessor();
        let lease = |lease: Lease| {
            let Lease { id, ttl_s, remaining_ttl_s, .. } = lease;
            let keys = lessor.keys(id, b"").cloned().collect();
            (id, SeenLease { ttl_s, remaining_ttl_s, keys })
        };
        let mut seen =
            SeenLeases { leases: lessor.leases().map(lease).collect(), ..SeenLeases::default() };
        let space = self.handle.view().write();
        space.attached(None, usize::MAX, &mut |key, id| {
            seen.of_keys.insert(Bytes::copy_from_slice(key), id);
        });
        seen
    }

    /// The rows of the revisions after this one, as far as they are in memory.
    pub(super) fn rows_after(&self, revision: i64) -> Vec<StoredRow> {
        let space = self.handle.view().write();
        let rows = space.recent_rows(Revision::new(revision + 1, 0));
        let row = |row: &Row| {
            let kv = KeyValue::decode(row.stored.clone()).expect("a row was encoded by the member");
            let at = row.key.revision();
            let key = kv.key.clone();
            StoredRow::new(key, (at.main, at.sub), (!row.key.is_tombstone()).then_some(kv))
        };
        rows.into_iter().flatten().map(row).collect()
    }

    pub(super) fn published(&self) -> Published {
        self.owner.published()
    }

    /// Whether entries are committed and not applied, or a compaction has to go on.
    pub(super) fn has_work(&self) -> bool {
        self.owner.has_work()
    }

    /// Reads are served from now on.
    pub(super) fn ready(&self) {
        self.handle.status().ready.store(true, Ordering::Relaxed);
    }

    /// Looks whether there is room for the reserve now.
    pub(super) fn set_aside(&mut self) {
        self.reserve.set_aside();
    }

    /// What the flusher is in the middle of.
    pub(super) fn flushing(&mut self) -> Option<Activity> {
        let deletes = self.owner.beside().deletes;
        self.worker.flusher().activity().map(|activity| match activity {
            Flushing::Flush if deletes => Activity::Compaction,
            Flushing::Flush => Activity::Flush,
            Flushing::Checkpoint => Activity::Checkpoint,
            Flushing::Rewrite => Activity::Rewrite,
        })
    }

    /// The last revision that the state store has.
    pub(super) fn flushed_revision(&self) -> i64 {
        self.worker.flusher().store().revision()
    }

    /// Ends in order, as after SIGTERM.
    pub(super) fn stop(mut self) -> Result<(), RunError> {
        self.owner.begin_stop(Ok(()))?;
        while !self.owner.flush_rest()? {
            self.worker_step();
            let delivery = self.handle.mailbox().take(Instant::now());
            self.owner.take(delivery)?;
        }
        let status = self.handle.status();
        assert!(!status.raft.leads_alone.load(Ordering::Relaxed), "it reads for nobody any more");
        self.worker.take(Work::Stop);
        while !matches!(self.worker.step()?, Step::Idle) {}
        Ok(self.worker.close()?)
    }

    /// The process ends with an error: what is left to do then.
    pub(super) fn failed(&mut self, error: RunError) {
        self.reserve.ended(&Err(error));
    }
}
