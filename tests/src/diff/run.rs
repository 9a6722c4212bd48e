//! Plays a history against two servers.

mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Context as _;
use quorate_proto::etcdserverpb::{CompactionRequest, HashKvRequest, PutRequest, RangeRequest};

use self::watches::Pairs;
use super::exchange::{Peer, Reply};
use super::generate::Generator;
use super::leases::forgive_time_left;
use super::normal::{normal, readable};
use super::operation::Operation;
use crate::process::{Program, Server};

/// Requests between two checks of all hashes.
const CHECK_EVERY: usize = 1000;
/// Puts in flight while a store is brought to a revision.
const FILLERS: usize = 64;
/// A key that no history uses.
const FILLER_KEY: &str = "zz/filler";

/// Two replies that should have been equal.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Number of the operation in its history, from 0.
    pub number: usize,
    /// The request.
    pub request: String,
    /// The first server's reply, in its comparable form.
    pub left: String,
    /// The second server's.
    pub right: String,
}

/// An operation of a history, with what the store was when it was sent.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was sent.
    pub operation: Operation,
    /// The current revision before it.
    pub revision: i64,
    /// The compacted revision before it; 0 for none.
    pub compacted: i64,
}

/// How a run went.
#[derive(Debug)]
pub struct Summary {
    /// The history.
    pub steps: Vec<Step>,
    /// Replies that were compared, those of the checks too.
    pub compared: u64,
    /// How often each outcome was compared: the kind of a reply, or the code and text of an error.
    pub outcomes: BTreeMap<String, u64>,
    /// What ended the run early.
    pub difference: Option<Difference>,
}

/// Two running servers with the same history so far.
#[derive(Debug)]
pub struct Match {
    servers: [Server; 2],
    peers: [Peer; 2],
    watches: Pairs,
    /// The current revision.
    pub revision: i64,
    /// The compacted revision; 0 for none.
    pub compacted: i64,
    /// Replies that were compared.
    pub compared: u64,
    outcomes: BTreeMap<String, u64>,
}

/// Plays `operations` random operations; calls `progress` after every 1,000 with how many there
/// were and how many replies were compared.
///
/// # Errors
/// When a server cannot start or ends.
pub async fn run(
    programs: &[Program; 2],
    seed: u64,
    operations: usize,
    mut progress: impl FnMut(usize, u64),
) -> anyhow::Result<Summary> {
    let mut pair = Match::start(programs).await?;
    let mut generator = Generator::new(seed);
    let mut steps = Vec::with_capacity(operations + operations / CHECK_EVERY);
    for number in 1..=operations {
        let operation = generator.draw();
        let mut difference = pair.record(operation, &mut generator, &mut steps).await?;
        if difference.is_none() && number % CHECK_EVERY == 0 {
            let check = generator.check();
            difference = pair.record(check, &mut generator, &mut steps).await?;
            progress(number, pair.compared);
        }
        if difference.is_some() {
            return Ok(pair.summary(steps, difference));
        }
    }
    Ok(pair.summary(steps, None))
}

