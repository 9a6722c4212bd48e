//! Where a key is within a node, with a look at one of the node's keys.
//!
//! Keys are on the heap: a binary search waits for two cache misses at each of six comparisons. So a
//! node knows, of each key but the first, the *first bit that differs* from the key before it, and the
//! search uses those alone (D. Ferguson, *Bit-Tree*, 1992). A key is read as bits of ascending order:
//! for each byte a 1, then its eight bits, highest first; after the last byte zeros. Bit `i` of byte
//! `b` is number `16 b + i`, where `i = 0` is the 1 before it.
//!
//! ```text
//! keys     web-1    web-2    web-3    zoo
//! bits       -       71       72       5       web-1 and web-2: 16 * 4 + 7, the 2 in 0x31 and 0x32
//! ```
//!
//! At its bit, a key has 1 and the one before it has 0. A search for `x` goes through the bits: if `x`
//! has a 1 there, the key may be the one; if it has a 0, then neither that key nor the following ones that
//! share more with it (larger numbers) can be. The key that is left is `x`, or if `x` is not there, shares
//! at least as much with it as any other does. One comparison tells which, and the bit where they
//! differ tells the place of `x`.

use super::entry::Entry;

/// Keys of a full node: as many entries as a page holds, because an allocator gives whole pages back.
/// Small in unit tests, so that a few hundred keys make a deep tree.
pub(super) const FANOUT: usize = if cfg!(test) { 8 } else { 4096 / size_of::<Entry>() };

/// The longest key: the numbers of its bits have to fit. Requests are far below.
pub(super) const KEY_BYTES_MAX: usize = 1 << 27;

/// The bits that distinguish neighbours among a node's ascending keys.
///
/// The keys are not here; `key_at` gives them.
#[derive(Debug)]
pub(super) struct Bits {
    /// The first one is not used.
    bits: [u32; FANOUT],
    len: usize,
}

impl Bits {
    /// Those of no keys.
    pub(super) fn new() -> Self {
        Self { bits: [0; FANOUT], len: 0 }
    }

    /// Those of `len` keys.
    pub(super) fn of<'a>(len: usize, key_at: impl Fn(usize) -> &'a [u8]) -> Self {
        let mut bits = Self { bits: [0; FANOUT], len };
        for at in 1..len {
            bits.bits[at] = differ(key_at(at - 1), key_at(at));
        }
        bits
    }

    /// Where `key` is, or would be.
    pub(super) fn search<'a>(
        &self,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let bits = &self.bits[..self.len];
        if bits.is_empty() {
            return Err(0);
        }
        let nearest = self.nearest(key);
        let Some((differs, above)) = first_difference(key_at(nearest), key) else {
            return Ok(nearest);
        };
        // The keys around the nearest that agree with `key` up to there are all on one side of it.
        if above {
            let end = bits[nearest + 1..].iter().position(|bit| *bit < differs);
            Err(end.map_or(self.len, |end| nearest + 1 + end))
        } else {
            Err(bits[1..=nearest].iter().rposition(|bit| *bit < differs).map_or(0, |at| at + 1))
        }
    }

    /// Adds `key` at `at`; `key_at` still gives the keys without it.
    pub(super) fn insert<'a>(&mut self, at: usize, key: &[u8], key_at: impl Fn(usize) -> &'a [u8]) {
        self.bits.copy_within(at..self.len, at + 1);
        if at > 0 {
            self.bits[at] = differ(key_at(at - 1), key);
        }
        if at < self.len {
            self.bits[at + 1] = differ(key, key_at(at));
        }
        self.len += 1;
    }

    /// Forgets the keys from `at` on, and returns theirs.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let mut right = Self::new();
        right.len = self.len - at;
        right.bits[..right.len].copy_from_slice(&self.bits[at..self.len]);
        self.len = at;
        right
    }

    /// Forgets the keys at the positions that are true in `removed`.
    pub(super) fn remove(&mut self, removed: &[bool; FANOUT]) {
        let mut kept = 0;
        let mut least = u32::MAX;
        for (at, gone) in removed.iter().enumerate().take(self.len) {
            // Two keys differ where the first of the keys between them did.
            least = least.min(self.bits[at]);
            if !gone {
                self.bits[kept] = least;
                kept += 1;
                least = u32::MAX;
            }
        }
        self.len = kept;
    }

    /// The position of a key that shares as much with `key` as any other does. There is at least one.
    fn nearest(&self, key: &[u8]) -> usize {
        let bits = &self.bits[..self.len];
        let mut nearest = 0;
        let mut at = 1;
        while at < bits.len() {
            let bit = bits[at];
            if has_bit(key, bit) {
                nearest = at;
                at += 1;
            } else {
                at += 1;
                while at < bits.len() && bits[at] > bit {
                    at += 1;
                }
            }
        }
        nearest
    }

    /// Asserts that these are the bits of those keys.
    #[cfg(test)]
    pub(super) fn check<'a>(&self, len: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        assert_eq!(self.len, len);
        for at in 1..len {
            assert_eq!(self.bits[at], differ(key_at(at - 1), key_at(at)));
            assert!(key_at(at - 1) < key_at(at));
        }
    }
}

