//! Settings into a [`Config`]: types, defaults that depend on others, contradictions.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::Settings;
use super::{
    AutoCompaction, Config, ConfigError, Http2Config, InitialCluster, LimitConfig, ListenAddr,
    ListenConfig, LogConfig, LogFormat, LogLevel, LogOutput, MemberConfig, MonitorConfig,
    RaftConfig, StorageConfig, Url, cluster, features, value,
};

const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const QUOTA_BYTES_USUAL_MAX: u64 = 8 << 30;
const REQUEST_BYTES_USUAL_MAX: usize = 10 << 20;
/// The longest request that can be allowed, in bytes. A record of the log holds one, and has its own bound.
pub const REQUEST_BYTES_MAX: usize = 128 << 20;
const CACHE_BYTES_MIN: u64 = 1 << 20;
const ELECTION_MS_MAX: u64 = 50_000;
const HEARTBEATS_PER_ELECTION_MIN: u64 = 5;

/// The settings that say where to listen: no address may be there twice.
const LISTEN_URLS: [&str; 4] =
    ["listen-client-urls", "listen-client-http-urls", "listen-metrics-urls", "listen-peer-urls"];

/// Time between two progress notifications, and the least that can be asked for; etcd's.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

pub(super) fn config(settings: Settings) -> Result<Config, ConfigError> {
    let mut notices = settings.notices.clone();
    let (gates, features) = features::read(&settings, &mut notices)?;
    let member = member(&settings)?;
    Ok(Config {
        cluster: initial_cluster(&settings, &member.name)?,
        raft: raft(&settings, gates.lease_checkpoint)?,
        listen: listen(&settings)?,
        limits: limits(&settings, &mut notices)?,
        storage: storage(&settings, &mut notices)?,
        auto_compaction: auto_compaction(&settings)?,
        log: log(&settings)?,
        monitor: MonitorConfig {
            extensive_metrics: settings.text("metrics") == "extensive",
            warning_unary_request: settings.duration("warning-unary-request-duration"),
            watch_progress_interval: watch_progress_interval(&settings)?,
            warning_apply: settings.duration("warning-apply-duration"),
            features,
        },
        member,
        notices,
    })
}

fn watch_progress_interval(settings: &Settings) -> Result<Duration, ConfigError> {
    const NAME: &str = "watch-progress-notify-interval";
    match settings.duration(NAME) {
        // As in etcd, nothing stands for the default.
        Duration::ZERO => Ok(WATCH_PROGRESS_INTERVAL),
        interval if interval < WATCH_PROGRESS_INTERVAL_MIN => {
            Err(refused(settings, NAME, "must be at least 100ms"))
        }
        interval => Ok(interval),
    }
}

fn member(settings: &Settings) -> Result<MemberConfig, ConfigError> {
    let name = settings.text("name").to_owned();
    if name.is_empty() {
        return Err(refused(settings, "name", "must not be empty"));
    }
    if name.contains([',', '=']) {
        return Err(refused(settings, "name", "must not hold a comma or an equals sign"));
    }
    let data_dir = match settings.text("data-dir") {
        text if !settings.is_set("data-dir") || text.is_empty() => format!("{name}.etcd"),
        text => text.to_owned(),
    };
    let data_dir = PathBuf::from(data_dir);
    let wal_dir = Some(settings.text("wal-dir")).filter(|t| !t.is_empty()).map(PathBuf::from);
    if wal_dir.as_ref() == Some(&data_dir) {
        let rule = format!("must not be the same as {}", settings.label("data-dir"));
        return Err(refused(settings, "wal-dir", &rule));
    }
    if settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        let listen = settings.label("listen-client-urls");
        return Err(ConfigError::invalid(format!(
            "--advertise-client-urls is required when {listen} is set: give the URLs at which clients \
             reach this member"
        )));
    }
    let advertise_client_urls = urls(settings, "advertise-client-urls")?;
    Ok(MemberConfig { name, data_dir, wal_dir, advertise_client_urls })
}

fn initial_cluster(settings: &Settings, name: &str) -> Result<InitialCluster, ConfigError> {
    let advertise_peer_urls = urls(settings, "initial-advertise-peer-urls")?;
    if advertise_peer_urls.is_empty() {
        return Err(refused(settings, "initial-advertise-peer-urls", "must name at least one URL"));
    }
    let initial = if settings.is_set("initial-cluster") {
        cluster::parse_initial(settings.text("initial-cluster"))
            .map_err(|why| refused(settings, "initial-cluster", &format!("is wrong: {why}")))?
    } else {
        [(name.to_owned(), advertise_peer_urls.clone())].into()
    };
    let flags = cluster::ClusterFlags {
        name: name.to_owned(),
        initial,
        is_new: settings.text("initial-cluster-state") == "new",
        token: settings.text("initial-cluster-token").to_owned(),
        advertise_peer_urls,
    };
    flags.describe(|name| settings.label(name))
}