impl Match {
    /// Starts both servers on fresh data directories.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(programs: &[Program; 2]) -> anyhow::Result<Match> {
        let mut servers = [Server::spawn(&programs[0])?, Server::spawn(&programs[1])?];
        for server in &mut servers {
            server.wait_healthy(crate::process::START_DEADLINE)?;
        }
        let peers =
            [Peer::connect(&servers[0].url()).await?, Peer::connect(&servers[1].url()).await?];
        let watches = Pairs::open(&peers).await?;
        let outcomes = BTreeMap::new();
        Ok(Match { servers, peers, watches, revision: 1, compacted: 0, compared: 0, outcomes })
    }

    fn summary(self, steps: Vec<Step>, difference: Option<Difference>) -> Summary {
        Summary { steps, compared: self.compared, outcomes: self.outcomes, difference }
    }

    /// Brings both empty stores to a revision and a compaction, so that a part of a history can be
    /// played without what was before it.
    ///
    /// # Errors
    /// When a put is refused.
    pub async fn fill(&mut self, revision: i64, compacted: i64) -> anyhow::Result<()> {
        for peer in &self.peers {
            let next = Arc::new(AtomicI64::new(2));
            let tasks: Vec<_> = (0..FILLERS)
                .map(|_| tokio::spawn(fill(peer.clone(), Arc::clone(&next), revision)))
                .collect();
            for task in tasks {
                task.await??;
            }
        }
        self.revision = self.revision.max(revision);
        if compacted > 0 {
            let request = CompactionRequest { revision: compacted, physical: true };
            let difference = self.compare(&Operation::Compact(request)).await?;
            difference.map_or(Ok(()), |difference| Err(anyhow::anyhow!("{difference:?}")))?;
        }
        Ok(())
    }

    async fn record(
        &mut self,
        operation: Operation,
        generator: &mut Generator,
        steps: &mut Vec<Step>,
    ) -> anyhow::Result<Option<Difference>> {
        let number = steps.len();
        steps.push(Step {
            operation: operation.clone(),
            revision: self.revision,
            compacted: self.compacted,
        });
        let compacted = self.compacted;
        let difference = self.play(&operation).await?;
        generator.saw_revision(self.revision);
        if self.compacted > compacted || matches!(operation, Operation::Check { .. }) {
            let physical = match operation {
                Operation::Compact(request) => request.physical,
                _ => true,
            };
            generator.saw_compaction(self.compacted, physical);
        }
        Ok(difference.map(|difference| Difference { number, ..difference }))
    }

    /// Sends one operation to both servers and compares the replies.
    ///
    /// # Errors
    /// When a server has ended.
    pub async fn play(&mut self, operation: &Operation) -> anyhow::Result<Option<Difference>> {
        let compact = match operation {
            Operation::Watch(stream, request) => return self.create_watch(*stream, request).await,
            Operation::CancelWatch(stream, name) => return self.cancel_watch(*stream, *name).await,
            Operation::WatchProgress(stream) => return self.watch_progress(*stream).await,
            Operation::CompareWatches => return self.compare_watches().await,
            Operation::Compact(request) if self.is_next_compaction(request.revision) => {
                // Whether a watcher that reads history is faster is chance, and so is whether a previous
                // version is still there.
                let difference = self.compare_watches().await?;
                return Ok(difference.or(self.compare(operation).await?));
            }
            Operation::Check { compact } => *compact,
            _ => return self.compare(operation).await,
        };
        if let Some(difference) = self.compare_watches().await? {
            return Ok(Some(difference));
        }
        let request = CompactionRequest { revision: compact, physical: true };
        if let Some(difference) = self.compare(&Operation::Compact(request)).await? {
            return Ok(Some(difference));
        }
        // After a shortened history the compaction may have been refused, by both. The compacted
        // revision itself is left out: etcd answers it from a cache, see `generate`.
        for revision in self.compacted.max(0) + 1..=self.revision {
            let hash = Operation::HashKv(HashKvRequest { revision });
            if let Some(difference) = self.compare(&hash).await? {
                return Ok(Some(difference));
            }
        }
        // The current revision by its other name, and all keys at once.
        let everything =
            RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        self.compare(&Operation::Range(everything)).await
    }

    fn is_next_compaction(&self, revision: i64) -> bool {
        (self.compacted + 1..=self.revision).contains(&revision)
    }

    fn count(&mut self, outcome: &str, many: u64) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += many;
    }

    async fn compare(&mut self, operation: &Operation) -> anyhow::Result<Option<Difference>> {
        let [left, right] = &mut self.peers;
        let (mut left, right) = tokio::join!(left.ask(operation), right.ask(operation));
        self.compared += 1;
        *self.outcomes.entry(left.outcome().into_owned()).or_default() += 1;
        for (reply, server) in [&left, &right].into_iter().zip(&mut self.servers) {
            if reply.may_be_lost() {
                server.check_running().with_context(|| format!("after {operation}"))?;
            }
        }
        self.revision = self.revision.max(left.revision());
        if let (Operation::Compact(request), Reply::Compact(_)) = (operation, &left) {
            self.compacted = request.revision;
        }
        let (left, mut right) = (normal(operation, left), normal(operation, right));
        forgive_time_left(&left, &mut right);
        if left == right {
            return Ok(None);
        }
        Ok(Some(Difference {
            number: 0,
            request: operation.to_string(),
            left: readable(&left),
            right: readable(&right),
        }))
    }
}

async fn fill(mut peer: Peer, next: Arc<AtomicI64>, revision: i64) -> anyhow::Result<()> {
    let put = PutRequest { key: FILLER_KEY.into(), ..Default::default() };
    let put = Operation::Put(put);
    while next.fetch_add(1, Ordering::Relaxed) <= revision {
        if let Reply::Refused { code, message } = peer.ask(&put).await {
            anyhow::bail!("a put to fill the store was refused: {code:?} {message}");
        }
    }
    Ok(())
}
