//! One member's part in the agreement.

use std::mem;

use bytes::Bytes;
use raft::eraftpb::{self, EntryType, MessageType};
use raft::{INVALID_ID, RawNode, StateRole};

use super::conf_change;
use super::convert::{from_raft_conf_state, from_raft_entry, from_raft_hard_state};
use super::error::{
    ConfChangeError, ConsensusError, ProposeError, ReadIndexError, StepError, TransferError,
};
use super::gate::{Gate, Turn};
use super::jitter::Jitter;
use super::log_view::LogView;
use super::message::{Message, MessageKind};
use super::ready::{ReadState, Ready, SoftState};
use super::recovery::{Config, Recovered};
use super::types::{ConfState, Entry, HardState};
use super::{checks, types};

/// A voter or learner of one cluster. See the [module](super) for how it is driven.
pub struct Consensus {
    node: RawNode<LogView>,
    jitter: Jitter,
    gate: Gate,
    /// The last index given to the owner as committed.
    handed_out: u64,
    /// The hard state as last given to the owner.
    hard_state: HardState,
    /// The soft state as last given to the owner.
    soft_state: SoftState,
}

/// A snapshot of what this member knows, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Term, leader, and whether this is it.
    pub soft_state: SoftState,
    /// The last index known to be committed.
    pub commit_index: u64,
    /// The last index that was reported as applied.
    pub applied_index: u64,
    /// The last index of the log.
    pub last_index: u64,
    /// The last index that is on this member's disk.
    pub persisted_index: u64,
    /// The configuration at `applied_index`.
    pub conf_state: ConfState,
    /// On a leader, how far each member is, itself included, in ascending order of ID; else empty.
    pub progress: Vec<Progress>,
}

/// How far a member is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub id: u64,
    /// The last index that is on its disk for certain.
    pub matched_index: u64,
    /// Whether it was heard of since the leader last looked for its quorum, once per election timeout.
    pub is_active: bool,
}

impl Consensus {
    /// Starts from what was recovered, as a follower.
    ///
    /// # Errors
    /// The configuration or what was recovered cannot be right; end the process.
    pub fn new(config: Config, recovered: Recovered) -> Result<Self, ConsensusError> {
        if config.id == INVALID_ID {
            return Err(ConsensusError::Config("a member's id cannot be 0"));
        }
        let applied = recovered.applied_index;
        let log = recovered.into_log(config.log)?;
        // What raft would log is no news to us: changes of state are in the soft state.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config.to_raft(applied), log, &logger)
            .map_err(|error| ConsensusError::Raft(error.to_string()))?;
        let hard_state = from_raft_hard_state(&node.raft.hard_state());
        let mut consensus = Self {
            jitter: Jitter::new(config.seed, config.id),
            gate: Gate::default(),
            handed_out: applied,
            hard_state,
            soft_state: SoftState { term: hard_state.term, ..SoftState::default() },
            node,
        };
        consensus.redraw_timeout();
        Ok(consensus)
    }

    /// Lets time pass.
    ///
    /// A member whose entries are still on the way to its disk does not campaign: its disk is too slow
    /// for a leader, and a lone voter would lead without having its own log.
    pub fn tick(&mut self) {
        let raft = &self.node.raft;
        let would_campaign = raft.state != StateRole::Leader
            && raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if would_campaign && self.has_unpersisted() {
            return;
        }
        self.node.tick();
        self.redraw_timeout();
    }

    /// Starts an election now, if this member may: a voter that does not lead, with its log on disk and
    /// no committed change of the configuration still to apply.
    ///
    /// A lone voter leads when this returns. Others ask for votes.
    pub fn campaign(&mut self) {
        if !self.node.raft.promotable() || self.has_unpersisted() {
            return;
        }
        // The only error is that of a message with a term, which this one has not.
        let _ = self.node.campaign();
        self.redraw_timeout();
    }

    /// Proposes commands, all or none, next to each other in the log. A follower forwards them to its
    /// leader.
    ///
    /// Success means that they may be committed, not that they will be: only seeing them in
    /// [`Ready::committed`] tells.
    ///
    /// # Errors
    /// They entered no log.
    pub fn propose(&mut self, commands: Vec<Bytes>) -> Result<(), ProposeError> {
        if commands.is_empty() {
            return Ok(());
        }
        let entries =
            commands.into_iter().map(|data| eraftpb::Entry { data, ..Default::default() });
        self.propose_entries(entries.collect())
    }

