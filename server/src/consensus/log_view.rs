//! The end of the log, in memory, as raft reads it.
//!
//! The log is longer than what is in memory, and so this view has two beginnings:
//!
//! ```text
//! first_index            trimmed                          last_index
//!     | on disk only        | in memory                       |
//!     5    6    7    8    9 | 10   11   12   13   14   15  16
//! ```
//!
//! [`LogView::trim`] moves the second and forgets the oldest entries, but not more than it must to stay
//! within its limits: they are what a slow follower needs next. Of the last one forgotten the term
//! stays. What is asked for below, raft is told to wait for where it can, and that it is compacted
//! where it cannot.
//!
//! Appending cuts what it replaces: raft does that when another leader's entries take the place of
//! some that were never committed.

use std::collections::VecDeque;

use prost::Message as _;
use raft::eraftpb::{Entry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// The log in memory.
#[derive(Debug)]
pub(super) struct LogView {
    initial: RaftState,
    first_index: u64,
    /// Index and term of the entry before the first in `entries`.
    trimmed: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    limits: LogLimits,
}

/// What the log in memory keeps of what it may forget.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// So many bytes,
    pub bytes_max: usize,
    /// in so many entries.
    pub entries_max: u64,
}

impl LogView {
    /// A view of the entries after the point `before` (index, term). They follow it without gaps.
    ///
    /// `initial` is what raft starts with; `limits` are what trimming aims at.
    pub(super) fn new(
        initial: RaftState,
        before: (u64, u64),
        entries: Vec<Entry>,
        limits: LogLimits,
    ) -> Self {
        let mut view = Self {
            initial,
            first_index: before.0 + 1,
            trimmed: before,
            entries: VecDeque::new(),
            bytes: 0,
            limits,
        };
        view.append(&entries);
        view
    }

    /// Adds entries, after cutting any that they replace. Returns whether there were such.
    ///
    /// # Panics
    /// They leave a gap, or replace what was trimmed, which is applied and so cannot change.
    pub(super) fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else { return false };
        assert!(
            first.index > self.trimmed.0 && first.index <= self.last() + 1,
            "entry {} does not fit a log in memory after {} up to {}",
            first.index,
            self.trimmed.0,
            self.last(),
        );
        let cuts = self.last() >= first.index;
        while self.last() >= first.index {
            let cut = self.entries.pop_back().expect("what is after the trimmed point is here");
            self.bytes -= cost(&cut);
        }
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
        cuts
    }

    /// Forgets the oldest entries until the rest fits the limits, but none after `upto`.
    pub(super) fn trim(&mut self, upto: u64) {
        while self.is_over()
            && let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.index <= upto)
        {
            self.bytes -= cost(&oldest);
            self.trimmed = (oldest.index, oldest.term);
        }
    }

    fn is_over(&self) -> bool {
        let LogLimits { bytes_max, entries_max } = self.limits;
        self.bytes > bytes_max || self.entries.len() as u64 > entries_max
    }

    /// What the entries take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn last(&self) -> u64 {
        self.trimmed.0 + self.entries.len() as u64
    }

    /// The place of `index` in `entries`, which may be one after the last.
    fn position(&self, index: u64) -> Option<usize> {
        let position = index.checked_sub(self.trimmed.0 + 1)?;
        usize::try_from(position).ok().filter(|&position| position <= self.entries.len())
    }
}

/// What an entry takes in memory.
fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}

