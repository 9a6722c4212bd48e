//! Keys: put, get, delete, transactions, compaction, and the errors.

use anyhow::{Context as _, bail, ensure};
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};
use tokio::task::JoinSet;

use crate::{Suite, refusal, revision, within};

pub(crate) async fn claims(suite: &mut Suite) -> anyhow::Result<()> {
    suite.claim("what was put is read back with its revisions", put_and_get).await?;
    suite.claim("ranges are sorted, limited, counted and read at old revisions", ranges).await?;
    suite.claim("a range that is streamed holds what the range holds", streamed).await?;
    suite.claim("a delete gives what it deleted and leaves the rest", deletes).await?;
    suite
        .claim("a transaction takes one branch, at one revision, nested ones too", transactions)
        .await?;
    suite.claim("fifty tasks that compare and swap lose no update", compare_and_swap).await?;
    suite.claim("errors arrive with etcd's texts", errors).await?;
    suite.claim("a compacted revision is refused and newer ones are there", compaction).await
}

async fn put_and_get(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let first = revision(client.put("kv/a", "1", None).await?.header())?;
    let again = client.put("kv/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    ensure!(again.prev_key().context("what was before")?.value() == b"1");
    let second = revision(again.header())?;
    ensure!(second == first + 1, "revision {second} after {first}");
    let got = client.get("kv/a", None).await?;
    let kv = got.kvs().first().context("the key")?;
    ensure!(kv.value() == b"2" && kv.version() == 2);
    ensure!(kv.create_revision() == first && kv.mod_revision() == second);
    let serializable = client.get("kv/a", Some(GetOptions::new().with_serializable())).await?;
    ensure!(serializable.kvs()[0].value() == b"2");
    Ok(())
}

fn names(answer: &GetResponse) -> String {
    let last = |kv: &etcd_client::KeyValue| kv.key().last().copied().map_or('-', char::from);
    let names: String = answer.kvs().iter().map(last).collect();
    format!("{names} {} {}", answer.count(), answer.more())
}

async fn ranges(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let mut last = 0;
    for (value, key) in ["c", "a", "d", "b"].into_iter().enumerate() {
        let put = client.put(format!("range/{key}"), value.to_string(), None).await?;
        last = revision(put.header())?;
    }
    client.delete("range/a", None).await?;
    let prefix = || GetOptions::new().with_prefix();
    let cases = [
        (prefix(), "bcd 3 false"),
        (prefix().with_revision(last), "abcd 4 false"),
        (prefix().with_sort(SortTarget::Key, SortOrder::Descend), "dcb 3 false"),
        (prefix().with_sort(SortTarget::Value, SortOrder::Ascend), "cdb 3 false"),
        (prefix().with_limit(2), "bc 3 true"),
        (prefix().with_count_only(), " 3 false"),
        (prefix().with_min_mod_revision(last), "b 3 false"),
        (GetOptions::new().with_range("range/d"), "bc 2 false"),
    ];
    for (options, want) in cases {
        let got = names(&client.get("range/", Some(options.clone())).await?);
        ensure!(got == want, "got {got:?}, want {want:?} with {options:?}");
    }
    Ok(())
}

async fn streamed(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    for i in 0..300 {
        client.put(format!("stream/{i:03}"), "v".repeat(1000), None).await?;
    }
    let prefix = || Some(GetOptions::new().with_prefix());
    let plain = client.get("stream/", prefix()).await?;
    let mut stream = client.kv_client().get_stream("stream/", prefix()).await?;
    let (mut keys, mut count) = (Vec::new(), 0);
    while let Some(part) = within("a part", stream.message()).await?? {
        keys.extend(part.kvs().iter().map(|kv| (kv.key().to_vec(), kv.mod_revision())));
        count += part.count();
    }
    let want: Vec<_> =
        plain.kvs().iter().map(|kv| (kv.key().to_vec(), kv.mod_revision())).collect();
    ensure!(keys == want, "{} keys, not {}", keys.len(), want.len());
    ensure!(count == plain.count(), "count {count}, not {}", plain.count());
    Ok(())
}

async fn deletes(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    for key in ["delete/a", "delete/b", "delete/c"] {
        client.put(key, key, None).await?;
    }
    let options = DeleteOptions::new().with_range("delete/c").with_prev_key();
    let gone = client.delete("delete/a", Some(options)).await?;
    ensure!(gone.deleted() == 2 && gone.prev_kvs()[1].value() == b"delete/b");
    let again = client.delete("delete/a", None).await?;
    ensure!(again.deleted() == 0);
    ensure!(revision(again.header())? == revision(gone.header())?, "nothing is no revision");
    let left = client.get("delete/", Some(GetOptions::new().with_prefix())).await?;
    ensure!(left.count() == 1);
    Ok(())
}

async fn transactions(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    client.put("txn/a", "old", None).await?;
    let nested = Txn::new()
        .when([Compare::create_revision("txn/b", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("txn/b", "nested", None)]);
    let swap = Txn::new()
        .when([
            Compare::value("txn/a", CompareOp::Equal, "old"),
            Compare::version("txn/", CompareOp::Greater, 0).with_prefix(),
        ])
        .and_then([
            TxnOp::put("txn/a", "new", None),
            TxnOp::txn(nested),
            TxnOp::get("txn/", Some(GetOptions::new().with_prefix())),
        ])
        .or_else([TxnOp::get("txn/a", None)]);
    let done = client.txn(swap.clone()).await?;
    ensure!(done.succeeded(), "the compares hold");
    let answers = done.op_responses();
    let [TxnOpResponse::Put(_), TxnOpResponse::Txn(inner), TxnOpResponse::Get(seen)] =
        answers.as_slice()
    else {
        bail!("other answers than operations: {answers:?}");
    };
    ensure!(inner.succeeded(), "the nested compare holds");
    let revision = revision(done.header())?;
    ensure!(seen.kvs().len() == 2 && seen.kvs().iter().all(|kv| kv.mod_revision() == revision));
    let again = client.txn(swap).await?;
    ensure!(!again.succeeded(), "the compares hold no more");
    let answers = again.op_responses();
    let Some(TxnOpResponse::Get(seen)) = answers.first() else { bail!("no get: {answers:?}") };
    ensure!(seen.kvs()[0].value() == b"new");
    Ok(())
}

async fn compare_and_swap(suite: &mut Suite) -> anyhow::Result<()> {
    suite.client.put("cas", "", None).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        tasks.spawn(append(suite.client.clone()));
    }
    while let Some(done) = within("a task", tasks.join_next()).await? {
        done??;
    }
    let got = suite.client.get("cas", None).await?;
    let kv = &got.kvs()[0];
    ensure!(kv.value().len() == 50 && kv.version() == 51, "{} updates", kv.value().len());
    Ok(())
}

/// Appends a byte to the value of `cas`, as often as others came first.
async fn append(mut client: Client) -> anyhow::Result<()> {
    loop {
        let got = client.get("cas", None).await?;
        let kv = got.kvs().first().context("the key")?;
        let txn = Txn::new()
            .when([Compare::mod_revision("cas", CompareOp::Equal, kv.mod_revision())])
            .and_then([TxnOp::put("cas", [kv.value(), b"x"].concat(), None)]);
        if client.txn(txn).await?.succeeded() {
            return Ok(());
        }
    }
}

async fn errors(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let future = Some(GetOptions::new().with_revision(1 << 40));
    let unknown = Some(PutOptions::new().with_lease(987_654_321));
    let twice = Txn::new().and_then([TxnOp::put("x", "1", None), TxnOp::put("x", "2", None)]);
    let many: Vec<TxnOp> = (0..129).map(|i| TxnOp::put(format!("x{i}"), "x", None)).collect();
    let cases = [
        (refusal(client.put("", "x", None).await)?, "etcdserver: key is not provided"),
        (
            refusal(client.get("x", future).await)?,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (refusal(client.put("x", "x", unknown).await)?, "etcdserver: requested lease not found"),
        (refusal(client.txn(twice).await)?, "etcdserver: duplicate key given in txn request"),
        (
            refusal(client.put("x", "x".repeat(1700 * 1024), None).await)?,
            "etcdserver: request is too large",
        ),
        (
            refusal(client.txn(Txn::new().and_then(many)).await)?,
            "etcdserver: too many operations in txn request",
        ),
    ];
    for (got, want) in cases {
        ensure!(got == want, "got {got:?}, want {want:?}");
    }
    Ok(())
}

async fn compaction(suite: &mut Suite) -> anyhow::Result<()> {
    let client = &mut suite.client;
    let old = revision(client.put("compact", "old", None).await?.header())?;
    let new = revision(client.put("compact", "new", None).await?.header())?;
    client.compact(new, Some(CompactionOptions::new().with_physical())).await?;
    let text = refusal(client.get("compact", Some(GetOptions::new().with_revision(old))).await)?;
    ensure!(text == "etcdserver: mvcc: required revision has been compacted", "{text}");
    let got = client.get("compact", Some(GetOptions::new().with_revision(new))).await?;
    ensure!(got.kvs()[0].value() == b"new");
    Ok(())
}
