//! A running member: recovery, the owner thread, the flusher thread, and their orderly end.

mod background;
mod log;
mod owner;
mod recovery;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::handle::{Handle, Parts};
use crate::mvcc::{DamagedRow, Rows, RowsError};
use crate::replica::{self, Fatal, Replica};
use crate::state_machine::RestoreError;
use crate::storage::checkpoint::CheckpointError;
use crate::storage::data_dir::{DataDir, DataDirError, exit};
use crate::storage::flusher::{Flusher, FlusherError, FlusherOptions};
use crate::storage::reserve::{RESERVE_BYTES, Reserve};
use crate::storage::state::OpenError;
use crate::storage::wal::WalError;
use crate::telemetry::Metrics;

use background::{Background, Work, Worker};
use owner::{Owner, Rounds};

pub use recovery::{Recovered, Report, Setup, recover};

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
    /// The quota in bytes; `None` for none.
    pub quota_bytes: Option<u64>,
}

/// A member that runs on threads of its own.
pub struct Running {
    /// For everyone who wants something of it.
    pub handle: Handle,
    owner: JoinHandle<Result<(), RunError>>,
    ended: tokio::sync::oneshot::Receiver<()>,
    // Its lock is held until the threads have ended.
    _data_dir: DataDir,
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
         one of them is of another time: restore the data dir as a whole"
    )]
    Gap { store: u64, log: u64 },
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
}

impl RecoverError {
    fn is_storage_full(&self) -> bool {
        match self {
            Self::Wal(error) => error.is_storage_full(),
            Self::Store(OpenError::Failed { fault, .. }) => fault.is_storage_full(),
            Self::DataDir(DataDirError::Io { error, .. }) => {
                error.kind() == std::io::ErrorKind::StorageFull
            }
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
            Self::Store(_) | Self::Rows(_) | Self::Checkpoint(_) => exit::DISK,
            Self::Records(_) | Self::Row(_) => exit::STATE_DAMAGED,
            Self::Gap { .. } => exit::LOG_DAMAGED,
        }
    }
}

impl RunError {
    /// The exit code of a process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fatal(_) => exit::STATE_DAMAGED,
            Self::Log(_) | Self::Flusher(_) | Self::Failed(_) => exit::DISK,
        }
    }
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
    let Recovered { data_dir, wal, store, view, replica: recovered_replica, report } = recovered;
    let rows: Arc<dyn Rows> = Arc::new(store.reader());
    let (work, queue) = background::queue();
    let rewrites = work.clone();
    let handle = Handle::new(Parts {
        view: view.clone(),
        rows: rows.clone(),
        first_id: options.first_request_id,
        request_bytes_max: options.request_bytes_max,
        quota_bytes: options.quota_bytes,
        defragment: Box::new(move |done| drop(rewrites.send(Work::Rewrite(done)))),
    });
    let status = handle.status();
    status.cluster_id.store(setup.cluster_id, Ordering::Relaxed);
    status.member_id.store(setup.member.id, Ordering::Relaxed);
    status.db_file_bytes.store(size(store.space().file_bytes), Ordering::Relaxed);
    status.quota_bytes.store(size(options.quota_bytes.unwrap_or(0)), Ordering::Relaxed);
    let flusher_options = FlusherOptions::new(data_dir.index_dir(), setup.cluster_id);
    let flusher = Flusher::new(
        (setup.fs.clone(), flusher_options),
        store,
        view.clone(),
        report.checkpoint_revision,
    );
    let worker = Worker {
        flusher,
        handle: handle.clone(),
        metrics: metrics.clone(),
        fs: setup.fs.clone(),
        data_dir: data_dir.path().to_owned(),
    };
    let replica = Replica::new(options.replica, recovered_replica, view, rows)?;
    let owner = Owner {
        replica,
        handle: handle.clone(),
        log: log::LogWriter::new(wal, metrics),
        background: Background::spawn(worker, (work, queue))?,
        tick: options.tick,
        rounds: Rounds::default(),
    };
    let reserve = Reserve::open(setup.fs.clone(), &data_dir.reserve_path(), RESERVE_BYTES);
    let (end, ended) = tokio::sync::oneshot::channel();
    let owner = std::thread::Builder::new()
        .name("owner".into())
        .spawn(move || {
            let result = run(owner, reserve);
            // Nobody listens if the process is already on its way out.
            let _ = end.send(());
            result
        })
        .map_err(|error| RunError::Failed(format!("cannot start a thread: {error}")))?;
    Ok(Running { handle, owner, ended, _data_dir: data_dir })
}

/// Runs the owner. If the disk is full, gives the reserve up, so that the next start has room.
fn run(owner: Owner, reserve: std::io::Result<Reserve>) -> Result<(), RunError> {
    // Writing the reserve takes as long as the disk needs for 64 MiB: beside, not before.
    let reserving = std::thread::spawn(move || {
        let mut reserve = reserve?;
        reserve.restore()?;
        std::io::Result::Ok(reserve)
    });
    let result = owner.run();
    match reserving.join() {
        Ok(Ok(mut reserve)) if result.as_ref().is_err_and(RunError::is_storage_full) => {
            match reserve.release() {
                Ok(true) => {
                    tracing::warn!("the disk is full: gave the reserve up for the next start")
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the disk is full and the reserve is stuck"),
            }
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not set space aside for a full disk"),
        Err(_) => tracing::warn!("the thread that sets space aside panicked"),
    }
    result
}

impl RunError {
    fn is_storage_full(&self) -> bool {
        match self {
            Self::Log(error) => error.is_storage_full(),
            Self::Flusher(error) => error.is_storage_full(),
            Self::Failed(_) | Self::Fatal(_) => false,
        }
    }
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
