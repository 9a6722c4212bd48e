//! Requests of leases, and what two servers answer to them.
//!
//! Compared as sent, but: how long a lease still lives may differ by a few seconds, for
//! the two servers granted it one after the other; and the keys of a lease are sorted, because etcd
//! sends them in the order of a Go map, which is none.

use std::fmt::{self, Display, Formatter};

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};
use tonic::Status;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;

use super::exchange::Reply;

/// How much the remaining seconds of one lease may differ.
const TIME_LEFT_SLACK_S: i64 = 5;

/// A request to the lease service.
#[derive(Clone, Debug)]
pub enum LeaseOperation {
    /// `Lease.LeaseGrant`.
    Grant(LeaseGrantRequest),
    /// `Lease.LeaseRevoke`.
    Revoke(LeaseRevokeRequest),
    /// `Lease.LeaseKeepAlive`: a stream with one request, and the first answer.
    KeepAlive(LeaseKeepAliveRequest),
    /// `Lease.LeaseTimeToLive`.
    TimeToLive(LeaseTimeToLiveRequest),
    /// `Lease.LeaseLeases`.
    List,
}

/// What the lease service answers.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaseReply {
    /// To a grant.
    Granted(LeaseGrantResponse),
    /// To a revocation.
    Revoked(LeaseRevokeResponse),
    /// To a renewal; nothing if the stream ended without an answer.
    KeptAlive(Option<LeaseKeepAliveResponse>),
    /// To the question how long a lease lives.
    TimeToLive(LeaseTimeToLiveResponse),
    /// All leases.
    List(LeaseLeasesResponse),
}

impl LeaseOperation {
    /// Sends the request.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn ask(self, channel: Channel) -> Result<LeaseReply, Status> {
        let mut client = LeaseClient::new(channel);
        Ok(match self {
            Self::Grant(request) => {
                LeaseReply::Granted(client.lease_grant(request).await?.into_inner())
            }
            Self::Revoke(request) => {
                LeaseReply::Revoked(client.lease_revoke(request).await?.into_inner())
            }
            Self::KeepAlive(request) => {
                let requests = tokio_stream::once(request);
                let mut replies = client.lease_keep_alive(requests).await?.into_inner();
                LeaseReply::KeptAlive(replies.message().await?)
            }
            Self::TimeToLive(request) => {
                let mut reply = client.lease_time_to_live(request).await?.into_inner();
                reply.keys.sort();
                LeaseReply::TimeToLive(reply)
            }
            Self::List => {
                LeaseReply::List(client.lease_leases(LeaseLeasesRequest {}).await?.into_inner())
            }
        })
    }
}

impl LeaseReply {
    /// The header, if the reply has one.
    pub fn header_mut(&mut self) -> Option<&mut ResponseHeader> {
        match self {
            Self::Granted(reply) => reply.header.as_mut(),
            Self::Revoked(reply) => reply.header.as_mut(),
            Self::KeptAlive(reply) => reply.as_mut().and_then(|reply| reply.header.as_mut()),
            Self::TimeToLive(reply) => reply.header.as_mut(),
            Self::List(reply) => reply.header.as_mut(),
        }
    }

    /// The kind of the reply.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Granted(_) => "lease granted",
            Self::Revoked(_) => "lease revoked",
            Self::KeptAlive(Some(reply)) if reply.ttl > 0 => "lease kept alive",
            Self::KeptAlive(_) => "lease not kept alive",
            Self::TimeToLive(_) => "lease time to live",
            Self::List(_) => "leases",
        }
    }
}

/// Makes the times that are left equal if they nearly are.
pub(super) fn forgive_time_left(left: &Reply, right: &mut Reply) {
    if let (Reply::Lease(LeaseReply::TimeToLive(left)), Reply::Lease(LeaseReply::TimeToLive(right))) =
        (left, right)
        && left.ttl > 0
        && right.ttl > 0
        && left.ttl.abs_diff(right.ttl) <= TIME_LEFT_SLACK_S.unsigned_abs()
    {
        right.ttl = left.ttl;
    }
}

impl Display for LeaseOperation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(request) => {
                write!(f, "lease-grant id={} ttl={}", request.id, request.ttl)
            }
            Self::Revoke(request) => write!(f, "lease-revoke id={}", request.id),
            Self::KeepAlive(request) => write!(f, "lease-keep-alive id={}", request.id),
            Self::TimeToLive(request) => {
                write!(f, "lease-time-to-live id={} keys={}", request.id, request.keys)
            }
            Self::List => write!(f, "lease-list"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_left(ttl: i64) -> Reply {
        Reply::Lease(LeaseReply::TimeToLive(LeaseTimeToLiveResponse { ttl, ..Default::default() }))
    }

    #[test]
    fn a_lease_may_end_a_little_earlier_on_one_server_but_not_be_gone() {
        let is_forgiven = |left, right| {
            let (left, mut right) = (time_left(left), time_left(right));
            forgive_time_left(&left, &mut right);
            left == right
        };
        assert!(is_forgiven(1000, 995) && is_forgiven(995, 1000));
        assert!(!is_forgiven(1000, 994));
        assert!(!is_forgiven(3, -1) && !is_forgiven(-1, 3));
        assert!(!is_forgiven(i64::MAX, i64::MIN));
    }
}
