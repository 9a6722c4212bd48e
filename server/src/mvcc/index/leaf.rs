//! A leaf of the tree: some entries in the order of their keys.

use std::ops::Bound;

use super::entry::Entry;

/// Entries of a full leaf. Small in unit tests, so that a few hundred keys make a deep tree.
pub(super) const LEAF_MAX: usize = if cfg!(test) { 8 } else { 64 };
/// By how many entries a leaf grows, so that little of it is empty.
const LEAF_GROWTH: usize = LEAF_MAX / 8;

/// What to do with an entry that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retain {
    Keep,
    Remove,
    /// Keep this and everything after it.
    Stop,
}

/// Entries in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    entries: Vec<Entry>,
    /// Where the last entry was inserted: the next one right behind it means ascending keys.
    inserted: usize,
}

impl Leaf {
    /// The entries, ascending.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a position that [`Leaf::find`] gave.
    pub(super) fn entry_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    /// Where `key` is, or would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key().cmp(key))
    }

    /// The position of the first entry within `start`.
    pub(super) fn first_from(&self, start: Bound<&[u8]>) -> usize {
        match start {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.entries.partition_point(|entry| entry.key() < key),
            Bound::Excluded(key) => self.entries.partition_point(|entry| entry.key() <= key),
        }
    }

    /// Entries whose key exists now.
    pub(super) fn live(&self) -> u64 {
        live(&self.entries)
    }

    /// Entries below `key` whose key exists now.
    pub(super) fn live_below(&self, key: &[u8]) -> u64 {
        live(&self.entries[..self.first_from(Bound::Included(key))])
    }

    /// Inserts at a position that [`Leaf::find`] gave; a full leaf gives away its right part.
    ///
    /// Keys that come in ascending order, in one place or in several (one per prefix), leave full
    /// leaves behind; others halves.
    pub(super) fn insert(&mut self, at: usize, entry: Entry) -> Option<Leaf> {
        if self.entries.len() < LEAF_MAX {
            self.place(at, entry);
            return None;
        }
        let ascending = at == self.inserted + 1 || at == LEAF_MAX;
        let cut = if ascending { at } else { LEAF_MAX / 2 };
        let mut right = Leaf { entries: self.entries.split_off(cut), inserted: 0 };
        if at <= cut && cut < LEAF_MAX {
            self.place(at, entry);
            self.shrink();
        } else {
            self.shrink();
            right.place(at - cut, entry);
        }
        Some(right)
    }

    /// Looks at the entries within `start` in order and drops those for which `look` says so.
    /// Returns whether it was stopped.
    pub(super) fn retain(
        &mut self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&mut Entry) -> Retain,
    ) -> bool {
        let mut skip = self.first_from(start);
        let mut stopped = false;
        let before = self.entries.len();
        self.entries.retain_mut(|entry| {
            if stopped || skip > 0 {
                skip = skip.saturating_sub(1);
                return true;
            }
            let retain = look(entry);
            stopped = retain == Retain::Stop;
            retain != Retain::Remove
        });
        if self.entries.len() < before {
            self.inserted = 0;
            self.shrink();
        }
        stopped
    }

    /// Whether both together are small enough for one leaf that can grow again.
    pub(super) fn joins(&self, right: &Leaf) -> bool {
        self.entries.len() + right.entries.len() <= LEAF_MAX / 2
    }

    /// Takes over the entries of the leaf to the right.
    pub(super) fn join(&mut self, mut right: Leaf) {
        self.entries.reserve_exact(right.entries.len());
        self.entries.append(&mut right.entries);
    }

    fn place(&mut self, at: usize, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(LEAF_GROWTH.min(LEAF_MAX - self.entries.len()));
        }
        self.entries.insert(at, entry);
        self.inserted = at;
    }

    fn shrink(&mut self) {
        self.entries.shrink_to(self.entries.len().next_multiple_of(LEAF_GROWTH));
    }
}

fn live(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| entry.is_live()).count() as u64
}
