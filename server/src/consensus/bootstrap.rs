//! The first entries of a new cluster.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;

use super::types::{Entry, EntryKind, HardState};

/// The log with which every initial member of a cluster starts, and the hard state beside it.
///
/// `members` are the IDs of all of them with their attributes in the words of the state machine; the
/// order does not matter. Every member builds the same entries on its own: one configuration change
/// per member in ascending order of ID, indexes from 1, term 1, all committed. Nobody has voted, and
/// the configuration comes into being only by applying them. Both must be on disk before the member
/// starts. This is how etcd does it (`raft.RawNode.Bootstrap`).
pub fn bootstrap_entries(members: &[(u64, Bytes)]) -> (HardState, Vec<Entry>) {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(id, _)| *id);
    let entries: Vec<_> = (1_u64..)
        .zip(members)
        .map(|(index, (id, context))| {
            let change = raftpb::ConfChange {
                r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode.into()),
                node_id: Some(*id),
                context: Some(context.clone()),
                ..raftpb::ConfChange::default()
            };
            let data = change.encode_to_vec().into();
            Entry { index, term: 1, kind: EntryKind::ConfChange, data }
        })
        .collect();
    let commit = entries.last().map_or(0, |entry| entry.index);
    (HardState { term: 1, vote: 0, commit }, entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_builds_the_same_log_in_order_of_id() {
        let (one, two) = ((1, Bytes::from_static(b"a")), (2, Bytes::from_static(b"b")));
        let (hard_state, entries) = bootstrap_entries(&[two.clone(), one.clone()]);
        assert_eq!((hard_state, entries.clone()), bootstrap_entries(&[one, two]));
        assert_eq!(hard_state, HardState { term: 1, vote: 0, commit: 2 });
        assert_eq!(entries.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
        // type = 0, node_id = 1, context = "a"
        assert_eq!(&entries[0].data[..], b"\x10\x00\x18\x01\x22\x01a");
    }
}
