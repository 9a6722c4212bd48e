//! How a member starts: what it is told, what it remembers, and whether that can be true.

use raft::RaftState;

use super::checks::PLAUSIBLE_MAX;
use super::convert::{to_raft_conf_state, to_raft_entry, to_raft_hard_state};
use super::error::ConsensusError;
use super::log_view::{LogLimits, LogView};
use super::types::{ConfState, Entry, HardState};

/// As in etcd: small enough that a lost message costs little, large enough for a full pipe. A larger
/// entry goes alone.
const MESSAGE_BYTES_MAX: u64 = 512 << 10;

/// As in etcd: with `MESSAGE_BYTES_MAX` more than any link holds; small messages need many.
const INFLIGHT_MESSAGES_MAX: usize = 512;

/// What raft hands out at once: some thousands of small commands.
const COMMITTED_BYTES_PER_READY_MAX: u64 = 1 << 20;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member; not 0.
    pub id: u64,
    /// A follower that hears nothing for this long, or up to twice as long, campaigns.
    pub election_ticks: usize,
    /// A leader sends a heartbeat this often.
    pub heartbeat_ticks: usize,
    /// Ask before campaigning, so that a member that was cut off does not disturb when it is back.
    pub pre_vote: bool,
    /// Decides the election timeouts, together with `id`.
    pub seed: u64,
    /// What [`Consensus::trim`](super::Consensus::trim) lets the log in memory keep.
    pub log: LogLimits,
    /// The most that may wait for its quorum, in bytes; it cannot be trimmed. One entry may be larger.
    pub uncommitted_bytes_max: u64,
}

impl Config {
    /// etcd's defaults: an election after ten to twenty ticks, a heartbeat each tick, pre-vote, and
    /// 5,000 entries of log, within 64 MiB.
    pub fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            seed,
            log: LogLimits { bytes_max: 64 << 20, entries_max: 5000 },
            uncommitted_bytes_max: 64 << 20,
        }
    }

    /// The same for raft.
    pub(super) fn to_raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            // A leader without its quorum must notice: it could not answer a read anyway.
            check_quorum: true,
            pre_vote: self.pre_vote,
            max_uncommitted_size: self.uncommitted_bytes_max.max(MESSAGE_BYTES_MAX),
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            ..raft::Config::new(self.id)
        }
    }
}

/// What a member finds on its disk. The default is that of one which joins with nothing.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The newest that was written.
    pub hard_state: HardState,
    /// The configuration at `applied_index`.
    pub conf_state: ConfState,
    /// The log after `snapshot_index`, without gaps.
    pub entries: Vec<Entry>,
    /// The index before the first entry, 0 if the log is whole.
    pub snapshot_index: u64,
    /// Its term.
    pub snapshot_term: u64,
    /// Up to where the state machine is. Entries after it are handed out.
    pub applied_index: u64,
}

impl Recovered {
    /// Judges what was found, and makes it the log that raft starts with.
    ///
    /// Two things may be behind without harm, and are brought forward. The commit index is written
    /// without a sync: what is applied was committed. And the last write may be torn between an entry
    /// and the term that came with it: then nobody was answered, so no vote was given in that term.
    ///
    /// # Errors
    /// It cannot be what this member once wrote, or is less: starting could lose what was acknowledged.
    pub(super) fn into_log(self, limits: LogLimits) -> Result<LogView, ConsensusError> {
        self.check_conf_state()?;
        let (last, last_term) = self.check_entries()?;
        let first = self.snapshot_index;
        let mut hard_state = self.hard_state;
        hard_state.commit = hard_state.commit.max(self.applied_index).max(first);
        if hard_state.term < last_term {
            (hard_state.term, hard_state.vote) = (last_term, 0);
        }
        for (what, index) in
            [("applied index", self.applied_index), ("commit index", hard_state.commit)]
        {
            if !(first..=last).contains(&index) {
                return Err(ConsensusError::OutsideLog { what, index, first, last });
            }
        }
        if hard_state.term > PLAUSIBLE_MAX || last > PLAUSIBLE_MAX {
            return Err(ConsensusError::Config("an implausible term or index was recovered"));
        }
        let initial =
            RaftState::new(to_raft_hard_state(hard_state), to_raft_conf_state(self.conf_state));
        let entries = self.entries.into_iter().map(to_raft_entry).collect();
        Ok(LogView::new(initial, (first, self.snapshot_term), entries, limits))
    }

