//! Assembly: from a checked configuration to a member that serves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::{Api, CallTimes, METHODS};
use crate::config::{
    AutoCompaction, Config, ETCD_CLUSTER_VERSION, ETCD_VERSION, REQUEST_BYTES_MAX,
};
use crate::consensus::{self, LogLimits};
use crate::handle::{Handle, RequestError};
use crate::http::{Loading, Site, Surface};
use crate::listen::{Admission, Front, ListenError, Listener, Services, TooFewFiles};
use crate::mvcc::Limits;
use crate::replica::{self, FlushLimits, LeaseConfig};
use crate::runtime::{self, Options, Progress, RecoverError, Recovered, Report, RunError, Setup};
use crate::state_machine::Member;
use crate::storage::checkpoint::CHECKPOINT_BYTES;
use crate::storage::data_dir::MadeWith;
use crate::storage::fs::SharedFs;
use crate::storage::os_fs::{OsFs, is_open_to_others};
use crate::storage::reserve::BESIDE_LOG_BYTES;
use crate::storage::wal::{ENTRY_DATA_BYTES_MAX, WalOptions};
use crate::telemetry::Metrics;

/// The newest level of apply rules that this version knows.
const APPLY_LEVEL: u32 = 1;

/// Rows of this many bytes are flushed at once: a quarter of the store's cache, so that redb writes
/// each page once.
const FLUSH_CACHE_SHARE: u64 = 4;

/// What waits longer than this is flushed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Apply pauses at this many batches of unflushed rows.
const UNFLUSHED_BATCHES_MAX: u64 = 8;

/// What a request waits beside two elections; etcd's bound.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that calls are kept waiting for a leader after a start, as in etcd.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// How often history is looked at in revision mode; etcd's interval.
const REVISION_COMPACTION_INTERVAL: Duration = Duration::from_secs(300);

/// How often what is left of long leases is written down; etcd's interval.
const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// What the log keeps in memory of what is applied, in bytes: for followers that lag. A lone member
/// has none, and older entries are on disk.
const LOG_BYTES_MAX: usize = 4 << 20;

/// What may wait for its quorum, in bytes: forty of the largest requests.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// A member takes its NOSPACE alarm back below this share of its quota, in percent.
const DISARM_PERCENT: u64 = 90;

/// What a command adds to its request at most, in bytes.
const COMMAND_OVERHEAD_MAX: u64 = 1 << 20;

// The longest request that the settings allow is an entry that the log takes.
const _: () = assert!(REQUEST_BYTES_MAX as u64 + COMMAND_OVERHEAD_MAX <= ENTRY_DATA_BYTES_MAX);

/// Why a member did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The variants are the errors they hold.
pub enum ServerError {
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl ServerError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Recover(error) => error.exit_code(),
            Self::Run(error) => error.exit_code(),
            Self::Files(_) | Self::Listen(_) | Self::Io(_) => 1,
        }
    }

    /// Whether the file system has no room left.
    fn is_storage_full(&self) -> bool {
        match self {
            Self::Recover(error) => error.is_storage_full(),
            Self::Run(error) => error.is_storage_full(),
            Self::Files(_) | Self::Listen(_) | Self::Io(_) => false,
        }
    }
}

/// Runs a member until it is told to stop or fails.
///
/// # Errors
/// [`ServerError`], to be printed; the process exits with its code.
pub fn run(config: &Config) -> Result<(), ServerError> {
    // On few cores one thread for all sockets costs half of what several with one queue do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(config));
    // A snapshot may be reading from a disk that hangs: nobody waits for it any more.
    runtime.shutdown_background();
    if result.as_ref().is_err_and(ServerError::is_storage_full)
        && let Ok(setup) = setup(config, Arc::new(OsFs))
    {
        runtime::say_what_to_free(&setup, config.limits.request_bytes_max, BESIDE_LOG_BYTES);
    }
    result
}

