//! One whole member without its I/O: consensus, state machine, pending requests. Pure.
//!
//! A replica is driven by [`Replica::handle`] with events and, after a batch of them,
//! [`Replica::settle`], which turns whatever became ready into [`Effect`]s. It is synchronous and
//! deterministic: the same events give the same effects, byte for byte. Whoever drives it (the owner
//! thread, or the simulator) performs the effects in their order and reports completions as events.
//!
//! ```text
//! Propose{7, put}            settle -> Persist{1, [entry 5]}
//! Persisted{1}               settle -> Reply{7, Kv(revision 2)}
//! Tick × n                   settle -> Flush{rows ..2, applied 5}
//! Flushed{applied 5}         settle -> ReleaseLog{..}
//! ```

mod committer;
mod compaction;
mod event;
mod flushing;
mod leases;
mod proposals;
mod reads;
mod space;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::consensus::{self, ConfChangeError, Consensus, ConsensusError, SoftState};
use crate::lease::{LeaseCounts, Lessor};
use crate::mutants;
use crate::mvcc::{Rows, Sizes};
use crate::state_machine::{Alarm, FatalError, Member, Restored, StateMachine, own};
use crate::view::View;

use committer::{Applier, Committer, Progress};
use compaction::{AutoCompactor, CompactionWaits};
use flushing::Flushing;
use leases::Leases;
use proposals::{APPLY_GAP_BYTES_MAX, APPLY_GAP_MAX, Proposals};
use reads::Reads;
use space::Space;

pub use committer::{Laps, Unmeasured};
pub use compaction::AutoCompaction;
pub use event::{
    Capture, Committed, Effect, Event, Persist, Reply, RequestError, RequestId, TimeToLive,
};
pub use flushing::FlushLimits;
pub use leases::{LEASE_KEYS_MAX, LEASES_MAX, LeaseConfig};

/// The API version that a cluster of this version agrees on.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// Keys that one step of a compaction looks at, about a millisecond of work.
const COMPACT_STEP_KEYS: usize = 2000;

/// How often the window lets rows go between two batches of events, a thousand at a time.
const EVICTIONS_PER_STEP: usize = 4;
/// Changed records of leases that are flushed at once, so that a batch stays short.
const DIRTY_LEASES_MAX: usize = 50_000;

/// What a replica is told at its construction.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member as it wants to be listed.
    pub member: Member,
    /// Raft's timing and bounds.
    pub consensus: consensus::Config,
    /// Ticks after which a request is answered with a timeout.
    pub request_ticks: u64,
    /// When rows go to the state store.
    pub flush: FlushLimits,
    /// When history is compacted without being asked.
    pub auto_compaction: AutoCompaction,
    /// Below this size the NOSPACE alarm of this member is taken back by itself; `None` leaves that
    /// to people, as in etcd.
    pub disarm_below_bytes: Option<u64>,
    /// Times that leases go by.
    pub lease: LeaseConfig,
    /// Drawn once per start; with the member's ID it makes contexts of reads unique.
    pub boot_nonce: u64,
}

/// What a member comes back with from its disk.
pub struct Recovered {
    /// The log.
    pub log: consensus::Recovered,
    /// The records of the state store.
    pub stored: Restored,
    /// The store's generation.
    pub generation: u64,
}

/// Why the process must end. Nothing is lost: what was acknowledged is in the log.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// An entry cannot be applied.
    #[error(transparent)]
    Apply(#[from] FatalError),
    /// A configuration change in the log is not one of ours.
    #[error("entry {0} holds a configuration change that cannot be read")]
    ConfChange(u64),
    /// What the disk holds cannot be continued.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// Raft refused a committed change of the configuration.
    #[error("entry {index}: {source}")]
    Refused {
        /// The entry.
        index: u64,
        /// Why.
        source: ConfChangeError,
    },
}

/// What the owner publishes about a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub struct Published {
    /// Where this member stands.
    pub raft: RaftState,
    pub flushed_index: u64,
    /// Leases are counted in.
    pub sizes: Sizes,
    pub leases: LeaseCounts,
    /// The last compaction, and the last one whose deletions are all durable; -1 for none.
    pub compact_scheduled: i64,
    pub compact_finished: i64,
    /// Grows with every change of members, alarms or cluster version.
    pub record_changes: u64,
}

