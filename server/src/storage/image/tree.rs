//! One bucket's tree, built from the left while its entries come.
//!
//! Leaves are written as they fill up, and a branch right after the last of its children, so a page only
//! names pages before it and nothing is kept but the right edge: one unfinished page per level.
//!
//! ```text
//! entries  a b c d e f g h i j           pages  [abc] [def] [<abc <def] [ghi] [j] [<ghi <j] [root]
//! ```
//!
//! A branch holds two children at least, as those of bbolt do: it is written only when two more than
//! fit have come.

use super::page::{Child, Entry, HEADER_BYTES, PAGE_BYTES, Pages, pages_of};

/// A leaf is closed when its next entry does not fit and no more than one part in so many is unused.
const WASTE_MAX: usize = 8;
/// Pages up to which a leaf grows to waste less.
const LEAF_PAGES_MAX: usize = 8;

/// A tree being built.
#[derive(Default)]
pub(super) struct Tree {
    entries: Vec<Entry>,
    entries_bytes: usize,
    /// Children that wait for their branch, lowest level first.
    levels: Vec<Vec<Child>>,
}

impl Tree {
    /// Adds an entry, whose key is above all before it.
    pub(super) fn push(&mut self, entry: Entry, pages: &mut Pages) {
        let bytes = HEADER_BYTES + self.entries_bytes;
        if !self.entries.is_empty() && is_full(bytes, bytes + entry.cost_bytes()) {
            self.end_leaf(pages);
        }
        self.entries_bytes += entry.cost_bytes();
        self.entries.push(entry);
    }

    /// Writes what is left; returns the id of the root.
    pub(super) fn finish(mut self, pages: &mut Pages) -> u64 {
        if self.entries.is_empty() && self.levels.is_empty() {
            return pages.leaf(&[]);
        }
        self.end_leaf(pages);
        let mut level = 0;
        loop {
            let children = std::mem::take(&mut self.levels[level]);
            let is_top = level + 1 == self.levels.len();
            if let ([root], true) = (children.as_slice(), is_top) {
                return root.page;
            }
            // One more than fits is two pages, of which the second gets two.
            let first = match fitting(&children) {
                all if all == children.len() => all,
                _ => children.len() - 2,
            };
            let (first, second) = children.split_at(first);
            for branch in [first, second].into_iter().filter(|branch| !branch.is_empty()) {
                self.add_branch(level, branch, pages);
            }
            level += 1;
        }
    }

    fn end_leaf(&mut self, pages: &mut Pages) {
        let page = pages.leaf(&self.entries);
        let first = self.entries.first().expect("a leaf is ended with an entry in it");
        let child = Child { key: first.key.clone(), page };
        self.entries.clear();
        self.entries_bytes = 0;
        self.add_child(0, child, pages);
    }

    fn add_child(&mut self, level: usize, child: Child, pages: &mut Pages) {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
        let fitting = fitting(&self.levels[level]);
        if self.levels[level].len() >= fitting + 2 {
            let rest = self.levels[level].split_off(fitting);
            let branch = std::mem::replace(&mut self.levels[level], rest);
            self.add_branch(level, &branch, pages);
        }
    }

    fn add_branch(&mut self, level: usize, children: &[Child], pages: &mut Pages) {
        let page = pages.branch(children);
        self.add_child(level + 1, Child { key: children[0].key.clone(), page }, pages);
    }
}

/// Whether a leaf of `bytes` is closed before an entry that makes it `grown` bytes.
fn is_full(bytes: usize, grown: usize) -> bool {
    let (pages, pages_grown) = (pages_of(bytes), pages_of(grown));
    let wasted = pages * PAGE_BYTES - bytes;
    let grows = pages_grown > pages;
    grows && (pages_grown > LEAF_PAGES_MAX || wasted * WASTE_MAX <= pages * PAGE_BYTES)
}

/// How many of the first `children` fit into a page.
fn fitting(children: &[Child]) -> usize {
    let mut bytes = HEADER_BYTES;
    children
        .iter()
        .take_while(|child| {
            bytes += child.cost_bytes();
            bytes <= PAGE_BYTES
        })
        .count()
}
