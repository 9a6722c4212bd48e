//! Committed entries in order into the state machine.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Fatal;
use super::event::{Committed, Effect, Reply, RequestId};
use super::proposals::Proposals;
use crate::consensus::{ConfState, Consensus, Entry, EntryKind};
use crate::mvcc::{Outcome, Rows};
use crate::state_machine::{
    Application, ConfChange, FatalError, Request, Response, StateMachine, op_name,
};
use crate::view::{Pin, View};

/// Bytes of entries after which one turn ends, and the owner looks at messages and ticks again: some
/// hundredths of a second. Less would have large values wait for the syncs of those behind them.
const APPLY_BYTES_PER_TURN: usize = 8 << 20;
/// Entries after which it ends too: as much time, at two microseconds each.
const APPLY_ENTRIES_PER_TURN: usize = 10_000;

/// What has been committed, and how far it has been applied.
pub(super) struct Progress {
    pub(super) applied_index: u64,
    pub(super) applied_term: u64,
    pub(super) conf_state: ConfState,
    /// Committed and not applied.
    queue: VecDeque<Entry>,
    queue_bytes: usize,
    /// Of entries applied since a flush last took what they did.
    unflushed_bytes: usize,
}

impl Progress {
    pub(super) fn new(applied_index: u64, applied_term: u64, conf_state: ConfState) -> Self {
        let (queue, queue_bytes, unflushed_bytes) = (VecDeque::new(), 0, 0);
        Self { applied_index, applied_term, conf_state, queue, queue_bytes, unflushed_bytes }
    }

    /// Takes entries that were committed.
    pub(super) fn committed(&mut self, entries: Vec<Entry>) {
        self.queue_bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.queue.extend(entries);
    }

    /// Whether everything committed is applied.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// What waits to be applied, in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// The bytes of entries that were applied since [`Progress::flushed`]: what a start would apply again.
    pub(super) fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes
    }

    /// A flush has taken everything that was applied.
    pub(super) fn flushed(&mut self) {
        self.unflushed_bytes = 0;
    }

    fn next(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.queue_bytes -= entry.data.len();
        self.unflushed_bytes += entry.data.len();
        Some(entry)
    }
}

/// Hears of entries as they are applied, to measure what a pure room cannot.
pub trait Laps: Send {
    /// Some entries are about to be applied.
    fn begin(&mut self);

    /// The entry at `index` with this command has been applied since the lap before, or since the begin.
    fn applied(&mut self, index: u64, op: &'static str, success: bool);
}

/// Hears nothing.
pub struct Unmeasured;

impl Laps for Unmeasured {
    fn begin(&mut self) {}

    fn applied(&mut self, _: u64, _: &'static str, _: bool) {}
}

/// What only applying needs.
pub(super) struct Applier {
    pub(super) progress: Progress,
    /// The state store, for rows that are not in memory.
    pub(super) rows: Arc<dyn Rows>,
    pub(super) laps: Box<dyn Laps>,
}

/// The parts of the replica that applying may touch.
pub(super) struct Committer<'a> {
    pub(super) applier: &'a mut Applier,
    pub(super) consensus: &'a mut Consensus,
    pub(super) machine: &'a mut StateMachine,
    pub(super) view: &'a Arc<View>,
    pub(super) proposals: &'a mut Proposals,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Committer<'_> {
    /// Applies what is committed, until nothing is left, a turn is over or `bound_bytes` of rows wait for
    /// the flusher.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end.
    pub(super) fn apply(&mut self, bound_bytes: u64) -> Result<(), Fatal> {
        let (mut bytes, mut entries) = (0, 0);
        while bytes < APPLY_BYTES_PER_TURN
            && entries < APPLY_ENTRIES_PER_TURN
            && let Some(entry) = self.applier.progress.next()
        {
            bytes += entry.data.len();
            if entries == 0 {
                self.applier.laps.begin();
            }
            entries += 1;
            assert_eq!(
                entry.index,
                self.applier.progress.applied_index + 1,
                "entries are applied in order"
            );
            self.applier.progress.applied_index = entry.index;
            self.applier.progress.applied_term = entry.term;
            match entry.kind {
                EntryKind::ConfChange => self.conf_change(&entry)?,
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => {
                    if self.command(entry)? >= bound_bytes {
                        break;
                    }
                }
            }
        }
        if entries > 0 {
            self.consensus.applied(self.applier.progress.applied_index);
        }
        Ok(())
    }

    /// Applies one command; returns the bytes of rows that no flush has taken yet.
    fn command(&mut self, entry: Entry) -> Result<u64, Fatal> {
        let op = op_name(&entry.data);
        let request = Request::decode(entry.data)
            .map_err(|source| FatalError::Command { index: entry.index, source })?;
        let mut space = self.view.write();
        let applied = self.machine.apply(request, &mut space, self.applier.rows.as_ref());
        let unflushed_bytes = space.unflushed_bytes();
        drop(space);
        let application = applied.map_err(FatalError::Rows)?;
        self.applier.laps.applied(entry.index, op, application.result.is_ok());
        self.reply(application);
        Ok(unflushed_bytes)
    }

    fn conf_change(&mut self, entry: &Entry) -> Result<(), Fatal> {
        let change = ConfChange::decode(&entry.data).ok_or(Fatal::ConfChange(entry.index))?;
        let conf_state = self
            .consensus
            .apply_conf_change(entry)
            .map_err(|source| Fatal::Refused { index: entry.index, source })?;
        self.applier.progress.conf_state = conf_state.clone();
        self.effects.push(Effect::PersistConfState {
            index: entry.index,
            term: entry.term,
            conf_state,
        });
        self.machine.apply_conf_change(&change);
        self.reply(Application { id: change.id, result: Ok(Response::Done) });
        Ok(())
    }

    fn reply(&mut self, application: Application) {
        let id = RequestId(application.id);
        if application.id == 0 || !self.proposals.take(id) {
            return;
        }
        let pin = match &application.result {
            Ok(Response::Kv(applied)) => self.pin(&applied.outcome),
            _ => None,
        };
        let term = self.consensus.soft_state().term;
        let committed = Committed { term, result: application.result, pin };
        self.effects.push(Effect::Reply { id, reply: Reply::Committed(committed) });
    }

    /// Pins the oldest revision that filling the reply will read. Nothing is compacted in between:
    /// the index is only compacted by the owner, who is here.
    fn pin(&self, outcome: &Outcome) -> Option<Arc<Pin>> {
        let revision = oldest_read(outcome)?;
        self.view.pin(revision.max(1)).ok().map(Arc::new)
    }
}

/// The oldest main revision at which the reply to `outcome` reads; `None` if it reads nothing.
fn oldest_read(outcome: &Outcome) -> Option<i64> {
    match outcome {
        // A previous version was the newest one until this entry, so it is visible just before it.
        Outcome::Put { prev, revision } => prev.map(|_| revision - 1),
        Outcome::DeleteRange { prev, revision, .. } => (!prev.is_empty()).then_some(revision - 1),
        // A state between two changes of one transaction is older than the whole transaction.
        Outcome::Range { at, .. } => Some(if at.sub == i64::MAX { at.main } else { at.main - 1 }),
        Outcome::Txn { outcomes, .. } => outcomes.iter().filter_map(oldest_read).min(),
    }
}
