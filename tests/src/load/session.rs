//! One client that asks one thing at a time, for code that is not asynchronous.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader,
};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// The longest that one request may take; a range of a million keys is far below.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A connection and the thread that drives it, which is the caller's.
#[derive(Debug)]
pub struct Session {
    runtime: Runtime,
    kv: KvClient<Channel>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(url: &str) -> anyhow::Result<Session> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = runtime.block_on(super::connect(url))?;
        let kv = KvClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Session { runtime, kv })
    }

    /// A range and how long its answer took.
    ///
    /// # Errors
    /// When it is refused, or not answered within two minutes.
    pub fn range(&mut self, request: RangeRequest) -> anyhow::Result<(RangeResponse, Duration)> {
        let start = Instant::now();
        let call = self.kv.range(request);
        let reply = self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, call).await.map_err(anyhow::Error::from)
        });
        let reply = reply?.context("a range failed")?;
        Ok((reply.into_inner(), start.elapsed()))
    }

    /// A range as a stream; how many keys came.
    ///
    /// # Errors
    /// As [`Session::range`].
    pub fn range_stream(&mut self, request: RangeRequest) -> anyhow::Result<usize> {
        let kv = &mut self.kv;
        self.runtime.block_on(async {
            let read = async {
                let mut messages = kv.range_stream(request).await?.into_inner();
                let mut keys = 0;
                while let Some(message) = messages.message().await? {
                    keys += message.range_response.map_or(0, |part| part.kvs.len());
                }
                anyhow::Ok(keys)
            };
            tokio::time::timeout(TIMEOUT, read).await?
        })
    }

    /// A put; the revision that it made.
    ///
    /// # Errors
    /// As [`Session::range`].
    pub fn put(&mut self, key: Bytes, value: Bytes) -> anyhow::Result<i64> {
        let call = self.kv.put(PutRequest { key, value, ..Default::default() });
        let reply = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, call).await });
        Ok(revision(reply?.context("a put failed")?.into_inner().header))
    }

    /// Compacts at the current revision and waits until what it removes is gone.
    ///
    /// # Errors
    /// As [`Session::range`].
    pub fn compact_all(&mut self) -> anyhow::Result<()> {
        let revision = self.revision()?;
        let call = self.kv.compact(CompactionRequest { revision, physical: true });
        let reply = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, call).await });
        reply?.context("a compaction failed")?;
        Ok(())
    }

    /// The current revision.
    ///
    /// # Errors
    /// As [`Session::range`].
    pub fn revision(&mut self) -> anyhow::Result<i64> {
        let key = Bytes::from_static(b"k");
        let (reply, _) = self.range(RangeRequest { key, ..Default::default() })?;
        Ok(revision(reply.header))
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
