//! The B+tree below the index: entries by key, and how many live ones each subtree has.
//!
//! ```text
//!                      [ -: 3 live | m: 2 live ]              inner: children with a lower bound
//!                      /                       \
//!        [a  c(dead)  f  k]                 [m  p(dead)  z]    leaves: entries
//! ```
//!
//! The number of live keys below `n` is 3, without a look into the first leaf, and what is below `n`
//! in the second. All leaves have the same depth. A child's `low` is at most its smallest key and above
//! every key to its left; the first child of a node has none (its `low` is not looked at), because
//! its parent's holds for it. Nodes may be small; neighbours that became small are joined when
//! entries are removed, and empty nodes are unlinked at once.

use std::ops::{Bound, ControlFlow};

use super::bits::shared_len;
use super::entry::{Entry, Mark, NotNewer};
use super::inner::{Child, Grown, Inner};
use super::leaf::{Leaf, Retain};

/// Entries in the order of their keys.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    live: u64,
}

/// Why a row was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotNewer,
    NotLive,
}

/// Which keys a row may be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Any; a new key is inserted.
    Any,
    /// Those that exist now.
    Live,
}

/// A subtree.
#[derive(Debug)]
pub(super) enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

impl Tree {
    /// No entries.
    pub(super) fn new() -> Self {
        Self { root: Node::empty(), live: 0 }
    }

    /// Entries whose key exists now.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// The entry of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.entries()[at]),
                Node::Inner(inner) => node = inner.child_of(key),
            }
        }
    }

    /// The entry with the greatest key.
    pub(super) fn last(&self) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.entries().last(),
                Node::Inner(inner) => node = &inner.children().last()?.node,
            }
        }
    }

    /// Entries below `key` whose key exists now.
    pub(super) fn live_below(&self, key: &[u8]) -> u64 {
        let mut node = &self.root;
        let mut below = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return below + leaf.live_below(key),
                Node::Inner(inner) => {
                    below += inner.live_before_child_of(key);
                    node = inner.child_of(key);
                }
            }
        }
    }

    /// Adds the newest row of `key`, or says why not and changes nothing.
    pub(super) fn push(&mut self, key: &[u8], mark: Mark, target: Target) -> Result<(), Refusal> {
        let grown = self.root.push(key, mark, target)?;
        self.grow(grown);
        Ok(())
    }

    /// Adds an entry above all others, without a search. The caller has compared with [`Tree::last`].
    pub(super) fn append(&mut self, entry: Entry) {
        let grown = self.root.append(entry);
        self.grow(grown);
    }

    /// Calls `look` with the entries within `start` in order, a leaf at a time, until it breaks.
    pub(super) fn visit<'a>(
        &'a self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&'a [Entry]) -> ControlFlow<()>,
    ) {
        // A broken walk is not an error, and the caller knows of it.
        let _ = self.root.visit(start, look);
    }

    /// Looks at the entries within `start` in order and removes those for which `look` says so.
    /// Only dead keys may be removed, and none may change between dead and live. Returns whether
    /// `look` stopped it.
    pub(super) fn retain(
        &mut self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&mut Entry) -> Retain,
    ) -> bool {
        let stopped = self.root.retain(start, look);
        while let Node::Inner(inner) = &mut self.root
            && let Some(only) = inner.take_last_of_one()
        {
            self.root = only;
        }
        if self.root.is_empty() {
            self.root = Node::empty();
        }
        stopped
    }

    fn grow(&mut self, grown: Grown) {
        self.live = self.live.checked_add_signed(grown.live).expect("a live key was counted");
        let Some(right) = grown.split else { return };
        let left = std::mem::replace(&mut self.root, Node::empty());
        let left = Child { low: Box::default(), live: self.live - right.live, node: left };
        self.root = Node::Inner(Box::new(Inner::new(left, right)));
    }
}

impl Node {
    /// A leaf without entries.
    fn empty() -> Self {
        Node::Leaf(Box::new(Leaf::new()))
    }

    pub(super) fn push(
        &mut self,
        key: &[u8],
        mark: Mark,
        target: Target,
    ) -> Result<Grown, Refusal> {
        match self {
            Node::Leaf(leaf) => push_to_leaf(leaf, key, mark, target),
            Node::Inner(inner) => inner.push(key, mark, target),
        }
    }

