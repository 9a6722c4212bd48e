//! One committed entry into state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::command::{AlarmAction, Command, CommandError, Request};
use super::flush::{Table, TableRow};
use super::records::{Alarm, AlarmKind, ConfChange, ConfChangeKind, Member, encode_lease};
use crate::lease::{Grant, LeaseError, Lessor};
use crate::mvcc::{Applied, Attachment, KeySpace, MvccError, Op, Rows, RowsError, Txn};

/// What an applied command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A put, delete or transaction.
    Kv(Applied),
    /// A scheduled compaction; `revision` is the current one, for the header.
    Compacted {
        /// The current revision.
        revision: i64,
    },
    /// A lease was granted or revoked; `revision` is the current one after it, for the header.
    Lease {
        /// The current revision.
        revision: i64,
    },
    /// Alarms, after an alarm command: those it concerned.
    Alarms(Vec<Alarm>),
    /// Nothing to say.
    Done,
}

/// Why an applied command changed nothing. Deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The key space refused it.
    #[error(transparent)]
    Mvcc(#[from] MvccError),
    /// The lessor refused it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A NOSPACE alarm is raised.
    #[error("database space exceeded")]
    NoSpace,
    /// A CORRUPT alarm is raised.
    #[error("corrupt cluster")]
    Corrupt,
}

/// Why an entry cannot be applied at all. The process ends with it; nothing is skipped.
#[derive(Debug, thiserror::Error)]
pub enum FatalError {
    /// The entry is not one that this version can read.
    #[error("cannot apply entry {index}: {source}")]
    Command {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        source: CommandError,
    },
    /// A value that a compare or `ignore_value` needs cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// An applied entry, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The id under which its proposer waits, 0 for nobody.
    pub id: u64,
    /// What came of it.
    pub result: Result<Response, ApplyError>,
}

/// Everything that entries change, beside the keys.
#[derive(Debug, Default)]
pub struct StateMachine {
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) removed: BTreeSet<u64>,
    pub(super) alarms: BTreeSet<Alarm>,
    pub(super) cluster_version: Option<String>,
    pub(super) lessor: Lessor,
    /// Records that changed since the last flush.
    pub(super) dirty: BTreeMap<(Table, Bytes), Option<Bytes>>,
    /// Counts changes of records, so that others can tell whether to look again.
    pub(super) changes: u64,
}