fn raft(settings: &Settings, lease_checkpoint: bool) -> Result<RaftConfig, ConfigError> {
    let heartbeat_ms = settings.uint("heartbeat-interval");
    let election_ms = settings.uint("election-timeout");
    if heartbeat_ms == 0 {
        return Err(refused(settings, "heartbeat-interval", "must be at least 1 (millisecond)"));
    }
    if election_ms > ELECTION_MS_MAX {
        let rule = format!("must be at most {ELECTION_MS_MAX} (milliseconds)");
        return Err(refused(settings, "election-timeout", &rule));
    }
    if election_ms < heartbeat_ms.saturating_mul(HEARTBEATS_PER_ELECTION_MIN) {
        let rule = format!(
            "must be at least {HEARTBEATS_PER_ELECTION_MIN} times {}, which is {heartbeat_ms}",
            settings.label("heartbeat-interval")
        );
        return Err(refused(settings, "election-timeout", &rule));
    }
    Ok(RaftConfig {
        heartbeat: Duration::from_millis(heartbeat_ms),
        election_ticks: u32::try_from(election_ms / heartbeat_ms).unwrap_or(u32::MAX),
        pre_vote: settings.flag("pre-vote"),
        lease_checkpoint,
        snapshot_catchup_entries: settings.uint("snapshot-catchup-entries"),
    })
}

fn listen(settings: &Settings) -> Result<ListenConfig, ConfigError> {
    let [client, client_http, metrics, peer] = LISTEN_URLS.map(|name| addrs(settings, name));
    let (client, client_http, metrics, peer) = (client?, client_http?, metrics?, peer?);
    let mandatory = [("listen-client-urls", &client), ("listen-peer-urls", &peer)];
    if let Some((name, _)) = mandatory.iter().find(|(_, addrs)| addrs.is_empty()) {
        return Err(refused(settings, name, "must name at least one URL"));
    }
    let mut all: Vec<String> = [&client, &client_http, &metrics, &peer]
        .into_iter()
        .flatten()
        .map(|a| a.to_string())
        .collect();
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1] && !pair[0].ends_with(":0")) {
        let [client, http, metrics, peer] = LISTEN_URLS.map(|name| settings.label(name));
        return Err(ConfigError::invalid(format!(
            "{} is given twice among {client}, {http}, {metrics} and {peer}: give each its own port",
            pair[0]
        )));
    }
    let interval = settings.duration("grpc-keepalive-interval");
    // Of no stream at all a member would only look hung.
    let streams = match settings.uint("max-concurrent-streams") {
        0 => u32::MAX.into(),
        streams => streams,
    };
    Ok(ListenConfig {
        client,
        client_http,
        metrics,
        reuse_port: settings.flag("socket-reuse-port"),
        http2: Http2Config {
            concurrent_streams_max: u32::try_from(streams)
                .map_err(|_| refused(settings, "max-concurrent-streams", "must be below 2^32"))?,
            keepalive_interval: Some(interval).filter(|interval| !interval.is_zero()),
            keepalive_min_time: settings.duration("grpc-keepalive-min-time"),
            keepalive_timeout: settings.duration("grpc-keepalive-timeout"),
        },
    })
}

fn limits(settings: &Settings, notices: &mut Vec<String>) -> Result<LimitConfig, ConfigError> {
    let count = |name| {
        usize::try_from(settings.uint(name))
            .ok()
            .filter(|count| *count <= i32::MAX as usize)
            .ok_or_else(|| refused(settings, name, "must be below 2^31"))
    };
    if settings.uint("max-txn-ops") == 0 {
        return Err(refused(settings, "max-txn-ops", "must be at least 1"));
    }
    let limits = LimitConfig {
        txn_ops_max: count("max-txn-ops")?,
        request_bytes_max: count("max-request-bytes")?,
    };
    if limits.request_bytes_max == 0 {
        return Err(refused(settings, "max-request-bytes", "must be at least 1"));
    }
    if limits.request_bytes_max > REQUEST_BYTES_MAX {
        let rule = format!("must be at most {REQUEST_BYTES_MAX} (128 MiB)");
        return Err(refused(settings, "max-request-bytes", &rule));
    }
    if limits.request_bytes_max > REQUEST_BYTES_USUAL_MAX {
        notices.push(format!(
            "{} is {}: more than {REQUEST_BYTES_USUAL_MAX} makes every request slow",
            settings.label("max-request-bytes"),
            limits.request_bytes_max
        ));
    }
    Ok(limits)
}

