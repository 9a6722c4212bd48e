//! What locks and elections are made of: keys below one prefix, each of a lease, in the order in which they
//! were created.
//!
//! ```text
//! name/1a   created at 7    holds the lock, or leads
//! name/2c   created at 9    waits until name/1a is gone
//! name/0f   created at 12   waits until name/2c is gone, then looks again
//! ```
//!
//! Each watches the key before its own and no other, so an end wakes one. etcd does the same with its
//! own client inside the server; here it is the KV service itself that is asked.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcdserverpb::lease_server::Lease as _;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::response_op::Response as OpResponse;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
};
use quorate_proto::mvccpb::KeyValue;
use tonic::{Request, Status};

use super::context::Context;
use super::follow::Follow;
use super::kv::KvService;
use super::lease::LeaseService;
use crate::mvcc::RowsError;

/// What a lease is granted for to who names none, in seconds.
const SESSION_TTL_S: i64 = 60;

/// What both services need.
pub(crate) struct Concurrency {
    context: Context,
    kv: KvService,
    leases: LeaseService,
}

/// The keys of one lock or election.
#[derive(Clone)]
pub(crate) struct Prefix {
    start: Bytes,
    end: Bytes,
}

/// A key that somebody put to wait or to win.
pub(crate) struct Claim {
    pub(crate) key: Bytes,
    /// When it was created, which is its place in the queue.
    pub(crate) revision: i64,
    /// Of the transaction that made or found it.
    pub(crate) header: ResponseHeader,
    /// The value that it had already.
    pub(crate) found: Option<Bytes>,
    /// Whether no older key was there.
    pub(crate) is_first: bool,
}

impl Prefix {
    /// The keys below `name/`.
    pub(crate) fn of(name: &[u8]) -> Self {
        let with = |last: u8| Bytes::from([name, &[last]].concat());
        Self { start: with(b'/'), end: with(b'/' + 1) }
    }

    /// The key of a lease: its ID in hexadecimal digits, with its sign.
    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        let digits = format!("{sign}{:x}", lease.unsigned_abs());
        [&self.start[..], digits.as_bytes()].concat().into()
    }

    /// The one key that was created first, or last of those up to `created_max`.
    fn query(&self, order: SortOrder, created_max: i64) -> RangeRequest {
        RangeRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            max_create_revision: created_max,
            ..RangeRequest::default()
        }
    }

    fn first(&self) -> RangeRequest {
        self.query(SortOrder::Ascend, 0)
    }
}

impl Concurrency {
    pub(crate) fn new(context: Context) -> Arc<Self> {
        let kv = KvService::new(context.clone());
        let leases = LeaseService::new(context.clone());
        Arc::new(Self { context, kv, leases })
    }

    /// The lease of a request: the one it names, or a new one for 0.
    pub(crate) async fn lease(&self, named: i64) -> Result<i64, Status> {
        if named != 0 { Ok(named) } else { self.grant().await }
    }

    /// Grants a lease that its client has to renew.
    async fn grant(&self) -> Result<i64, Status> {
        let request = LeaseGrantRequest { ttl: SESSION_TTL_S, id: 0 };
        Ok(self.leases.lease_grant(Request::new(request)).await?.into_inner().id)
    }

    /// Puts the key of `lease` with `value`, unless it is there.
    pub(crate) async fn claim(
        &self,
        prefix: &Prefix,
        lease: i64,
        value: Bytes,
    ) -> Result<Claim, Status> {
        let key = prefix.key(lease);
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let first = Op::RequestRange(prefix.first());
        let reply = self
            .txn(
                created_at(&key, 0),
                vec![Op::RequestPut(put), first.clone()],
                vec![Op::RequestRange(get), first],
            )
            .await?;
        let header = reply.header.unwrap_or_default();
        let found = if reply.succeeded { None } else { self.row(&reply, 0)? };
        let revision = found.as_ref().map_or(header.revision, |found| found.create_revision);
        let is_first = self.row(&reply, 1)?.is_none_or(|first| first.create_revision == revision);
        Ok(Claim { key, revision, header, found: found.map(|found| found.value), is_first })
    }

    /// Waits until no key of `prefix` is left that was created before `revision`.
    pub(crate) async fn wait_turn(&self, prefix: &Prefix, revision: i64) -> Result<(), Status> {
        loop {
            let query = prefix.query(SortOrder::Descend, revision - 1);
            let (header, last) = self.get(RangeRequest { keys_only: true, ..query }).await?;
            match last {
                None => return Ok(()),
                Some(last) => self.wait_deleted(last.key, header.revision).await?,
            }
        }
    }

    /// Waits until `key`, which was there at `from_revision`, is deleted; or less, if what happened to it
    /// is compacted.
    async fn wait_deleted(&self, key: Bytes, from_revision: i64) -> Result<(), Status> {
        let request = WatchCreateRequest {
            key,
            start_revision: from_revision + 1,
            filters: vec![FilterType::Noput.into()],
            ..WatchCreateRequest::default()
        };
        self.follow(request).next().await.map(|_| ())
    }

