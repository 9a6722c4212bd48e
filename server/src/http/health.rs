//! `/health`, `/livez` and `/readyz`.
//!
//! `/livez` fails only when a restart would help: while the index is loaded a member is alive, and not
//! ready. The same holds while the disk hangs in a sync: reads go on, but no write is answered.

use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;

use super::site::{Page, Site};
use crate::state_machine::{Alarm, AlarmKind};

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
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
            match name {
                "verbose" => parsed.verbose = true,
                "serializable" => parsed.serializable = value == "true",
                "exclude" => parsed.excluded.push(value.to_owned()),
                _ => {}
            }
        }
        parsed
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == name)
    }
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
        let name = alarm_name(alarm);
        if !query.excludes(name) {
            return format!("ALARM {name}");
        }
    }
    let status = handle.status();
    if !query.serializable && status.raft.leader_id.load(Relaxed) == 0 {
        return "RAFT NO LEADER".to_owned();
    }
    let read = if query.serializable {
        readable(status.ready.load(Relaxed))
    } else {
        linearizable(site).await.and_then(|()| readable(status.ready.load(Relaxed)))
    };
    read.err().map(|error| format!("RANGE ERROR:{error}")).unwrap_or_default()
}

fn readable(ready: bool) -> Result<(), String> {
    if ready {
        Ok(())
    } else {
        Err("etcdserver: the index of keys is still being loaded".to_owned())
    }
}

/// Whether a linearizable read is served. It needs no disk here, but who asks wants to know whether the
/// member works, and without a disk it takes no write.
async fn linearizable(site: &Site) -> Result<(), String> {
    if let Some(stalled) = site.stalled() {
        return Err(format!("the disk has not answered for {} s", stalled.as_secs()));
    }
    site.handle().linearize().await.map_err(|error| format!("etcdserver: {error}"))
}

fn alarm_name(alarm: &Alarm) -> &'static str {
    match alarm.kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

/// `/livez` and `/livez/<check>`; `None` if there is no such check.
pub(super) async fn livez(site: &Site, check: Option<&str>, query: &Query) -> Option<Page> {
    probe(site, "livez", &LIVE, check, query).await
}

/// `/readyz` and `/readyz/<check>`; `None` if there is no such check.
pub(super) async fn readyz(site: &Site, check: Option<&str>, query: &Query) -> Option<Page> {
    probe(site, "readyz", &READY, check, query).await
}

async fn probe(
    site: &Site,
    kind: &'static str,
    checks: &[Check],
    only: Option<&str>,
    query: &Query,
) -> Option<Page> {
    let wanted: Vec<Check> = match only {
        Some(name) => checks.iter().copied().filter(|check| check.name() == name).collect(),
        None => checks.iter().copied().filter(|check| !query.excludes(check.name())).collect(),
    };
    if only.is_some() && wanted.is_empty() {
        return None;
    }
    let mut results = Vec::with_capacity(wanted.len());
    for check in wanted {
        let result = run(site, kind, check).await;
        count(site, kind, check, result.is_ok());
        results.push((check.name(), result));
    }
    Some(render(&results, query.verbose))
}

async fn run(site: &Site, kind: &str, check: Check) -> Result<(), String> {
    let handle = site.handle();
    let status = handle.status();
    match check {
        Check::DataCorruption => {
            let corrupt = handle.alarms().iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
            if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
        }
        Check::SerializableRead if kind == "livez" => Ok(()),
        Check::SerializableRead => {
            readable(status.ready.load(Relaxed)).map_err(|error| format!("range error: {error}"))
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
    use std::sync::Arc;
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

    #[tokio::test]
    async fn a_member_whose_disk_hangs_in_a_sync_is_alive_and_neither_healthy_nor_ready() {
        let client = Surface::Client;
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
                let page = site.call(&Method::GET, &Uri::from_static(uri), client).await;
                assert_eq!(page.status(), status, "{uri}: {}", page.body());
                let told = page.body().contains("the disk has not answered for 0 s");
                assert_eq!(told, status != 200, "{uri}: {}", page.body());
            }
            let uri = Uri::from_static("/metrics");
            let metrics = site.call(&Method::GET, &uri, client).await;
            let is_zero = metrics.body().contains("\nquorate_log_sync_stalled_seconds 0\n");
            assert_eq!(is_zero, !is_stalled);
        }
    }

    #[tokio::test]
    async fn a_sync_that_takes_no_longer_than_it_may_is_nothing_to_tell() {
        let site = site(Duration::from_secs(3600));
        site.handle().status().log_sync.begin(Instant::now());
        let page = site.call(&Method::GET, &Uri::from_static("/health"), Surface::Client).await;
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
