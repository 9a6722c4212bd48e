//! Every refusal of the API with its gRPC code and its text, which clients compare byte by byte.
//!
//! Where etcd sends another code than its own table says, it is the sent one that counts: "too many
//! requests" leaves etcd as `Unknown`.

use tonic::{Code, Status};

use crate::handle::{ApplyError, RequestError};
use crate::lease::LeaseError;
use crate::mvcc::{MvccError, RowsError};
use crate::view::ReadError;

/// Why a request gets no reply of its own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidSortOption,
    InvalidClientApiVersion,
    Compacted,
    FutureRevision,
    NoSpace,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    RequestTooLarge,
    TooManyRequests,
    ProposalDropped,
    NoLeader,
    LeaderChanged,
    Timeout,
    Stopped,
    Corrupt,
    NotSupportedForLearner,
    /// Ours: the index is being read from the disk after a start.
    Loading,
    StreamSort,
    StreamFilters,
    WatchCanceled,
    /// Ours: etcd panics.
    UnknownAlarmAction,
    /// Ours: there are two kinds of alarms.
    UnknownAlarmType,
}

impl Refusal {
    /// The text, for a reply that carries it inside.
    pub(crate) fn text(self) -> &'static str {
        self.wire().1
    }

    /// The code and the text.
    fn wire(self) -> (Code, &'static str) {
        match self {
            Self::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
            Self::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
            Self::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
            Self::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
            Self::TooManyOps => {
                (Code::InvalidArgument, "etcdserver: too many operations in txn request")
            }
            Self::DuplicateKey => {
                (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
            }
            Self::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
            Self::InvalidClientApiVersion => {
                (Code::InvalidArgument, "etcdserver: invalid client api version")
            }
            Self::Compacted => {
                (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
            }
            Self::FutureRevision => {
                (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
            }
            Self::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Self::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
            Self::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            Self::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
            Self::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
            Self::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
            Self::ProposalDropped => (Code::Unknown, "raft proposal dropped"),
            Self::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
            Self::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
            Self::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
            Self::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
            Self::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
            Self::NotSupportedForLearner => {
                (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
            }
            Self::Loading => {
                (Code::Unavailable, "etcdserver: the index of keys is still being loaded")
            }
            Self::StreamSort => {
                (Code::Unimplemented, "RangeStream does not support custom sort orders")
            }
            Self::StreamFilters => {
                (Code::Unimplemented, "RangeStream does not support revision filters")
            }
            Self::WatchCanceled => (Code::Cancelled, "etcdserver: watch canceled"),
            Self::UnknownAlarmAction => (Code::InvalidArgument, "etcdserver: unknown alarm action"),
            Self::UnknownAlarmType => (Code::InvalidArgument, "etcdserver: unknown alarm type"),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = refusal.wire();
        Self::new(code, text)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::TooManyRequests => Self::TooManyRequests,
            RequestError::TooLarge => Self::RequestTooLarge,
            RequestError::NoSpace => Self::NoSpace,
            RequestError::Timeout => Self::Timeout,
            RequestError::NoLeader => Self::NoLeader,
            RequestError::LeaderChanged => Self::LeaderChanged,
            RequestError::Dropped => Self::ProposalDropped,
            RequestError::Stopped => Self::Stopped,
        }
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Mvcc(error) => error.into(),
            ApplyError::Lease(LeaseError::NotFound) => Self::LeaseNotFound,
            ApplyError::Lease(LeaseError::Exists) => Self::LeaseExists,
            ApplyError::Lease(LeaseError::TtlTooLarge) => Self::LeaseTtlTooLarge,
            ApplyError::NoSpace => Self::NoSpace,
            ApplyError::Corrupt => Self::Corrupt,
        }
    }
}

impl From<MvccError> for Refusal {
    fn from(error: MvccError) -> Self {
        match error {
            MvccError::KeyNotFound => Self::KeyNotFound,
            MvccError::LeaseNotFound => Self::LeaseNotFound,
            MvccError::Compacted => Self::Compacted,
            MvccError::FutureRevision => Self::FutureRevision,
        }
    }
}

/// The refusal for a read that ended early. A store that cannot be read is not one: it goes to
/// [`Handle::fail`](crate::handle::Handle::fail).
pub(crate) fn read(error: ReadError) -> Result<Refusal, RowsError> {
    match error {
        ReadError::Compacted => Ok(Refusal::Compacted),
        ReadError::FutureRevision => Ok(Refusal::FutureRevision),
        ReadError::Rows(error) => Err(error),
    }
}

/// How a call ends whose next message cannot be sent; the text is that of gRPC for Go.
pub(super) fn too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: trying to send message larger than max ({bytes} vs. {bytes_max})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_are_those_that_etcd_sends() {
        let cases: [(Refusal, Code, &str); 11] = [
            (RequestError::TooManyRequests.into(), Code::Unknown, "etcdserver: too many requests"),
            (RequestError::Dropped.into(), Code::Unknown, "raft proposal dropped"),
            (RequestError::Timeout.into(), Code::Unavailable, "etcdserver: request timed out"),
            (RequestError::NoLeader.into(), Code::Unavailable, "etcdserver: no leader"),
            (
                RequestError::TooLarge.into(),
                Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (
                ApplyError::NoSpace.into(),
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            (ApplyError::Corrupt.into(), Code::DataLoss, "etcdserver: corrupt cluster"),
            (
                MvccError::Compacted.into(),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                MvccError::LeaseNotFound.into(),
                Code::NotFound,
                "etcdserver: requested lease not found",
            ),
            (
                ApplyError::Lease(LeaseError::Exists).into(),
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
            ),
            (
                ApplyError::Lease(LeaseError::TtlTooLarge).into(),
                Code::OutOfRange,
                "etcdserver: too large lease TTL",
            ),
        ];
        for (refusal, code, text) in cases {
            let status = Status::from(refusal);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