    /// Watches what `request` names.
    fn follow(&self, request: WatchCreateRequest) -> Follow {
        Follow::new(self.context.clone(), request)
    }

    /// Every change of `key` after `revision`.
    pub(crate) fn changes_of(&self, key: Bytes, revision: i64) -> Follow {
        let start_revision = revision + 1;
        self.follow(WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() })
    }

    /// Every put of a key of `prefix` after `revision`.
    pub(crate) fn puts_below(&self, prefix: &Prefix, revision: i64) -> Follow {
        self.follow(WatchCreateRequest {
            key: prefix.start.clone(),
            range_end: prefix.end.clone(),
            start_revision: revision + 1,
            filters: vec![FilterType::Nodelete.into()],
            ..WatchCreateRequest::default()
        })
    }

    /// The key of `prefix` that was created first.
    pub(crate) async fn first(
        &self,
        prefix: &Prefix,
    ) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        self.get(prefix.first()).await
    }

    /// The key itself.
    pub(crate) async fn find(
        &self,
        key: Bytes,
    ) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        self.get(RangeRequest { key, ..RangeRequest::default() }).await
    }

    /// Puts `key` if it was created at `revision`; `None` if not.
    pub(crate) async fn put_if(
        &self,
        (key, revision): (Bytes, i64),
        lease: i64,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let condition = created_at(&key, revision);
        let put = PutRequest { key, value, lease, ..PutRequest::default() };
        let reply = self.txn(condition, vec![Op::RequestPut(put)], Vec::new()).await?;
        Ok(if reply.succeeded { reply.header } else { None })
    }

    /// Deletes `key` if it was created at `revision`.
    pub(crate) async fn delete_if(
        &self,
        key: Bytes,
        revision: i64,
    ) -> Result<Option<ResponseHeader>, Status> {
        let condition = created_at(&key, revision);
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let reply = self.txn(condition, vec![Op::RequestDeleteRange(delete)], Vec::new()).await?;
        Ok(reply.header)
    }

    /// Deletes `key`.
    pub(crate) async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        Ok(self.kv.delete_range(Request::new(request)).await?.into_inner().header)
    }

    async fn txn(
        &self,
        condition: Compare,
        success: Vec<Op>,
        failure: Vec<Op>,
    ) -> Result<TxnResponse, Status> {
        let ops =
            |ops: Vec<Op>| ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
        let compare = vec![condition];
        let request = TxnRequest { compare, success: ops(success), failure: ops(failure) };
        Ok(self.kv.txn(Request::new(request)).await?.into_inner())
    }

    async fn get(
        &self,
        request: RangeRequest,
    ) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        let reply = self.kv.read_range(request).await?;
        let row = reply.kvs.first().map(|row| self.decode(row)).transpose()?;
        Ok((reply.header.unwrap_or_default(), row))
    }

    /// The row that operation `at` of a transaction found.
    fn row(&self, reply: &TxnResponse, at: usize) -> Result<Option<KeyValue>, Status> {
        match reply.responses.get(at).and_then(|op| op.response.as_ref()) {
            Some(OpResponse::ResponseRange(range)) => {
                range.kvs.first().map(|row| self.decode(row)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn decode(&self, row: &Bytes) -> Result<KeyValue, Status> {
        KeyValue::decode(row.clone()).map_err(|error| {
            let reason = format!("a stored row cannot be decoded: {error}");
            self.context.handle().fail(&RowsError::Corrupt(reason));
            super::errors::Refusal::Stopped.into()
        })
    }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// A claim whose owner may give up waiting: then its key is deleted, in the background.
pub(crate) struct Pending {
    concurrency: Arc<Concurrency>,
    /// The key, and when it was created; `None` once it may stay.
    claim: Option<(Bytes, i64)>,
}

impl Pending {
    pub(crate) fn new(concurrency: &Arc<Concurrency>, claim: &Claim) -> Self {
        let claim = Some((claim.key.clone(), claim.revision));
        Self { concurrency: Arc::clone(concurrency), claim }
    }

    /// The wait is over, and the key stays.
    pub(crate) fn keep(mut self) {
        self.claim = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some((key, revision)) = self.claim.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let concurrency = Arc::clone(&self.concurrency);
        runtime.spawn(async move {
            // Nobody is left to be told; the key ends with its lease at the latest.
            let _ = concurrency.delete_if(key, revision).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_after_their_lease_as_in_etcd() {
        let prefix = Prefix::of(b"l");
        for (lease, expected) in [
            (0x390d_a205_0726_57a0, "l/390da205072657a0"),
            (17, "l/11"),
            (-5, "l/-5"),
            (i64::MIN, "l/-8000000000000000"),
        ] {
            assert_eq!(prefix.key(lease), expected);
        }
        assert_eq!(Prefix::of(b"").key(1), "/1");
        assert_eq!((&prefix.start[..], &prefix.end[..]), (&b"l/"[..], &b"l0"[..]));
    }
}