fn storage(settings: &Settings, notices: &mut Vec<String>) -> Result<StorageConfig, ConfigError> {
    let quota_bytes = match settings.int("quota-backend-bytes") {
        0 => Some(QUOTA_BYTES_DEFAULT),
        bytes => u64::try_from(bytes).ok(),
    };
    if quota_bytes.is_some_and(|bytes| bytes > QUOTA_BYTES_USUAL_MAX) {
        notices.push(format!(
            "{} is above {QUOTA_BYTES_USUAL_MAX}, the most that is usual",
            settings.label("quota-backend-bytes")
        ));
    }
    let cache_bytes = settings.uint("quorate-cache-bytes");
    if cache_bytes < CACHE_BYTES_MIN {
        let rule = format!("must be at least {CACHE_BYTES_MIN} (1 MiB)");
        return Err(refused(settings, "quorate-cache-bytes", &rule));
    }
    Ok(StorageConfig {
        wals_max: Some(settings.uint("max-wals")).filter(|count| *count > 0),
        quota_bytes,
        quota_auto_disarm: settings.flag("quota-auto-disarm"),
        window_bytes: settings.uint("quorate-window-bytes"),
        cache_bytes,
    })
}

fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, ConfigError> {
    let text = settings.text("auto-compaction-retention");
    let number = value::integer(text);
    let periodic = settings.text("auto-compaction-mode") == "periodic";
    let found = match (periodic, number) {
        (_, Some(0)) => Some(AutoCompaction::Off),
        (true, Some(hours)) => u64::try_from(hours)
            .ok()
            .and_then(|hours| hours.checked_mul(3600))
            .map(|seconds| AutoCompaction::Periodic(Duration::from_secs(seconds))),
        (true, None) => value::duration(text).map(|keep| match keep {
            Duration::ZERO => AutoCompaction::Off,
            keep => AutoCompaction::Periodic(keep),
        }),
        (false, revisions) => revisions
            .and_then(|revisions| i64::try_from(revisions).ok())
            .filter(|revisions| *revisions > 0)
            .map(AutoCompaction::Revision),
    };
    let (what, mode) = if periodic {
        ("a duration like 5m, or a number of hours", "periodic")
    } else {
        ("a number of revisions", "revision")
    };
    found.ok_or_else(|| {
        let rule =
            format!("must be {what}, as {} is {mode}", settings.label("auto-compaction-mode"));
        refused(settings, "auto-compaction-retention", &rule)
    })
}

fn log(settings: &Settings) -> Result<LogConfig, ConfigError> {
    let level = match settings.text("log-level") {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        _ => LogLevel::Error,
    };
    let format = match settings.text("log-format") {
        "json" => Some(LogFormat::Json),
        "console" => Some(LogFormat::Console),
        _ => None,
    };
    let outputs: Vec<LogOutput> = settings
        .text("log-outputs")
        .split(',')
        .map(str::trim)
        .filter(|output| !output.is_empty())
        .map(|output| match output {
            "default" | "stderr" | "/dev/stderr" => LogOutput::Stderr,
            "stdout" | "/dev/stdout" => LogOutput::Stdout,
            path => LogOutput::File(PathBuf::from(path)),
        })
        .collect();
    if outputs.is_empty() {
        return Err(refused(settings, "log-outputs", "must name at least one output"));
    }
    Ok(LogConfig { level, format, outputs })
}

fn urls(settings: &Settings, name: &str) -> Result<Vec<Url>, ConfigError> {
    Url::parse_list(settings.text(name))
        .map_err(|why| refused(settings, name, &format!("is wrong: {why}")))
}

fn addrs(settings: &Settings, name: &str) -> Result<Vec<ListenAddr>, ConfigError> {
    let urls = urls(settings, name)?;
    if let Some(url) = urls.iter().find(|url| url.is_tls()) {
        let why = format!("is wrong: {url} asks for TLS, which is not available yet");
        return Err(refused(settings, name, &why));
    }
    urls.iter()
        .map(|url| {
            url.listen_addr().map_err(|why| refused(settings, name, &format!("is wrong: {why}")))
        })
        .collect()
}

fn refused(settings: &Settings, name: &str, rule: &str) -> ConfigError {
    let text = settings.text(name);
    let label = settings.label(name);
    match rule.strip_prefix("is wrong: ") {
        Some(why) => ConfigError::invalid(format!("{label} is wrong: {why}")),
        None => ConfigError::invalid(format!("{label} is {text:?}, but {rule}")),
    }
}
