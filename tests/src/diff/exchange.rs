//! Sends an operation to a server and takes its whole reply.

use std::borrow::Cow;

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, HashKvResponse, MemberListResponse,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, StatusResponse, TxnResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::leases::LeaseReply;
use super::operation::Operation;
use super::watches::WatchStream;

/// Everything that a server answers to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a range, or to a streamed one: its messages merged.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    Delete(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact(CompactionResponse),
    /// The members.
    MemberList(MemberListResponse),
    /// The status.
    Status(StatusResponse),
    /// The alarms.
    Alarm(AlarmResponse),
    /// A hash.
    HashKv(HashKvResponse),
    /// From the lease service.
    Lease(LeaseReply),
    /// An error.
    Refused {
        /// The gRPC code.
        code: Code,
        /// The text.
        message: String,
    },
}

impl Reply {
    /// The header, if the reply has one.
    pub fn header_mut(&mut self) -> Option<&mut ResponseHeader> {
        match self {
            Reply::Range(reply) => reply.header.as_mut(),
            Reply::Put(reply) => reply.header.as_mut(),
            Reply::Delete(reply) => reply.header.as_mut(),
            Reply::Txn(reply) => reply.header.as_mut(),
            Reply::Compact(reply) => reply.header.as_mut(),
            Reply::MemberList(reply) => reply.header.as_mut(),
            Reply::Status(reply) => reply.header.as_mut(),
            Reply::Alarm(reply) => reply.header.as_mut(),
            Reply::HashKv(reply) => reply.header.as_mut(),
            Reply::Lease(reply) => reply.header_mut(),
            Reply::Refused { .. } => None,
        }
    }

    /// The revision in the header; 0 when there is none.
    pub fn revision(&mut self) -> i64 {
        self.header_mut().map_or(0, |header| header.revision)
    }

    /// The kind of the reply, or the code and text of an error.
    pub fn outcome(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reply::Range(_) => "range",
            Reply::Put(_) => "put",
            Reply::Delete(_) => "delete",
            Reply::Txn(_) => "txn",
            Reply::Compact(_) => "compact",
            Reply::MemberList(_) => "member list",
            Reply::Status(_) => "status",
            Reply::Alarm(_) => "alarm",
            Reply::HashKv(_) => "hashkv",
            Reply::Lease(reply) => reply.outcome(),
            Reply::Refused { code, message } => return format!("{code:?}: {message}").into(),
        })
    }

    /// True if the server may be gone rather than have refused.
    pub fn may_be_lost(&self) -> bool {
        matches!(self, Reply::Refused { code: Code::Unavailable | Code::Cancelled, .. })
            || matches!(self, Reply::Refused { code: Code::Unknown, message } if message.contains("transport"))
    }
}

/// The clients of one server.
#[derive(Clone, Debug)]
pub struct Peer {
    kv: KvClient<Channel>,
    cluster: ClusterClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    channel: Channel,
}

impl Peer {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(url: &str) -> anyhow::Result<Peer> {
        let channel = crate::load::connect(url).await?;
        Ok(Peer {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
        })
    }

    /// Opens a watch stream.
    ///
    /// # Errors
    /// When the server does not serve it.
    pub async fn watch(&self) -> anyhow::Result<WatchStream> {
        WatchStream::open(self.channel.clone()).await
    }

    /// Sends one request and waits for all of its reply.
    ///
    /// # Panics
    /// At [`Operation::Check`], which is several requests, and at what goes to a watch stream.
    pub async fn ask(&mut self, operation: &Operation) -> Reply {
        match operation.clone() {
            Operation::Range(request) => reply(self.kv.range(request).await, Reply::Range),
            Operation::RangeStream(request) => match self.range_stream(request).await {
                Ok(merged) => Reply::Range(merged),
                Err(status) => refused(&status),
            },
            Operation::Put(request) => reply(self.kv.put(request).await, Reply::Put),
            Operation::Delete(request) => reply(self.kv.delete_range(request).await, Reply::Delete),
            Operation::Txn(request) => reply(self.kv.txn(request).await, Reply::Txn),
            Operation::Compact(request) => reply(self.kv.compact(request).await, Reply::Compact),
            Operation::MemberList(request) => {
                reply(self.cluster.member_list(request).await, Reply::MemberList)
            }
            Operation::Status(request) => {
                reply(self.maintenance.status(request).await, Reply::Status)
            }
            Operation::Alarm(request) => reply(self.maintenance.alarm(request).await, Reply::Alarm),
            Operation::HashKv(request) => {
                reply(self.maintenance.hash_kv(request).await, Reply::HashKv)
            }
            Operation::Lease(operation) => match operation.ask(self.channel.clone()).await {
                Ok(reply) => Reply::Lease(reply),
                Err(status) => refused(&status),
            },
            Operation::Check { .. }
            | Operation::Watch(..)
            | Operation::CancelWatch(..)
            | Operation::WatchProgress(_)
            | Operation::CompareWatches => panic!("{operation} is no single request"),
        }
    }

    /// Merges the messages of a stream as protobuf merges: lists grow, the last set field wins. How
    /// many keys a message carries is the server's choice and not compared.
    async fn range_stream(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let mut messages = self.kv.range_stream(request).await?.into_inner();
        let mut merged = RangeResponse::default();
        while let Some(message) = messages.message().await? {
            let Some(part) = message.range_response else { continue };
            merged.header = part.header.or(merged.header);
            merged.kvs.extend(part.kvs);
            merged.more |= part.more;
            if part.count != 0 {
                merged.count = part.count;
            }
        }
        Ok(merged)
    }
}

fn reply<T>(result: Result<Response<T>, Status>, wrap: fn(T) -> Reply) -> Reply {
    match result {
        Ok(response) => wrap(response.into_inner()),
        Err(status) => refused(&status),
    }
}

fn refused(status: &Status) -> Reply {
    Reply::Refused { code: status.code(), message: status.message().to_owned() }
}
