//! A running member: recovery, the owner thread, the flusher thread, and their orderly end.

mod apply_laps;
mod background;
mod compactions;
mod ending;
mod lock_times;
mod log;
mod owner;
mod place;
mod recovery;
mod spare;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::handle::{Handle, Parts, Watches};
use crate::mvcc::{DamagedRow, Rows, RowsError};
use crate::replica::{self, Fatal, Replica};
use crate::state_machine::{FatalError, RestoreError};
use crate::storage::checkpoint::CheckpointError;
use crate::storage::data_dir::{DataDir, DataDirError, exit};
use crate::storage::flusher::{Flusher, FlusherError, FlusherOptions};
use crate::storage::fs::is_storage_full;
use crate::storage::reserve::bytes_for_start;
use crate::storage::state::{Fault, OpenError};
use crate::storage::wal::WalError;
use crate::telemetry::Metrics;
use crate::watch::Hub;

use apply_laps::ApplyLaps;
use background::{ABANDON_WAIT, Background};
use compactions::Compactions;
use ending::Ending;
use lock_times::LockTimes;
use owner::Threads;
use place::Place;

pub use background::{Work, Worker};
pub use log::SegmentJob;
pub use owner::{Beside, Owner};
pub use place::{Room, say_what_to_free};
pub use recovery::{Progress, Recovered, Report, Setup, recover};
pub use spare::SpareSpace;

/// How often it is looked whether there is room for the reserve, as long as it is not set aside.
const RESERVE_INTERVAL: Duration = Duration::from_secs(60);

/// What a member is started with, beside what it recovers.
pub struct Options {
    /// The replica's.
    pub replica: replica::Config,
    /// The length of a tick.
    pub tick: Duration,
    /// Where the first request id starts: unique among members and boots.
    pub first_request_id: u64,
    /// The largest command, in bytes.
    pub request_bytes_max: usize,
    /// Watch responses to clients that allow it are cut at this size, in bytes.
    pub fragment_bytes: usize,
    /// What the newest events may take in memory, in bytes.
    pub watch_log_bytes_max: usize,
    /// The quota in bytes; `None` for none.
    pub quota_bytes: Option<u64>,
    /// See [`Parts::request_timeout`].
    pub request_timeout: Option<Duration>,
    /// An entry that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// The shortest time to live of a lease, in seconds.
    pub lease_ttl_min_s: i64,
    /// Flushed bytes after which a new checkpoint of the index is written.
    pub checkpoint_bytes: u64,
    /// Space set aside for the day the disk is full, in bytes, beside what a copy of a segment of the log
    /// takes.
    pub reserve_bytes: u64,
}

/// A member that runs on threads of its own.
pub struct Running {
    /// For everyone who wants something of it.
    pub handle: Handle,
    owner: JoinHandle<Result<(), RunError>>,
    ended: tokio::sync::oneshot::Receiver<()>,
    // Each thread that writes holds it too, so its lock is held until the last of them has ended.
    _data_dir: Arc<DataDir>,
}

/// Why a start ends. Nothing was lost.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The variants are the errors they hold.
pub enum RecoverError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Records(#[from] RestoreError),
    #[error(transparent)]
    Row(#[from] DamagedRow),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "the state store has applied entry {store}, but the log can only be read from entry {log} on; \
         one of them is of another time: put back both as they were at one time"
    )]
    Gap { store: u64, log: u64 },
    #[error(
        "--initial-cluster-state is existing, but {} holds no member, and joining a cluster is not \
         supported yet; start with new, and if the disk was lost, bring in the keys of a backup",
        path.display()
    )]
    NothingToContinue { path: PathBuf },
}

