//! What every service shares: the way to the owner, headers, limits, reads.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use quorate_proto::etcdserverpb::ResponseHeader;
use tonic::Status;

use super::errors::{self, Refusal};
use super::request::Command;
use super::timers::Timers;
use crate::config::LimitConfig;
use crate::handle::{Committed, Handle, RequestError};
use crate::mutants;
use crate::mvcc::{Compare, RangeQuery, Revision};
use crate::telemetry::Metrics;
use crate::view::{Pin, RangeSummary, ReadError};

/// Shared by all services; cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle,
    metrics: Arc<Metrics>,
    limits: LimitConfig,
    timers: Timers,
}

/// The rows of a range, in wire form, and what is said about it.
pub(crate) struct Rows {
    pub(crate) kvs: Vec<Bytes>,
    pub(crate) summary: RangeSummary,
}

/// Rows read between two yields to other requests.
const STORED_PER_STEP: usize = if cfg!(test) { 7 } else { 1000 };

impl Context {
    pub(crate) fn new(handle: Handle, metrics: Arc<Metrics>, limits: LimitConfig) -> Self {
        let timers = Timers::new(&metrics);
        Self { shared: Arc::new(Shared { handle, metrics, limits, timers }) }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.shared.handle
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn limits(&self) -> &LimitConfig {
        &self.shared.limits
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.shared.timers
    }

    /// A header that this member fills now.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        self.header_at(revision, self.shared.handle.status().raft.term.load(Relaxed))
    }

    /// A header of something that was applied in `term`.
    pub(crate) fn header_at(&self, revision: i64, term: u64) -> ResponseHeader {
        let status = self.shared.handle.status();
        ResponseHeader {
            cluster_id: status.cluster_id.load(Relaxed),
            member_id: status.member_id.load(Relaxed),
            revision,
            raft_term: term,
        }
    }

    /// The header of an operation within a transaction: the revision, and nothing else.
    pub(crate) fn inner_header(revision: i64) -> ResponseHeader {
        ResponseHeader { revision, ..ResponseHeader::default() }
    }