    /// Proposes one change of the configuration, an encoded `raftpb.ConfChange`.
    ///
    /// Only one can be under way. Whoever proposes at the same time as another member may see the
    /// change turned into an empty normal entry, which means that it was not made.
    ///
    /// # Errors
    /// It entered no log.
    pub fn propose_conf_change(&mut self, data: Bytes) -> Result<(), ProposeError> {
        conf_change::decode(&data)?;
        if self.is_leader() && self.node.raft.has_pending_conf() {
            return Err(ProposeError::ConfChangePending);
        }
        let mut entry = eraftpb::Entry { data, ..Default::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        self.propose_entries(vec![entry])
    }

    fn propose_entries(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(), ProposeError> {
        let raft = &self.node.raft;
        if raft.leader_id == INVALID_ID {
            return Err(ProposeError::NoLeader);
        }
        if raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        let mut message =
            eraftpb::Message { from: raft.id, entries, ..eraftpb::Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        self.node.step(message).map_err(|_| ProposeError::TooMuchUncommitted)
    }

    /// Takes a message from another member.
    ///
    /// # Errors
    /// It was not taken. Nothing changed.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        checks::range(message.as_raft(), &self.node)?;
        if message.kind() == MessageKind::TimeoutNow && self.has_unpersisted() {
            return Ok(()); // As in `tick`; the leader gives up handing over after a while.
        }
        let from = message.from();
        let result = self.node.step(message.into_raft());
        self.redraw_timeout();
        result.map_err(|error| match error {
            raft::Error::StepPeerNotFound => StepError::UnknownSender { from },
            raft::Error::ProposalDropped => StepError::ProposalDropped,
            error => StepError::Raft(error.to_string()),
        })
    }

    /// Asks which index a linearizable read must wait for; the answer comes as a [`ReadState`], or not
    /// at all when a leader or a message is lost.
    ///
    /// `context` comes back in it. It must be fresh for every attempt, also for another attempt of the
    /// same read, and over restarts: an answer to an old one is an old index. Drop answers of attempts
    /// from before a change of the term.
    ///
    /// # Errors
    /// No answer will come.
    pub fn read_index(&mut self, context: &[u8]) -> Result<(), ReadIndexError> {
        if context.is_empty() {
            return Err(ReadIndexError::EmptyContext);
        }
        if self.node.raft.leader_id == INVALID_ID {
            return Err(ReadIndexError::NoLeader);
        }
        if self.is_leader() && !self.node.raft.commit_to_current_term() {
            return Err(ReadIndexError::NotYet);
        }
        self.node.read_index(context.to_vec());
        Ok(())
    }

    /// What is to be done now, if anything. To be asked after every input, until there is nothing; to
    /// be done completely.
    pub fn take_ready(&mut self) -> Option<Ready> {
        let mut ready = match self.node.has_ready() {
            true => self.take_turn(),
            false => Ready::default(),
        };
        ready.messages = self.gate.take_released();
        let soft_state = self.soft_state();
        if mem::replace(&mut self.soft_state, soft_state) != soft_state {
            ready.soft_state = Some(soft_state);
        }
        (ready != Ready::default()).then_some(ready)
    }

    /// One turn of raft: its `Ready`, except for the messages, which go to the gate.
    fn take_turn(&mut self) -> Ready {
        let mut turn = self.node.ready();
        // Raft reads entries from the log as soon as `advance_append_async` is called.
        let entries = turn.take_entries();
        let cuts = self.node.mut_store().append(&entries);
        let hard_state = turn.hs().map(from_raft_hard_state);
        let known = self.hard_state;
        self.hard_state = hard_state.unwrap_or(known);
        let new_vote = (self.hard_state.term, self.hard_state.vote) != (known.term, known.vote);
        let number = turn.number();
        let must_sync = turn.must_sync();
        let at_once = turn.take_messages().into_iter().map(Message::from_raft).collect();
        let after_sync =
            turn.take_persisted_messages().into_iter().map(Message::from_raft).collect();
        let ready = Ready {
            entries: entries.iter().map(from_raft_entry).collect(),
            hard_state,
            sync: must_sync.then_some(number),
            messages: Vec::new(),
            committed: turn.take_committed_entries().iter().map(from_raft_entry).collect(),
            read_states: turn
                .take_read_states()
                .into_iter()
                .map(|state| ReadState { context: state.request_ctx.into(), index: state.index })
                .collect(),
            soft_state: None,
        };
        self.node.advance_append_async(turn);
        let turn = Turn { number, must_sync, new_vote, cuts };
        if let Some(upto) = self.gate.admit(&turn, at_once, after_sync) {
            self.node.on_persist_ready(upto);
        }
        self.note_handed_out(&ready.committed);
        ready
    }

    fn note_handed_out(&mut self, committed: &[Entry]) {
        for entry in committed {
            assert_eq!(entry.index, self.handed_out + 1, "committed entries have no gaps");
            self.handed_out = entry.index;
        }
        let persisted = self.node.raft.raft_log.persisted;
        assert!(self.handed_out <= persisted, "handed out what is not on disk");
    }

    /// Reports that the [`Ready`] with this [`sync`](Ready::sync) is on disk, and all before it.
    ///
    /// What that unlocks (messages, commits of a leader, entries to apply) comes with the next
    /// [`Consensus::take_ready`]. If the write failed, this must not be called: the process ends.
    ///
    /// # Panics
    /// No `Ready` had this number yet.
    pub fn persisted(&mut self, sync: u64) {
        if let Some(upto) = self.gate.persisted(sync) {
            self.node.on_persist_ready(upto);
        }
    }

    /// Reports that the state machine is at `index`. A change of the configuration counts as applied
    /// only after [`Consensus::apply_conf_change`], if it is made at all.
    ///
    /// # Panics
    /// That entry was not handed out.
    pub fn applied(&mut self, index: u64) {
        assert!(index <= self.handed_out, "applied {index}, handed out {}", self.handed_out);
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
        }
    }

    /// Makes a committed change of the configuration, and returns the new one.
    ///
    /// Not to be called when the state machine refuses the change. A leader that removes itself steps
    /// down; to spare the others an election timeout, hand over before proposing that.
    ///
    /// # Errors
    /// The change cannot be made, which all members find alike. The process must end.
    pub fn apply_conf_change(&mut self, entry: &Entry) -> Result<ConfState, ConfChangeError> {
        assert_eq!(entry.kind, types::EntryKind::ConfChange, "only a configuration change");
        let change = conf_change::to_raft(&conf_change::decode(&entry.data)?)?;
        let conf_state =
            self.node.apply_conf_change(&change).map_err(|_| ConfChangeError::Refused)?;
        if self.is_leader() && !self.node.raft.promotable() {
            // Raft would go on leading, and panic at the next commit.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, INVALID_ID);
        }
        self.redraw_timeout();
        Ok(from_raft_conf_state(conf_state))
    }

    /// Allows to forget entries up to `index`, as far as the log in memory is over its limits and they
    /// are applied. They must be on disk.
    pub fn trim(&mut self, index: u64) {
        let upto = index.min(self.node.raft.raft_log.applied);
        self.node.mut_store().trim(upto);
    }

    /// Hands leadership over to another voter, if it catches up within an election timeout. Meanwhile
    /// nothing can be proposed.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn transfer_leader(&mut self, id: u64) -> Result<(), TransferError> {
        if !self.is_leader() {
            return Err(TransferError::NotLeader);
        }
        if !self.node.raft.prs().conf().voters().contains(id) {
            return Err(TransferError::NotVoter(id));
        }
        self.node.transfer_leader(id);
        self.redraw_timeout();
        Ok(())
    }

