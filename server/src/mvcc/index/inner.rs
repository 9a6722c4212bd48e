//! An inner node of the tree: children in the order of their keys, and how many live keys each has.

use std::ops::{Bound, ControlFlow};

use super::bits::{Bits, FANOUT};
use super::entry::{Entry, Mark};
use super::leaf::Retain;
use super::tree::{Node, Refusal, Target};

/// At least one child, but for a moment while entries are removed.
#[derive(Debug)]
pub(super) struct Inner {
    /// Those of the lower bounds of all children but the first.
    bits: Bits,
    children: Vec<Child>,
}

/// A subtree, as its parent sees it.
#[derive(Debug)]
pub(super) struct Child {
    /// At most the smallest key, and above every key to the left. Not looked at in a first child:
    /// its parent's holds for it.
    pub(super) low: Box<[u8]>,
    /// Entries whose key exists now.
    pub(super) live: u64,
    pub(super) node: Node,
}

/// What an insertion did to a subtree.
#[derive(Debug)]
pub(super) struct Grown {
    /// By how much its number of live keys changed.
    pub(super) live: i64,
    /// Its new right part.
    pub(super) split: Option<Child>,
}

impl Inner {
    /// A node of two children.
    pub(super) fn new(left: Child, right: Child) -> Self {
        let mut inner = Self { bits: Bits::new(), children: vec![left, right] };
        inner.rebuild();
        inner
    }

    /// The children, ascending.
    pub(super) fn children(&self) -> &[Child] {
        &self.children
    }

    /// The only child, if there is just one.
    pub(super) fn take_last_of_one(&mut self) -> Option<Node> {
        if self.children.len() > 1 {
            return None;
        }
        self.children.pop().map(|child| child.node)
    }

    /// The child that holds `key` if any does.
    pub(super) fn child_of(&self, key: &[u8]) -> &Node {
        &self.children[self.route(key)].node
    }

    /// The live keys of all children before the one that holds `key` if any does.
    pub(super) fn live_before_child_of(&self, key: &[u8]) -> u64 {
        self.children[..self.route(key)].iter().map(|child| child.live).sum()
    }

    /// As [`super::tree::Tree::push`], in this subtree; the parent takes in what it did.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        mark: Mark,
        target: Target,
    ) -> Result<Grown, Refusal> {
        let at = self.route(key);
        let grown = self.children[at].node.push(key, mark, target)?;
        Ok(self.adopt(at, grown))
    }

    /// As [`super::tree::Tree::append`], in this subtree.
    pub(super) fn append(&mut self, entry: Entry) -> Grown {
        let at = self.children.len() - 1;
        let grown = self.children[at].node.append(entry);
        self.adopt(at, grown)
    }

    /// As [`super::tree::Tree::visit`], in this subtree.
    pub(super) fn visit<'a>(
        &'a self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&'a [Entry]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let first = self.first_child(start);
        self.children[first].node.visit(start, look)?;
        let rest = &self.children[first + 1..];
        rest.iter().try_for_each(|child| child.node.visit(Bound::Unbounded, look))
    }

    /// As [`super::tree::Tree::retain`], in this subtree, which may be empty afterwards.
    pub(super) fn retain(
        &mut self,
        start: Bound<&[u8]>,
        look: &mut dyn FnMut(&mut Entry) -> Retain,
    ) -> bool {
        let first = self.first_child(start);
        let mut stopped = self.children[first].node.retain(start, look);
        for child in &mut self.children[first + 1..] {
            if stopped {
                break;
            }
            stopped = child.node.retain(Bound::Unbounded, look);
        }
        self.tidy(first);
        stopped
    }

    /// Whether both together are small enough for one node that can grow again.
    pub(super) fn joins(&self, right: &Inner) -> bool {
        self.children.len() + right.children.len() <= FANOUT / 2
    }

    /// Takes over the children of the node to the right, whose lower bound is `low`.
    pub(super) fn join(&mut self, mut right: Inner, low: Box<[u8]>) {
        right.children[0].low = low;
        self.children.append(&mut right.children);
        self.rebuild();
    }

    fn route(&self, key: &[u8]) -> usize {
        match self.bits.search(key, |at| self.low(at)) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// The lower bound of the child after the one at `at`: the first child's does not count.
    fn low(&self, at: usize) -> &[u8] {
        &self.children[at + 1].low
    }

    /// The child where a walk within `start` begins.
    fn first_child(&self, start: Bound<&[u8]>) -> usize {
        match start {
            Bound::Unbounded => 0,
            Bound::Included(key) | Bound::Excluded(key) => self.route(key),
        }
    }

    /// Takes in what became of the child at `at`, and splits if that is too much.
    fn adopt(&mut self, at: usize, grown: Grown) -> Grown {
        let live = grown.live;
        let child = &mut self.children[at];
        child.live = child.live.checked_add_signed(live).expect("a live key was counted");
        let Some(right) = grown.split else { return Grown { live, split: None } };
        child.live -= right.live;
        self.bits.insert(at, &right.low, |at| &self.children[at + 1].low);
        self.children.insert(at + 1, right);
        let split = (self.children.len() > FANOUT).then(|| self.split(at));
        Grown { live, split }
    }

    /// Gives away the right part, after the child at `at` was split.
    fn split(&mut self, at: usize) -> Child {
        // As in a leaf: what grows at its end leaves a full node behind.
        let ascending = at + 2 == self.children.len();
        let cut = if ascending { self.children.len() - 1 } else { self.children.len() / 2 };
        let mut moved = self.children.split_off(cut);
        let bits = self.bits.split_off(cut);
        // The bound of the first moved child becomes that of the new node.
        self.bits.split_off(cut - 1);
        let low = std::mem::take(&mut moved[0].low);
        let live = moved.iter().map(|child| child.live).sum();
        Child { low, live, node: Node::Inner(Box::new(Self { bits, children: moved })) }
    }

    /// Unlinks empty children and joins small neighbours, from the child before `first` on.
    fn tidy(&mut self, first: usize) {
        let before = self.children.len();
        self.children.retain(|child| !child.node.is_empty());
        let mut at = first.saturating_sub(1);
        while at + 1 < self.children.len() {
            if self.children[at].node.joins(&self.children[at + 1].node) {
                let right = self.children.remove(at + 1);
                let left = &mut self.children[at];
                left.live += right.live;
                left.node.join(right.node, right.low);
            } else {
                at += 1;
            }
        }
        if self.children.len() < before {
            self.rebuild();
        }
    }

    fn rebuild(&mut self) {
        self.bits = Bits::of(self.children.len().saturating_sub(1), |at| self.low(at));
    }

    /// Asserts the invariants of this subtree. Returns live keys, entries and depth.
    #[cfg(test)]
    pub(super) fn check(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> (u64, usize, usize) {
        assert!((1..=FANOUT).contains(&self.children.len()));
        self.bits.check(self.children.len() - 1, |at| self.low(at));
        let mut sum = (0, 0, 0);
        for (at, child) in self.children.iter().enumerate() {
            let low = if at == 0 { low } else { Some(&*child.low) };
            let high = self.children.get(at + 1).map_or(high, |next| Some(&*next.low));
            assert!(!child.node.is_empty());
            let (live, entries, depth) = child.node.check(low, high);
            assert_eq!(child.live, live);
            assert!(at == 0 || sum.2 == depth);
            sum = (sum.0 + live, sum.1 + entries, depth);
        }
        (sum.0, sum.1, sum.2 + 1)
    }
}
