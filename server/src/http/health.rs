//! `/health`, `/livez` and `/readyz`.
//!
//! `/livez` fails only when a restart would help: while the index is loaded a member is alive, and not
//! ready. The same holds while the disk hangs in a sync: reads go on, but no write is answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::site::{Page, Site};
use crate::mvcc::{KeyRange, RangeQuery, Revision, RevisionBounds};
use crate::state_machine::AlarmKind;
use crate::view::ReadError;

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// A page of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Live,
    Ready,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &LIVE,
            Self::Ready => &READY,
        }
    }

    /// Whether one of its checks is called so.
    pub(super) fn knows(self, check: &str) -> bool {
        self.checks().iter().any(|known| known.name() == check)
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

const READY: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];
const LIVE: [Check; 1] = [Check::SerializableRead];

/// What the query of a probe asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    verbose: bool,
    serializable: bool,
    excluded: Vec<String>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match decode(name).as_str() {
                "verbose" => parsed.verbose = true,
                "serializable" => parsed.serializable = value == "true",
                "exclude" => parsed.excluded.push(value),
                _ => {}
            }
        }
        parsed
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == name)
    }
}

/// What a name or a value of a query stands for.
fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// `/health`: nothing but whether a client can work with this member.
pub(super) async fn health(site: &Site, query: &Query) -> Page {
    let reason = reason(site, query).await;
    let health = &site.metrics().health;
    if reason.is_empty() {
        health.success.inc();
        return Page::text(StatusCode::OK, r#"{"health":"true","reason":""}"#);
    }
    health.failures.inc();
    tracing::warn!(reason, "health check failed");
    let body = serde_json::json!({ "health": "false", "reason": reason });
    Page::error(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
}

async fn reason(site: &Site, query: &Query) -> String {
    let handle = site.handle();
    for alarm in handle.alarms().iter() {
        let name = alarm.kind.name();
        if !query.excludes(name) {
            return format!("ALARM {name}");
        }
    }
    let status = handle.status();
    if !query.serializable && status.raft.leader_id.load(Relaxed) == 0 {
        return "RAFT NO LEADER".to_owned();
    }
    let read = if query.serializable {
        serializable(site)
    } else {
        linearizable(site).await.and_then(|()| serializable(site))
    };
    read.err().map(|error| format!("RANGE ERROR:{error}")).unwrap_or_default()
}

/// Looks up the empty key, which is the read that etcd makes: it takes the index and its lock, and as
/// nobody can have put that key, no disk.
fn serializable(site: &Site) -> Result<(), String> {
    let handle = site.handle();
    if !handle.status().ready.load(Relaxed) {
        return Err("etcdserver: the index of keys is still being loaded".to_owned());
    }
    let query = RangeQuery {
        keys: KeyRange::single(Bytes::new()),
        limit: 1,
        sort: None,
        keys_only: true,
        count_only: false,
        bounds: RevisionBounds::default(),
    };
    let pin = handle.view().pin(0).map_err(describe)?;
    let at = Revision::end_of(pin.revision());
    let mut read = handle.view().range(query, at, Arc::new(pin));
    read.step(handle.rows().as_ref(), &mut Vec::new()).map(drop).map_err(describe)
}

fn describe(error: ReadError) -> String {
    format!("etcdserver: {error}")
}

/// Whether a linearizable read is served. It needs no disk here, but who asks wants to know whether the
/// member works, and without a disk it takes no write.
async fn linearizable(site: &Site) -> Result<(), String> {
    if let Some(stalled) = site.stalled() {
        return Err(format!("the disk has not answered for {} s", stalled.as_secs()));
    }
    site.handle().linearize().await.map_err(|error| format!("etcdserver: {error}"))
}

/// `/livez` and `/readyz`, or `only` one of the checks that the probe knows.
pub(super) async fn probe(site: &Site, probe: Probe, only: Option<&str>, query: &Query) -> Page {
    let is_wanted = |check: &&Check| match only {
        Some(name) => check.name() == name,
        None => !query.excludes(check.name()),
    };
    let wanted: Vec<Check> = probe.checks().iter().filter(is_wanted).copied().collect();
    let mut results = Vec::with_capacity(wanted.len());
    for check in wanted {
        let result = run(site, probe, check).await;
        count(site, probe.name(), check, result.is_ok());
        results.push((check.name(), result));
    }
    render(&results, query.verbose)
}

async fn run(site: &Site, probe: Probe, check: Check) -> Result<(), String> {
    let handle = site.handle();
    let status = handle.status();
    match check {
        Check::DataCorruption => {
            let corrupt = handle.alarms().iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
            if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
        }
        Check::SerializableRead => {
            let is_loading = !status.ready.load(Relaxed);
            // A member that loads is alive.
            let read = if probe == Probe::Live && is_loading { Ok(()) } else { serializable(site) };
            read.map_err(|error| format!("range error: {error}"))
        }
        Check::LinearizableRead => {
            linearizable(site).await.map_err(|error| format!("range error: {error}"))
        }
        Check::NonLearner if status.raft.is_learner.load(Relaxed) => {
            Err("not supported for learner".to_owned())
        }
        Check::NonLearner => Ok(()),
    }
}

fn count(site: &Site, kind: &str, check: Check, ok: bool) {
    let health = &site.metrics().health;
    let status = if ok { "success" } else { "error" };
    health.checks.with_label_values(&[kind, check.name(), status]).inc();
    health.result.with_label_values(&[kind, check.name()]).set(ok.into());
}

fn render(results: &[(&str, Result<(), String>)], verbose: bool) -> Page {
    let mut lines = String::new();
    for (name, result) in results {
        match result {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => lines.push_str(&format!("[-]{name} failed: {error}\n")),
        }
    }
    if results.iter().any(|(_, result)| result.is_err()) {
        tracing::warn!(checks = lines, "health check failed");
        return Page::error(StatusCode::SERVICE_UNAVAILABLE, lines);
    }
    let body = if verbose { lines + "ok\n" } else { "ok\n".to_owned() };
    Page::text(StatusCode::OK, body).nosniff()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::{Method, Uri};

    use super::*;
    use crate::handle::tests::handle;
    use crate::http::Surface;
    use crate::telemetry::Metrics;

    #[test]
    fn queries_are_read_as_they_are_sent_by_probes() {
        let query = Query::parse("verbose&exclude=a&exclude=b&serializable=true&x=y");
        assert!(query.verbose && query.serializable && query.excludes("a") && query.excludes("b"));
        assert!(!query.excludes("c"));
        assert!(!Query::parse("serializable=1").serializable);
        assert_eq!(Query::parse(""), Query::default());
        let query =
            Query::parse("exclude=non%5Flearner&%65xclude=a+b%2Bc&exclude=%zz&serializable=%74rue");
        assert_eq!(query.excluded, ["non_learner", "a b+c", "%zz"]);
        assert!(query.serializable);
    }

    fn get(site: &Site, uri: &'static str) -> Page {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(site.call(&Method::GET, &Uri::from_static(uri), Surface::Client))
    }

    #[test]
    fn a_check_of_reads_reads_and_hangs_with_the_index() {
        let site = &site(Duration::MAX);
        for uri in ["/readyz/serializable_read", "/livez", "/health", "/health?serializable=true"] {
            std::thread::scope(|threads| {
                let index = site.handle().view().write();
                let (names, named) = std::sync::mpsc::channel();
                let page = threads.spawn(move || {
                    names.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
                    get(site, uri).status()
                });
                let stat = std::path::Path::new("/proc").join(named.recv().unwrap()).join("stat");
                // There is nothing else to sleep for than the index.
                while !page.is_finished() && !sleeps(&stat) {
                    std::thread::yield_now();
                }
                assert!(!page.is_finished(), "{uri} while the index is locked");
                drop(index);
                assert_eq!(page.join().unwrap(), 200, "{uri}");
            });
        }
    }

    /// Whether the thread with this `stat` of the kernel waits for something.
    fn sleeps(stat: &std::path::Path) -> bool {
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, state)| state.starts_with(" S"))
    }

    #[test]
    fn while_the_index_is_loaded_a_member_is_alive_and_neither_healthy_nor_ready() {
        let site = site(Duration::MAX);
        site.handle().status().ready.store(false, Relaxed);
        for (uri, status) in [("/livez", 200), ("/readyz", 503), ("/health", 503)] {
            assert_eq!(get(&site, uri).status(), status, "{uri}");
        }
    }

    /// A member that leads alone, with a disk that may take so long to sync.
    fn site(sync_max: Duration) -> Site {
        let handle = handle(None);
        let status = handle.status();
        status.ready.store(true, Relaxed);
        status.raft.leader_id.store(1, Relaxed);
        status.raft.leads_alone.store(true, Relaxed);
        Site::new(handle, Arc::new(Metrics::new(&[], false)), 1, sync_max)
    }

    #[test]
    fn a_member_whose_disk_hangs_in_a_sync_is_alive_and_neither_healthy_nor_ready() {
        let site = site(Duration::ZERO);
        let began = Instant::now();
        for is_stalled in [false, true, false] {
            if is_stalled {
                site.handle().status().log_sync.begin(began);
            } else {
                site.handle().status().log_sync.end();
            }
            let unavailable = if is_stalled { 503 } else { 200 };
            for (uri, status) in [
                ("/health", unavailable),
                ("/readyz", unavailable),
                ("/readyz/linearizable_read", unavailable),
                ("/health?serializable=true", 200),
                ("/readyz/serializable_read", 200),
                ("/livez", 200),
            ] {
                let page = get(&site, uri);
                assert_eq!(page.status(), status, "{uri}: {}", page.body());
                let told = page.body().contains("the disk has not answered for 0 s");
                assert_eq!(told, status != 200, "{uri}: {}", page.body());
            }
            let is_zero =
                get(&site, "/metrics").body().contains("\nquorate_log_sync_stalled_seconds 0\n");
            assert_eq!(is_zero, !is_stalled);
        }
    }

    #[test]
    fn a_sync_that_takes_no_longer_than_it_may_is_nothing_to_tell() {
        let site = site(Duration::from_secs(3600));
        site.handle().status().log_sync.begin(Instant::now());
        let page = get(&site, "/health");
        assert_eq!(page.status(), 200, "{}", page.body());
    }

    #[test]
    fn results_are_listed_when_asked_for_or_when_one_failed() {
        let good = [("a", Ok(())), ("b", Ok(()))];
        assert_eq!(render(&good, false).body(), "ok\n");
        assert_eq!(render(&good, true).body(), "[+]a ok\n[+]b ok\nok\n");
        let bad = [("a", Err("why".to_owned())), ("b", Ok(()))];
        let page = render(&bad, false);
        assert_eq!(page.body(), "[-]a failed: why\n[+]b ok\n\n");
        assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