impl Storage for LogView {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low >= high {
            return Ok(Vec::new());
        }
        if low < self.first_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if low <= self.trimmed.0 {
            return Err(Error::Store(match context.can_async() {
                true => StorageError::LogTemporarilyUnavailable,
                false => StorageError::Compacted,
            }));
        }
        let (Some(from), Some(to)) = (self.position(low), self.position(high)) else {
            return Err(Error::Store(StorageError::Unavailable));
        };
        let size_max = max_size.into().unwrap_or(raft::NO_LIMIT);
        let mut size = 0_u64;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size = size.saturating_add(entry.encoded_len() as u64);
            first || size <= size_max
        };
        Ok(self.entries.range(from..to).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.trimmed.0 {
            return Ok(self.trimmed.1);
        }
        match self.position(index) {
            None if index < self.trimmed.0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
            Some(position) => match self.entries.get(position) {
                Some(entry) => Ok(entry.term),
                None => Err(Error::Store(StorageError::Unavailable)),
            },
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first_index)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: LogLimits = LogLimits { bytes_max: 0, entries_max: 0 };

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![b'x'; 100].into(), ..Entry::default() }
    }

    /// Entries 11 to 20, of which those up to `trimmed` are forgotten.
    fn view(trimmed: u64) -> LogView {
        let entries = (11..=20).map(|index| entry(index, index / 4)).collect();
        let mut view = LogView::new(RaftState::default(), (10, 2), entries, NOTHING);
        view.trim(trimmed);
        view
    }

    fn indexes(view: &LogView, low: u64, high: u64, max_size: u64) -> Vec<u64> {
        let entries = view.entries(low, high, max_size, GetEntriesContext::empty(false)).unwrap();
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn the_end_of_the_log_is_read_as_it_was_written() {
        let view = view(0);
        assert_eq!((view.first_index().unwrap(), view.last_index().unwrap()), (11, 20));
        assert_eq!(indexes(&view, 11, 21, raft::NO_LIMIT), (11..=20).collect::<Vec<_>>());
        assert_eq!(indexes(&view, 13, 15, raft::NO_LIMIT), [13, 14]);
        assert_eq!(
            (view.term(10).unwrap(), view.term(11).unwrap(), view.term(20).unwrap()),
            (2, 2, 5)
        );
    }

    #[test]
    fn a_reader_gets_what_fits_and_at_least_one_entry() {
        let view = view(0);
        let one = entry(11, 2).encoded_len() as u64;
        assert_eq!(indexes(&view, 11, 21, 0), [11]);
        assert_eq!(indexes(&view, 11, 21, 2 * one), [11, 12]);
        assert_eq!(indexes(&view, 11, 21, 3 * one - 1), [11, 12]);
    }

    #[test]
    fn what_memory_forgot_is_waited_for_where_raft_can_wait() {
        let view = view(15);
        assert_eq!(view.first_index().unwrap(), 11);
        let error = |low, wait| {
            view.entries(low, 21, None, GetEntriesContext::empty(wait)).expect_err("not in memory")
        };
        assert_eq!(error(15, true), Error::Store(StorageError::LogTemporarilyUnavailable));
        assert_eq!(error(15, false), Error::Store(StorageError::Compacted));
        assert_eq!(error(10, true), Error::Store(StorageError::Compacted));
        assert_eq!(view.term(15).unwrap(), 3);
        assert_eq!(view.term(14), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(indexes(&view, 16, 18, raft::NO_LIMIT), [16, 17]);
    }

    #[test]
    fn trimming_keeps_what_fits_and_what_is_still_needed() {
        let mut view = view(0);
        let one = cost(&entry(11, 2));
        view.limits = LogLimits { bytes_max: 4 * one, entries_max: u64::MAX };
        view.trim(13);
        assert_eq!((view.trimmed, view.bytes()), ((13, 3), 7 * one));
        view.trim(100);
        assert_eq!((view.trimmed, view.bytes()), ((16, 4), 4 * one));
        view.limits = LogLimits { bytes_max: usize::MAX, entries_max: 3 };
        view.trim(100);
        assert_eq!((view.trimmed, view.bytes()), ((17, 4), 3 * one));
        view.limits = NOTHING;
        view.trim(100);
        assert_eq!((view.trimmed, view.bytes(), view.last()), ((20, 5), 0, 20));
    }

    #[test]
    fn entries_of_another_leader_replace_those_that_follow() {
        let mut view = view(15);
        assert!(view.append(&[entry(18, 9), entry(19, 9)]));
        assert!(!view.append(&[]));
        assert_eq!((view.last(), view.term(17).unwrap(), view.term(18).unwrap()), (19, 4, 9));
        assert_eq!(view.term(20), Err(Error::Store(StorageError::Unavailable)));
        assert_eq!(view.bytes(), 4 * cost(&entry(18, 9)));
    }

    proptest! {
        #[test]
        fn no_range_makes_it_panic(
            trimmed in 0_u64..25,
            low in prop_oneof![0_u64..25, Just(u64::MAX)],
            high in prop_oneof![0_u64..25, Just(u64::MAX)],
            wait: bool,
        ) {
            let view = view(trimmed);
            let _ = view.term(low);
            let in_memory = low > view.trimmed.0 && high <= 21;
            let entries = view.entries(low, high, None, GetEntriesContext::empty(wait));
            prop_assert_eq!(entries.is_ok(), low >= high || in_memory);
        }
    }
}
