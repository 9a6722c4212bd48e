//! Watches: their events, their options, and a restart of the server in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use etcd_client::{
    Client, Error, Event, EventType, Txn, TxnOp, WatchFilterType, WatchOptions, WatchResponse,
    WatchStream,
};
use tokio::time::interval;

use crate::{POLL, Suite, retry, revision, until, within};

pub(crate) async fn claims(suite: &mut Suite) -> anyhow::Result<()> {
    suite.claim("a watch tells puts and deletes with what was before", events).await?;
    suite.claim("watches of one stream are told apart, filtered and cancelled", one_stream).await?;
    suite.claim("a watch from a compacted revision says which is left", compacted).await?;
    suite
        .claim(
            "a watch that is resumed through a restart loses and doubles no event",
            through_restart,
        )
        .await
}

/// The next answer of a stream.
async fn answer(stream: &mut WatchStream) -> anyhow::Result<WatchResponse> {
    within("an answer", stream.message()).await??.context("the stream ended")
}

/// The events of a stream, until there are as many as wanted.
pub(crate) async fn take(stream: &mut WatchStream, wanted: usize) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    while events.len() < wanted {
        events.extend_from_slice(answer(stream).await?.events());
    }
    ensure!(events.len() == wanted, "{} events, not {wanted}", events.len());
    Ok(events)
}

async fn events(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("watch/", Some(options)).await?;
    ensure!(answer(&mut stream).await?.created(), "the first answer says created");
    client.put("watch/a", "1", None).await?;
    client.put("watch/a", "2", None).await?;
    client.delete("watch/a", None).await?;
    let puts = [TxnOp::put("watch/b", "3", None), TxnOp::put("watch/c", "4", None)];
    client.txn(Txn::new().and_then(puts)).await?;
    let seen = take(&mut stream, 5).await?;
    let show = |event: &Event| -> anyhow::Result<String> {
        let kv = event.kv().context("a key")?;
        let before = event.prev_kv().map_or(Ok("-"), etcd_client::KeyValue::value_str)?;
        let kind = event.event_type();
        Ok(format!("{kind:?} {} {} {before}", kv.key_str()?, kv.value_str()?))
    };
    let want = [
        "Put watch/a 1 -",
        "Put watch/a 2 1",
        "Delete watch/a  2",
        "Put watch/b 3 -",
        "Put watch/c 4 -",
    ];
    for (event, want) in seen.iter().zip(want) {
        let got = show(event)?;
        ensure!(got == want, "got {got:?}, want {want:?}");
    }
    let at = |event: &Event| event.kv().map(etcd_client::KeyValue::mod_revision);
    ensure!(at(&seen[3]) == at(&seen[4]), "a transaction is one revision");
    Ok(())
}

async fn one_stream(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let puts = WatchOptions::new().with_watch_id(7).with_filters([WatchFilterType::NoDelete]);
    let deletes = WatchOptions::new().with_watch_id(8).with_filters([WatchFilterType::NoPut]);
    let mut stream = client.watch("filter", Some(puts)).await?;
    ensure!(answer(&mut stream).await?.watch_id() == 7, "the chosen id");
    stream.watch("filter", Some(deletes)).await?;
    let second = answer(&mut stream).await?;
    ensure!(second.created() && second.watch_id() == 8, "the second chosen id");
    client.put("filter", "1", None).await?;
    client.delete("filter", None).await?;
    let mut told = Vec::new();
    for _ in 0..2 {
        let one = answer(&mut stream).await?;
        let event = one.events().first().context("an event")?;
        told.push((one.watch_id(), event.event_type()));
    }
    told.sort_by_key(|(id, _)| *id);
    ensure!(told == [(7, EventType::Put), (8, EventType::Delete)], "{told:?}");
    stream.cancel(7).await?;
    let end = answer(&mut stream).await?;
    ensure!(end.canceled() && end.watch_id() == 7, "the cancelled one says so");
    let last = revision(client.put("other", "1", None).await?.header())?;
    // Progress is told once all watches of the stream are up to date, so it is asked for until then.
    let mut pace = interval(10 * POLL);
    let progress = async {
        loop {
            tokio::select! {
                _ = pace.tick() => stream.request_progress().await?,
            }
            let told = stream.message().await?.context("the stream ended")?;
            ensure!(told.events().is_empty() && !told.canceled(), "progress: {told:?}");
            if revision(told.header())? >= last {
                return Ok(());
            }
        }
    };
    within("progress", progress).await?
}

