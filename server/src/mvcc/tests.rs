//! The key space against a naive history. Random histories are in `view/tests`, because what was
//! written is seen through a view.

mod compaction;
pub(crate) mod model;
pub(crate) mod requests;
pub(crate) mod store;
mod txn;
