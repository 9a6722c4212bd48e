//! Revisions and the keys of their rows.

use std::fmt;

/// The moment of one change: `main` names the entry that made it, `sub` the change within it.
///
/// Ordered first by `main`, then by `sub`, like the row keys that encode it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The revision that clients see, from 1 for an empty store.
    pub main: i64,
    /// Position within the transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision `(main, sub)`.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The last revision that `main` can hold: an upper bound for reads at `main`.
    pub const fn end_of(main: i64) -> Self {
        Self { main, sub: i64::MAX }
    }

    /// Where to read on behind a row at this revision.
    ///
    /// Behind the last `sub` that there can be comes the next `main`; behind the last of all, nothing: it
    /// stays.
    pub const fn next(self) -> Self {
        match (self.sub.checked_add(1), self.main.checked_add(1)) {
            (Some(sub), _) => Self { main: self.main, sub },
            (None, Some(main)) => Self { main, sub: 0 },
            (None, None) => self,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// The key of a stored row: 8 bytes of big-endian main, `_`, 8 bytes of sub, and `t` for a tombstone.
///
/// The same bytes as etcd's, because `HashKV` covers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    bytes: [u8; RowKey::LEN_MAX],
    tombstone: bool,
}

impl RowKey {
    /// Length of the key of a tombstone, in bytes.
    pub const LEN_MAX: usize = 18;
    /// Length of the key of a put, in bytes.
    pub const LEN_PUT: usize = 17;

    /// The key of the row at `revision`.
    pub fn new(revision: Revision, tombstone: bool) -> Self {
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&revision.sub.to_be_bytes());
        if tombstone {
            bytes[17] = b't';
        }
        Self { bytes, tombstone }
    }

    /// Reads a key back from its bytes; `None` if they are not one that was ever written: no part of a
    /// revision is negative, and behind each `sub` there is another.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let tombstone = match bytes.len() {
            Self::LEN_PUT => false,
            Self::LEN_MAX if bytes[17] == b't' => true,
            _ => return None,
        };
        if bytes[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(bytes[9..17].try_into().ok()?);
        if main < 0 || !(0..i64::MAX).contains(&sub) {
            return None;
        }
        Some(Self::new(Revision::new(main, sub), tombstone))
    }

    /// The encoded bytes: 17 for a put, 18 for a tombstone.
    pub fn as_bytes(&self) -> &[u8] {
        if self.tombstone { &self.bytes } else { &self.bytes[..Self::LEN_PUT] }
    }

    /// The revision that the key names.
    pub fn revision(&self) -> Revision {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[..8]);
        let main = i64::from_be_bytes(word);
        word.copy_from_slice(&self.bytes[9..17]);
        Revision::new(main, i64::from_be_bytes(word))
    }

    /// Whether the row records a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.revision(), if self.tombstone { "t" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_sort_like_revisions_and_read_back() {
        let revisions = [(0, 0), (1, 0), (1, 1), (2, 0), (256, 0), (i64::MAX, 7)];
        let keys: Vec<RowKey> = revisions
            .iter()
            .map(|&(main, sub)| RowKey::new(Revision::new(main, sub), false))
            .collect();
        assert!(keys.windows(2).all(|pair| pair[0].as_bytes() < pair[1].as_bytes()));
        for key in keys {
            assert_eq!(RowKey::decode(key.as_bytes()), Some(key));
            let tombstone = RowKey::new(key.revision(), true);
            assert_eq!(RowKey::decode(tombstone.as_bytes()), Some(tombstone));
            assert!(tombstone.as_bytes() > key.as_bytes());
        }
        assert_eq!(RowKey::decode(b"short"), None);
    }

    #[test]
    fn the_next_revision_is_the_smallest_above_and_never_overflows() {
        let cases = [
            ((7, 0), (7, 1)),
            ((7, i64::MAX - 1), (7, i64::MAX)),
            ((7, i64::MAX), (8, 0)),
            ((i64::MAX, 0), (i64::MAX, 1)),
            ((i64::MAX, i64::MAX), (i64::MAX, i64::MAX)),
        ];
        for ((main, sub), (next_main, next_sub)) in cases {
            assert_eq!(Revision::new(main, sub).next(), Revision::new(next_main, next_sub));
        }
    }

    #[test]
    fn a_key_that_nobody_can_have_written_is_refused() {
        let impossible =
            [(-1, 0), (2, -1), (i64::MIN, i64::MIN), (2, i64::MAX), (i64::MAX, i64::MAX)];
        for (main, sub) in impossible {
            for tombstone in [false, true] {
                let key = RowKey::new(Revision::new(main, sub), tombstone);
                assert_eq!(RowKey::decode(key.as_bytes()), None, "{key:?}");
            }
        }
        let last = RowKey::new(Revision::new(i64::MAX, i64::MAX - 1), true);
        assert_eq!(RowKey::decode(last.as_bytes()), Some(last));
    }
}
