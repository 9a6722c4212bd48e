//! Flags and environment, read once at the start into one checked value.
//!
//! ```text
//! arguments, environment -> Settings (one text per flag, of the right kind)
//!                        -> Config   (typed, and free of contradictions)
//! ```
//!
//! The flags are etcd's, so that the container of an existing deployment can be swapped. A flag whose
//! feature is not there is refused in one sentence, never ignored; one that tunes etcd's insides is
//! accepted and logged as having no effect.
//!
//! ```
//! use quorate_server::config::{self, Loaded};
//!
//! let args = ["--name=a", "--quota-backend-bytes=1000"].map(String::from);
//! let Ok(Loaded::Run(config)) = config::load(args, []) else { panic!() };
//! assert_eq!(config.storage.quota_bytes, Some(1000));
//! assert_eq!(config.member.data_dir.to_str(), Some("a.etcd"));
//! ```

mod build;
mod cluster;
mod features;
mod flags;
mod settings;
mod urls;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use build::REQUEST_BYTES_MAX;
pub use cluster::{InitialCluster, InitialMember, cluster_id, member_id};
pub use urls::{ListenAddr, Url};

use settings::Settings;

/// The version of etcd whose behaviour this is, for clients that ask.
pub const ETCD_VERSION: &str = "3.7.3";
/// The version of the cluster and of the storage that goes with it.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

/// What the command line asks for.
#[derive(Debug)]
pub enum Loaded {
    /// Start a member.
    Run(Box<Config>),
    /// Print this text and exit.
    Print(String),
}

/// A refusal: one sentence for the person who set it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ConfigError {
    sentence: String,
    exit_code: u8,
}

impl ConfigError {
    /// The command line cannot be read: `sentence` names the argument and what would be right.
    pub fn usage(sentence: String) -> Self {
        Self { sentence, exit_code: 2 }
    }

    /// The settings cannot be what is meant.
    pub(crate) fn invalid(sentence: String) -> Self {
        Self { sentence, exit_code: 1 }
    }

    /// The exit code that etcd has for it: 2 if the command line cannot be read, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this member is and where its state is.
    pub member: MemberConfig,
    /// Who its cluster is.
    pub cluster: InitialCluster,
    /// Time and log of raft.
    pub raft: RaftConfig,
    /// The sockets.
    pub listen: ListenConfig,
    /// What a client may ask for.
    pub limits: LimitConfig,
    /// State store, log and quota.
    pub storage: StorageConfig,
    /// When history is dropped without being asked.
    pub auto_compaction: AutoCompaction,
    /// Logs.
    pub log: LogConfig,
    /// What is counted and warned about.
    pub monitor: MonitorConfig,
    /// Sentences to log at the start: settings without effect, unknown variables.
    pub notices: Vec<String>,
}

/// Who this member is and where its state is.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// Its name.
    pub name: String,
    /// The directory of its state.
    pub data_dir: PathBuf,
    /// The directory of the log, if it is elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// What it tells clients, sorted.
    pub advertise_client_urls: Vec<Url>,
}

/// Time and log of raft.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The length of a tick.
    pub heartbeat: Duration,
    /// Ticks without a leader until an election.
    pub election_ticks: u32,
    /// Ask for votes first.
    pub pre_vote: bool,
    /// Write down now and then what is left of long leases, so that a new leader does not begin anew.
    pub lease_checkpoint: bool,
    /// Entries kept for slow followers.
    pub snapshot_catchup_entries: u64,
}

/// The sockets.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// gRPC, and HTTP unless `client_http` has any.
    pub client: Vec<ListenAddr>,
    /// HTTP for clients only.
    pub client_http: Vec<ListenAddr>,
    /// Metrics and health only.
    pub metrics: Vec<ListenAddr>,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// How connections are kept.
    pub http2: Http2Config,
}

/// How HTTP/2 connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Http2Config {
    /// Most streams at once on a connection.
    pub concurrent_streams_max: u32,
    /// Time between two pings to a silent client; `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// Shortest time between two pings of a client; zero leaves it to gRPC, whose default is 5 minutes.
    pub keepalive_min_time: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}

/// What a client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct LimitConfig {
    /// Most operations in a branch of a transaction.
    pub txn_ops_max: usize,
    /// Largest proposed command, in bytes.
    pub request_bytes_max: usize,
}

impl LimitConfig {
    /// Largest gRPC message, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(512 * 1024)
    }
}

/// State store, log and quota.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfig {
    /// Segments of the log to keep beside those that are needed; `None` keeps all.
    pub wals_max: Option<u64>,
    /// Bytes of data after which writes are refused; `None` is no quota.
    pub quota_bytes: Option<u64>,
    /// Whether the member disarms the NOSPACE alarm that it raised.
    pub quota_auto_disarm: bool,
    /// Memory for the newest revisions, in bytes.
    pub window_bytes: u64,
    /// Memory for the cache of the state store, in bytes.
    pub cache_bytes: u64,
}

/// When history is dropped without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep this much time.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe messages that are logged.
    pub level: LogLevel,
    /// Their form; `None` is readable on a terminal and JSON elsewhere.
    pub format: Option<LogFormat>,
    /// Where they go.
    pub outputs: Vec<LogOutput>,
}

/// How severe a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are etcd's.
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Console,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum LogOutput {
    Stderr,
    Stdout,
    File(PathBuf),
}

/// What is counted and warned about.
#[derive(Clone, Debug)]
pub struct MonitorConfig {
    /// Histograms of gRPC.
    pub extensive_metrics: bool,
    /// A request that takes longer is logged.
    pub warning_unary_request: Duration,
    /// Time between two progress notifications to a watcher that wants them.
    pub watch_progress_interval: Duration,
    /// An entry that takes longer to apply is logged.
    pub warning_apply: Duration,
    /// The feature gates: name, stage as etcd has it, and whether it is on.
    pub features: Vec<(&'static str, &'static str, bool)>,
}

/// Reads the command line (without the program's name) and the environment.
///
/// # Errors
/// The sentence to print, and the code to exit with.
pub fn load(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let settings = Settings::read(args, env)?;
    if settings.flag("help") || settings.flag("h") {
        return Ok(Loaded::Print(flags::help()));
    }
    if settings.flag("version") {
        return Ok(Loaded::Print(version()));
    }
    build::config(settings).map(|config| Loaded::Run(Box::new(config)))
}

/// The text of `--version`: etcd's four lines, which tools read, then ours.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: Not provided\nGo Version: none\nGo OS/Arch: {}/{arch}\n\
         quorate Version: {}\n",
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION"),
    )
}
