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

use super::entry::{Entry, Mark, NotNewer};
use super::leaf::{Leaf, Retain};

/// Children of a full inner node.
const CHILDREN_MAX: usize = if cfg!(test) { 4 } else { 64 };

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

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Vec<Child>),
}

#[derive(Debug)]
struct Child {
    low: Box<[u8]>,
    live: u64,
    node: Node,
}

/// What an insertion did to a subtree.
struct Grown {
    /// By how much its number of live keys changed.
    live: i64,
    /// Its new right part.
    split: Option<Child>,
}

impl Tree {
    /// No entries.
    pub(super) fn new() -> Self {
        Self { root: Node::Leaf(Leaf::default()), live: 0 }
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
                Node::Inner(children) => node = &children[route(children, key)].node,
            }
        }
    }

    /// The entry with the greatest key.
    pub(super) fn last(&self) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.entries().last(),
                Node::Inner(children) => node = &children.last()?.node,
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
                Node::Inner(children) => {
                    let at = route(children, key);
                    below += children[..at].iter().map(|child| child.live).sum::<u64>();
                    node = &children[at].node;
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

    /// Calls `look` with the entries within `start` in order, until it breaks.
    pub(super) fn visit<'a>(
        &'a self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&'a Entry) -> ControlFlow<()>,
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
        while let Node::Inner(children) = &mut self.root {
            if children.len() > 1 {
                break;
            }
            let only = children.pop().map(|child| child.node);
            self.root = only.unwrap_or_else(|| Node::Leaf(Leaf::default()));
        }
        stopped
    }

    fn grow(&mut self, grown: Grown) {
        self.live = self.live.checked_add_signed(grown.live).expect("a live key was counted");
        let Some(right) = grown.split else { return };
        let left = std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(2)));
        let left = Child { low: Box::default(), live: self.live - right.live, node: left };
        self.root = Node::Inner(vec![left, right]);
    }
}

impl Node {
    fn push(&mut self, key: &[u8], mark: Mark, target: Target) -> Result<Grown, Refusal> {
        match self {
            Node::Leaf(leaf) => push_to_leaf(leaf, key, mark, target),
            Node::Inner(children) => {
                let at = route(children, key);
                let grown = children[at].node.push(key, mark, target)?;
                Ok(adopt(children, at, grown))
            }
        }
    }

    fn append(&mut self, entry: Entry) -> Grown {
        match self {
            Node::Leaf(leaf) => insert_to_leaf(leaf, leaf.entries().len(), entry),
            Node::Inner(children) => {
                let at = children.len() - 1;
                let grown = children[at].node.append(entry);
                adopt(children, at, grown)
            }
        }
    }

    fn visit<'a>(
        &'a self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&'a Entry) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => leaf.entries()[leaf.first_from(start)..].iter().try_for_each(look),
            Node::Inner(children) => {
                let first = first_child(children, start);
                children[first].node.visit(start, look)?;
                children[first + 1..]
                    .iter()
                    .try_for_each(|child| child.node.visit(Bound::Unbounded, look))
            }
        }
    }

    fn retain(&mut self, start: Bound<&[u8]>, look: &mut dyn FnMut(&mut Entry) -> Retain) -> bool {
        let children = match self {
            Node::Leaf(leaf) => return leaf.retain(start, look),
            Node::Inner(children) => children,
        };
        let first = first_child(children, start);
        let mut start = start;
        let mut stopped = false;
        let mut at = first;
        while at < children.len() && !stopped {
            stopped = children[at].node.retain(start, look);
            start = Bound::Unbounded;
            at += 1;
        }
        tidy(children, first);
        stopped
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.entries().is_empty(),
            Node::Inner(children) => children.is_empty(),
        }
    }

    fn joins(&self, right: &Node) -> bool {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.joins(right),
            (Node::Inner(left), Node::Inner(right)) => left.len() + right.len() <= CHILDREN_MAX / 2,
            _ => unreachable!("neighbours have the same depth"),
        }
    }
}

/// The child that holds `key` if any does.
fn route(children: &[Child], key: &[u8]) -> usize {
    children[1..].partition_point(|child| *child.low <= *key)
}

