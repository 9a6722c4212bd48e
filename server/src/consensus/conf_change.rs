//! Changes of the configuration: from the bytes of the log to what raft does with them.
//!
//! The log has etcd's `raftpb.ConfChange`, whose kinds are numbered differently from raft's own. So the
//! translation is made here, by name, and raft never sees the number.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;
use raft::eraftpb::{self, ConfChangeType};

use super::error::ConfChangeError;

/// Reads a change as it is in the log.
///
/// # Errors
/// It is no change, or none that is understood here.
pub(super) fn decode(data: &Bytes) -> Result<raftpb::ConfChange, ConfChangeError> {
    let change =
        raftpb::ConfChange::decode(data.clone()).map_err(|_| ConfChangeError::Malformed)?;
    kind(&change)?;
    match change.node_id() {
        0 => Err(ConfChangeError::NoMember),
        _ => Ok(change),
    }
}

/// The same change in raft's words.
///
/// # Errors
/// Its kind is not understood here.
pub(super) fn to_raft(change: &raftpb::ConfChange) -> Result<eraftpb::ConfChange, ConfChangeError> {
    let mut raft_change = eraftpb::ConfChange { node_id: change.node_id(), ..Default::default() };
    match kind(change)? {
        raftpb::ConfChangeType::ConfChangeAddNode => {
            raft_change.set_change_type(ConfChangeType::AddNode);
        }
        raftpb::ConfChangeType::ConfChangeRemoveNode => {
            raft_change.set_change_type(ConfChangeType::RemoveNode);
        }
        raftpb::ConfChangeType::ConfChangeAddLearnerNode => {
            raft_change.set_change_type(ConfChangeType::AddLearnerNode);
        }
        // New attributes of a member: to raft nothing changes, which it spells as member 0.
        raftpb::ConfChangeType::ConfChangeUpdateNode => raft_change.node_id = raft::INVALID_ID,
    }
    Ok(raft_change)
}

fn kind(change: &raftpb::ConfChange) -> Result<raftpb::ConfChangeType, ConfChangeError> {
    let number = change.r#type.unwrap_or_default();
    raftpb::ConfChangeType::try_from(number).map_err(|_| ConfChangeError::UnknownKind(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: i32, node_id: u64) -> Bytes {
        let change = raftpb::ConfChange {
            r#type: Some(kind),
            node_id: Some(node_id),
            ..raftpb::ConfChange::default()
        };
        change.encode_to_vec().into()
    }

    #[test]
    fn etcds_kinds_become_rafts() {
        for (number, kind, node_id) in [
            (0, ConfChangeType::AddNode, 5),
            (1, ConfChangeType::RemoveNode, 5),
            (2, ConfChangeType::AddNode, 0), // An update changes nobody.
            (3, ConfChangeType::AddLearnerNode, 5),
        ] {
            let raft_change = to_raft(&decode(&encoded(number, 5)).unwrap()).unwrap();
            assert_eq!((raft_change.get_change_type(), raft_change.node_id), (kind, node_id));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(decode(&encoded(4, 5)), Err(ConfChangeError::UnknownKind(4)));
        assert_eq!(decode(&encoded(0, 0)), Err(ConfChangeError::NoMember));
        assert_eq!(decode(&Bytes::from_static(b"\xff")), Err(ConfChangeError::Malformed));
    }
}