    pub(super) fn append(&mut self, entry: Entry) -> Grown {
        match self {
            Node::Leaf(leaf) => insert_to_leaf(leaf, leaf.entries().len(), entry),
            Node::Inner(inner) => inner.append(entry),
        }
    }

    pub(super) fn visit<'a>(
        &'a self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&'a [Entry]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => look(&leaf.entries()[leaf.first_from(start)..]),
            Node::Inner(inner) => inner.visit(start, look),
        }
    }

    pub(super) fn retain(
        &mut self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&mut Entry) -> Retain,
    ) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.retain(start, look),
            Node::Inner(inner) => inner.retain(start, look),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.entries().is_empty(),
            Node::Inner(inner) => inner.children().is_empty(),
        }
    }

    /// Whether both together are small enough for one node that can grow again.
    pub(super) fn joins(&self, right: &Node) -> bool {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.joins(right),
            (Node::Inner(left), Node::Inner(right)) => left.joins(right),
            _ => unreachable!("neighbours have the same depth"),
        }
    }

    /// Takes over what is in the node to the right, whose lower bound is `low`.
    pub(super) fn join(&mut self, right: Node, low: Box<[u8]>) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.join(*right),
            (Node::Inner(left), Node::Inner(right)) => left.join(*right, low),
            _ => unreachable!("neighbours have the same depth"),
        }
    }
}

fn push_to_leaf(leaf: &mut Leaf, key: &[u8], mark: Mark, target: Target) -> Result<Grown, Refusal> {
    match leaf.find(key) {
        Ok(at) => {
            let entry = leaf.entry_mut(at);
            let was_live = entry.is_live();
            if target == Target::Live && !was_live {
                return Err(Refusal::NotLive);
            }
            entry.push(mark).map_err(|NotNewer| Refusal::NotNewer)?;
            let live = i64::from(entry.is_live()) - i64::from(was_live);
            Ok(Grown { live, split: None })
        }
        Err(_) if target == Target::Live => Err(Refusal::NotLive),
        Err(at) => Ok(insert_to_leaf(leaf, at, Entry::new(key, mark))),
    }
}

fn insert_to_leaf(leaf: &mut Leaf, at: usize, entry: Entry) -> Grown {
    let live = i64::from(entry.is_live());
    let split = leaf.insert(at, entry).map(|right| {
        let low = separator(leaf, &right);
        Child { low, live: right.live(), node: Node::Leaf(Box::new(right)) }
    });
    Grown { live, split }
}

/// The shortest key above all of `left` and at most the first of `right`.
fn separator(left: &Leaf, right: &Leaf) -> Box<[u8]> {
    let first = right.entries().first().map_or(&[][..], Entry::key);
    let last = left.entries().last().map_or(&[][..], Entry::key);
    first[..first.len().min(shared_len(first, last) + 1)].into()
}

#[cfg(test)]
impl Tree {
    /// Asserts what the top of this file says of the tree. Returns the number of entries.
    pub(super) fn check(&self) -> usize {
        let (live, entries, _) = self.root.check(None, None);
        assert_eq!(self.live, live);
        entries
    }

    /// How full the leaves are, of 1.
    pub(super) fn fill(&self) -> f64 {
        fn leaves(node: &Node) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Inner(inner) => {
                    inner.children().iter().map(|child| leaves(&child.node)).sum()
                }
            }
        }
        self.check() as f64 / (leaves(&self.root) * super::bits::FANOUT) as f64
    }
}

#[cfg(test)]
impl Node {
    /// The live keys, the entries, and the depth.
    pub(super) fn check(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> (u64, usize, usize) {
        match self {
            Node::Leaf(leaf) => {
                leaf.check();
                assert!(leaf.entries().is_sorted_by(|a, b| a.key() < b.key()));
                for entry in leaf.entries() {
                    assert!(low.is_none_or(|low| entry.key() >= low));
                    assert!(high.is_none_or(|high| entry.key() < high));
                }
                (leaf.live(), leaf.entries().len(), 1)
            }
            Node::Inner(inner) => inner.check(low, high),
        }
    }
}
