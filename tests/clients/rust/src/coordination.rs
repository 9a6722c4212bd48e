//! The lock and election services of the server, and maintenance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use etcd_client::{Client, LockOptions, ProclaimOptions, ResignOptions};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::{Suite, refusal, within};

pub(crate) async fn claims(suite: &mut Suite) -> anyhow::Result<()> {
    suite.claim("a lock is held by one at a time", lock_excludes).await?;
    suite.claim("a lock is free when the lease of its holder expires", lock_expires).await?;
    suite
        .claim("an election has one leader, then the next, and observers see both", election)
        .await?;
    suite.claim("status, members, alarms, hash and defragmentation answer", maintenance).await?;
    suite.claim("a snapshot is whole and carries its checksum", snapshot).await
}

async fn lock_excludes(suite: &mut Suite) -> anyhow::Result<()> {
    let holders = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        tasks.spawn(take_turns(suite.client.clone(), holders.clone()));
    }
    while let Some(done) = within("a holder", tasks.join_next()).await? {
        done??;
    }
    Ok(())
}

async fn take_turns(mut client: Client, holders: Arc<AtomicUsize>) -> anyhow::Result<()> {
    for _ in 0..5 {
        let lease = client.lease_grant(30, None).await?.id();
        let options = LockOptions::new().with_lease(lease);
        let held = within("the lock", client.lock("lock", Some(options))).await??;
        ensure!(held.key().starts_with(b"lock/"), "the key is below the name");
        ensure!(holders.fetch_add(1, Ordering::SeqCst) == 0, "two hold the lock");
        client.put("lock-work", "x", None).await?;
        holders.fetch_sub(1, Ordering::SeqCst);
        client.unlock(held.key()).await?;
    }
    Ok(())
}

async fn lock_expires(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let dying = client.lease_grant(2, None).await?.id();
    client.lock("dying", Some(LockOptions::new().with_lease(dying))).await?;
    let next = within("the lock of the dead", client.lock("dying", None)).await??;
    client.unlock(next.key()).await?;
    Ok(())
}

async fn election(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let text = refusal(client.leader("election").await)?;
    ensure!(text == "election: no leader", "{text}");
    let one = client.lease_grant(60, None).await?.id();
    let two = client.lease_grant(60, None).await?.id();
    let won = client.campaign("election", "one", one).await?;
    let first = won.leader().context("a leader")?.clone();
    let mut observed = client.observe("election").await?;
    let mut see = async |want: &str| {
        let told = within("a leader", observed.message()).await??.context("an answer")?;
        let value = told.kv().context("a key")?.value_str()?.to_owned();
        ensure!(value == want, "the leader is {value}, not {want}");
        anyhow::Ok(())
    };
    see("one").await?;
    client.proclaim("one again", Some(ProclaimOptions::new().with_leader(first.clone()))).await?;
    see("one again").await?;
    let mut other = suite.connect().await?;
    let campaign = tokio::spawn(async move { other.campaign("election", "two", two).await });
    let client = &mut suite.client;
    client.resign(Some(ResignOptions::new().with_leader(first))).await?;
    let won = within("the second campaign", campaign).await???;
    see("two").await?;
    let leader = client.leader("election").await?;
    ensure!(leader.kv().context("a key")?.value() == b"two");
    let second = won.leader().context("a leader")?.clone();
    client.resign(Some(ResignOptions::new().with_leader(second))).await?;
    Ok(())
}

async fn maintenance(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let members = client.member_list().await?;
    ensure!(members.members().len() == 1);
    let status = client.status().await?;
    ensure!(!status.version().is_empty() && status.db_size() > 0, "{status:?}");
    ensure!(status.leader() == members.members()[0].id(), "the member leads");
    let alarms =
        client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None).await?;
    ensure!(alarms.alarms().is_empty(), "{alarms:?}");
    let before = client.hash_kv(0).await?.hash();
    client.defragment().await?;
    ensure!(client.hash_kv(0).await?.hash() == before, "defragmentation changes no key");
    client.put("hash", "changes", None).await?;
    ensure!(client.hash_kv(0).await?.hash() != before, "a put changes the hash");
    Ok(())
}

async fn snapshot(suite: &mut Suite) -> anyhow::Result<()> {
    suite.client.put("snapshot", "the needle in the haystack", None).await?;
    let mut stream = suite.client.snapshot().await?;
    let (mut image, mut left) = (Vec::new(), u64::MAX);
    while let Some(part) = within("a part", stream.message()).await?? {
        ensure!(part.remaining_bytes() <= left, "what remains grew");
        left = part.remaining_bytes();
        image.extend_from_slice(part.blob());
    }
    ensure!(left == 0 && image.len() > 32, "{left} bytes remain");
    let (body, trailer) = image.split_at(image.len() - 32);
    ensure!(Sha256::digest(body).as_slice() == trailer, "the trailer is not the checksum");
    let needle = b"the needle in the haystack";
    ensure!(body.windows(needle.len()).any(|part| part == needle), "a key is not in it");
    Ok(())
}