    /// Notes that messages to this member were lost, so that a leader goes back to what the member is
    /// known to have.
    pub fn report_unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Term and leader now.
    pub fn soft_state(&self) -> SoftState {
        let raft = &self.node.raft;
        SoftState { term: raft.term, leader_id: raft.leader_id, is_leader: self.is_leader() }
    }

    /// The last index known to be committed.
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Everything this member knows.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let mut progress = Vec::new();
        if self.is_leader() {
            progress.extend(raft.prs().iter().map(|(&id, known)| Progress {
                id,
                matched_index: known.matched,
                is_active: known.recent_active || id == raft.id,
            }));
            progress.sort_unstable_by_key(|member| member.id);
        }
        Status {
            progress,
            soft_state: self.soft_state(),
            commit_index: raft.raft_log.committed,
            applied_index: raft.raft_log.applied,
            last_index: raft.raft_log.last_index(),
            persisted_index: raft.raft_log.persisted,
            conf_state: from_raft_conf_state(raft.prs().conf().to_conf_state()),
        }
    }

    /// What the log takes in memory, in bytes.
    pub fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    fn has_unpersisted(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.persisted < log.last_index()
    }

    /// Replaces the election timeout, which raft may just have drawn from the process' generator.
    ///
    /// Raft draws when it resets itself, and each reset sets `election_elapsed` to 0. Not each 0 is a
    /// reset, but drawing once more does no harm, and comparing timeouts instead would miss a draw of
    /// the value that was there.
    fn redraw_timeout(&mut self) {
        let raft = &mut self.node.raft;
        if raft.election_elapsed == 0 {
            let timeout = self.jitter.election_timeout(raft.election_timeout());
            raft.set_randomized_election_timeout(timeout);
        }
    }
}
