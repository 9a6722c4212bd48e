//! The meaning of the KV API, as plainly as it can be said.
//!
//! A [`Model`] keeps every version that every key ever had, in lists, and answers a request by looking
//! at all of them. It forgets nothing, not even at a compaction, which only refuses older reads. It is
//! slow and small, and shares no code with the server: where the two agree, one mistake alone is not
//! the reason. `tests/model.rs` compares it with a real etcd.
//!
//! ```
//! use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
//! use quorate_tests::model::{Model, Reply, Request};
//!
//! let mut model = Model::new();
//! let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
//! let reply = model.call(&Request::Put(put)).unwrap();
//! assert_eq!(reply.revision(), 2);
//! let range = RangeRequest { key: "a".into(), revision: 1, ..RangeRequest::default() };
//! let Ok(Reply::Range(reply)) = model.call(&Request::Range(range)) else { panic!() };
//! assert_eq!(reply.count, 0);
//! ```

mod check;
mod hash;
mod range;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

pub use hash::crc32c;

/// Every version of every key, and what may still be read.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    compact_revision: i64,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// The keys that each revision changed, in order.
    changed: BTreeMap<i64, Vec<Bytes>>,
    leases: BTreeSet<i64>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The revision of the request.
    pub main: i64,
    /// The position of the change in the request.
    pub sub: i64,
    /// The key as it was left; `None` if it was deleted.
    pub kv: Option<KeyValue>,
}

/// A request to the KV service, for a hash, or for the end of a lease.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the messages they hold.
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    HashKv(HashKvRequest),
    LeaseRevoke(LeaseRevokeRequest),
}

/// The reply to a [`Request`]. Headers hold a revision and nothing else.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the messages they hold.
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    HashKv(HashKvResponse),
    LeaseRevoke(LeaseRevokeResponse),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `text` says what each means.
pub enum Refusal {
    EmptyKey,
    KeyNotFound,
    /// A put that keeps what the same transaction has deleted before it. No check of etcd's sees a
    /// deletion without an end; its process ends then (3.7.3). Ours refuses the whole transaction.
    KeyDeletedBefore,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidSort,
    LeaseNotFound,
    Compacted,
    FutureRevision,
}

