//! Watch streams to one server, and what each watcher was sent.
//!
//! A server may put events into responses as it likes, so what is compared is the sequence of a
//! watcher: its events, and how it ended. When everything has arrived is found by asking:
//!
//! ```text
//! put REST_KEY                 each stream has a watcher of it: whoever is live has everything before it
//! progress until it is told    whoever reads history has caught up (etcd says nothing before)
//! put REST_KEY again           answers to earlier questions are behind us too
//! ```
//!
//! Streams `0` to [`PRESENT`]` - 1` hold watchers that begin now or in the past; the last one those that
//! begin in the future, because a stream with such a watcher does not tell how far it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use quorate_proto::mvccpb::Event;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::transport::Channel;

use super::normal::mask_header;

/// A key that is put to find out what has arrived; no history uses it.
pub const REST_KEY: &str = "zz/rest";
/// Streams of watchers that begin now or in the past.
pub const PRESENT: usize = 2;
/// Watchers that a stream may have.
pub const WATCHERS_MAX: usize = 16;
/// The watcher of [`REST_KEY`] on each stream.
const REST_WATCHER: i64 = 1_000_000;
/// The stream speaks for all its watchers.
const ALL_WATCHERS: i64 = -1;
/// How long a response may take.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(10);
/// After this time etcd is asked again how far a stream is.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// Something that a watcher was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// An event.
    Event(Event),
    /// Its end.
    Ended {
        /// The header's revision.
        revision: i64,
        /// 0 if it was not compacted.
        compact_revision: i64,
        /// Why.
        reason: String,
    },
}

/// One watch stream.
#[derive(Debug)]
pub struct WatchStream {
    requests: tokio::sync::mpsc::UnboundedSender<WatchRequest>,
    responses: UnboundedReceiver<Result<WatchResponse, Status>>,
    created: VecDeque<WatchResponse>,
    live: BTreeSet<i64>,
    /// Watchers that ended by a compaction, and were cancelled then. etcd knows them until that: it answers,
    /// it refuses their names, and does not say how far the stream is.
    dead: BTreeSet<i64>,
    /// What came since the last comparison, by watcher.
    pub seen: BTreeMap<i64, Vec<Sight>>,
    /// Revisions to which the stream says it has come.
    pub progress: Vec<i64>,
    rested: i64,
    /// A watcher reads history.
    reads_history: bool,
}

impl WatchStream {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the server does not serve it.
    pub async fn open(channel: Channel) -> anyhow::Result<Self> {
        let (requests, queue) = unbounded_channel();
        let (arrived, responses) = unbounded_channel();
        let mut stream = Self {
            requests,
            responses,
            created: VecDeque::new(),
            live: BTreeSet::new(),
            dead: BTreeSet::new(),
            seen: BTreeMap::new(),
            progress: Vec::new(),
            rested: 0,
            reads_history: false,
        };
        // A server may say nothing at all before the first request.
        stream.send(RequestUnion::CreateRequest(WatchCreateRequest {
            key: Bytes::from_static(REST_KEY.as_bytes()),
            watch_id: REST_WATCHER,
            ..Default::default()
        }))?;
        let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(queue);
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut from_server = client.watch(queue).await?.into_inner();
        // Read at once, so that no server has a slow client; ends with the stream.
        tokio::spawn(async move {
            while let Some(response) = from_server.next().await {
                if arrived.send(response).is_err() {
                    return;
                }
            }
        });
        stream.create_response().await?.context("the watcher of rest was not created")?;
        Ok(stream)
    }

    fn send(&self, union: RequestUnion) -> anyhow::Result<()> {
        let request = WatchRequest { request_union: Some(union) };
        self.requests.send(request).context("the watch stream has ended")
    }

