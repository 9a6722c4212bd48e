//! The key space: what each key held at each revision. Pure.
//!
//! A *revision* is `(main, sub)`: `main` counts the entries that changed something, `sub` the changes
//! within one entry. Every change writes one immutable *row* at its revision; a key is the history of
//! its rows. The [`KeySpace`] holds the key index (which revisions a key has) and the recent window
//! (the newest rows); older rows are behind the [`Rows`] trait.
//!
//! ```text
//! put a=1        (2,0) -> a=1          index: a -> [(2,0)]
//! txn a=2, b=1   (3,0) -> a=2          index: a -> [(2,0), (3,0)]
//!                (3,1) -> b=1                 b -> [(3,1)]
//! del a          (4,0)t -> a           index: a -> [(2,0), (3,0), (4,0)t]
//! compact 3                            index: a -> [(3,0), (4,0)t]        row (2,0) deleted
//! ```

mod compaction;
mod compare;
pub(crate) mod index;
mod key_space;
mod request;
mod restore;
mod revision;
mod rows;
pub(crate) mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod txn;
mod window;
mod writes;

pub use index::CheckpointError;
pub use key_space::{Attachment, Counts, KeySpace, Limits, Sizes, Unflushed};
pub use request::{
    Applied, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, MvccError, Op, Outcome,
    Put, RangeEnd, RangeQuery, RevisionBounds, Sort, SortTarget, Txn,
};
pub use restore::{DamagedRow, Restorer, Standing};
pub use revision::{Revision, RowKey};
pub use rows::{Row, Rows, RowsError, ScanBounds};
pub use window::Evicted;
