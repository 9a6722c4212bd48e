//! Settings from command lines and environments, and the sentences that refuse them.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn load_line(line: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match load(args(line), env)? {
        Loaded::Run(config) => Ok(*config),
        Loaded::Print(text) => panic!("printed {text}"),
    }
}

fn ok(line: &str) -> Config {
    load_line(line, &[]).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn without_flags_everything_is_as_in_etcd() {
    let config = ok("");
    assert_eq!(config.member.name, "default");
    assert_eq!(config.member.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.member.wal_dir, None);
    assert_eq!(config.raft.heartbeat, Duration::from_millis(100));
    assert_eq!(config.raft.election_ticks, 10);
    assert_eq!(config.listen.client[0].to_string(), "127.0.0.1:2379");
    assert_eq!(config.listen.http2.concurrent_streams_max, u32::MAX);
    assert_eq!(config.listen.http2.keepalive_interval, Some(Duration::from_secs(7200)));
    assert_eq!(config.limits.txn_ops_max, 128);
    assert_eq!(config.limits.message_bytes_max(), 2 << 20);
    assert_eq!(config.storage.quota_bytes, Some(2 << 30));
    assert_eq!(config.storage.wals_max, Some(5));
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(config.cluster.cluster_id, 0xcdf8_1819_4e3a_8c32);
    assert_eq!(config.notices, Vec::<String>::new());
}

#[test]
fn go_flag_syntax_is_read_as_go_reads_it() {
    for line in [
        "--name a --max-wals 7 --pre-vote=false",
        "-name a -max-wals=7 -pre-vote=F",
        "--name=b --name=a --max-wals=0x7 --pre-vote --pre-vote=0",
    ] {
        let config = ok(line);
        assert_eq!(config.member.name, "a", "{line}");
        assert_eq!(config.storage.wals_max, Some(7), "{line}");
        assert!(!config.raft.pre_vote, "{line}");
    }
}

#[test]
fn variables_set_what_flags_set_and_empty_or_foreign_ones_do_not_count() {
    let env = [
        ("ETCD_NAME", "a"),
        ("ETCD_WAL_DIR", ""),
        ("QUORATE_CACHE_BYTES", "7000000"),
        ("ETCD_NOPE", "1"),
        ("ETCD_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let config = load_line("", &env).unwrap();
    assert_eq!((config.member.name.as_str(), config.storage.cache_bytes), ("a", 7_000_000));
    assert_eq!(config.notices, ["the environment variable ETCD_NOPE names no setting"]);
}

#[test]
fn what_is_not_meant_is_refused_in_one_sentence_that_says_what_would_be_right() {
    let cases = [
        ("--frobnicate", 2, "there is no flag --frobnicate: --help lists all flags"),
        ("--data-dirr x", 2, "there is no flag --data-dirr: did you mean --data-dir?"),
        ("--name", 2, "--name needs a value, any text: write --name=..."),
        ("extra", 2, "\"extra\" is not a flag"),
        ("--pre-vote false", 2, "\"false\" is not a flag"),
        ("--pre-vote=maybe", 2, "--pre-vote is \"maybe\", but must be true or false"),
        ("--heartbeat-interval x", 2, "must be a whole number from 0 to 2^64 - 1"),
        ("--max-txn-ops=-1", 2, "must be a whole number from 0 to 2^64 - 1"),
        ("--max-wals 99999999999999999999", 2, "must be a whole number from 0 to 2^64 - 1"),
        ("--quota-backend-bytes 8G", 2, "must be a whole number from -2^63 to 2^63 - 1"),
        ("--grpc-keepalive-interval 5", 2, "must be a duration like 500ms, 5s or 1m30s"),
        ("--initial-cluster-state foo", 2, "must be new or existing"),
        ("--log-format foo", 2, "must be json or console"),
        ("--metrics foo", 2, "must be basic or extensive"),
        (
            "--election-timeout 300",
            1,
            "must be at least 5 times --heartbeat-interval, which is 100",
        ),
        ("--name=", 1, "--name is \"\", but must not be empty"),
        ("--max-request-bytes 0", 1, "must be at least 1"),
        ("--max-request-bytes 134217729", 1, "must be at most 134217728 (128 MiB)"),
        ("--max-txn-ops 0", 1, "must be at least 1"),
        (
            "--quorate-cache-bytes 7",
            1,
            "--quorate-cache-bytes is \"7\", but must be at least 1048576",
        ),
        ("--election-timeout 60000", 1, "must be at most 50000 (milliseconds)"),
        ("--heartbeat-interval 0", 1, "must be at least 1 (millisecond)"),
        ("--listen-client-urls http://127.0.0.1:1", 1, "--advertise-client-urls is required when"),
        (
            "--listen-client-urls http://foo.example:1 --advertise-client-urls http://x:1",
            1,
            "--listen-client-urls is wrong: \"http://foo.example:1\" must have an IP address or localhost",
        ),
        ("--listen-peer-urls https://127.0.0.1:1", 1, "asks for TLS, which is not available yet"),
        ("--listen-metrics-urls http://127.0.0.1:2379", 1, "127.0.0.1:2379 is given twice"),
        ("--auto-compaction-retention x", 1, "must be a duration like 5m, or a number of hours"),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 5m",
            1,
            "must be a number of revisions",
        ),
        ("--wal-dir a --data-dir a", 1, "must not be the same as --data-dir"),
        ("--discovery-srv a", 1, "--discovery-srv is not supported yet: use --initial-cluster"),
        (
            "--unsafe-no-fsync",
            1,
            "--unsafe-no-fsync is not supported: a write is acknowledged only",
        ),
        ("--cert-file x", 1, "--cert-file is not supported yet: TLS"),
        ("--config-file x", 1, "--config-file is not supported yet: give the settings as flags"),
        ("--feature-gates Nope=true", 2, "--feature-gates has no feature \"Nope\""),
        ("--feature-gates AllAlpha=true", 1, "is not supported yet: leave it at false"),
        ("--initial-cluster x", 1, "--initial-cluster is wrong: \"x\" is not of the form name=url"),
    ];
    for (line, exit_code, expected) in cases {
        let error = load_line(line, &[]).expect_err(line);
        let text = error.to_string();
        assert!(text.contains(expected), "{line}: {text}");
        assert_eq!(error.exit_code(), exit_code, "{line}: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let error = load_line("--name b", &[("ETCD_NAME", "a")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "--name and the environment variable ETCD_NAME are both set: remove one of them"
    );
    let error = load_line("", &[("ETCD_PRE_VOTE", "x")]).unwrap_err();
    assert_eq!(error.to_string(), "ETCD_PRE_VOTE is \"x\", but must be true or false");
    assert_eq!(error.exit_code(), 1);
}

/// Whoever set a variable has no flag to look for.
#[test]
fn a_refusal_of_a_variable_names_the_variable() {
    let cases: [(&[(&str, &str)], &str); 13] = [
        (&[("ETCD_CERT_FILE", "x")], "ETCD_CERT_FILE is not supported yet: TLS"),
        (&[("ETCD_UNSAFE_NO_FSYNC", "true")], "ETCD_UNSAFE_NO_FSYNC is not supported: a write"),
        (&[("ETCD_MAX_WALS", "x")], "ETCD_MAX_WALS is \"x\", but must be a whole number"),
        (&[("QUORATE_CACHE_BYTES", "7")], "QUORATE_CACHE_BYTES is \"7\", but must be at least"),
        (&[("ETCD_FEATURE_GATES", "x")], "ETCD_FEATURE_GATES has \"x\", but must be a list"),
        (&[("ETCD_FEATURE_GATES", "x=true")], "ETCD_FEATURE_GATES has no feature \"x\""),
        (
            &[("ETCD_FEATURE_GATES", "AllAlpha=true")],
            "ETCD_FEATURE_GATES AllAlpha=true is not supported yet",
        ),
        (
            &[("ETCD_NAME", "a"), ("ETCD_INITIAL_CLUSTER", "b=http://x:1")],
            "ETCD_INITIAL_CLUSTER has no member named \"a\", which is the ETCD_NAME of this one",
        ),
        (
            &[
                ("ETCD_INITIAL_CLUSTER", "default=http://x:1"),
                ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://x:2"),
            ],
            "at http://x:1, but ETCD_INITIAL_ADVERTISE_PEER_URLS is http://x:2",
        ),
        (
            &[("ETCD_HEARTBEAT_INTERVAL", "900")],
            "--election-timeout is \"1000\", but must be at least 5 times ETCD_HEARTBEAT_INTERVAL",
        ),
        (
            &[("ETCD_DATA_DIR", "a"), ("ETCD_WAL_DIR", "a")],
            "ETCD_WAL_DIR is \"a\", but must not be the same as ETCD_DATA_DIR",
        ),
        (
            &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")],
            "--advertise-client-urls is required when ETCD_LISTEN_CLIENT_URLS is set",
        ),
        (
            &[("ETCD_LISTEN_METRICS_URLS", "http://127.0.0.1:2379")],
            "--listen-client-http-urls, ETCD_LISTEN_METRICS_URLS and --listen-peer-urls",
        ),
    ];
    for (env, expected) in cases {
        let error = load_line("", env).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        for (name, _) in env {
            let flag = name.replace("ETCD_", "--").replace('_', "-").to_ascii_lowercase();
            let named = |word: &str| word.trim_end_matches([',', ':']) == flag;
            assert!(!error.split(' ').any(named), "{flag}: {error}");
        }
    }
    let config = load_line("", &[("ETCD_SNAPSHOT_COUNT", "7")]).unwrap();
    assert!(config.notices[0].starts_with("ETCD_SNAPSHOT_COUNT has no effect: "));
}

#[test]
fn settings_without_effect_are_named_unless_they_are_the_default() {
    let config =
        ok("--backend-batch-limit 7 --max-snapshots 5 --backend-batch-interval 0s --snapshot");
    assert_eq!(config.notices.len(), 2, "{:?}", config.notices);
    assert!(config.notices[0].contains("--snapshot has no effect any more"));
    assert!(config.notices[1].starts_with("--backend-batch-limit has no effect: "));
    let config = ok("--quota-backend-bytes 9000000000 --unsafe-no-fsync=false --auth-token=simple");
    assert_eq!(config.notices.len(), 1, "{:?}", config.notices);
}

#[test]
fn retention_is_read_by_its_mode() {
    let cases = [
        ("--auto-compaction-retention 0", AutoCompaction::Off),
        ("--auto-compaction-retention 0s", AutoCompaction::Off),
        ("--auto-compaction-retention 2", AutoCompaction::Periodic(Duration::from_secs(7200))),
        ("--auto-compaction-retention 5m", AutoCompaction::Periodic(Duration::from_secs(300))),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 1000",
            AutoCompaction::Revision(1000),
        ),
        ("--auto-compaction-mode revision", AutoCompaction::Off),
    ];
    for (line, expected) in cases {
        assert_eq!(ok(line).auto_compaction, expected, "{line}");
    }
}

#[test]
fn zero_and_negative_sizes_mean_what_they_mean_in_etcd() {
    let config = ok("--quota-backend-bytes -1 --max-wals 0 --grpc-keepalive-interval 0 \
                     --max-concurrent-streams 0");
    assert_eq!(config.storage.quota_bytes, None);
    assert_eq!(config.storage.wals_max, None);
    assert_eq!(config.listen.http2.keepalive_interval, None);
    assert_eq!(config.listen.http2.concurrent_streams_max, u32::MAX);
}

#[test]
fn a_name_alone_makes_a_cluster_of_one_at_its_own_urls() {
    let config = ok("--name a --initial-advertise-peer-urls http://h:1,http://g:1");
    let initial = config.cluster;
    assert_eq!(initial.members.len(), 1);
    assert_eq!(initial.members[0].peer_urls, ["http://g:1", "http://h:1"]);
    assert_eq!(initial.members[0].id, initial.member_id);
}

#[test]
fn version_prints_the_four_lines_of_etcd_first() {
    let Ok(Loaded::Print(text)) = load(args("--version"), []) else { panic!() };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "etcd Version: 3.7.3");
    for (line, start) in
        lines.iter().zip(["etcd Version: ", "Git SHA: ", "Go Version: ", "Go OS/Arch: "])
    {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(lines[4], concat!("quorate Version: ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn leases_are_checkpointed_unless_the_gate_says_otherwise() {
    let on = |line: &str| ok(line).raft.lease_checkpoint;
    assert!(on("") && on("--feature-gates LeaseCheckpoint=true,LeaseCheckpointPersist=true"));
    assert!(!on("--feature-gates LeaseCheckpoint=false"));
    let config = ok("--feature-gates LeaseCheckpointPersist=false");
    assert!(config.raft.lease_checkpoint);
    assert_eq!(config.notices.len(), 1, "{:?}", config.notices);
}
