//! One step of a history.

use quorate_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, MemberListRequest,
    PutRequest, RangeRequest, StatusRequest, TxnRequest, WatchCreateRequest,
};

use super::leases::LeaseOperation;

/// A request, or the check after every 1,000 of them.
#[derive(Clone, Debug)]
pub enum Operation {
    /// `KV.Range`.
    Range(RangeRequest),
    /// `KV.RangeStream`, all of its messages.
    RangeStream(RangeRequest),
    /// `KV.Put`.
    Put(PutRequest),
    /// `KV.DeleteRange`.
    Delete(DeleteRangeRequest),
    /// `KV.Txn`.
    Txn(TxnRequest),
    /// `KV.Compact`.
    Compact(CompactionRequest),
    /// `Cluster.MemberList`.
    MemberList(MemberListRequest),
    /// `Maintenance.Status`.
    Status(StatusRequest),
    /// `Maintenance.Alarm`.
    Alarm(AlarmRequest),
    /// `Maintenance.HashKV`.
    HashKv(HashKvRequest),
    /// A request to the lease service.
    Lease(LeaseOperation),
    /// `Watch.Watch`: a new watcher on a stream, by its number. One that begins in the future is put on
    /// the stream for those.
    Watch(usize, WatchCreateRequest),
    /// The end of a watcher, by the numbers of its stream and its own.
    CancelWatch(usize, i64),
    /// The question how far a stream is.
    WatchProgress(usize),
    /// Everything is brought to rest, and what watchers were sent is compared.
    CompareWatches,
    /// A physical compaction at a revision, then `HashKV` at each revision from there to now.
    Check {
        /// Where the history is compacted.
        compact: i64,
    },
}
