//! What requests about members, users and locks are refused for: the same table as
//! [`errors`](super::errors), for the services beside keys.
//!
//! The lock and election services of etcd are clients of it. What its own client made of a refusal leaves
//! them as `Unknown` with the text alone, and so it does here: see [`through_client`].

use tonic::{Code, Status};

/// Why a request for another service than KV gets no reply of its own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminRefusal {
    RootUserNotFound,
    AuthNotEnabled,
    UserEmpty,
    UserNotFound,
    RoleEmpty,
    RoleNotFound,
    PermissionNotGiven,
    InvalidAuthManagement,
    PasswordTooLong,
    BadLeaderTransferee,
    NotLeader,
    WrongDowngradeVersion,
    InvalidDowngradeTarget,
    UnknownDowngradeAction,
    MemberBadUrls,
    PeerUrlsExist,
    MemberNotFound,
    NotEnoughStartedMembers,
    MemberNotLearner,
    SessionExpired,
    ElectionNoLeader,
    ElectionNotLeader,
    NoLeaderKey,
    DeadlineExceeded,
}

impl AdminRefusal {
    /// The code and the text.
    fn wire(self) -> (Code, &'static str) {
        use Code::{FailedPrecondition, InvalidArgument, NotFound, Unknown};
        match self {
            Self::RootUserNotFound => (FailedPrecondition, "etcdserver: root user does not exist"),
            Self::AuthNotEnabled => {
                (FailedPrecondition, "etcdserver: authentication is not enabled")
            }
            Self::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
            Self::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
            Self::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
            Self::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
            Self::PermissionNotGiven => (InvalidArgument, "etcdserver: permission not given"),
            Self::InvalidAuthManagement => (InvalidArgument, "etcdserver: invalid auth management"),
            Self::PasswordTooLong => (Unknown, "bcrypt: password length exceeds 72 bytes"),
            Self::BadLeaderTransferee => (FailedPrecondition, "etcdserver: bad leader transferee"),
            Self::NotLeader => (FailedPrecondition, "etcdserver: not leader"),
            Self::WrongDowngradeVersion => {
                (InvalidArgument, "etcdserver: wrong downgrade target version format")
            }
            Self::InvalidDowngradeTarget => {
                (InvalidArgument, "etcdserver: invalid downgrade target version")
            }
            Self::UnknownDowngradeAction => (Unknown, "etcdserver: unknown method"),
            Self::MemberBadUrls => (InvalidArgument, "etcdserver: given member URLs are invalid"),
            Self::PeerUrlsExist => (FailedPrecondition, "etcdserver: Peer URLs already exists"),
            Self::MemberNotFound => (NotFound, "etcdserver: member not found"),
            Self::NotEnoughStartedMembers => {
                (Unknown, "etcdserver: re-configuration failed due to not enough started members")
            }
            Self::MemberNotLearner => {
                (FailedPrecondition, "etcdserver: can only promote a learner member")
            }
            Self::SessionExpired => (Unknown, "mutex: session is expired"),
            Self::ElectionNoLeader => (Unknown, "election: no leader"),
            Self::ElectionNotLeader => (Unknown, "election: not leader"),
            Self::NoLeaderKey => (Unknown, "\"leader\" field must be provided"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        }
    }
}

impl From<AdminRefusal> for Status {
    fn from(refusal: AdminRefusal) -> Self {
        let (code, text) = refusal.wire();
        Self::new(code, text)
    }
}

/// A refusal as it leaves etcd's lock and election services.
pub(crate) fn through_client(status: &Status) -> Status {
    Status::unknown(status.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::errors::Refusal;

    #[test]
    fn a_refusal_behind_a_lock_keeps_its_text_and_loses_its_code() {
        let status = through_client(&Refusal::LeaseNotFound.into());
        let expected = (Code::Unknown, "etcdserver: requested lease not found");
        assert_eq!((status.code(), status.message()), expected);
    }
}