/// Why a running member ends. Everything that was acknowledged is in the log.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The variants are the errors they hold.
pub enum RunError {
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error(transparent)]
    Log(#[from] WalError),
    #[error(transparent)]
    Flusher(#[from] FlusherError),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    DiskFull(String),
}

impl RecoverError {
    /// Whether the file system has no room left.
    pub fn is_storage_full(&self) -> bool {
        match self {
            Self::DataDir(DataDirError::Io { error, .. }) => is_storage_full(error),
            Self::Wal(error) => error.is_storage_full(),
            Self::Store(OpenError::Failed { fault, .. }) => fault.is_storage_full(),
            Self::Checkpoint(error) => is_storage_full(&error.source),
            _ => false,
        }
    }

    /// The exit code of a process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(error) => error.exit_code(),
            Self::Wal(error) => error.exit_code(),
            Self::Store(OpenError::Format { .. }) => exit::NEWER_FORMAT,
            Self::Store(OpenError::Foreign { .. }) => exit::OTHER_CLUSTER,
            Self::Store(OpenError::Failed { fault: Fault::Format(_), .. }) => exit::NEWER_FORMAT,
            Self::Store(
                OpenError::Missing { .. } | OpenError::Failed { fault: Fault::Damaged(_), .. },
            )
            | Self::Records(_)
            | Self::Row(_) => exit::STATE_DAMAGED,
            Self::Rows(error) if error.is_damage() => exit::STATE_DAMAGED,
            Self::Store(_) | Self::Rows(_) | Self::Checkpoint(_) => exit::DISK,
            Self::Gap { .. } => exit::LOG_DAMAGED,
            Self::NothingToContinue { .. } => 1,
        }
    }
}

impl RunError {
    /// Whether the file system has no room left.
    pub fn is_storage_full(&self) -> bool {
        match self {
            Self::Log(error) => error.is_storage_full(),
            Self::Flusher(error) => error.is_storage_full(),
            Self::DiskFull(_) => true,
            Self::Failed(_) | Self::Fatal(_) | Self::Damaged(_) => false,
        }
    }

    /// The exit code of a process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fatal(Fatal::Apply(FatalError::Rows(error))) if !error.is_damage() => exit::DISK,
            Self::Fatal(_) | Self::Damaged(_) => exit::STATE_DAMAGED,
            Self::Flusher(error) if error.is_damage() => exit::STATE_DAMAGED,
            Self::Log(_) | Self::Flusher(_) | Self::Failed(_) | Self::DiskFull(_) => exit::DISK,
        }
    }
}

/// A recovered member whose parts do not run yet.
pub struct Assembled {
    /// For everyone who wants something of it.
    pub handle: Handle,
    /// What flushes.
    pub worker: Worker,
    /// Space set aside.
    pub reserve: SpareSpace,
    /// The data dir, locked as long as this lives.
    pub data_dir: DataDir,
    /// What an [`Owner`] is made of.
    pub core: Core,
}

/// The replica and its log.
pub struct Core {
    replica: Replica,
    log: log::LogWriter,
    compactions: Compactions,
    tick_elapsed_max: Duration,
}

/// What a member is put into.
pub struct Surroundings {
    /// Counts what it does.
    pub metrics: Arc<Metrics>,
    /// Where requests for a rewrite of the state store go.
    pub rewrites: Sender<Work>,
}