    /// Creates a watcher, and gives the response to that. `now` and `compacted` are the store's revisions.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn create(
        &mut self,
        request: WatchCreateRequest,
        (now, compacted): (i64, i64),
    ) -> anyhow::Result<Option<WatchResponse>> {
        let start = request.start_revision;
        self.send(RequestUnion::CreateRequest(request))?;
        let response = self.create_response().await?;
        if let Some(WatchResponse { watch_id, canceled: false, .. }) = response
            && start > 0
        {
            self.reads_history |= start <= now;
            if start < compacted {
                self.until(|stream| !stream.live.contains(&watch_id)).await?;
            }
        }
        Ok(response)
    }

    async fn create_response(&mut self) -> anyhow::Result<Option<WatchResponse>> {
        self.until(|stream| !stream.created.is_empty()).await?;
        Ok(self.created.pop_front())
    }

    /// Cancels a watcher, or one that is not there, to which no server says anything.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn cancel(&mut self, watch_id: i64) -> anyhow::Result<()> {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))?;
        self.until(|stream| !stream.live.contains(&watch_id)).await.map(drop)
    }

    /// Asks how far the stream is.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn ask_progress(&self) -> anyhow::Result<()> {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
    }

    /// Waits for the event of the put of [`REST_KEY`] at `revision`; `false` if it does not come.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn rest(&mut self, revision: i64) -> anyhow::Result<bool> {
        self.until(|stream| stream.rested >= revision).await
    }

    /// Waits until nobody reads history any more, if anybody does; `false` if that does not come.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn catch_up(&mut self) -> anyhow::Result<bool> {
        let deadline = Instant::now() + RESPONSE_TIME_MAX;
        let known = self.progress.len();
        while self.reads_history && Instant::now() < deadline {
            self.ask_progress()?;
            let again = Instant::now() + ASK_AGAIN;
            self.reads_history =
                !self.until_time(again, |stream| stream.progress.len() > known).await?;
        }
        Ok(!self.reads_history)
    }

    /// Whether a watcher may still read history.
    pub fn reads_history(&self) -> bool {
        self.reads_history
    }

    /// Whether there is room for another watcher.
    pub fn has_room(&self) -> bool {
        self.live.len() < WATCHERS_MAX
    }

    /// Takes what arrives for a moment.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn take_more(&mut self) -> anyhow::Result<()> {
        self.until_time(Instant::now() + ASK_AGAIN, |_| false).await.map(drop)
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        self.until_time(Instant::now() + RESPONSE_TIME_MAX, done).await
    }

    async fn until_time(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        while !done(self) {
            match timeout_at(deadline, self.responses.recv()).await {
                Err(_) => return Ok(false),
                Ok(None) => anyhow::bail!("the watch stream has ended"),
                Ok(Some(response)) => self.take(response.context("a watch stream failed")?)?,
            }
        }
        Ok(true)
    }

    fn take(&mut self, mut response: WatchResponse) -> anyhow::Result<()> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header.iter_mut().for_each(mask_header);
        let watch_id = response.watch_id;
        if response.created {
            if !response.canceled {
                self.live.insert(watch_id);
                self.dead.remove(&watch_id);
            }
            self.created.push_back(response);
        } else if response.canceled {
            let (compact_revision, reason) = (response.compact_revision, response.cancel_reason);
            if self.dead.remove(&watch_id) {
                return Ok(());
            }
            self.live.remove(&watch_id);
            if compact_revision > 0 {
                self.dead.insert(watch_id);
                self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))?;
            }
            let ended = Sight::Ended { revision, compact_revision, reason };
            self.seen.entry(watch_id).or_default().push(ended);
        } else if watch_id == ALL_WATCHERS {
            self.progress.push(revision);
        } else if watch_id == REST_WATCHER {
            let puts = response.events.iter().filter(|event| event.r#type == 0);
            let newest = puts.filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
            self.rested = self.rested.max(newest.unwrap_or(0));
        } else {
            let events = response.events.into_iter().map(Sight::Event);
            self.seen.entry(watch_id).or_default().extend(events);
        }
        Ok(())
    }
}
