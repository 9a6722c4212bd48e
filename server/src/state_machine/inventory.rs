//! Everything beside the keys at one moment, for whoever copies the whole state.

use super::apply::StateMachine;
use super::records::{Alarm, Member};
use crate::consensus::ConfState;
use crate::lease::Lease;

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
    /// The raised alarms, by kind and member.
    pub alarms: Vec<Alarm>,
    /// The leases, in any order: there may be a million, and this is made between two entries.
    pub leases: Vec<Lease>,
    /// The API version that the members agreed on.
    pub cluster_version: Option<String>,
}

impl StateMachine {
    /// The records as they are now, after the entry `applied` (index and term) and with the
    /// configuration after it.
    pub fn inventory(&self, applied: (u64, u64), conf_state: ConfState) -> Inventory {
        Inventory {
            applied_index: applied.0,
            applied_term: applied.1,
            conf_state,
            members: self.members.values().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
            alarms: self.alarms.iter().copied().collect(),
            leases: self.lessor().leases().collect(),
            cluster_version: self.cluster_version.clone(),
        }
    }
}