impl StateMachine {
    /// The members, by ID.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The raised alarms, by kind and member.
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.iter()
    }

    /// Whether an alarm of this kind is raised for any member.
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        let of_member = |member_id| Alarm { kind, member_id };
        self.alarms.range(of_member(u64::MIN)..=of_member(u64::MAX)).next().is_some()
    }

    /// Whether this alarm is raised.
    pub fn has_alarm(&self, alarm: Alarm) -> bool {
        self.alarms.contains(&alarm)
    }

    /// The API version that all members speak, once one was agreed on.
    pub fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }

    /// The leases.
    pub fn lessor(&self) -> &Lessor {
        &self.lessor
    }

    /// The leases, for what is not in the log: attachments that are read back, and taking changes.
    pub fn lessor_mut(&mut self) -> &mut Lessor {
        &mut self.lessor
    }

    /// Applies the command of a normal entry, which was read before: a large one takes a while, and
    /// whoever applies holds the key space.
    ///
    /// # Errors
    /// [`RowsError`]: a value that a compare or `ignore_value` needs cannot be read, and the caller
    /// must end the process.
    pub fn apply(
        &mut self,
        request: Request,
        space: &mut KeySpace,
        rows: &dyn Rows,
    ) -> Result<Application, RowsError> {
        let id = request.id;
        let result = match self.refusal(&request.command) {
            Some(refusal) => Err(refusal),
            None => self.execute(request, space, rows)?,
        };
        Ok(Application { id, result })
    }

    /// Applies a change of the member list that raft accepted.
    pub fn apply_conf_change(&mut self, change: &ConfChange) {
        let id = change.member.id;
        match change.kind {
            ConfChangeKind::AddVoter | ConfChangeKind::AddLearner => {
                // Promotion is an add of a known member: it keeps its name and client URLs.
                let mut member = self.members.remove(&id).unwrap_or_else(|| change.member.clone());
                member.is_learner = change.kind == ConfChangeKind::AddLearner;
                self.put_member(member);
            }
            ConfChangeKind::Update => {
                if let Some(mut member) = self.members.remove(&id) {
                    member.peer_urls.clone_from(&change.member.peer_urls);
                    self.put_member(member);
                }
            }
            ConfChangeKind::Remove => {
                self.members.remove(&id);
                self.removed.insert(id);
                self.mark(Table::Members, id_key(id), None);
                self.mark(Table::RemovedMembers, id_key(id), Some(Bytes::new()));
            }
        }
    }

    /// Takes the records that changed since the last call.
    pub fn take_dirty(&mut self) -> Vec<TableRow> {
        let leases = self.lessor.take_dirty().map(|(id, lease)| TableRow {
            table: Table::Leases,
            key: Bytes::copy_from_slice(&id.to_be_bytes()),
            value: lease.map(encode_lease),
        });
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|((table, key), value)| TableRow { table, key, value })
            .chain(leases)
            .collect()
    }

    /// Grows with every change of a member, an alarm or the cluster version.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether any record changed since it was last taken.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.lessor.dirty_count() > 0
    }

    /// What raised alarms refuse, as etcd's capped and corrupt appliers do.
    fn refusal(&self, command: &Command) -> Option<ApplyError> {
        if self.alarms.is_empty() {
            return None;
        }
        let on_keys = matches!(
            command,
            Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compact { .. }
                | Command::LeaseGrant { .. }
                | Command::LeaseRevoke { .. }
                | Command::LeaseEnd(_)
        );
        if on_keys && self.is_raised(AlarmKind::Corrupt) {
            return Some(ApplyError::Corrupt);
        }
        let adds = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => has_put(txn),
            _ => false,
        };
        (adds && self.is_raised(AlarmKind::NoSpace)).then_some(ApplyError::NoSpace)
    }

    fn execute(
        &mut self,
        Request { id: by, command }: Request,
        space: &mut KeySpace,
        rows: &dyn Rows,
    ) -> Result<Result<Response, ApplyError>, RowsError> {
        let kv = |applied: Result<Applied, MvccError>| Ok(Response::Kv(applied?));
        let lessor = &self.lessor;
        let result = match command {
            Command::Put(put) if put.lease.is_some_and(|id| id != 0 && !lessor.knows(id)) => {
                Err(MvccError::LeaseNotFound.into())
            }
            Command::Put(put) => kv(space.put(&put, rows)?),
            Command::DeleteRange(delete) => Ok(Response::Kv(space.delete_range(&delete))),
            Command::Txn(txn) => kv(space.txn(&txn, &|id| lessor.knows(id), rows)?),
            Command::Compact { revision } => match space.compact(revision) {
                Ok(()) => Ok(Response::Compacted { revision: space.current_revision() }),
                Err(refusal) => Err(refusal.into()),
            },
            Command::LeaseGrant { id, ttl_s } => {
                self.grant(Grant { id, request: by }, ttl_s, space)
            }
            Command::LeaseRevoke { id } => self.revoke(id, space),
            Command::LeaseEnd(grant) if lessor.is_current(grant) => self.revoke(grant.id, space),
            Command::LeaseEnd(_) => Ok(Response::Done),
            Command::LeaseCheckpoint(left) => {
                left.into_iter().for_each(|(grant, left_s)| self.lessor.checkpoint(grant, left_s));
                Ok(Response::Done)
            }
            Command::Alarm(action) => Ok(Response::Alarms(self.alarm(action))),
            Command::SetAttributes { member_id, name, client_urls } => {
                // An entry about a member that is gone meanwhile says nothing.
                if let Some(member) = self.members.remove(&member_id) {
                    self.put_member(Member { name, client_urls, ..member });
                }
                Ok(Response::Done)
            }
            Command::SetClusterVersion(version) => {
                self.mark(Table::Meta, CLUSTER_VERSION, Some(Bytes::from(version.clone())));
                self.cluster_version = Some(version);
                Ok(Response::Done)
            }
        };
        for Attachment { key, old, new } in space.take_attachments() {
            self.lessor.reattach(key, old, new);
        }
        Ok(result)
    }

    fn grant(
        &mut self,
        grant: Grant,
        ttl_s: i64,
        space: &KeySpace,
    ) -> Result<Response, ApplyError> {
        self.lessor.grant(grant, ttl_s)?;
        Ok(Response::Lease { revision: space.current_revision() })
    }

    fn revoke(&mut self, id: i64, space: &mut KeySpace) -> Result<Response, ApplyError> {
        let keys = self.lessor.revoke(id)?;
        Ok(Response::Lease { revision: space.delete_keys(&keys) })
    }

    fn alarm(&mut self, action: AlarmAction) -> Vec<Alarm> {
        match action {
            AlarmAction::Get(kind) => self
                .alarms
                .iter()
                .filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind))
                .copied()
                .collect(),
            AlarmAction::Activate(alarm) => {
                if self.alarms.insert(alarm) {
                    self.mark(Table::Alarms, alarm.encode(), Some(Bytes::new()));
                }
                vec![alarm]
            }
            AlarmAction::Deactivate(alarm) => {
                if !self.alarms.remove(&alarm) {
                    return Vec::new();
                }
                self.mark(Table::Alarms, alarm.encode(), None);
                vec![alarm]
            }
            AlarmAction::Nothing => Vec::new(),
        }
    }

    fn put_member(&mut self, member: Member) {
        self.mark(Table::Members, id_key(member.id), Some(member.encode()));
        self.members.insert(member.id, member);
    }

    fn mark(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.changes += 1;
        self.dirty.insert((table, key), value);
    }
}

