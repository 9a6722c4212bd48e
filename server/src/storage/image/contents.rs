//! What an image holds beside the rows, as etcd 3.7 encodes it.
//!
//! ```text
//! alarm            etcdserverpb.AlarmMember -> nothing
//! auth             authRevision -> u64
//! authRoles, authUsers
//! cluster          clusterVersion -> "3.7.0"
//! key              revision -> mvccpb.KeyValue                     (the rows)
//! lease            ID u64 -> leasepb.Lease
//! members          ID in hex -> JSON
//! members_removed  ID in hex -> "removed"
//! meta             confState -> JSON; consistent_index, term -> u64; storageVersion -> "3.7.0";
//!                  scheduledCompactRev, finishedCompactRev -> revision
//! ```
//!
//! Numbers are big-endian. What etcd leaves out (a zero, a list without elements), is left out.

use bytes::Bytes;

use crate::consensus::ConfState;
use crate::mvcc::{Revision, RowKey};
use crate::state_machine::{Alarm, Inventory, Member, encode_lease};

/// The revision of the authentication store while it was never enabled.
const AUTH_REVISION: u64 = 1;

/// One bucket.
pub(super) struct Bucket {
    pub(super) name: &'static str,
    pub(super) content: Content,
}

/// Where its entries come from.
pub(super) enum Content {
    /// The rows of the key space.
    Rows,
    /// These, ascending.
    Records(Vec<(Bytes, Bytes)>),
}

/// A member as etcd writes it.
#[derive(serde::Serialize)]
struct MemberJson<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[_]>::is_empty")]
    client_urls: &'a [String],
}

/// A configuration as etcd writes it.
#[derive(serde::Serialize)]
struct ConfStateJson<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    voters: &'a [u64],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    learners: &'a [u64],
    auto_leave: bool,
}

/// The buckets in the order of their names.
pub(super) fn buckets(
    inventory: &Inventory,
    compact_revision: i64,
    storage_version: &str,
) -> Vec<Bucket> {
    let cluster_version = inventory.cluster_version.as_deref();
    let leases = inventory.leases.iter();
    // As etcd writes them: by which request nobody asks there.
    let leases = leases.map(|&lease| {
        let mut record = lease;
        record.granted_by = 0;
        (number(lease.id.cast_unsigned()), encode_lease(record))
    });
    let mut buckets = vec![
        bucket("alarm", inventory.alarms.iter().map(|alarm| (Alarm::encode(alarm), Bytes::new()))),
        bucket("auth", [("authRevision".into(), number(AUTH_REVISION))]),
        bucket("authRoles", []),
        bucket("authUsers", []),
        bucket("cluster", cluster_version.map(|version| ("clusterVersion".into(), text(version)))),
        Bucket { name: "key", content: Content::Rows },
        bucket("lease", leases),
        bucket("members", inventory.members.iter().map(|member| (hex(member.id), json(member)))),
        bucket("members_removed", inventory.removed.iter().map(|&id| (hex(id), "removed".into()))),
        bucket("meta", meta(inventory, compact_revision, storage_version)),
    ];
    buckets.sort_unstable_by_key(|bucket| bucket.name);
    buckets
}

fn bucket(name: &'static str, records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Bucket {
    let mut records: Vec<_> = records.into_iter().collect();
    records.sort_unstable();
    Bucket { name, content: Content::Records(records) }
}

fn meta(inventory: &Inventory, compact_revision: i64, version: &str) -> Vec<(Bytes, Bytes)> {
    let mut records: Vec<(Bytes, Bytes)> = vec![
        ("confState".into(), conf_state(&inventory.conf_state)),
        ("storageVersion".into(), text(version)),
    ];
    if inventory.applied_index > 0 {
        records.push(("consistent_index".into(), number(inventory.applied_index)));
    }
    if inventory.applied_term > 0 {
        records.push(("term".into(), number(inventory.applied_term)));
    }
    if compact_revision >= 0 {
        // The rows are those that a finished compaction leaves, however far ours has come.
        let revision = RowKey::new(Revision::new(compact_revision, 0), false);
        let revision = Bytes::copy_from_slice(revision.as_bytes());
        records.push(("scheduledCompactRev".into(), revision.clone()));
        records.push(("finishedCompactRev".into(), revision));
    }
    records
}

fn conf_state(conf_state: &ConfState) -> Bytes {
    let ConfState { voters, learners } = conf_state;
    to_json(&ConfStateJson { voters, learners, auto_leave: false })
}

fn json(member: &Member) -> Bytes {
    to_json(&MemberJson {
        id: member.id,
        peer_urls: &member.peer_urls,
        is_learner: member.is_learner,
        name: &member.name,
        client_urls: &member.client_urls,
    })
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("numbers and texts have a JSON form").into()
}

fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn hex(id: u64) -> Bytes {
    format!("{id:x}").into()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