impl Refusal {
    /// The text that a client gets.
    pub fn text(self) -> &'static str {
        match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound | Self::KeyDeletedBefore => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::InvalidSort => "etcdserver: invalid sort option",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
        }
    }

    /// The number of the gRPC code that a client gets.
    pub fn code(self) -> i32 {
        match self {
            Self::LeaseNotFound => 5,
            Self::Compacted | Self::FutureRevision => 11,
            _ => 3,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty store: revision 1, nothing compacted.
    pub fn new() -> Self {
        Self {
            revision: 1,
            compact_revision: -1,
            keys: BTreeMap::new(),
            changed: BTreeMap::new(),
            leases: BTreeSet::new(),
        }
    }

    /// Validates and answers one request, after all those before it.
    ///
    /// # Errors
    /// The refusal that a client must get; nothing changed then.
    pub fn call(&mut self, request: &Request) -> Result<Reply, Refusal> {
        check::request(request)?;
        match request {
            Request::Range(range) => self.range(range, self.revision).map(Reply::Range),
            Request::Put(put) => self.put(put).map(Reply::Put),
            Request::DeleteRange(delete) => Ok(Reply::DeleteRange(self.delete_range(delete))),
            Request::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Request::Compact(compaction) => {
                self.compact(compaction.revision)?;
                Ok(Reply::Compact(CompactionResponse { header: header(self.revision) }))
            }
            Request::HashKv(hash) => self.hash_kv(hash.revision).map(Reply::HashKv),
            Request::LeaseRevoke(revoke) => self.revoke(revoke.id).map(Reply::LeaseRevoke),
        }
    }

    /// The revision of the last change; 1 if there was none.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What was compacted; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Refuses reads below `revision` from now on.
    ///
    /// # Errors
    /// `Compacted` if that was so already, `FutureRevision` above the current revision.
    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compact_revision {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compact_revision = revision;
        Ok(())
    }

    /// Lets puts name the lease `id`. It stays known: whether it still is, others must know.
    pub fn grant_lease(&mut self, id: i64) {
        self.leases.insert(id);
    }

    /// The store as it was right after `revision`; compactions and leases as they are now.
    #[must_use]
    pub fn as_of(&self, revision: i64) -> Self {
        let mut past = self.clone();
        past.revision = revision.min(self.revision);
        for versions in past.keys.values_mut() {
            versions.retain(|version| version.main <= revision);
        }
        past.changed.retain(|main, _| *main <= revision);
        past
    }

    /// What `request` would be answered now, without doing it.
    ///
    /// # Errors
    /// As [`Model::call`].
    pub fn answer(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let (revision, compact_revision) = (self.revision, self.compact_revision);
        let answer = self.call(request);
        self.compact_revision = compact_revision;
        if self.revision != revision {
            self.retract();
        }
        answer
    }

    /// Answers a range as of a time when the store was at `current`, whatever came after.
    ///
    /// # Errors
    /// As [`Model::call`], but for what was compacted since.
    pub fn range_when(&self, range: &RangeRequest, current: i64) -> Result<RangeResponse, Refusal> {
        check::request(&Request::Range(range.clone()))?;
        self.range(range, current)
    }

    /// Takes back the newest revision, as if its request had never come.
    pub fn retract(&mut self) {
        self.undo(self.revision);
        self.revision -= 1;
    }

    /// The store that has these changes, in ascending order of (main, sub), and stands at `revision`.
    pub fn restore(
        revision: i64,
        compact_revision: i64,
        changes: impl IntoIterator<Item = (Bytes, Version)>,
    ) -> Self {
        let mut model = Self { revision, compact_revision, ..Self::new() };
        for (key, version) in changes {
            model.add(key, version);
        }
        model
    }

    /// Every change made at `revision`, in order, with its key.
    pub fn changes_at(&self, revision: i64) -> Vec<(Bytes, Version)> {
        let keys = self.changed.get(&revision).map_or(&[][..], Vec::as_slice);
        let change = |(sub, key): (i64, &Bytes)| {
            let mut versions = self.keys.get(key)?.iter().rev();
            let is = |version: &&Version| (version.main, version.sub) == (revision, sub);
            Some((key.clone(), versions.find(is)?.clone()))
        };
        (0..).zip(keys).filter_map(change).collect()
    }

    fn add(&mut self, key: Bytes, version: Version) {
        self.changed.entry(version.main).or_default().push(key.clone());
        self.keys.entry(key).or_default().push(version);
    }

    /// Every version there is, by key, oldest first.
    pub fn rows(&self) -> impl Iterator<Item = (&Bytes, &Version)> {
        self.keys.iter().flat_map(|(key, list)| list.iter().map(move |version| (key, version)))
    }

    /// The key as it was at `revision`, if it existed then.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        self.keys.get(key).and_then(|versions| visible(versions, revision))
    }
}

impl Reply {
    /// The revision in the header.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Self::Range(reply) => reply.header,
            Self::Put(reply) => reply.header,
            Self::DeleteRange(reply) => reply.header,
            Self::Txn(reply) => reply.header,
            Self::Compact(reply) => reply.header,
            Self::HashKv(reply) => reply.header,
            Self::LeaseRevoke(reply) => reply.header,
        };
        header.map_or(0, |header| header.revision)
    }

    /// Whether the request changed a key, so that `revision` is its own.
    pub fn has_changed(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::DeleteRange(reply) => reply.deleted > 0,
            Self::Txn(reply) => txn_has_changed(reply),
            // Of the end of a lease the reply does not say it.
            Self::Range(_) | Self::Compact(_) | Self::HashKv(_) | Self::LeaseRevoke(_) => false,
        }
    }

    /// The reply with nothing in its headers but revisions, as the model gives it.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        match &mut self {
            Self::Range(reply) => strip(&mut reply.header),
            Self::Put(reply) => strip(&mut reply.header),
            Self::DeleteRange(reply) => strip(&mut reply.header),
            Self::Txn(reply) => strip(&mut reply.header),
            Self::Compact(reply) => strip(&mut reply.header),
            Self::HashKv(reply) => strip(&mut reply.header),
            Self::LeaseRevoke(reply) => strip(&mut reply.header),
        }
        self
    }
}

fn txn_has_changed(reply: &TxnResponse) -> bool {
    reply.responses.iter().any(|ResponseOp { response }| match response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(Response::ResponseTxn(txn)) => txn_has_changed(txn),
        Some(Response::ResponseRange(_)) | None => false,
    })
}

fn strip(full: &mut Option<ResponseHeader>) {
    *full = full.and_then(|full| header(full.revision));
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// The newest version up to `revision`, unless it is a deletion.
fn visible(versions: &[Version], revision: i64) -> Option<&KeyValue> {
    versions.iter().rev().find(|version| version.main <= revision)?.kv.as_ref()
}

/// Whether `key` is in the range that a request names.
pub fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && key < end,
    }
}
