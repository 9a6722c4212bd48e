//! Where a key is within a node, without a look at most of the node's keys.
//!
//! Keys are on the heap, and each one that a search compares with costs two cache misses. So a node
//! knows the prefix that all its keys share, and the four bytes after it of each key: its *head*.
//!
//! ```text
//! keys    /pods/a/web-0017   /pods/a/web-0018   /pods/a/web-1733
//! prefix  /pods/a/web-
//! heads                0017               0018              1733
//! ```
//!
//! A key without the prefix is below or above all others. Otherwise only keys with its head have to be
//! compared, mostly one. The order of heads is that of their keys, as far as four bytes (a key that
//! ends before is filled up with zeros) tell.

use std::ops::Range;

/// Keys of a full node. Small in unit tests, so that a few hundred keys make a deep tree.
pub(super) const FANOUT: usize = if cfg!(test) { 8 } else { 64 };

/// The shared prefix and the heads of a node's keys.
#[derive(Debug)]
pub(super) struct Heads {
    /// Every key of the node begins with it. It may be shorter than it could be.
    prefix: Box<[u8]>,
    heads: [u32; FANOUT],
    len: usize,
}

impl Heads {
    /// Those of no keys.
    pub(super) fn new() -> Self {
        Self { prefix: Box::default(), heads: [0; FANOUT], len: 0 }
    }

    /// Those of `len` ascending keys, of which `key_at` gives each.
    pub(super) fn rebuild<'a>(&mut self, len: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        self.len = len;
        if len == 0 {
            return;
        }
        // What the first and the last share, all in between share too.
        let first = key_at(0);
        let prefix = &first[..shared_len(first, key_at(len - 1))];
        if *self.prefix != *prefix {
            self.prefix = prefix.into();
        }
        for (at, head) in self.heads[..len].iter_mut().enumerate() {
            *head = head_of(&key_at(at)[prefix.len()..]);
        }
    }

    /// The keys that may equal `key`. All before the range are below it, all after it are above.
    pub(super) fn candidates(&self, key: &[u8]) -> Range<usize> {
        let begin = &key[..key.len().min(self.prefix.len())];
        match begin.cmp(&self.prefix) {
            std::cmp::Ordering::Less => 0..0,
            std::cmp::Ordering::Greater => self.len..self.len,
            std::cmp::Ordering::Equal => {
                let head = head_of(&key[self.prefix.len()..]);
                let heads = &self.heads[..self.len];
                let first = heads.partition_point(|other| *other < head);
                let equal = heads[first..].iter().take_while(|other| **other == head).count();
                first..first + equal
            }
        }
    }

    /// Adds the key at `at`. False, and nothing is changed, if it has not the prefix, or is the first
    /// key and should give one: rebuild then.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) -> bool {
        if self.len == 0 {
            return false;
        }
        let Some(rest) = key.strip_prefix(&*self.prefix) else { return false };
        self.heads.copy_within(at..self.len, at + 1);
        self.heads[at] = head_of(rest);
        self.len += 1;
        true
    }

    /// Forgets the keys for which `keep` is false; it is called with each position once, ascending.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            if keep(at) {
                self.heads[kept] = self.heads[at];
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Asserts that these are the heads of those keys.
    #[cfg(test)]
    pub(super) fn check<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>) {
        assert_eq!(self.len, keys.len());
        for (key, head) in keys.zip(self.heads) {
            let rest = key.strip_prefix(&*self.prefix).expect("all keys have the prefix");
            assert_eq!(head_of(rest), head);
        }
    }
}

/// How many bytes `a` and `b` begin with together.
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn head_of(rest: &[u8]) -> u32 {
    if let Some(head) = rest.first_chunk() {
        return u32::from_be_bytes(*head);
    }
    let mut head = [0; 4];
    head[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(head)
}