/// How many bytes `a` and `b` begin with together.
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    let (words_a, _) = a.as_chunks::<8>();
    let (words_b, _) = b.as_chunks::<8>();
    let words = words_a.iter().zip(words_b).take_while(|(a, b)| a == b).count();
    let shared = 8 * words;
    shared + a[shared..].iter().zip(&b[shared..]).take_while(|(a, b)| a == b).count()
}

/// Whether `key` has a 1 at bit number `bit`.
fn has_bit(key: &[u8], bit: u32) -> bool {
    // The byte with its 1 before it, as nine bits.
    let Some(byte) = key.get((bit >> 4) as usize) else { return false };
    (u32::from(*byte) | 0x100) >> (8 - (bit & 15)) & 1 == 1
}

/// The first bit where `key` differs from `from`, and whether `key` is the one above.
fn first_difference(from: &[u8], key: &[u8]) -> Option<(u32, bool)> {
    let byte = shared_len(from, key);
    let number = u32::try_from(16 * byte).expect("keys are shorter than KEY_BYTES_MAX");
    match (from.get(byte), key.get(byte)) {
        (None, None) => None,
        (None, Some(_)) => Some((number, true)),
        (Some(_), None) => Some((number, false)),
        (Some(a), Some(b)) => Some((number + 1 + (a ^ b).leading_zeros(), b > a)),
    }
}

/// The first bit where two different keys differ.
fn differ(a: &[u8], b: &[u8]) -> u32 {
    first_difference(a, b).expect("the keys of a node differ").0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_differ_where_the_example_says() {
        let keys: [&[u8]; 4] = [b"web-1", b"web-2", b"web-3", b"zoo"];
        assert_eq!(Bits::of(4, |at| keys[at]).bits[1..4], [71, 72, 5]);
    }

    proptest! {
        #[test]
        fn a_search_is_a_binary_search(
            keys in prop::collection::btree_set("[ab\0\u{ff}]{0,5}", 0..FANOUT),
            new in "[ab\0\u{ff}]{0,5}",
            removed in prop::collection::vec(any::<bool>(), FANOUT),
        ) {
            let mut keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let mut bits = Bits::of(keys.len(), |at| keys[at]);
            let expected = keys.binary_search(&new.as_bytes());
            prop_assert_eq!(bits.search(new.as_bytes(), |at| keys[at]), expected);
            if let Err(at) = expected {
                bits.insert(at, new.as_bytes(), |at| keys[at]);
                keys.insert(at, new.as_bytes());
                bits.check(keys.len(), |at| keys[at]);
            }
            bits.remove(removed[..].try_into().unwrap());
            let mut gone = removed.iter();
            keys.retain(|_| !gone.next().unwrap());
            bits.check(keys.len(), |at| keys[at]);
        }
    }
}
