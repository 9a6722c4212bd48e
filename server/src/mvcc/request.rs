//! What can be asked of the key space, and what comes of it.

use bytes::Bytes;

use super::Revision;

/// Keys in `[start, end)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where the range ends.
    pub end: RangeEnd,
}

/// The end of a [`KeyRange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// `start` alone.
    Single,
    /// All keys below this one; a range whose end is not above its start is empty.
    Before(Bytes),
    /// All keys from `start`.
    Unbounded,
}

impl KeyRange {
    /// Reads the API's form: an empty `range_end` is one key, `"\0"` is no end.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            b"" => RangeEnd::Single,
            b"\0" => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// One key.
    pub fn single(key: Bytes) -> Self {
        Self { start: key, end: RangeEnd::Single }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
            RangeEnd::Unbounded => key >= self.start.as_ref(),
        }
    }
}

/// A range read, without the revision at which it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which keys.
    pub keys: KeyRange,
    /// The most keys to return, after bounds and sort; 0 or less is no limit.
    pub limit: i64,
    /// The order; `None` is by key, ascending.
    pub sort: Option<Sort>,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Which versions to leave out.
    pub bounds: RevisionBounds,
}

/// The order of a range's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub target: SortTarget,
    /// Largest first.
    pub descending: bool,
    /// No order was asked for, only a target: etcd then takes the first `limit + 1` keys in key
    /// order before it sorts, unless revisions are bounded.
    pub limit_first: bool,
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The key's version.
    Version,
    /// Its create revision.
    Create,
    /// Its mod revision.
    Mod,
    /// Its value.
    Value,
}

/// Bounds on revisions of returned keys, inclusive; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the API's.
pub struct RevisionBounds {
    pub min_mod: i64,
    pub max_mod: i64,
    pub min_create: i64,
    pub max_create: i64,
}

impl RevisionBounds {
    /// Whether any bound is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a key with these revisions is within the bounds.
    pub fn admits(&self, mod_revision: i64, create_revision: i64) -> bool {
        (self.min_mod == 0 || mod_revision >= self.min_mod)
            && (self.max_mod == 0 || mod_revision <= self.max_mod)
            && (self.min_create == 0 || create_revision >= self.min_create)
            && (self.max_create == 0 || create_revision <= self.max_create)
    }
}

/// Write one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key, not empty.
    pub key: Bytes,
    /// The value; `None` keeps the present one (`ignore_value`).
    pub value: Option<Bytes>,
    /// The lease, 0 for none; `None` keeps the present one (`ignore_lease`).
    pub lease: Option<i64>,
    /// Whether the reply carries the previous version.
    pub prev_kv: bool,
}

/// Delete keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub keys: KeyRange,
    /// Whether the reply carries what was deleted.
    pub prev_kv: bool,
}

/// Compares, then one of two lists of operations, as one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compares: Vec<Compare>,
    /// Done if all compares hold.
    pub success: Vec<Op>,
    /// Done otherwise.
    pub failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The variants are the types they hold.
pub enum Op {
    /// A read; `revision` 0 or less is the state within the transaction.
    Range {
        query: RangeQuery,
        revision: i64,
    },
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
}

/// One condition on the state before the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Must hold for every key there is in here; an empty range is like a missing key.
    pub keys: KeyRange,
    /// The relation.
    pub result: CompareResult,
    /// What is compared with what.
    pub target: CompareTarget,
}

/// A relation between what is there (left) and what was given (right).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the API's.
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
    /// A number that means nothing: holds, whatever is there, as in etcd.
    Unknown,
}

/// What a [`Compare`] looks at, with the given side.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the API's.
pub enum CompareTarget {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Bytes),
    Lease(i64),
    /// A number that means nothing: both sides count as equal, as in etcd.
    Unknown,
}

/// What an applied request did: its revision, and what its reply needs to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// `header.revision` of the reply.
    pub revision: i64,
    /// What happened.
    pub outcome: Outcome,
}

/// The reply of one operation, with reads still to be done.
///
/// Values are not read in apply. The member that answers reads them afterwards, at the revisions
/// named here, which it keeps pinned until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A put. `prev` is the row of the previous version, if it was asked for and existed.
    Put {
        /// `header.revision` of this operation.
        revision: i64,
        /// Where the previous version is.
        prev: Option<Revision>,
    },
    /// A deletion of `deleted` keys. `prev` are their rows in key order, if they were asked for.
    DeleteRange {
        /// `header.revision` of this operation.
        revision: i64,
        /// How many keys were deleted.
        deleted: i64,
        /// Where the deleted versions are.
        prev: Vec<Revision>,
    },
    /// A range, to be read as of `at`, inclusive.
    Range {
        /// `header.revision` of this operation.
        revision: i64,
        /// The moment within or before the transaction at which it reads.
        at: Revision,
        /// What it reads.
        query: RangeQuery,
    },
    /// A transaction.
    Txn {
        /// `header.revision` if it is the outermost one.
        revision: i64,
        /// Whether all compares held.
        succeeded: bool,
        /// One outcome per operation done, in order.
        outcomes: Vec<Outcome>,
    },
}

/// Why a request changes nothing. Deterministic: every member decides the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MvccError {
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// The lease is not known.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The revision is below the compacted one.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision has not happened yet.
    #[error("required revision is a future revision")]
    FutureRevision,
}