/// Where a member stands in raft, and what became of its proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Each name says it.
pub struct RaftState {
    pub term: u64,
    /// 0 while there is no leader.
    pub leader_id: u64,
    pub commit_index: u64,
    pub applied_index: u64,
    pub proposals_pending: u64,
    pub proposals_failed: u64,
    pub leader_changes: u64,
    /// This member is the only voter and leads, and has applied an entry of its own term: no other
    /// member can acknowledge a write, so a read of the view is linearizable without a round.
    pub leads_alone: bool,
}

/// One member. See the module's text.
pub struct Replica {
    config: Config,
    now_tick: u64,
    consensus: Consensus,
    machine: StateMachine,
    view: Arc<View>,
    applier: Applier,
    pending: Pending,
    leases: Leases,
    flushing: Flushing,
    auto_compactor: AutoCompactor,
    leadership: Leadership,
    space: Space,
}

/// Requests that wait.
struct Pending {
    /// To be applied.
    proposals: Proposals,
    /// For a round of the leader's, then to be applied.
    reads: Reads,
    /// For the deletions of a compaction to be durable.
    compactions: CompactionWaits,
}

/// What was last seen of who leads.
#[derive(Default)]
struct Leadership {
    leader_id: u64,
    changes: u64,
    /// When this member's own records may be proposed again.
    publish_tick: u64,
}

impl Replica {
    /// A replica that continues where the disk left off.
    ///
    /// # Errors
    /// [`Fatal`] if the log cannot be continued.
    pub fn new(
        config: Config,
        recovered: Recovered,
        view: Arc<View>,
        rows: Arc<dyn Rows>,
    ) -> Result<Self, Fatal> {
        let Recovered { log, stored, generation } = recovered;
        let progress =
            Progress::new(log.applied_index, stored.cut.applied_term, stored.cut.conf_state);
        let flushing = Flushing::new(config.flush, generation, log.applied_index);
        let consensus = Consensus::new(config.consensus.clone(), log)?;
        Ok(Self {
            pending: Pending {
                proposals: Proposals::default(),
                reads: Reads::new(config.member.id, config.boot_nonce),
                compactions: CompactionWaits::default(),
            },
            auto_compactor: AutoCompactor::new(config.auto_compaction),
            leases: Leases::new(config.lease),
            now_tick: 0,
            consensus,
            machine: stored.machine,
            view,
            applier: Applier { progress, rows, laps: Box::new(Unmeasured) },
            flushing,
            leadership: Leadership::default(),
            space: Space::new(config.member.id, config.disarm_below_bytes),
            config,
        })
    }

    /// Has `laps` told of each entry that is applied.
    pub fn with_laps(mut self, laps: Box<dyn Laps>) -> Self {
        self.applier.laps = laps;
        self
    }

