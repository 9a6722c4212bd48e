//! Intervals of keys by what they contain: a treap ordered by start, each node with the greatest end
//! below it.
//!
//! ```text
//!            [c, m)  to m          stab(d): the root holds it; left ends at d or before: skipped;
//!           /           \                   right starts behind d: skipped
//!     [a, d)  to d     [k, l)  to l
//! ```
//!
//! Priorities come from a counter that is mixed, so the same seed and calls build the same tree. Nobody
//! outside knows the seed: whoever knew the priorities could choose keys that make the tree a chain.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where an interval ends; `None` is behind every key.
type End = Option<Bytes>;

/// Intervals `[start, end)`, each once, with a value.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
    /// The last number that made a priority.
    number: u64,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    value: T,
    priority: u64,
    /// The greatest end in this subtree.
    reach: End,
    left: Link<T>,
    right: Link<T>,
}

impl<T: Copy> Intervals<T> {
    /// None yet. `seed` is a secret, drawn at the start of the process.
    pub(super) fn new(seed: u64) -> Self {
        Self { root: None, number: seed }
    }

    /// The value of exactly this interval.
    pub(super) fn get(&self, start: &[u8], end: Option<&[u8]>) -> Option<T> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match node.compare(start, end) {
                Ordering::Equal => return Some(node.value),
                Ordering::Greater => &node.left,
                Ordering::Less => &node.right,
            };
        }
        None
    }

    /// Adds an interval that is not there yet.
    pub(super) fn insert(&mut self, start: Bytes, end: End, value: T) {
        self.number = self.number.wrapping_add(1);
        let node = Box::new(Node {
            reach: end.clone(),
            priority: mix(self.number),
            start,
            end,
            value,
            left: None,
            right: None,
        });
        let (left, right) = split(self.root.take(), &node.start, node.end.as_deref());
        self.root = merge(merge(left, Some(node)), right);
    }

    /// Removes an interval that is there.
    pub(super) fn remove(&mut self, start: &[u8], end: Option<&[u8]>) {
        self.root = remove(self.root.take(), start, end);
    }

    /// Calls `found` with the value of each interval that contains `key`.
    pub(super) fn stab(&self, key: &[u8], found: &mut dyn FnMut(T)) {
        stab(&self.root, key, found);
    }
}

impl<T> Node<T> {
    fn compare(&self, start: &[u8], end: Option<&[u8]>) -> Ordering {
        let by_start = self.start.as_ref().cmp(start);
        by_start.then_with(|| compare_ends(self.end.as_deref(), end))
    }

    fn update(mut self: Box<Self>) -> Box<Self> {
        let mut reach = &self.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            if compare_ends(child.reach.as_deref(), reach.as_deref()).is_gt() {
                reach = &child.reach;
            }
        }
        self.reach = reach.clone();
        self
    }
}

fn compare_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn is_before(key: &[u8], end: &End) -> bool {
    end.as_deref().is_none_or(|end| key < end)
}

/// What is ordered before the interval, and the rest.
fn split<T>(link: Link<T>, start: &[u8], end: Option<&[u8]>) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.compare(start, end).is_lt() {
        let (left, right) = split(node.right.take(), start, end);
        node.right = left;
        (Some(node.update()), right)
    } else {
        let (left, right) = split(node.left.take(), start, end);
        node.left = right;
        (left, Some(node.update()))
    }
}

/// Joins two trees of which the first is ordered before the second.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, link) | (link, None) => link,
        (Some(mut left), Some(mut right)) => Some(if left.priority >= right.priority {
            left.right = merge(left.right.take(), Some(right));
            left.update()
        } else {
            right.left = merge(Some(left), right.left.take());
            right.update()
        }),
    }
}

fn remove<T>(link: Link<T>, start: &[u8], end: Option<&[u8]>) -> Link<T> {
    let mut node = link?;
    match node.compare(start, end) {
        Ordering::Equal => return merge(node.left.take(), node.right.take()),
        Ordering::Greater => node.left = remove(node.left.take(), start, end),
        Ordering::Less => node.right = remove(node.right.take(), start, end),
    }
    Some(node.update())
}

fn stab<T: Copy>(link: &Link<T>, key: &[u8], found: &mut dyn FnMut(T)) {
    let Some(node) = link else { return };
    if !is_before(key, &node.reach) {
        return;
    }
    stab(&node.left, key, found);
    if node.start.as_ref() <= key {
        if is_before(key, &node.end) {
            found(node.value);
        }
        stab(&node.right, key, found);
    }
}

/// Spreads a counter over all 64 bits (the finalizer of SplitMix64).
fn mix(counter: u64) -> u64 {
    let mut word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn depth<T>(link: &Link<T>) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    #[test]
    fn keys_chosen_against_another_seed_make_no_chain() {
        let depth_with = |seed| {
            let mut tree = Intervals::new(seed);
            // In the order of their priorities, if the seed is 0.
            for at in 1..=500_u64 {
                tree.insert(Bytes::copy_from_slice(&mix(at).to_be_bytes()), None, at);
            }
            depth(&tree.root)
        };
        assert_eq!(depth_with(0), 500);
        assert!(depth_with(0x5eed) < 50, "{}", depth_with(0x5eed));
    }

    fn key(n: u8) -> Bytes {
        Bytes::from(vec![b'a' + n % 16])
    }

    proptest! {
        #[test]
        fn a_key_is_found_by_exactly_the_intervals_that_contain_it(
            steps in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<u8>()), 1..80)
        ) {
            let mut tree = Intervals::new(1);
            let mut plain: Vec<(Bytes, End, usize)> = Vec::new();
            for (number, (adds, a, b)) in steps.into_iter().enumerate() {
                let start = key(a);
                let end = (b % 5 != 0).then(|| key(b));
                let place = plain.iter().position(|(s, e, _)| (s, e) == (&start, &end));
                prop_assert_eq!(
                    tree.get(&start, end.as_deref()),
                    place.map(|place| plain[place].2)
                );
                match (adds, place) {
                    (true, None) => {
                        tree.insert(start.clone(), end.clone(), number);
                        plain.push((start, end, number));
                    }
                    (false, Some(place)) => {
                        tree.remove(&start, end.as_deref());
                        plain.remove(place);
                    }
                    _ => {}
                }
                for n in 0..16 {
                    let key = key(n);
                    let mut found = Vec::new();
                    tree.stab(&key, &mut |value| found.push(value));
                    found.sort_unstable();
                    let inside = |(s, e, _): &&(Bytes, End, usize)| *s <= key && is_before(&key, e);
                    let mut expected: Vec<usize> =
                        plain.iter().filter(inside).map(|(_, _, value)| *value).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