pub(super) const CLUSTER_VERSION: Bytes = Bytes::from_static(b"cluster_version");

fn id_key(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

fn has_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(txn) => has_put(txn),
        Op::Range { .. } | Op::DeleteRange(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id, peer_urls: vec![format!("http://h{id}:2380")], ..Member::default() }
    }

    #[test]
    fn a_promotion_keeps_the_name_and_a_removal_is_remembered() {
        let mut machine = StateMachine::default();
        let change = |kind| ConfChange { id: 0, kind, member: member(1) };
        machine.apply_conf_change(&change(ConfChangeKind::AddLearner));
        machine.members.get_mut(&1).unwrap().name = "one".into();
        machine.apply_conf_change(&change(ConfChangeKind::AddVoter));
        let promoted = machine.members().next().unwrap();
        assert_eq!((promoted.name.as_str(), promoted.is_learner), ("one", false));
        machine.apply_conf_change(&change(ConfChangeKind::Remove));
        assert_eq!(machine.members().count(), 0);
        let rows = machine.take_dirty();
        assert!(rows.contains(&TableRow {
            table: Table::RemovedMembers,
            key: id_key(1),
            value: Some(Bytes::new())
        }));
        assert!(!machine.is_dirty());
    }

    #[test]
    fn a_kind_of_alarm_is_raised_until_the_last_of_it_is_taken_back_for_whichever_member() {
        let mut machine = StateMachine::default();
        let kinds = [AlarmKind::NoSpace, AlarmKind::Corrupt];
        let raised = |machine: &StateMachine| kinds.map(|kind| machine.is_raised(kind));
        assert_eq!(raised(&machine), [false, false]);
        for (kind, expected) in kinds.into_iter().zip([[true, false], [false, true]]) {
            let members = [0, 5, u64::MAX];
            let alarms = members.map(|member_id| Alarm { kind, member_id });
            alarms.iter().for_each(|alarm| drop(machine.alarm(AlarmAction::Activate(*alarm))));
            for alarm in alarms {
                assert_eq!(raised(&machine), expected);
                assert!(machine.has_alarm(alarm));
                machine.alarm(AlarmAction::Deactivate(alarm));
                assert!(!machine.has_alarm(alarm));
            }
            assert_eq!(raised(&machine), [false, false]);
        }
    }

    #[test]
    fn alarms_refuse_what_adds_until_they_are_taken_back() {
        let mut machine = StateMachine::default();
        let alarm = Alarm { member_id: 1, kind: AlarmKind::NoSpace };
        assert_eq!(machine.alarm(AlarmAction::Activate(alarm)), [alarm]);
        let put = Command::Put(crate::mvcc::Put {
            key: "k".into(),
            value: Some("v".into()),
            lease: Some(0),
            prev_kv: false,
        });
        assert_eq!(machine.refusal(&put), Some(ApplyError::NoSpace));
        assert_eq!(machine.refusal(&Command::Compact { revision: 1 }), None);
        assert_eq!(machine.alarm(AlarmAction::Get(None)), [alarm]);
        assert_eq!(machine.alarm(AlarmAction::Get(Some(AlarmKind::Corrupt))), []);
        assert_eq!(machine.alarm(AlarmAction::Deactivate(alarm)), [alarm]);
        assert_eq!(machine.alarm(AlarmAction::Deactivate(alarm)), []);
        assert_eq!(machine.refusal(&put), None);
    }
}
