//! A leaf of the tree: some entries in the order of their keys.

use std::ops::Bound;

use super::bits::{Bits, FANOUT};
use super::entry::Entry;

/// By how many bytes a leaf grows: little of it is empty, and allocators have blocks of these sizes.
const GROWTH_BYTES: usize = 512;

/// What to do with an entry that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retain {
    Keep,
    Remove,
    /// Keep this and everything after it.
    Stop,
}

/// Entries in the order of their keys.
#[derive(Debug)]
pub(super) struct Leaf {
    bits: Bits,
    entries: Vec<Entry>,
    /// Where the last entry was inserted: the next one right behind it means ascending keys.
    inserted: usize,
}

impl Leaf {
    /// No entries.
    pub(super) fn new() -> Self {
        Self { bits: Bits::new(), entries: Vec::new(), inserted: 0 }
    }

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
        self.bits.search(key, |at| self.entries[at].key())
    }

    /// The position of the first entry within `start`.
    pub(super) fn first_from(&self, start: Bound<&[u8]>) -> usize {
        match start {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.find(key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => self.find(key).map_or_else(|at| at, |at| at + 1),
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
        if self.entries.len() < FANOUT {
            self.place(at, entry);
            return None;
        }
        let ascending = at == self.inserted + 1 || at == FANOUT;
        let cut = if ascending { at } else { FANOUT / 2 };
        let entries = self.entries.split_off(cut);
        let mut right = Leaf { bits: self.bits.split_off(cut), entries, inserted: 0 };
        self.shrink();
        if at <= cut && cut < FANOUT {
            self.place(at, entry);
        } else {
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
        let first = self.first_from(start);
        let mut stopped = false;
        let before = self.entries.len();
        let mut at = 0;
        let mut removed = [false; FANOUT];
        self.entries.retain_mut(|entry| {
            let here = at;
            at += 1;
            if stopped || here < first {
                return true;
            }
            let retain = look(entry);
            stopped = retain == Retain::Stop;
            removed[here] = retain == Retain::Remove;
            !removed[here]
        });
        if self.entries.len() < before {
            self.bits.remove(&removed);
            self.inserted = 0;
            self.shrink();
        }
        stopped
    }

    /// Whether both together are small enough for one leaf that can grow again.
    pub(super) fn joins(&self, right: &Leaf) -> bool {
        self.entries.len() + right.entries.len() <= FANOUT / 2
    }

    /// Takes over the entries of the leaf to the right.
    pub(super) fn join(&mut self, mut right: Leaf) {
        self.entries.reserve_exact(right.entries.len());
        self.entries.append(&mut right.entries);
        self.bits = Bits::of(self.entries.len(), |at| self.entries[at].key());
    }

    /// Asserts that the bits are those of the entries.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.bits.check(self.entries.len(), |at| self.entries[at].key());
    }

    fn place(&mut self, at: usize, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(capacity_for(self.entries.len() + 1) - self.entries.len());
        }
        self.bits.insert(at, entry.key(), |at| self.entries[at].key());
        self.entries.insert(at, entry);
        self.inserted = at;
    }

    fn shrink(&mut self) {
        self.entries.shrink_to(capacity_for(self.entries.len()));
    }
}

/// For how many entries a leaf of `len` has room.
fn capacity_for(len: usize) -> usize {
    let bytes = (len * size_of::<Entry>()).next_multiple_of(GROWTH_BYTES);
    (bytes / size_of::<Entry>()).min(FANOUT)
}

fn live(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| entry.is_live()).count() as u64
}