    fn check_conf_state(&self) -> Result<(), ConsensusError> {
        let ConfState { voters, learners } = &self.conf_state;
        let mut ids: Vec<_> = voters.iter().chain(learners).collect();
        ids.sort_unstable();
        if ids.first() == Some(&&0) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            let (voters, learners) = (voters.clone(), learners.clone());
            return Err(ConsensusError::ConfState { voters, learners });
        }
        Ok(())
    }

    /// Returns index and term of the last entry.
    fn check_entries(&self) -> Result<(u64, u64), ConsensusError> {
        let (mut last, mut last_term) = (self.snapshot_index, self.snapshot_term);
        for entry in &self.entries {
            let expected = last.saturating_add(1);
            if entry.index != expected {
                return Err(ConsensusError::LogHole { expected, found: entry.index });
            }
            if entry.term < last_term.max(1) {
                let (index, term) = (entry.index, entry.term);
                return Err(ConsensusError::LogTerm { index, term, previous: last_term });
            }
            (last, last_term) = (entry.index, entry.term);
        }
        Ok((last, last_term))
    }
}

#[cfg(test)]
mod tests {
    use raft::Storage as _;

    use super::super::types::EntryKind;
    use super::*;

    const LIMITS: LogLimits = LogLimits { bytes_max: 0, entries_max: 0 };

    /// Entries 11 to 13 of terms 3, 3 and 4; applied up to 12.
    fn recovered() -> Recovered {
        let entry = |index, term| Entry { index, term, kind: EntryKind::Normal, data: "x".into() };
        Recovered {
            hard_state: HardState { term: 5, vote: 2, commit: 12 },
            conf_state: ConfState { voters: vec![1, 2, 3], learners: vec![4] },
            entries: vec![entry(11, 3), entry(12, 3), entry(13, 4)],
            snapshot_index: 10,
            snapshot_term: 3,
            applied_index: 12,
        }
    }

    fn hard_state(change: impl FnOnce(&mut Recovered)) -> (u64, u64, u64) {
        let mut recovered = recovered();
        change(&mut recovered);
        let state = recovered.into_log(LIMITS).unwrap().initial_state().unwrap().hard_state;
        (state.term, state.vote, state.commit)
    }

    fn refusal(change: impl FnOnce(&mut Recovered)) -> String {
        let mut recovered = recovered();
        change(&mut recovered);
        recovered.into_log(LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn what_may_be_behind_is_brought_forward() {
        assert_eq!(hard_state(|_| ()), (5, 2, 12));
        assert_eq!(hard_state(|found| found.hard_state.commit = 0), (5, 2, 12));
        assert_eq!(hard_state(|found| found.hard_state.commit = 13), (5, 2, 13));
        assert_eq!(hard_state(|found| found.hard_state.term = 3), (4, 0, 12));
        assert_eq!(hard_state(|found| found.hard_state.term = 4), (4, 2, 12));
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        for (refusal, text) in [
            (refusal(|r| r.hard_state.commit = 14), "commit index 14 is outside of the log"),
            (refusal(|r| r.applied_index = 14), "applied index 14 is outside of the log"),
            (refusal(|r| r.applied_index = 9), "applied index 9 is outside of the log"),
            (refusal(|r| drop(r.entries.remove(1))), "entry 13 where entry 12 belongs"),
            (refusal(|r| r.entries[2].term = 2), "term 2, the one before it 3"),
            (refusal(|r| r.entries[0].term = 0), "term 0, the one before it 3"),
            (refusal(|r| r.conf_state.learners.push(2)), "is not one"),
            (refusal(|r| r.conf_state.voters.push(0)), "is not one"),
            (refusal(|r| r.hard_state.term = u64::MAX), "implausible"),
        ] {
            assert!(refusal.contains(text), "{refusal}");
        }
    }
}
