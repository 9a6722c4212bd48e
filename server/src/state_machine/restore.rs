//! The state machine's records in the state store: what a flush adds to them, and how they come back.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;

use super::apply::{CLUSTER_VERSION, StateMachine};
use super::flush::{Table, TableRow};
use super::records::{Alarm, Member, decode_lease};
use crate::consensus::ConfState;

const APPLIED_TERM: &[u8] = b"applied_term";
const CONF_STATE: &[u8] = b"conf_state";
const COMPACT_SCHEDULED: &[u8] = b"scheduled_compact_revision";
const COMPACT_BEGUN: &[u8] = b"begun_compact_revision";
const COMPACT_FINISHED: &[u8] = b"finished_compact_revision";

/// What the meta table says of one moment, flushed together with the applied index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The term of the last applied entry.
    pub applied_term: u64,
    /// The configuration after it.
    pub conf_state: ConfState,
    /// The revision up to which history is compacted for readers; -1 for never.
    pub compact_scheduled: i64,
    /// The last compaction of which deletions may be in this or an earlier flush; -1 for none.
    pub compact_begun: i64,
    /// The last compaction whose deletions are all in this or an earlier flush; -1 for none.
    pub compact_finished: i64,
}

impl Cut {
    /// The records of the meta table.
    pub fn to_rows(&self) -> Vec<TableRow> {
        let conf_state = raftpb::ConfState {
            voters: self.conf_state.voters.clone(),
            learners: self.conf_state.learners.clone(),
            ..Default::default()
        };
        let row = |key: &'static [u8], value: Vec<u8>| TableRow {
            table: Table::Meta,
            key: Bytes::from_static(key),
            value: Some(value.into()),
        };
        vec![
            row(APPLIED_TERM, self.applied_term.to_be_bytes().to_vec()),
            row(CONF_STATE, conf_state.encode_to_vec()),
            row(COMPACT_SCHEDULED, self.compact_scheduled.to_be_bytes().to_vec()),
            row(COMPACT_BEGUN, self.compact_begun.to_be_bytes().to_vec()),
            row(COMPACT_FINISHED, self.compact_finished.to_be_bytes().to_vec()),
        ]
    }
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            applied_term: 0,
            conf_state: ConfState::default(),
            compact_scheduled: -1,
            compact_begun: -1,
            compact_finished: -1,
        }
    }
}

/// The state machine as the state store holds it.
#[derive(Debug, Default)]
pub struct Restored {
    /// The records, ready to apply the entry after the applied index.
    pub machine: StateMachine,
    /// The moment at which they were flushed.
    pub cut: Cut,
}

/// A record that does not read back. The data is damaged or of another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?} of table {table:?} in the state store cannot be read")]
pub struct RestoreError {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: Bytes,
}

impl Restored {
    /// Reads the records of the small tables.
    ///
    /// # Errors
    /// [`RestoreError`] for a record that does not read back; the start must stop.
    pub fn from_rows(rows: impl IntoIterator<Item = TableRow>) -> Result<Self, RestoreError> {
        let mut restored = Self::default();
        for row in rows {
            let Some(value) = &row.value else { continue };
            restored
                .take(row.table, &row.key, value)
                .ok_or(RestoreError { table: row.table, key: row.key })?;
        }
        Ok(restored)
    }

    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<()> {
        match table {
            Table::Members => {
                let member = Member::decode(value)?;
                self.machine.members.insert(member.id, member);
            }
            Table::RemovedMembers => {
                self.machine.removed.insert(u64::from_be_bytes(key.try_into().ok()?));
            }
            Table::Alarms => {
                self.machine.alarms.insert(Alarm::decode(key)?);
            }
            Table::Leases => self.machine.lessor.restore(decode_lease(value)?),
            Table::Meta => self.take_meta(key, value)?,
        }
        Some(())
    }

    fn take_meta(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            APPLIED_TERM => self.cut.applied_term = u64::from_be_bytes(value.try_into().ok()?),
            CONF_STATE => {
                let conf_state = raftpb::ConfState::decode(value).ok()?;
                self.cut.conf_state =
                    ConfState { voters: conf_state.voters, learners: conf_state.learners };
            }
            COMPACT_SCHEDULED => {
                self.cut.compact_scheduled = i64::from_be_bytes(value.try_into().ok()?);
            }
            COMPACT_BEGUN => {
                self.cut.compact_begun = i64::from_be_bytes(value.try_into().ok()?);
            }
            COMPACT_FINISHED => {
                self.cut.compact_finished = i64::from_be_bytes(value.try_into().ok()?);
            }
            _ if key == CLUSTER_VERSION => {
                self.machine.cluster_version = Some(String::from_utf8(value.to_vec()).ok()?);
            }
            // A record that a newer version of the same format added.
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::{AlarmKind, ConfChange, ConfChangeKind};

    #[test]
    fn what_was_flushed_is_restored() {
        let mut machine = StateMachine::default();
        let member = Member { id: 5, name: "five".into(), ..Member::default() };
        machine.apply_conf_change(&ConfChange {
            id: 0,
            kind: ConfChangeKind::AddVoter,
            member: member.clone(),
        });
        machine.alarms.insert(Alarm { member_id: 5, kind: AlarmKind::NoSpace });
        let cut = Cut {
            applied_term: 7,
            conf_state: ConfState { voters: vec![5], learners: vec![6] },
            compact_scheduled: 40,
            compact_begun: 35,
            compact_finished: 30,
        };
        let mut rows = machine.take_dirty();
        rows.extend(cut.to_rows());
        rows.push(TableRow {
            table: Table::Alarms,
            key: Alarm { member_id: 5, kind: AlarmKind::NoSpace }.encode(),
            value: Some(Bytes::new()),
        });
        let restored = Restored::from_rows(rows).unwrap();
        assert_eq!(restored.cut, cut);
        assert_eq!(restored.machine.members, machine.members);
        assert_eq!(restored.machine.alarms, machine.alarms);
    }

    #[test]
    fn a_damaged_record_names_itself() {
        let row = TableRow {
            table: Table::Meta,
            key: Bytes::from_static(APPLIED_TERM),
            value: Some(Bytes::from_static(b"short")),
        };
        let error = Restored::from_rows([row]).unwrap_err();
        assert!(error.to_string().contains("applied_term"), "{error}");
    }
}