    /// Whether keys can be read; not while the index is loaded after a start.
    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        if self.shared.handle.status().ready.load(Relaxed) { Ok(()) } else { Err(Refusal::Loading) }
    }

    /// Learners serve only what needs no agreement.
    pub(crate) fn check_not_learner(&self) -> Result<(), Refusal> {
        let learns = self.shared.handle.status().raft.is_learner.load(Relaxed);
        if learns { Err(Refusal::NotSupportedForLearner) } else { Ok(()) }
    }

    /// Waits until what this member has is what the cluster has.
    pub(crate) async fn linearize(&self) -> Result<(), Refusal> {
        let linear = self.shared.handle.linearize().await;
        linear.map_err(|error| {
            let requests = &self.shared.metrics.requests;
            let timed_out = error == RequestError::Timeout;
            if timed_out {
                requests.reads_slow.inc()
            } else {
                requests.reads_failed.inc()
            }
            error.into()
        })
    }

    /// Proposes a command and waits until it is applied here.
    pub(crate) async fn propose(&self, command: Command) -> Result<Committed, Refusal> {
        let member_id = self.shared.handle.status().member_id.load(Relaxed);
        let started = Instant::now();
        let bytes = command.encode(self.shared.limits.request_bytes_max, member_id)?;
        let timer = self.shared.timers.of(&command);
        // A request can be large, and the wait long.
        drop(command);
        let proposed = self.shared.handle.propose(bytes).await;
        timer.observe(started, proposed.is_ok());
        proposed.map_err(Refusal::from)
    }

    /// Counts one read of so many ranges.
    pub(super) fn reads(&self, ranges: u64) {
        let reads = &self.shared.metrics.mvcc.reads;
        reads.ranges.fetch_add(ranges, Relaxed);
        reads.txns.fetch_add(u64::from(ranges > 1), Relaxed);
    }

    /// Pins `revision`, or the current one for 0 and below.
    pub(crate) fn pin(&self, revision: i64) -> Result<Pin, Status> {
        self.shared.handle.view().pin(revision).map_err(|error| self.refuse_read(error))
    }

    /// As [`Context::pin`], for a read whose pace is the client's.
    pub(crate) fn pin_for_stream(&self, revision: i64) -> Result<Pin, Status> {
        self.shared.handle.view().pin_for_stream(revision).map_err(|error| self.refuse_read(error))
    }

    /// Reads a range to its end, letting other requests in between its steps.
    pub(crate) async fn read(
        &self,
        query: RangeQuery,
        at: Revision,
        pin: Arc<Pin>,
    ) -> Result<Rows, Status> {
        let handle = &self.shared.handle;
        let mut read = handle.view().range(query, at, Arc::clone(&pin));
        let mut kvs = Vec::new();
        loop {
            // What a transaction did is committed: however long its reply takes, it must come.
            pin.renew();
            let step = read.step(handle.rows().as_ref(), &mut kvs);
            match step.map_err(|error| self.refuse_read(error))? {
                Some(summary) => return Ok(Rows { kvs, summary }),
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Decides a compare of a read-only transaction, letting other requests in between its steps.
    pub(crate) async fn compare(
        &self,
        compare: Compare,
        at: Revision,
        pin: Arc<Pin>,
    ) -> Result<bool, Status> {
        let handle = &self.shared.handle;
        let mut read = handle.view().compare(compare, at, Arc::clone(&pin));
        loop {
            pin.renew();
            let step = read.step(handle.rows().as_ref());
            match step.map_err(|error| self.refuse_read(error))? {
                Some(holds) => return Ok(holds),
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Reads the rows at `revisions`, in order.
    pub(crate) async fn stored(
        &self,
        revisions: &[Revision],
        pin: &Pin,
    ) -> Result<Vec<Bytes>, Status> {
        let handle = &self.shared.handle;
        let mut kvs = Vec::with_capacity(revisions.len());
        let mut chunks = revisions.chunks(mutants::step(STORED_PER_STEP)).peekable();
        while let Some(chunk) = chunks.next() {
            // As with ranges: the pin is still needed.
            pin.renew();
            handle
                .view()
                .stored(chunk, pin, handle.rows().as_ref(), &mut kvs)
                .map_err(|error| self.refuse_read(error))?;
            if chunks.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(kvs)
    }

    /// The status for a read that ended early; a store that cannot be read ends the process.
    pub(crate) fn refuse_read(&self, error: ReadError) -> Status {
        match errors::read(error) {
            Ok(refusal) => refusal.into(),
            Err(error) => {
                self.shared.handle.fail(&error);
                Refusal::Stopped.into()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::methods::METHODS;
    use crate::handle::tests::handle;
    use crate::mvcc::{KeyRange, Put, RevisionBounds};
    use crate::view::PIN_MS_MAX;

    pub(crate) fn context() -> Context {
        let limits = LimitConfig { txn_ops_max: 128, request_bytes_max: 1 << 20 };
        Context::new(handle(None), Arc::new(Metrics::new(&METHODS, false)), limits)
    }

    /// Lets almost as much time go by as a pin lasts, each time that others get their turn.
    async fn slowly<T>(context: &Context, what: impl Future<Output = T>) -> T {
        let clock = async {
            loop {
                context.handle().view().pass(PIN_MS_MAX - 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            found = what => found,
            () = clock => unreachable!("time does not end"),
        }
    }

    #[tokio::test]
    async fn a_reply_that_takes_longer_than_a_pin_lasts_is_still_filled() {
        let context = context();
        let handle = context.handle();
        for key in 0..50 {
            let (key, value) = (Bytes::from(format!("k{key:02}")), Some("v".into()));
            let put = Put { key, value, lease: Some(0), prev_kv: false };
            handle.view().write().put(&put, handle.rows().as_ref()).unwrap().unwrap();
        }
        let pin = Arc::new(context.pin(0).unwrap());
        let revisions: Vec<Revision> = (2..52).map(|main| Revision::new(main, 0)).collect();
        assert_eq!(slowly(&context, context.stored(&revisions, &pin)).await.unwrap().len(), 50);
        assert!(pin.is_valid());
        let query = RangeQuery {
            keys: KeyRange::from_wire("k".into(), "l".into()),
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            bounds: RevisionBounds::default(),
        };
        let at = Revision::end_of(pin.revision());
        let rows = slowly(&context, context.read(query, at, pin)).await.unwrap();
        assert_eq!(rows.kvs.len(), 50);
    }
}