    /// Takes one event. What follows from it appears at the next [`Replica::settle`].
    ///
    /// # Errors
    /// [`Fatal`]: the process must end.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), Fatal> {
        let deadline_tick = self.now_tick + self.config.request_ticks;
        match event {
            Event::Tick { elapsed_ms } => self.tick(elapsed_ms, effects),
            Event::Propose { id, command } => {
                if self.apply_gap() > APPLY_GAP_MAX
                    || self.applier.progress.waiting_bytes() > APPLY_GAP_BYTES_MAX
                {
                    let reply = Reply::Failed(RequestError::TooManyRequests);
                    effects.push(Effect::Reply { id, reply });
                } else {
                    self.pending.proposals.add(id, command, deadline_tick);
                }
            }
            Event::ProposeConfChange { id, change } => {
                let (consensus, proposals) = (&mut self.consensus, &mut self.pending.proposals);
                proposals.change((id, change), deadline_tick, consensus, effects);
            }
            Event::ReadIndex { id } => self.pending.reads.add(id, deadline_tick),
            Event::AwaitCompaction { id, revision } => {
                if self.pending.compactions.add(revision, id) {
                    self.flushing.hurry();
                } else {
                    let reply = Reply::Failed(RequestError::TooManyRequests);
                    effects.push(Effect::Reply { id, reply });
                }
            }
            Event::Capture { id } => {
                let reply = Reply::Captured(Box::new(self.capture()));
                effects.push(Effect::Reply { id, reply });
            }
            Event::Renew { id, lease } => {
                self.leases.renew((id, deadline_tick), lease, self.machine.lessor(), effects);
            }
            Event::TimeToLive { id, lease, keys_after } => {
                let lessor = self.machine.lessor();
                let reply = self.leases.time_to_live(lease, keys_after.as_ref(), lessor);
                effects.push(Effect::Reply { id, reply });
            }
            Event::ListLeases { id, after } => {
                let reply = self.leases.list(after, self.machine.lessor());
                effects.push(Effect::Reply { id, reply });
            }
            Event::RefuseForSpace { id } => {
                self.space.refuse((id, deadline_tick), effects);
                self.raise_no_space();
            }
            Event::DiskSpace { is_low, is_tight } => self.look_at_room(is_low, is_tight, effects),
            Event::Persisted { sync } => self.consensus.persisted(sync),
            Event::Flushed { generation, applied_index } => {
                self.flushed(generation, applied_index, effects);
            }
        }
        Ok(())
    }

    /// Works off everything that is ready. To be called after every batch of events.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) -> Result<(), Fatal> {
        self.publish_self();
        let term = self.leads_in();
        self.leases.propose(term, self.machine.lessor(), &mut self.pending.proposals);
        let is_taken = self.pending.proposals.send(&mut self.consensus, effects);
        self.leases.proposed(is_taken);
        self.pending.reads.send(self.now_tick, &mut self.consensus);
        self.take_ready(effects);
        self.apply(effects)?;
        if self.space.is_awaited() && self.space.is_out(&self.machine) {
            self.space.raised(effects);
        }
        // A lone member reads nothing again that it has applied. In a cluster a follower may lag more than
        // memory goes back, and nothing serves it from the disk, which has no more than [`Effect::ReleaseLog`]
        // leaves there.
        self.consensus.trim(self.applied_index());
        self.leases.applied(self.machine.lessor_mut(), effects);
        self.leases.follow(self.leads_in(), self.machine.lessor_mut(), effects);
        if self.campaign_if_alone() {
            // Its first entry goes to the disk now, not after the next tick, and with it what it has to say
            // of itself: whoever can ask this member finds it listed.
            self.publish_self();
            self.pending.proposals.send(&mut self.consensus, effects);
            self.take_ready(effects);
        }
        self.pending.reads.release(self.applied_index(), effects);
        self.compact_step();
        self.evict_step();
        self.flush_if_due(effects);
        Ok(())
    }

    /// Whether [`Replica::settle`] has more to do although no event arrived.
    pub fn has_work(&self) -> bool {
        let apply = !self.applier.progress.is_idle() && !self.is_apply_paused();
        let space = self.view.compaction_runnable() || self.view.is_evictable();
        apply || self.leases.has_work() || space
    }

    /// Cuts a batch with everything applied, if none is under way and anything is left: for an
    /// orderly stop. `true` when nothing is left: everything applied has been reported as flushed.
    pub fn flush_all(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.flushing.cut_index() < self.applied_index() {
            self.flushing.hurry();
            self.flush_if_due(effects);
        }
        !self.is_flushing() && self.flushing.flushed_index() >= self.applied_index()
    }

    /// Whether a batch was cut that has not been reported as flushed.
    pub fn is_flushing(&self) -> bool {
        self.flushing.is_under_way()
    }

    /// What is to be seen from outside.
    pub fn published(&self) -> Published {
        let SoftState { term, leader_id, .. } = self.consensus.soft_state();
        let raft = RaftState {
            term,
            leader_id,
            commit_index: self.consensus.commit_index(),
            applied_index: self.applied_index(),
            proposals_pending: self.pending.proposals.pending() as u64,
            proposals_failed: self.pending.proposals.failed,
            leader_changes: self.leadership.changes,
            leads_alone: self.is_alone() && self.leads_in().is_some(),
        };
        let space = self.view.read();
        Published {
            raft,
            flushed_index: self.flushing.flushed_index(),
            sizes: self.with_leases(space.sizes()),
            leases: self.leases.counts(self.machine.lessor()),
            compact_scheduled: space.compact_revision(),
            compact_finished: space.finished_compaction(),
            record_changes: self.machine.changes(),
        }
    }

    /// Everything applied so far. Only entries change it, and none is under way here.
    fn capture(&self) -> Capture {
        let Progress { applied_index, applied_term, conf_state, .. } = &self.applier.progress;
        let applied = (*applied_index, *applied_term);
        Capture {
            history: self.view.history(),
            inventory: self.machine.inventory(applied, conf_state.clone()),
        }
    }

    /// The term in which this member leads, once it has applied an entry of it: everything that other
    /// leaders decided has taken effect then.
    fn leads_in(&self) -> Option<u64> {
        let SoftState { term, is_leader, .. } = self.consensus.soft_state();
        (is_leader && self.applier.progress.applied_term == term).then_some(term)
    }

    fn sizes(&self) -> Sizes {
        self.with_leases(self.view.sizes())
    }

    fn with_leases(&self, keys: Sizes) -> Sizes {
        let leases_bytes = self.machine.lessor().size_bytes();
        Sizes {
            in_use_bytes: keys.in_use_bytes + leases_bytes,
            total_bytes: keys.total_bytes + leases_bytes,
        }
    }

    /// The leases.
    pub fn lessor(&self) -> &Lessor {
        self.machine.lessor()
    }

    /// The members, by ID.
    pub fn members(&self) -> Vec<Member> {
        self.machine.members().cloned().collect()
    }

    /// The raised alarms, by kind and member.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.machine.alarms().copied().collect()
    }

    /// The API version that the members agreed on.
    pub fn cluster_version(&self) -> Option<&str> {
        self.machine.cluster_version()
    }

    fn tick(&mut self, elapsed_ms: u64, effects: &mut Vec<Effect>) {
        self.now_tick += 1;
        self.leases.tick(elapsed_ms, self.now_tick, effects);
        self.consensus.tick();
        self.view.pass(elapsed_ms);
        self.pending.proposals.expire(self.now_tick, effects);
        self.pending.reads.expire(self.now_tick, effects);
        self.space.expire(self.now_tick, effects);
        if self.space.is_awaited() {
            self.raise_no_space();
        }
        if self.space.pass(elapsed_ms)
            && let Some(disarm) = self.space.disarm(self.sizes().in_use_bytes, &self.machine)
        {
            self.pending.proposals.add_internal(disarm);
        }
        let leads = self.consensus.is_leader();
        let current_revision = self.view.current_revision();
        if let Some(revision) = self.auto_compactor.tick(self.now_tick, current_revision, leads) {
            self.pending.proposals.add_internal(own::compact(revision));
            let mode = self.config.auto_compaction;
            effects.push(Effect::AutoCompact { revision, mode });
        }
    }

    /// Has the alarm for want of room raised, unless it is up or under way.
    fn raise_no_space(&mut self) {
        let again_ticks = self.config.consensus.election_ticks as u64;
        if let Some(raise) = self.space.raise(self.now_tick, again_ticks, &self.machine) {
            self.pending.proposals.add_internal(raise);
        }
    }

    fn take_ready(&mut self, effects: &mut Vec<Effect>) {
        while let Some(ready) = self.consensus.take_ready() {
            self.take(ready, effects);
        }
    }

    fn take(&mut self, ready: consensus::Ready, effects: &mut Vec<Effect>) {
        let term = self.consensus.soft_state().term;
        for read in ready.read_states {
            self.pending.reads.confirm(&read.context, read.index, term);
        }
        assert!(ready.messages.is_empty(), "one member has nobody to send to");
        self.applier.progress.committed(ready.committed);
        if !ready.entries.is_empty() || ready.hard_state.is_some() || ready.sync.is_some() {
            effects.push(Effect::Persist(Persist {
                entries: ready.entries,
                hard_state: ready.hard_state,
                sync: ready.sync,
            }));
        }
        if let Some(soft_state) = ready.soft_state {
            if self.leadership.leader_id != 0 {
                self.pending.reads.fail_round(effects);
            }
            if soft_state.leader_id != 0 && soft_state.leader_id != self.leadership.leader_id {
                self.leadership.changes += 1;
            }
            self.leadership.leader_id = soft_state.leader_id;
        }
    }

    fn is_alone(&self) -> bool {
        self.applier.progress.conf_state.voters == [self.config.member.id]
    }

    /// A lone voter has nobody to wait for: it leads as soon as it has applied what it knows. Whether it
    /// was its turn.
    fn campaign_if_alone(&mut self) -> bool {
        let leaderless = self.consensus.soft_state().leader_id == 0;
        let may = leaderless && self.applier.progress.is_idle() && self.is_alone();
        if may {
            self.consensus.campaign();
        }
        may
    }

    fn apply(&mut self, effects: &mut Vec<Effect>) -> Result<(), Fatal> {
        if self.is_apply_paused() {
            return Ok(());
        }
        Committer {
            applier: &mut self.applier,
            consensus: &mut self.consensus,
            machine: &mut self.machine,
            view: &self.view,
            proposals: &mut self.pending.proposals,
            effects,
        }
        .apply(self.flushing.unflushed_bytes_max())
    }

    /// Apply waits for the flusher when it lags by its bound; raft goes on.
    fn is_apply_paused(&self) -> bool {
        self.flushing.is_under_way()
            && self.view.unflushed_bytes() >= self.flushing.unflushed_bytes_max()
    }

    fn applied_index(&self) -> u64 {
        self.applier.progress.applied_index
    }

    fn apply_gap(&self) -> u64 {
        self.consensus.commit_index().saturating_sub(self.applied_index())
    }

    fn compact_step(&mut self) {
        // Readers share the lock of this look; only what is to be done takes it for itself.
        if !self.view.compaction_runnable() {
            return;
        }
        let mut space = self.view.write();
        // Under the lock: whoever pins to keep a compaction from beginning pins under it too.
        let oldest_pin = self.view.oldest_pin();
        let finished = space.compact_step(mutants::step(COMPACT_STEP_KEYS), oldest_pin);
        drop(space);
        if finished.is_some() && !self.pending.compactions.is_empty() {
            self.flushing.hurry();
        }
    }

    /// Gives some of the window's memory back: a flush lets tens of thousands of rows go at once, and
    /// requests should not wait for all of them.
    fn evict_step(&mut self) {
        for _ in 0..EVICTIONS_PER_STEP {
            if !self.view.is_evictable() {
                return;
            }
            self.view.evict();
        }
    }

    fn flush_if_due(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now_tick;
        if self.machine.lessor().dirty_count() >= DIRTY_LEASES_MAX {
            self.flushing.hurry();
        }
        if !self.flushing.is_due(now, &self.applier.progress, &self.view.read()) {
            return;
        }
        // Else rows could wait to leave for longer than it takes to flush more of them.
        while self.view.is_evictable() {
            self.view.evict();
        }
        effects.push(self.flushing.cut(
            now,
            &mut self.applier.progress,
            &mut self.machine,
            &self.view,
        ));
    }

    fn flushed(&mut self, generation: u64, applied_index: u64, effects: &mut Vec<Effect>) {
        if !self.flushing.done(generation, applied_index, &self.view) {
            return;
        }
        let space = self.view.read();
        self.pending.compactions.release(space.finished_compaction(), effects);
        if !self.pending.compactions.is_empty() && space.has_deletions() {
            self.flushing.hurry();
        }
        drop(space);
        self.release_log(effects);
    }

    /// What is flushed this member does not need from the log.
    fn release_log(&self, effects: &mut Vec<Effect>) {
        let (upto, is_tight) = (self.flushing.flushed_index(), self.space.disk_is_tight);
        effects.push(Effect::ReleaseLog { upto, is_tight });
    }

    fn look_at_room(&mut self, is_low: bool, is_tight: bool, effects: &mut Vec<Effect>) {
        (self.space.disk_is_low, self.space.disk_is_tight) = (is_low, is_tight);
        if is_tight {
            self.release_log(effects);
        }
        if is_low {
            self.raise_no_space();
            // Who makes room need not wait for the next flush, and what it deletes for the one behind it.
            if self.applied_index() > self.flushing.cut_index() || self.view.read().wants_flush() {
                self.flushing.hurry();
            }
        }
    }

    /// Proposes what the cluster should know of this member and does not yet. Only as the leader, which a
    /// lone member becomes: in a cluster each member has to do it, by way of its leader.
    fn publish_self(&mut self) {
        if !self.consensus.is_leader() || self.now_tick < self.leadership.publish_tick {
            return;
        }
        let me = &self.config.member;
        let listed = self.machine.members().find(|member| member.id == me.id);
        let is_listed = listed
            .is_none_or(|listed| listed.name == me.name && listed.client_urls == me.client_urls);
        let has_version = self.machine.cluster_version().is_some();
        if is_listed && has_version {
            return;
        }
        self.leadership.publish_tick = self.now_tick + self.config.consensus.election_ticks as u64;
        if !is_listed {
            self.pending.proposals.add_internal(own::set_attributes(&self.config.member));
        }
        if !has_version {
            self.pending.proposals.add_internal(own::set_cluster_version(CLUSTER_VERSION));
        }
    }
}
