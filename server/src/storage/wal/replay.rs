//! What a sequence of records means: the log that raft left behind.
//!
//! Records are appended in the order in which things happened, so a later one wins: an entry replaces
//! those from its index on, a snapshot that does not fit the log replaces all of it.
//!
//! ```text
//! entry 1..5 @1, entry 4 @2       the log is 1 2 3 @1, 4 @2
//! entry 1..5 @1, snapshot 9 @3    the log is empty behind 9 @3
//! entry 1..5 @1, snapshot 4 @1    a mark: the configuration at 4
//! entry 1..5 @1, snapshot 4 @3    the log is empty behind 4 @3, as raft did when it installed it
//! ```

use super::segment::NUMBER_MAX;
use super::{Metadata, Position, WalContents};
use crate::consensus::{ConfState, Entry, HardState};

/// Collects the records of a log.
pub(super) struct Replay {
    from: u64,
    metadata: Option<Metadata>,
    hard_state: HardState,
    conf_state: Option<(Position, ConfState)>,
    base: Option<Position>,
    entries: Vec<Entry>,
    /// The last index of the log so far.
    last_index: u64,
    /// First index of each term, ascending; the last run ends at `last_index`.
    terms: Vec<Position>,
}

/// What `Replay` found.
pub(super) struct Replayed {
    pub(super) metadata: Metadata,
    pub(super) conf_state: Option<(Position, ConfState)>,
    pub(super) contents: WalContents,
    pub(super) last_index: u64,
}

impl Replay {
    /// Begins with a segment whose first entry may have `first_index`; entries up to `from` are checked
    /// and dropped.
    pub(super) fn new(from: u64, first_index: u64) -> Self {
        Self {
            from,
            metadata: None,
            hard_state: HardState::default(),
            conf_state: None,
            base: None,
            entries: Vec::new(),
            last_index: first_index.saturating_sub(1),
            terms: Vec::new(),
        }
    }

    pub(super) fn metadata(&mut self, metadata: Metadata) -> Result<(), String> {
        match self.metadata {
            Some(known) if known != metadata => {
                Err(format!("metadata of {metadata} in a log of {known}"))
            }
            _ => {
                self.metadata = Some(metadata);
                Ok(())
            }
        }
    }

    pub(super) fn hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub(super) fn entry(&mut self, entry: Entry) -> Result<(), String> {
        let Entry { index, term, .. } = entry;
        if index == 0 || index > self.last_index + 1 {
            return Err(format!("entry {index} behind entry {}", self.last_index));
        }
        self.cut_terms(index);
        match self.terms.last() {
            Some(run) if run.term > term => {
                return Err(format!("entry {index} of term {term} behind one of {}", run.term));
            }
            Some(run) if run.term == term => {}
            _ => self.terms.push(Position { index, term }),
        }
        self.last_index = index;
        let kept = index.saturating_sub(self.base_index() + 1);
        self.entries.truncate(usize::try_from(kept).expect("at most the number of entries"));
        if index > self.base_index() {
            self.entries.push(entry);
        }
        Ok(())
    }

    pub(super) fn snapshot(
        &mut self,
        position: Position,
        conf_state: Option<ConfState>,
    ) -> Result<(), String> {
        let Position { index, term } = position;
        if index >= NUMBER_MAX {
            return Err(format!("a snapshot at {index}"));
        }
        let replaces =
            index > self.last_index || self.term_at(index).is_some_and(|known| known != term);
        if replaces {
            self.entries.clear();
            self.terms = vec![position];
            self.last_index = index;
            self.base = (index > self.from).then_some(position);
        } else if self.terms.is_empty() && index == self.last_index {
            self.terms.push(position);
        }
        if let Some(conf_state) = conf_state {
            self.conf_state = Some((position, conf_state));
        }
        Ok(())
    }

    /// # Errors
    /// What the log must have held and does not: the index, and how that is known.
    pub(super) fn finish(self) -> Result<Replayed, Missing> {
        let last_index = self.last_index;
        let known = |known, how| Missing { last_index, known, how };
        if self.from > last_index {
            return Err(known(self.from, "applied"));
        }
        if self.hard_state.commit > last_index {
            return Err(known(self.hard_state.commit, "committed"));
        }
        let base = self
            .base
            .or_else(|| Some(Position { index: self.from, term: self.term_at(self.from)? }));
        let (Some(metadata), Some(snapshot)) = (self.metadata, base) else {
            return Err(known(self.from, "applied"));
        };
        let contents = WalContents {
            metadata,
            hard_state: self.hard_state,
            conf_state: self.conf_state.clone().map(|(position, state)| (position.index, state)),
            snapshot,
            entries: self.entries,
            torn_at: None,
        };
        Ok(Replayed { metadata, conf_state: self.conf_state, contents, last_index })
    }

    fn base_index(&self) -> u64 {
        self.base.map_or(self.from, |base| base.index)
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        let after = self.terms.partition_point(|run| run.index <= index);
        self.terms.get(after.checked_sub(1)?).map(|run| run.term)
    }

    /// Forgets the terms from `index` on.
    fn cut_terms(&mut self, index: u64) {
        let kept = self.terms.partition_point(|run| run.index < index);
        self.terms.truncate(kept);
    }
}

/// Entries that are known to have been in the log.
pub(super) struct Missing {
    pub(super) last_index: u64,
    pub(super) known: u64,
    pub(super) how: &'static str,
}
