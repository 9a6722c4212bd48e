//! Members, their disks, and the network between them, all driven by one seed.
//!
//! After every step the invariants are checked: one leader per term; one history, handed out in order
//! and once; nothing handed out that its own disk and a quorum's could forget; no stale read.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb::{self, ConfChangeType};

use super::super::*;

/// `SplitMix64` again, not shared with what is tested.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % limit
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// From index 1.
    pub(super) entries: Vec<Entry>,
    pub(super) conf_state: ConfState,
    pub(super) applied: u64,
}

impl Disk {
    pub(super) fn new(members: &[u64]) -> Self {
        let members: Vec<_> = members.iter().map(|&id| (id, Bytes::new())).collect();
        let (hard_state, entries) = bootstrap_entries(&members);
        Disk { hard_state, entries, ..Disk::default() }
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.entries.truncate(first.index as usize - 1);
            assert_eq!(self.entries.len() as u64 + 1, first.index, "a gap on disk");
        }
        self.entries.extend_from_slice(entries);
    }

    fn has(&self, entry: &Entry) -> bool {
        self.entries.get(entry.index as usize - 1) == Some(entry)
    }

    pub(super) fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            conf_state: self.conf_state.clone(),
            entries: self.entries.clone(),
            applied_index: self.applied,
            ..Recovered::default()
        }
    }
}

pub(super) struct Member {
    pub(super) id: u64,
    /// None while it is down.
    pub(super) node: Option<Consensus>,
    pub(super) disk: Disk,
    /// Not on disk yet.
    writes: VecDeque<Ready>,
    /// Handed out, not applied yet.
    unapplied: VecDeque<Entry>,
    handed_out: u64,
    pub(super) applied: u64,
    pub(super) conf_state: ConfState,
    lives: u64,
}

pub(super) struct Cluster {
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) network: Vec<Bytes>,
    pub(super) rng: Rng,
    /// Cut off from everybody.
    pub(super) isolated: Vec<u64>,
    /// The one history, by index.
    pub(super) history: BTreeMap<u64, Entry>,
    leaders: BTreeMap<u64, u64>,
    /// Reads under way: context to member, its term, and the history's length when it asked.
    reads: BTreeMap<Bytes, (u64, u64, u64)>,
    pub(super) reads_answered: usize,
    next_command: u64,
    /// Of every member that starts from now on.
    pub(super) log_bytes_max: usize,
    /// Whether the members never change, so that a quorum is known.
    pub(super) fixed: bool,
    pub(super) trace: String,
}

impl Cluster {
    pub(super) fn new(size: u64, seed: u64) -> Self {
        let ids: Vec<_> = (1..=size).collect();
        let mut cluster = Cluster {
            members: BTreeMap::new(),
            network: Vec::new(),
            rng: Rng(seed),
            isolated: Vec::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            next_command: 0,
            log_bytes_max: 1 << 30,
            fixed: true,
            trace: String::new(),
        };
        for &id in &ids {
            cluster.add(id, Disk::new(&ids));
        }
        cluster
    }

    /// A machine with this disk, running.
    pub(super) fn add(&mut self, id: u64, disk: Disk) {
        let member = Member {
            id,
            node: None,
            disk,
            writes: VecDeque::new(),
            unapplied: VecDeque::new(),
            handed_out: 0,
            applied: 0,
            conf_state: ConfState::default(),
            lives: 0,
        };
        self.members.insert(id, member);
        self.start(id);
    }

    pub(super) fn start(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.lives += 1;
        member.writes.clear();
        member.unapplied.clear();
        let mut config = Config::new(id, self.rng.0 ^ member.lives);
        config.log.bytes_max = self.log_bytes_max;
        member.node = Some(Consensus::new(config, member.disk.recovered()).unwrap());
        member.handed_out = member.disk.applied;
        member.applied = member.disk.applied;
        member.conf_state = member.disk.conf_state.clone();
        self.take(id);
    }