async fn compacted(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    client.put("compacted", "1", None).await?;
    let last = revision(client.put("compacted", "2", None).await?.header())?;
    client.compact(last, None).await?;
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("compacted", Some(options)).await?;
    ensure!(answer(&mut stream).await?.created(), "it is created first");
    let end = answer(&mut stream).await?;
    ensure!(end.canceled() && end.compact_revision() == last, "{end:?}");
    Ok(())
}

/// Kind, key, value and revision of an event.
type Told = (bool, String, String, i64);

async fn through_restart(suite: &mut Suite) -> anyhow::Result<()> {
    let start = revision(suite.client.put("restart/start", "", None).await?.header())?;
    let live = tokio::spawn(follow(suite.endpoint.clone(), start));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writer = suite.connect().await?;
    let writing = tokio::spawn(write(writer.clone(), stop.clone(), count.clone()));
    for round in 0..2 {
        let reached = |wanted| count.load(Ordering::Relaxed) >= wanted || writing.is_finished();
        until("writes before", || reached(100 * (2 * round + 1))).await?;
        suite.restart().await?;
        until("writes after", || reached(100 * (2 * round + 2))).await?;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = within("the writer", writing).await???;
    writer.put("restart/end", "", None).await?;
    let seen = within("the watch through the restart", live).await???;
    let history = within("the history", follow(suite.endpoint.clone(), start)).await??;
    ensure!(seen.len() == history.len(), "{} events, not {}", seen.len(), history.len());
    ensure!(seen == history, "other events than the history has");
    ensure!(seen.is_sorted_by_key(|event| event.3), "revisions go back");
    let seen: BTreeSet<&Told> = seen.iter().collect();
    let missing = acknowledged.iter().find(|event| !seen.contains(event));
    ensure!(missing.is_none(), "acknowledged, but not told: {missing:?}");
    ensure!(acknowledged.len() >= 400, "{} writes", acknowledged.len());
    Ok(())
}

/// Follows `restart/` to its last key, through any number of lost connections.
async fn follow(endpoint: String, start: i64) -> anyhow::Result<Vec<Told>> {
    let (mut seen, mut next) = (Vec::<Told>::new(), start);
    let mut client = Client::connect([&endpoint], None).await?;
    let mut pace = interval(POLL);
    loop {
        let options = WatchOptions::new().with_prefix().with_start_revision(next);
        if let Ok(mut stream) = client.watch("restart/", Some(options)).await {
            while let Ok(Some(answer)) = stream.message().await {
                for event in answer.events() {
                    let kv = event.kv().context("a key")?;
                    if kv.key() == b"restart/end" {
                        return Ok(seen);
                    }
                    next = kv.mod_revision() + 1;
                    let put = event.event_type() == EventType::Put;
                    let (key, value) = (kv.key_str()?.to_owned(), kv.value_str()?.to_owned());
                    seen.push((put, key, value, kv.mod_revision()));
                }
            }
        }
        pace.tick().await;
    }
}

/// Puts, deletes and commits pairs until it is stopped; returns the events that the acknowledged ones
/// must have caused. One without an answer is done again: its fate is unknown.
async fn write(
    client: Client,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    for i in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        told.extend(retry(|| write_one(client.clone(), i)).await?);
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(told)
}

async fn write_one(mut client: Client, i: u64) -> Result<Vec<Told>, Error> {
    let (key, value) = (format!("restart/{i:06}"), i.to_string());
    let header = |header: Option<&etcd_client::ResponseHeader>| {
        header.map(etcd_client::ResponseHeader::revision).unwrap_or_default()
    };
    if i.is_multiple_of(4) {
        let other = format!("{key}-b");
        let puts = [
            TxnOp::put(key.as_str(), value.as_str(), None),
            TxnOp::put(other.as_str(), value.as_str(), None),
        ];
        let at = header(client.txn(Txn::new().and_then(puts)).await?.header());
        return Ok(vec![(true, key, value.clone(), at), (true, other, value, at)]);
    }
    if i % 4 == 1 && i > 1 {
        let before = format!("restart/{:06}", i - 1);
        let done = client.delete(before.as_str(), None).await?;
        // A try that was done without an answer leaves nothing to delete.
        let told =
            (done.deleted() == 1).then(|| (false, before, String::new(), header(done.header())));
        return Ok(told.into_iter().collect());
    }
    let at = header(client.put(key.as_str(), value.as_str(), None).await?.header());
    Ok(vec![(true, key, value, at)])
}
