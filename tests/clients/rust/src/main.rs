//! The suite of the crate etcd-client: tonic's HTTP/2, as most clients in Rust have it.
//!
//! Run by `../driver.py`, whose protocol is in `../README.md`: a line `ok CLAIM` for each claim that
//! holds, `RESTART` to have the server killed and started again, `DONE` at the end.
//!
//! The client does not resume a watch: the stream ends with an error, and who uses it watches again
//! from the revision after the last one seen. `watch::follow` is that loop.

mod coordination;
mod kv;
mod lease;
mod watch;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use etcd_client::{Client, Error};
use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};
use tokio::time::{interval, timeout};

/// Bounds every wait for something that must happen.
const WAIT_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What the claims share.
struct Suite {
    endpoint: String,
    client: Client,
    driver: BufReader<Stdin>,
}

impl Suite {
    /// Tests one claim and says that it holds.
    async fn claim<F>(&mut self, name: &str, test: F) -> anyhow::Result<()>
    where
        F: AsyncFnOnce(&mut Suite) -> anyhow::Result<()>,
    {
        eprintln!("running: {name}");
        timeout(2 * WAIT_MAX, test(self)).await.context("not in time")?.context(name.to_owned())?;
        println!("ok {name}");
        Ok(())
    }

    /// A client with a connection of its own.
    async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect([&self.endpoint], None).await?)
    }

    /// Returns when the server was killed and serves again.
    async fn restart(&mut self) -> anyhow::Result<()> {
        println!("RESTART");
        let mut answer = String::new();
        self.driver.read_line(&mut answer).await?;
        ensure!(answer == "RESTARTED\n", "the driver answered {answer:?}");
        Ok(())
    }
}

/// Waits for what must happen.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(WAIT_MAX, future).await.with_context(|| format!("{what}: not within {WAIT_MAX:?}"))
}

/// Looks again and again until the condition holds.
async fn until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut pace = interval(POLL);
    let looks = async {
        while !holds() {
            pace.tick().await;
        }
    };
    within(what, looks).await
}

/// Calls again until it works: the server may be away.
async fn retry<T, F>(mut call: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pace = interval(POLL);
    let began = Instant::now();
    loop {
        let failure = match timeout(Duration::from_secs(5), call()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if began.elapsed() > WAIT_MAX {
            bail!("no success within {WAIT_MAX:?}: {failure}");
        }
        pace.tick().await;
    }
}

/// The text of the status that a call must be refused with.
fn refusal<T>(answer: Result<T, Error>) -> anyhow::Result<String> {
    match answer {
        Err(Error::GRpcStatus(status)) => Ok(status.message().to_owned()),
        Err(other) => bail!("not a status: {other}"),
        Ok(_) => bail!("not refused"),
    }
}

/// The revision in a header, which every answer has.
fn revision(header: Option<&etcd_client::ResponseHeader>) -> anyhow::Result<i64> {
    Ok(header.context("an answer without a header")?.revision())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().next_back().context("the endpoint is the last argument")?;
    let client = Client::connect([&endpoint], None).await?;
    let driver = BufReader::new(tokio::io::stdin());
    let mut suite = Suite { endpoint, client, driver };
    kv::claims(&mut suite).await?;
    watch::claims(&mut suite).await?;
    lease::claims(&mut suite).await?;
    coordination::claims(&mut suite).await?;
    println!("DONE");
    // The reader of standard input is a thread that would be waited for.
    std::process::exit(0);
}