    /// Everything in memory is gone; of the writes under way a part is on disk, the last one torn.
    pub(super) fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.node = None;
        member.unapplied.clear();
        let mut writes = std::mem::take(&mut member.writes);
        let kept = self.rng.below(writes.len() + 1);
        for write in writes.drain(..kept) {
            member.disk.append(&write.entries);
            member.disk.hard_state = write.hard_state.unwrap_or(member.disk.hard_state);
        }
        if let Some(torn) = writes.pop_front() {
            let kept = self.rng.below(torn.entries.len() + 1);
            member.disk.append(&torn.entries[..kept]);
        }
        self.reads.retain(|_, (reader, ..)| *reader != id);
        writeln!(self.trace, "crash {id}").unwrap();
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Consensus {
        self.members.get_mut(&id).unwrap().node.as_mut().expect("the member is up")
    }

    pub(super) fn up(&self) -> Vec<u64> {
        self.members.values().filter(|member| member.node.is_some()).map(|m| m.id).collect()
    }

    /// The leader of the newest term that somebody has.
    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |m: &&Member| m.node.as_ref().is_some_and(Consensus::is_leader);
        let term = |m: &&Member| m.node.as_ref().map(|node| node.soft_state().term);
        self.members.values().filter(leads).max_by_key(term).map(|member| member.id)
    }

    pub(super) fn tick(&mut self, id: u64) {
        self.node(id).tick();
        self.take(id);
    }

    /// Proposes a command that nobody else has.
    pub(super) fn propose(&mut self, id: u64, count: u64) -> Result<(), ProposeError> {
        let commands = (0..count).map(|n| format!("command {}", self.next_command + n).into());
        let commands = commands.collect();
        self.next_command += count;
        let result = self.node(id).propose(commands);
        self.take(id);
        result
    }

    pub(super) fn change(
        &mut self,
        id: u64,
        kind: ConfChangeType,
        node_id: u64,
    ) -> Result<(), ProposeError> {
        let change = raftpb::ConfChange {
            r#type: Some(kind.into()),
            node_id: Some(node_id),
            ..raftpb::ConfChange::default()
        };
        let result = self.node(id).propose_conf_change(change.encode_to_vec().into());
        self.take(id);
        result
    }

    pub(super) fn read(&mut self, id: u64) {
        self.next_command += 1;
        let context = Bytes::from(format!("read {}", self.next_command));
        let term = self.node(id).soft_state().term;
        let floor = self.history.keys().last().copied().unwrap_or(0);
        if self.node(id).read_index(&context).is_ok() {
            self.reads.insert(context, (id, term, floor));
        }
        self.take(id);
    }

    /// Brings the oldest `count` writes of a member to its disk, and reports them.
    pub(super) fn persist(&mut self, id: u64, count: usize) {
        let member = self.members.get_mut(&id).unwrap();
        let count = count.min(member.writes.len());
        let mut sync = None;
        for write in member.writes.drain(..count) {
            member.disk.append(&write.entries);
            member.disk.hard_state = write.hard_state.unwrap_or(member.disk.hard_state);
            sync = write.sync.or(sync);
        }
        if let Some(sync) = sync {
            self.node(id).persisted(sync);
        }
        self.take(id);
    }

    /// Applies the oldest `count` entries of a member.
    pub(super) fn apply(&mut self, id: u64, count: usize) {
        for _ in 0..count {
            let member = self.members.get_mut(&id).unwrap();
            let Some(entry) = member.unapplied.pop_front() else { break };
            let node = member.node.as_mut().unwrap();
            if entry.kind == EntryKind::ConfChange {
                member.conf_state = node.apply_conf_change(&entry).unwrap();
                assert_eq!(member.conf_state, node.status().conf_state);
            }
            node.applied(entry.index);
            member.applied = entry.index;
            self.take(id);
        }
    }

    /// The state machine's disk catches up with its memory.
    pub(super) fn flush(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.disk.applied = member.applied;
        member.disk.conf_state = member.conf_state.clone();
    }

    /// Delivers one message out of order.
    pub(super) fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let message = self.network.swap_remove(self.rng.below(self.network.len()));
        self.deliver_this(message);
    }

    pub(super) fn deliver_this(&mut self, bytes: Bytes) {
        let message = Message::decode(bytes).unwrap();
        let (from, to) = (message.from(), message.to());
        let up = self.members.get(&to).is_some_and(|member| member.node.is_some());
        if !up || self.isolated.contains(&to) || self.isolated.contains(&from) {
            return;
        }
        match self.node(to).step(message) {
            Ok(()) | Err(StepError::UnknownSender { .. } | StepError::ProposalDropped) => {}
            // A forwarded proposal that came back.
            Err(StepError::FromMyself) => {}
            Err(error) => panic!("an honest message was refused: {error}"),
        }
        self.take(to);
    }

    /// Delivers, writes and applies everything, in order and without faults, until nothing happens.
    pub(super) fn settle(&mut self) {
        loop {
            for id in self.up() {
                self.persist(id, usize::MAX);
                self.apply(id, usize::MAX);
            }
            if self.network.is_empty() {
                break;
            }
            for message in std::mem::take(&mut self.network) {
                self.deliver_this(message);
            }
        }
    }

    /// Lets time pass, without faults, until somebody leads whom the others follow.
    pub(super) fn elect(&mut self) -> u64 {
        for _ in 0..1_000 {
            self.settle();
            if let Some(leader) = self.leader()
                && self.up().into_iter().all(|id| self.node(id).soft_state().leader_id == leader)
            {
                return leader;
            }
            self.tick_all();
        }
        panic!("nobody was elected\n{}", self.trace);
    }

    pub(super) fn tick_all(&mut self) {
        for id in self.up() {
            self.tick(id);
        }
    }

    /// Takes what is ready, and checks it.
    pub(super) fn take(&mut self, id: u64) {
        while let Some(mut ready) = self.node(id).take_ready() {
            writeln!(self.trace, "{id}: {ready:?}").unwrap();
            self.network.extend(ready.messages.drain(..).map(|message| message.encode()));
            if let Some(state) = ready.soft_state.filter(|state| state.is_leader) {
                assert_eq!(*self.leaders.entry(state.term).or_insert(id), id, "two leaders");
            }
            for state in ready.read_states.drain(..) {
                self.check_read(id, &state);
            }
            for entry in ready.committed.drain(..) {
                self.check_committed(id, &entry);
                self.members.get_mut(&id).unwrap().unapplied.push_back(entry);
            }
            let member = self.members.get_mut(&id).unwrap();
            if ready.sync.is_some() || ready.hard_state.is_some() {
                member.writes.push_back(ready);
            } else {
                assert!(ready.entries.is_empty(), "entries without a sync");
            }
        }
    }

    fn check_committed(&mut self, id: u64, entry: &Entry) {
        let member = self.members.get_mut(&id).unwrap();
        assert_eq!(entry.index, member.handed_out + 1, "handed out twice, or not in order");
        member.handed_out = entry.index;
        assert!(member.disk.has(entry), "handed out before it was on the member's disk: {entry:?}");
        let known = self.history.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(known, entry, "two histories");
        if self.fixed {
            let holders = self.members.values().filter(|member| member.disk.has(entry)).count();
            assert!(holders * 2 > self.members.len(), "committed without a quorum: {entry:?}");
        }
    }

    fn check_read(&mut self, id: u64, state: &ReadState) {
        let Some((reader, term, floor)) = self.reads.remove(&state.context) else { return };
        assert_eq!(reader, id, "an answer went astray");
        if self.node(id).soft_state().term == term {
            assert!(state.index >= floor, "a stale read: {} is before {floor}", state.index);
            self.reads_answered += 1;
        }
    }
}