/// Puts a recovered member together.
///
/// # Errors
/// [`RunError`] if the log cannot be continued.
pub fn assemble(
    setup: &Setup,
    recovered: Recovered,
    options: Options,
    surroundings: Surroundings,
) -> Result<Assembled, RunError> {
    let Surroundings { metrics, rewrites } = surroundings;
    let Recovered { data_dir, wal, store, view, replica: recovered_replica, report } = recovered;
    let rows: Arc<dyn Rows> = Arc::new(store.reader());
    view.observe(Arc::new(LockTimes::new(metrics.clone())));
    let handle = Handle::new(Parts {
        view: view.clone(),
        rows: rows.clone(),
        watches: Watches::new(Hub::new(
            view.current_revision(),
            options.fragment_bytes,
            options.watch_log_bytes_max,
            options.replica.boot_nonce,
        )),
        first_id: options.first_request_id,
        request_bytes_max: options.request_bytes_max,
        quota_bytes: options.quota_bytes,
        request_timeout: options.request_timeout,
        lease_ttl_min_s: options.lease_ttl_min_s,
        defragment: Box::new(move |done| drop(rewrites.send(Work::Rewrite(done)))),
    });
    let status = handle.status();
    status.cluster_id.store(setup.cluster_id, Ordering::Relaxed);
    status.member_id.store(setup.member.id, Ordering::Relaxed);
    status.space.db_file_bytes.store(size(store.space().file_bytes), Ordering::Relaxed);
    status.space.quota_bytes.store(size(options.quota_bytes.unwrap_or(0)), Ordering::Relaxed);
    let flusher_options = FlusherOptions {
        checkpoint_bytes: options.checkpoint_bytes,
        ..FlusherOptions::new(data_dir.index_dir(), setup.cluster_id)
    };
    let flusher = Flusher::new(
        (setup.fs.clone(), flusher_options),
        store,
        view.clone(),
        report.checkpoint_revision,
    );
    let election_ticks =
        u32::try_from(options.replica.consensus.election_ticks).unwrap_or(u32::MAX);
    let tick_elapsed_max = options.tick.saturating_mul(election_ticks);
    let reserves = data_dir.reserve_paths();
    let reserves = reserves.iter().map(PathBuf::as_path);
    let reserve_bytes =
        bytes_for_start(wal.segment_bytes(), options.request_bytes_max, options.reserve_bytes);
    let reserve = SpareSpace::open(&setup.fs, reserves, reserve_bytes);
    Ok(Assembled {
        core: Core {
            replica: Replica::new(options.replica, recovered_replica, view, rows)?
                .with_laps(Box::new(ApplyLaps::new(&metrics, options.slow_apply))),
            log: log::LogWriter::new(wal, metrics.clone()),
            compactions: Compactions::new(&metrics),
            tick_elapsed_max,
        },
        worker: Worker::new(flusher, handle.clone(), metrics),
        reserve,
        handle,
        data_dir,
    })
}

/// Starts the threads of a recovered member. It serves once the replica leads or follows.
///
/// # Errors
/// [`RunError`] if the log cannot be continued or a thread cannot be started.
pub fn start(
    setup: &Setup,
    recovered: Recovered,
    options: Options,
    metrics: Arc<Metrics>,
) -> Result<Running, RunError> {
    let (work, queue) = background::queue();
    let tick = options.tick;
    let surroundings = Surroundings { metrics, rewrites: work.clone() };
    let assembled = assemble(setup, recovered, options, surroundings)?;
    let Assembled { handle, worker, mut reserve, data_dir, core } = assembled;
    let data_dir = Arc::new(data_dir);
    let place = Place::new(setup.fs.clone(), data_dir.clone(), core.log.kept_bytes());
    let background = Background::spawn(worker, (work, queue), place)?;
    let threads = Threads::new(background, data_dir.clone());
    let owner = Owner::new(core, handle.clone(), threads);
    let (end, ended) = tokio::sync::oneshot::channel();
    let reserved_dir = data_dir.clone();
    let owner = std::thread::Builder::new()
        .name("owner".into())
        .spawn(move || {
            // Writing the reserve takes as long as the disk needs for 96 MiB: beside, not before. It keeps
            // the data dir locked until it is done.
            let (running, ended) = mpsc::channel();
            let reserving = Ending::spawn("reserve", move || {
                let _locked = reserved_dir;
                reserve.keep_aside(&ended, RESERVE_INTERVAL);
                reserve
            });
            let result = owner.run(tick);
            drop(running);
            match reserving.map(|thread| thread.within(ABANDON_WAIT)) {
                Ok(Some(Ok(mut reserve))) => reserve.ended(&result),
                Ok(Some(Err(_))) => tracing::warn!("the thread that sets space aside panicked"),
                Ok(None) => tracing::warn!("what sets space aside hangs: ending without it"),
                Err(error) => tracing::warn!(%error, "no space was set aside for want of a thread"),
            }
            // Nobody listens if the process is already on its way out.
            let _ = end.send(());
            result
        })
        .map_err(|error| RunError::Failed(format!("cannot start a thread: {error}")))?;
    Ok(Running { handle, owner, ended, _data_dir: data_dir })
}

