//! Watches of two servers side by side.

use quorate_proto::etcdserverpb::{PutRequest, WatchCreateRequest};

use super::{Difference, Match};
use crate::diff::exchange::Peer;
use crate::diff::operation::Operation;
use crate::diff::watches::{PRESENT, REST_KEY, Sight, WatchStream};

/// Looks for what is still missing before two sequences are called different.
const LOOKS_MAX: usize = 80;
/// What a side shows that did not answer.
const NOTHING: &str = "nothing in ten seconds";

/// The streams of both servers: of those with the same number the same is asked.
#[derive(Debug)]
pub(super) struct Pairs(Vec<[WatchStream; 2]>);

impl Pairs {
    pub(super) async fn open(peers: &[Peer; 2]) -> anyhow::Result<Self> {
        let mut pairs = Vec::new();
        for _ in 0..=PRESENT {
            pairs.push([peers[0].watch().await?, peers[1].watch().await?]);
        }
        Ok(Self(pairs))
    }
}

impl Match {
    /// Creates a watcher on both and compares the responses.
    pub(super) async fn create_watch(
        &mut self,
        stream: usize,
        request: &WatchCreateRequest,
    ) -> anyhow::Result<Option<Difference>> {
        let at = (self.revision, self.compacted);
        let is_future = request.start_revision > self.revision;
        let number = if is_future { PRESENT } else { stream % PRESENT };
        let [left, right] = &mut self.watches.0[number];
        if !left.has_room() {
            return Ok(None);
        }
        let left = left.create(request.clone(), at).await?;
        let right = right.create(request.clone(), at).await?;
        let text = |response| format!("{response:?}");
        self.count("watch created", 1);
        Ok(differ(&Operation::Watch(number, request.clone()), [left, right].map(text)))
    }

    /// Cancels a watcher on both, after what was on its way has arrived.
    pub(super) async fn cancel_watch(
        &mut self,
        stream: usize,
        watch_id: i64,
    ) -> anyhow::Result<Option<Difference>> {
        if let Some(difference) = self.compare_watches().await? {
            return Ok(Some(difference));
        }
        for side in &mut self.watches.0[stream] {
            side.cancel(watch_id).await?;
        }
        self.count("watch cancelled", 1);
        self.compare_watches().await
    }

    /// Asks both how far a stream is, once everything has arrived.
    pub(super) async fn watch_progress(
        &mut self,
        stream: usize,
    ) -> anyhow::Result<Option<Difference>> {
        if let Some(difference) = self.compare_watches().await? {
            return Ok(Some(difference));
        }
        for side in &self.watches.0[stream] {
            side.ask_progress()?;
        }
        if let Some(difference) = self.rest().await? {
            return Ok(Some(difference));
        }
        let told = self.watches.0[stream].each_mut().map(|side| std::mem::take(&mut side.progress));
        self.count("watch progress", told[0].len() as u64);
        Ok(differ(&Operation::WatchProgress(stream), told.map(|told| format!("{told:?}"))))
    }

    /// Brings all streams to rest and compares what each watcher was sent.
    pub(super) async fn compare_watches(&mut self) -> anyhow::Result<Option<Difference>> {
        if let Some(difference) = self.rest().await? {
            return Ok(Some(difference));
        }
        let mut asked = false;
        for [left, right] in &mut self.watches.0 {
            asked |= left.reads_history() || right.reads_history();
            let caught_up = [left.catch_up().await?, right.catch_up().await?];
            let text = |done| if done { "caught up".into() } else { NOTHING.into() };
            if let Some(difference) = differ(&Operation::CompareWatches, caught_up.map(text)) {
                return Ok(Some(difference));
            }
        }
        if asked && let Some(difference) = self.rest().await? {
            return Ok(Some(difference));
        }
        for number in 0..self.watches.0.len() {
            if let Some(difference) = self.compare_stream(number).await? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    async fn compare_stream(&mut self, number: usize) -> anyhow::Result<Option<Difference>> {
        let mut looks = 0;
        let [left, right] = &mut self.watches.0[number];
        // etcd puts off what a stream could not take at once, even behind later events.
        while left.seen != right.seen && looks < LOOKS_MAX {
            looks += 1;
            left.take_more().await?;
            right.take_more().await?;
        }
        let (mut seen, mut other) =
            (std::mem::take(&mut left.seen), std::mem::take(&mut right.seen));
        // What an event at the compact revision replaced is compacted. etcd does not send it, and ours does if
        // it still has it from another watcher.
        let sights = seen.values_mut().chain(other.values_mut()).flatten();
        sights.for_each(|sight| without_compacted(sight, self.compacted));
        left.progress.clear();
        right.progress.clear();
        self.count("watch events", seen.values().map(Vec::len).sum::<usize>() as u64);
        let names = seen.keys().chain(other.keys());
        let Some(name) = names.copied().find(|name| seen.get(name) != other.get(name)) else {
            return Ok(None);
        };
        let text = |side: Option<&Vec<_>>| {
            let sights = side.map_or(&[][..], Vec::as_slice).iter();
            format!("watcher {name} on stream {number}:")
                + &sights.map(|sight| format!("\n  {sight:?}")).collect::<String>()
        };
        let sides = [text(seen.get(&name)), text(other.get(&name))];
        Ok(differ(&Operation::CompareWatches, sides))
    }

    /// Puts the key of rest, and waits until each stream has seen it.
    async fn rest(&mut self) -> anyhow::Result<Option<Difference>> {
        let put = PutRequest { key: REST_KEY.into(), ..Default::default() };
        if let Some(difference) = self.compare(&Operation::Put(put)).await? {
            return Ok(Some(difference));
        }
        let revision = self.revision;
        for sides in &mut self.watches.0 {
            let [left, right] = sides;
            let rested = [left.rest(revision).await?, right.rest(revision).await?];
            let text = |rested| if rested { format!("rest at {revision}") } else { NOTHING.into() };
            if let Some(difference) = differ(&Operation::CompareWatches, rested.map(text)) {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }
}

fn differ(operation: &Operation, [left, right]: [String; 2]) -> Option<Difference> {
    (left != right).then(|| Difference { number: 0, request: operation.to_string(), left, right })
}

/// Leaves out a previous version that is compacted.
fn without_compacted(sight: &mut Sight, compacted: i64) {
    if let Sight::Event(event) = sight
        && event.kv.as_ref().is_some_and(|kv| kv.mod_revision <= compacted)
    {
        event.prev_kv = None;
    }
}