/// The child where a walk within `start` begins.
fn first_child(children: &[Child], start: Bound<&[u8]>) -> usize {
    match start {
        Bound::Unbounded => 0,
        Bound::Included(key) | Bound::Excluded(key) => route(children, key),
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
        Child { low, live: right.live(), node: Node::Leaf(right) }
    });
    Grown { live, split }
}

/// The shortest key above all of `left` and at most the first of `right`.
fn separator(left: &Leaf, right: &Leaf) -> Box<[u8]> {
    let first = right.entries().first().map_or(&[][..], Entry::key);
    let last = left.entries().last().map_or(&[][..], Entry::key);
    let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    first[..first.len().min(shared + 1)].into()
}

/// Takes what became of the child at `at` into its node, and splits the node if that is too much.
fn adopt(children: &mut Vec<Child>, at: usize, grown: Grown) -> Grown {
    let live = grown.live;
    let child = &mut children[at];
    child.live = child.live.checked_add_signed(live).expect("a live key was counted");
    let Some(right) = grown.split else { return Grown { live, split: None } };
    child.live -= right.live;
    children.insert(at + 1, right);
    if children.len() <= CHILDREN_MAX {
        return Grown { live, split: None };
    }
    // As in a leaf: what grows at its end leaves a full node behind.
    let ascending = at + 2 == children.len();
    let cut = if ascending { children.len() - 1 } else { children.len() / 2 };
    let mut moved = children.split_off(cut);
    let low = std::mem::take(&mut moved[0].low);
    let moved_live = moved.iter().map(|child| child.live).sum();
    Grown { live, split: Some(Child { low, live: moved_live, node: Node::Inner(moved) }) }
}

/// Unlinks empty children and joins small neighbours, from the child before `first` on.
fn tidy(children: &mut Vec<Child>, first: usize) {
    children.retain(|child| !child.node.is_empty());
    let mut at = first.saturating_sub(1);
    while at + 1 < children.len() {
        if children[at].node.joins(&children[at + 1].node) {
            let right = children.remove(at + 1);
            join(&mut children[at], right);
        } else {
            at += 1;
        }
    }
}

fn join(left: &mut Child, mut right: Child) {
    left.live += right.live;
    match (&mut left.node, &mut right.node) {
        (Node::Leaf(left), Node::Leaf(right)) => left.join(std::mem::take(right)),
        (Node::Inner(left), Node::Inner(moved)) => {
            moved[0].low = right.low;
            left.append(moved);
        }
        _ => unreachable!("neighbours have the same depth"),
    }
}

#[cfg(test)]
impl Tree {
    /// Asserts what the top of this file says of the tree. Returns the number of entries.
    pub(super) fn check(&self) -> usize {
        let (live, entries, _) = self.root.check(None, None);
        assert_eq!(self.live, live);
        entries
    }
}

#[cfg(test)]
impl Node {
    fn check(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> (u64, usize, usize) {
        match self {
            Node::Leaf(leaf) => {
                assert!(leaf.entries().len() <= super::leaf::LEAF_MAX);
                assert!(leaf.entries().is_sorted_by(|a, b| a.key() < b.key()));
                for entry in leaf.entries() {
                    assert!(low.is_none_or(|low| entry.key() >= low));
                    assert!(high.is_none_or(|high| entry.key() < high));
                }
                (leaf.live(), leaf.entries().len(), 1)
            }
            Node::Inner(children) => {
                assert!((1..=CHILDREN_MAX).contains(&children.len()));
                let mut sum = (0, 0, 0);
                for (at, child) in children.iter().enumerate() {
                    let low = if at == 0 { low } else { Some(&*child.low) };
                    let high = children.get(at + 1).map_or(high, |next| Some(&*next.low));
                    assert!(!child.node.is_empty());
                    let (live, entries, depth) = child.node.check(low, high);
                    assert_eq!(child.live, live);
                    assert!(at == 0 || sum.2 == depth);
                    sum = (sum.0 + live, sum.1 + entries, depth);
                }
                (sum.0, sum.1, sum.2 + 1)
            }
        }
    }
}
