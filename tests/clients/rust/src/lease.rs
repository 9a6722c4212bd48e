//! Leases: what they tell, their end by revoke and by time, and a restart of the server.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use etcd_client::{
    EventType, GetOptions, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper,
    LeaseTimeToLiveOptions, PutOptions, WatchOptions,
};
use tokio::time::interval;

use crate::watch::take;
use crate::{Suite, refusal, retry, revision, within};

pub(crate) async fn claims(suite: &mut Suite) -> anyhow::Result<()> {
    suite.claim("a lease tells its time to live and its keys", info).await?;
    suite.claim("a revoked lease takes its keys along and no others", revoke).await?;
    suite
        .claim("an expired lease deletes its keys, late enough, and a kept one lives", expiry)
        .await?;
    suite.claim("a kept lease and its key live through a restart", through_restart).await
}

fn attached(lease: i64) -> Option<PutOptions> {
    Some(PutOptions::new().with_lease(lease))
}

async fn info(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let shortest = client.lease_grant(1, None).await?.ttl();
    ensure!(shortest == 2, "the smallest time to live is {shortest}");
    let chosen = client.lease_grant(100, Some(LeaseGrantOptions::new().with_id(4711))).await?;
    ensure!(chosen.id() == 4711 && chosen.ttl() == 100);
    let again = client.lease_grant(100, Some(LeaseGrantOptions::new().with_id(4711))).await;
    ensure!(refusal(again)? == "etcdserver: lease already exists");
    for key in ["lease/a", "lease/b"] {
        client.put(key, "x", attached(4711)).await?;
    }
    let options = Some(LeaseTimeToLiveOptions::new().with_keys());
    let info = client.lease_time_to_live(4711, options).await?;
    ensure!(info.granted_ttl() == 100 && (51..=100).contains(&info.ttl()), "{info:?}");
    ensure!(info.keys().len() == 2, "{info:?}");
    let all = client.leases().await?;
    ensure!(all.leases().iter().filter(|lease| lease.id() == 4711).count() == 1);
    let (mut keeper, mut answers) = client.lease_keep_alive(4711).await?;
    keeper.keep_alive().await?;
    let kept = within("keep alive", answers.message()).await??.context("an answer")?;
    ensure!(kept.id() == 4711 && kept.ttl() == 100);
    client.lease_revoke(4711).await?;
    Ok(())
}

async fn revoke(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let lease = client.lease_grant(100, None).await?.id();
    for key in ["revoke/a", "revoke/b", "revoke/c"] {
        client.put(key, "x", attached(lease)).await?;
    }
    // Put again without the lease, it is the lease's no more.
    let put = revision(client.put("revoke/c", "y", None).await?.header())?;
    client.lease_revoke(lease).await?;
    let left = client.get("revoke/", Some(GetOptions::new().with_prefix())).await?;
    ensure!(left.kvs().len() == 1 && left.kvs()[0].key() == b"revoke/c", "{left:?}");
    let options = WatchOptions::new().with_prefix().with_start_revision(put + 1);
    let events = take(&mut client.watch("revoke/", Some(options)).await?, 2).await?;
    let at = |i: usize| events[i].kv().map(etcd_client::KeyValue::mod_revision);
    ensure!(at(0) == at(1), "one revision deletes both");
    let text = refusal(client.lease_revoke(lease).await)?;
    ensure!(text == "etcdserver: requested lease not found", "{text}");
    ensure!(client.lease_keep_alive(lease).await.is_err(), "kept alive after all");
    ensure!(client.lease_time_to_live(lease, None).await?.ttl() == -1);
    Ok(())
}

async fn expiry(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let kept = client.lease_grant(2, None).await?.id();
    let granted = Instant::now();
    let left = client.lease_grant(2, None).await?.id();
    client.put("expiry/kept", "x", attached(kept)).await?;
    let put = revision(client.put("expiry/left", "x", attached(left)).await?.header())?;
    let (keeper, answers) = client.lease_keep_alive(kept).await?;
    let keeping = tokio::spawn(keep(keeper, answers, Duration::from_secs(5)));
    let options = WatchOptions::new().with_prefix().with_start_revision(put + 1);
    let events = take(&mut client.watch("expiry/", Some(options)).await?, 1).await?;
    ensure!(granted.elapsed() >= Duration::from_secs(2), "after {:?}", granted.elapsed());
    let key = events[0].kv().context("a key")?.key();
    ensure!(key == b"expiry/left" && events[0].event_type() == EventType::Delete);
    within("keeping", keeping).await???;
    ensure!(client.get("expiry/kept", None).await?.count() == 1, "the kept key is gone");
    Ok(())
}

/// Renews a lease twice a second, for that long.
async fn keep(
    mut keeper: LeaseKeeper,
    mut answers: LeaseKeepAliveStream,
    time: Duration,
) -> anyhow::Result<()> {
    let mut pace = interval(Duration::from_millis(500));
    let began = Instant::now();
    while began.elapsed() < time {
        pace.tick().await;
        keeper.keep_alive().await?;
        let answer = within("keep alive", answers.message()).await??.context("an answer")?;
        ensure!(answer.ttl() > 0, "the lease is gone");
    }
    Ok(())
}

async fn through_restart(suite: &mut Suite) -> anyhow::Result<()> {
    let kept = suite.client.lease_grant(5, None).await?.id();
    let idle = suite.client.lease_grant(600, None).await?.id();
    suite.client.put("alive/kept", "x", attached(kept)).await?;
    suite.client.put("alive/idle", "x", attached(idle)).await?;
    suite.restart().await?;
    // The first call after the restart may be the one that notices it.
    let renew = || {
        let mut client = suite.client.clone();
        async move { client.lease_keep_alive(kept).await }
    };
    let (keeper, answers) = retry(renew).await?;
    keep(keeper, answers, Duration::from_secs(6)).await?;
    let client = &mut suite.client;
    let both = client.get("alive/", Some(GetOptions::new().with_prefix())).await?;
    ensure!(both.count() == 2, "{} keys", both.count());
    let options = Some(LeaseTimeToLiveOptions::new().with_keys());
    let info = client.lease_time_to_live(idle, options).await?;
    ensure!(info.granted_ttl() == 600 && info.ttl() > 500, "{info:?}");
    ensure!(info.keys() == [b"alive/idle".to_vec()], "{info:?}");
    client.lease_revoke(idle).await?;
    ensure!(client.get("alive/idle", None).await?.count() == 0);
    Ok(())
}