impl Running {
    /// Waits until the member has ended by itself or after [`Handle::stop`].
    ///
    /// # Errors
    /// [`RunError`], the reason why it ended.
    pub async fn ended(self) -> Result<(), RunError> {
        // An error says that the thread ended without a word; joining it tells more.
        let _ = self.ended.await;
        self.owner.join().unwrap_or_else(|_| Err(RunError::Failed("the owner panicked".into())))
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Revision;
    use crate::storage::state::RewriteError;

    #[test]
    fn a_quota_that_is_used_up_is_a_full_disk_wherever_it_is_found() {
        const EDQUOT: i32 = 122;
        const EIO: i32 = 5;
        let (operation, action) = ("write", "write");
        for (code, is_full) in [(EDQUOT, true), (EIO, false)] {
            let error = || std::io::Error::from_raw_os_error(code);
            let log = || WalError::Io { operation, path: PathBuf::new(), error: error() };
            let fault = || Fault::Io(error());
            let store = || OpenError::Failed { path: PathBuf::new(), action, fault: fault() };
            let checkpoint = || CheckpointError { path: PathBuf::new(), action, source: error() };
            let data_dir = DataDirError::Io { operation, path: PathBuf::new(), error: error() };
            let recover: [RecoverError; 4] =
                [data_dir.into(), log().into(), store().into(), checkpoint().into()];
            for error in recover {
                assert_eq!(error.is_storage_full(), is_full, "{error:?}");
            }
            let flusher = |error: FlusherError| RunError::from(error);
            let run = [log().into(), flusher(store().into()), flusher(checkpoint().into())];
            for error in run {
                assert_eq!(error.is_storage_full(), is_full, "{error:?}");
            }
        }
    }

    #[test]
    fn damage_found_while_running_does_not_end_like_a_disk_that_refuses() {
        let damaged = || Fault::Damaged("row 2.0 does not match its checksum".into());
        let corrupt = || RowsError::Corrupt(damaged().to_string());
        let io = || RowsError::Io("an I/O error".into());
        let apply = |error| RunError::Fatal(Fatal::Apply(FatalError::Rows(error)));
        let rewrite = |fault| {
            let path = PathBuf::from("state.redb");
            RunError::Flusher(FlusherError::Rewrite(RewriteError::Store { path, fault }))
        };
        for (error, code) in [
            (apply(corrupt()), exit::STATE_DAMAGED),
            (apply(RowsError::Missing(Revision::new(2, 0))), exit::STATE_DAMAGED),
            (apply(io()), exit::DISK),
            (rewrite(damaged()), exit::STATE_DAMAGED),
            (rewrite(Fault::Earlier), exit::DISK),
            (RunError::Damaged(String::new()), exit::STATE_DAMAGED),
            (RunError::Failed(String::new()), exit::DISK),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
        assert_eq!(RecoverError::Rows(corrupt()).exit_code(), exit::STATE_DAMAGED);
        assert_eq!(RecoverError::Rows(io()).exit_code(), exit::DISK);
    }

    #[test]
    fn a_damaged_or_absent_store_does_not_end_like_a_disk_that_refuses() {
        let failed = |fault| OpenError::Failed { path: PathBuf::new(), action: "open", fault };
        for (error, code) in [
            (OpenError::Missing { path: PathBuf::new() }, exit::STATE_DAMAGED),
            (failed(Fault::Damaged(String::new())), exit::STATE_DAMAGED),
            (failed(Fault::Format(9)), exit::NEWER_FORMAT),
            (failed(Fault::Io(std::io::ErrorKind::StorageFull.into())), exit::DISK),
        ] {
            let text = error.to_string();
            assert_eq!(RecoverError::from(error).exit_code(), code, "{text}");
        }
    }
}