async fn serve(config: &Config) -> Result<(), ServerError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new(&METHODS, config.monitor.extensive_metrics));
    metrics.set_features(&config.monitor.features);
    metrics.set_versions(ETCD_VERSION, ETCD_CLUSTER_VERSION, env!("CARGO_PKG_VERSION"));
    // Bound first: a port that is taken should not cost a recovery. Served at once: a member that
    // loads a large index can be asked how far it is.
    let progress = Arc::new(Progress::default());
    let (open, services) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let entrance = Entrance {
        services,
        progress: progress.clone(),
        admission: Admission::of_process()?,
        metrics: metrics.clone(),
    };
    let connections = accept(bind(config)?, config, &entrance, &stopping);

    let setup = Arc::new(setup(config, Arc::new(OsFs))?);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        etcd_version = ETCD_VERSION,
        name = setup.member.name,
        member_id = format_args!("{:x}", setup.member.id),
        cluster_id = format_args!("{:x}", setup.cluster_id),
        data_dir = %setup.data_dir.display(),
        "starting"
    );
    let recovered = tokio::select! {
        recovered = recover(setup.clone(), progress) => recovered?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    warn_of_open_folders(&setup);
    log_recovery(&setup.data_dir, &recovered.report);
    let options = options(config, &setup, recovered.wal.segment_bytes())?;
    let running = runtime::start(&setup, recovered, options, metrics.clone())?;
    let handle = running.handle.clone();
    // Nobody waits for these: they have no end, or say so to the owner, and a panic aborts the process.
    let replies = handle.clone();
    tokio::spawn(async move { replies.replies().deliver().await });
    let watches = handle.clone();
    tokio::spawn(async move {
        let error = watches.watches().drive(watches.view(), watches.rows()).await;
        watches.fail(&error);
    });
    let addresses = config.listen.client.iter().map(ToString::to_string).collect();
    let doors = Doors { open, services: services_of(config, &handle, &metrics) };
    tokio::spawn(announce(handle.clone(), addresses, doors));

    let ended = running.ended();
    tokio::pin!(ended);
    let result = tokio::select! {
        result = &mut ended => Some(result),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let result = match result {
        Some(result) => result,
        None => {
            tracing::info!("stopping");
            let _ = stop.send(true);
            for connection in connections {
                // A listener that panicked has nothing left to close.
                let _ = connection.await;
            }
            handle.stop();
            ended.await
        }
    };
    if result.is_ok() {
        tracing::info!("stopped");
    }
    Ok(result?)
}

/// Recovers on a thread of its own, so that the listeners answer meanwhile.
async fn recover(setup: Arc<Setup>, progress: Arc<Progress>) -> Result<Recovered, ServerError> {
    let (done, recovered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("recovery".into()).spawn(move || {
        // Nobody waits any more if the process was told to end.
        let _ = done.send(runtime::recover(&setup, &progress));
    })?;
    match recovered.await {
        Ok(recovered) => Ok(recovered?),
        Err(_) => Err(RunError::Failed("the recovery thread ended without a word".into()).into()),
    }
}

fn services_of(config: &Config, handle: &Handle, metrics: &Arc<Metrics>) -> Services {
    let times = CallTimes {
        slow: config.monitor.warning_unary_request,
        progress_interval: config.monitor.watch_progress_interval,
    };
    Services {
        api: Api::new(handle.clone(), metrics.clone(), config.limits, times),
        site: Arc::new(Site::new(handle.clone(), metrics.clone(), APPLY_LEVEL, election(config))),
    }
}

/// What all listeners share.
struct Entrance {
    services: watch::Receiver<Option<Services>>,
    progress: Arc<Progress>,
    admission: Admission,
    metrics: Arc<Metrics>,
}

struct Bound {
    listener: Listener,
    grpc: bool,
    surface: Option<Surface>,
}

fn bind(config: &Config) -> Result<Vec<Bound>, ServerError> {
    let listen = &config.listen;
    let client_surface = listen.client_http.is_empty().then_some(Surface::Client);
    let groups = [
        ("--listen-client-urls", &listen.client, true, client_surface),
        ("--listen-client-http-urls", &listen.client_http, false, Some(Surface::Client)),
        ("--listen-metrics-urls", &listen.metrics, false, Some(Surface::Metrics)),
    ];
    let mut bound = Vec::new();
    for (flag, addrs, grpc, surface) in groups {
        for addr in addrs {
            let listener = Listener::bind(addr, flag, listen.reuse_port)?;
            bound.push(Bound { listener, grpc, surface });
        }
    }
    Ok(bound)
}

fn accept(
    listeners: Vec<Bound>,
    config: &Config,
    entrance: &Entrance,
    stopping: &watch::Receiver<bool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let progress = entrance.progress.clone();
    let loading = Arc::new(Loading::new(move || progress.rows()));
    let observers = Admission::of_observers();
    listeners
        .into_iter()
        .map(|Bound { listener, grpc, surface }| {
            let only_observed = !grpc && surface == Some(Surface::Metrics);
            let admission = if only_observed { &observers } else { &entrance.admission };
            let front = Front {
                grpc,
                surface,
                services: entrance.services.clone(),
                loading: loading.clone(),
                admission: admission.clone(),
                metrics: entrance.metrics.clone(),
            };
            tokio::spawn(listener.serve(front, config.listen.http2, stopping.clone()))
        })
        .collect()
}

/// What lets calls in that have waited since the ports were bound.
struct Doors {
    open: watch::Sender<Option<Services>>,
    services: Services,
}

/// Says when the member serves, and lets calls in: it leads or follows, and has applied what it knew.
///
/// Calls that came earlier would meet a member before its first election, and to a client `no leader`
/// says that its watch has failed. Where no leader is to be found they are let in to be told so.
async fn announce(handle: Handle, addresses: Vec<String>, doors: Doors) {
    let led = is_led(&handle);
    tokio::pin!(led);
    let is_led = match tokio::time::timeout(OPEN_WAIT, &mut led).await {
        Ok(is_led) => is_led,
        Err(_) => {
            doors.open.send_replace(Some(doors.services.clone()));
            led.await
        }
    };
    if !is_led {
        return;
    }
    handle.status().ready.store(true, Ordering::Relaxed);
    doors.open.send_replace(Some(doors.services));
    for address in addresses {
        tracing::info!(address, "ready to serve client requests");
    }
}

/// Waits for a leader that has confirmed what is committed; false if the member stops before.
async fn is_led(handle: &Handle) -> bool {
    // A timeout says that there is no leader yet; it is asked again at once.
    while let Err(error) = handle.linearize().await {
        if error == RequestError::Stopped {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

fn setup(config: &Config, fs: SharedFs) -> Result<Setup, ServerError> {
    let cluster = &config.cluster;
    let initial_members: Vec<Member> = cluster
        .members
        .iter()
        .map(|member| Member {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            ..Member::default()
        })
        .collect();
    let own = initial_members.iter().find(|member| member.id == cluster.member_id);
    let member = Member {
        name: config.member.name.clone(),
        client_urls: config
            .member
            .advertise_client_urls
            .iter()
            .map(|url| url.as_str().to_owned())
            .collect(),
        ..own.cloned().unwrap_or_default()
    };
    let storage = &config.storage;
    let wal = WalOptions {
        segments_max: storage
            .wals_max
            .map_or(0, |kept| usize::try_from(kept).unwrap_or(usize::MAX)),
        ..WalOptions::default()
    };
    Ok(Setup {
        fs,
        data_dir: config.member.data_dir.clone(),
        wal_dir: config.member.wal_dir.clone(),
        cluster_id: cluster.cluster_id,
        member,
        may_create: cluster.is_new,
        initial_members: unnamed(initial_members),
        made_with: MadeWith {
            initial_cluster: cluster.to_flag(),
            initial_cluster_token: cluster.token.clone(),
        },
        incarnation: random()?,
        wal,
        cache_bytes: usize::try_from(storage.cache_bytes).unwrap_or(usize::MAX),
        limits: Limits { window_bytes_max: storage.window_bytes },
    })
}

/// A member says its name once it has started, not before.
fn unnamed(members: Vec<Member>) -> Vec<Member> {
    members.into_iter().map(|member| Member { name: String::new(), ..member }).collect()
}

/// Those of a member whose log has segments of `segment_bytes`.
fn options(config: &Config, setup: &Setup, segment_bytes: u64) -> Result<Options, ServerError> {
    let raft = &config.raft;
    let tick = raft.heartbeat;
    let ticks = |duration: Duration| {
        u64::try_from(duration.as_nanos().div_ceil(tick.as_nanos().max(1)))
            .unwrap_or(u64::MAX)
            .max(1)
    };
    let election = election(config);
    let batch_bytes = (config.storage.cache_bytes / FLUSH_CACHE_SHARE).max(1 << 20);
    let quota_bytes = config.storage.quota_bytes;
    let auto_disarm = quota_bytes.filter(|_| config.storage.quota_auto_disarm);
    Ok(Options {
        replica: replica::Config {
            member: setup.member.clone(),
            consensus: consensus::Config {
                id: setup.member.id,
                election_ticks: usize::try_from(raft.election_ticks).unwrap_or(usize::MAX),
                heartbeat_ticks: 1,
                pre_vote: raft.pre_vote,
                seed: random()?,
                log: LogLimits {
                    bytes_max: LOG_BYTES_MAX,
                    entries_max: raft.snapshot_catchup_entries,
                },
                uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            },
            request_ticks: ticks(REQUEST_TIMEOUT + 2 * election),
            flush: FlushLimits {
                batch_bytes,
                log_bytes: usize::try_from(segment_bytes).unwrap_or(usize::MAX),
                interval_ticks: ticks(FLUSH_INTERVAL),
                unflushed_bytes_max: batch_bytes * UNFLUSHED_BATCHES_MAX,
            },
            auto_compaction: match config.auto_compaction {
                AutoCompaction::Off => replica::AutoCompaction::Off,
                AutoCompaction::Periodic(retention) => replica::AutoCompaction::Periodic {
                    retention_ticks: ticks(retention),
                    hour_ticks: ticks(Duration::from_secs(3600)),
                },
                AutoCompaction::Revision(retention) => replica::AutoCompaction::Revision {
                    retention,
                    interval_ticks: ticks(REVISION_COMPACTION_INTERVAL),
                },
            },
            disarm_below_bytes: auto_disarm.map(|quota| quota / 100 * DISARM_PERCENT),
            lease: LeaseConfig {
                checkpoint_ms: raft.lease_checkpoint.then(|| millis(LEASE_CHECKPOINT_INTERVAL)),
                extend_ms: millis(election),
                retry_ms: millis(REQUEST_TIMEOUT + 2 * election),
            },
            boot_nonce: random()?,
        },
        tick,
        first_request_id: first_request_id(setup.member.id, random()?),
        request_bytes_max: config.limits.request_bytes_max,
        fragment_bytes: config.limits.message_bytes_max(),
        watch_log_bytes_max: crate::watch::LOG_BYTES_MAX,
        quota_bytes,
        request_timeout: Some(REQUEST_TIMEOUT + 2 * election),
        slow_apply: config.monitor.warning_apply,
        lease_ttl_min_s: lease_ttl_min_s(election),
        checkpoint_bytes: CHECKPOINT_BYTES,
        reserve_bytes: BESIDE_LOG_BYTES,
    })
}

/// The time without a word of the leader after which another member stands for election.
fn election(config: &Config) -> Duration {
    config.raft.heartbeat * config.raft.election_ticks
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A lease must outlive an election and its renewal: one and a half election timeouts, in whole seconds.
fn lease_ttl_min_s(election: Duration) -> i64 {
    i64::try_from((election * 3 / 2).as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Two bytes of the member, then five random ones, as etcd does with its clock; requests count up from
/// there. Never 0, because that says that nobody waits.
fn first_request_id(member_id: u64, nonce: u64) -> u64 {
    (member_id << 48) | ((nonce & 0xff_ffff_ffff) << 8) | 1
}

fn random() -> Result<u64, ServerError> {
    getrandom::u64().map_err(|error| {
        ServerError::Io(std::io::Error::other(format!("the system has no randomness: {error}")))
    })
}

/// Says which folders others may look into: they hold every secret of the cluster. etcd warns too.
fn warn_of_open_folders(setup: &Setup) {
    for folder in std::iter::once(&setup.data_dir).chain(&setup.wal_dir) {
        if is_open_to_others(folder).unwrap_or(false) {
            let folder = folder.display();
            tracing::warn!(%folder, "others may look into the data: allow its owner only (0700)");
        }
    }
}

fn log_recovery(data_dir: &Path, report: &Report) {
    for reason in &report.rejected_checkpoints {
        tracing::warn!(reason, "a checkpoint of the index cannot be used");
    }
    for name in &report.foreign {
        let file = data_dir.join(name);
        tracing::warn!(file = %file.display(), "not a file of quorate in the data dir: left alone");
    }
    if let Some(offset) = report.torn_at {
        tracing::warn!(offset, "cut a record at the end of the log that a crash had torn");
    }
    tracing::info!(
        data_dir = %data_dir.display(),
        created = report.created,
        applied_index = report.applied_index,
        flushed_revision = report.revision,
        checkpoint_revision = report.checkpoint_revision,
        rows = report.rows,
        entries = report.entries,
        "recovered"
    );
}
