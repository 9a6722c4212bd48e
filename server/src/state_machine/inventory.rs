//! Everything beside the keys at one moment, for whoever copies the whole state.

use bytes::Bytes;

use super::apply::StateMachine;
use super::records::{Alarm, Member, encode_lease};
use crate::consensus::ConfState;

/// The records of one moment between two entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The last applied entry; 0 for none.
    pub applied_index: u64,
    /// Its term; 0 for none.
    pub applied_term: u64,
    /// The configuration after it.
    pub conf_state: ConfState,
    /// The members, by ID.
    pub members: Vec<Member>,
    /// IDs of members that were removed, ascending.
    pub removed: Vec<u64>,
    /// The raised alarms, by member and kind.
    pub alarms: Vec<Alarm>,
    /// `leasepb.Lease` in wire form by lease ID, in the order of its bytes.
    pub leases: Vec<(i64, Bytes)>,
    /// The API version that the members agreed on.
    pub cluster_version: Option<String>,
}

impl StateMachine {
    /// The records as they are now, after the entry `applied` (index and term) and with the
    /// configuration after it.
    pub fn inventory(&self, applied: (u64, u64), conf_state: ConfState) -> Inventory {
        let mut leases: Vec<(i64, Bytes)> =
            self.lessor().leases().map(|lease| (lease.id, encode_lease(lease))).collect();
        leases.sort_unstable_by_key(|(id, _)| id.cast_unsigned());
        Inventory {
            applied_index: applied.0,
            applied_term: applied.1,
            conf_state,
            members: self.members.values().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
            alarms: self.alarms.iter().copied().collect(),
            leases,
            cluster_version: self.cluster_version.clone(),
        }
    }
}
