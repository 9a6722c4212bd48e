//! The sizes that a member tells are those of its rows.

use quorate_server::mvcc::Sizes;

/// All rows that a member holds cost what it says is in use, and at most what waits for deletion more.
pub struct SizesAreThoseOfTheRows;

impl SizesAreThoseOfTheRows {
    /// The name of the invariant.
    pub const NAME: &'static str = "sizes are those of the rows";

    /// A member says `sizes`, and the rows found at it cost `rows_bytes`. While a compaction is not
    /// done, rows in use may be gone: a start does again what was deleted before.
    ///
    /// # Errors
    /// Both.
    pub fn says(sizes: Sizes, rows_bytes: u64, is_done: bool) -> Result<(), String> {
        // What a flush has just deleted may still be counted as waiting for it.
        let is_enough = !is_done || rows_bytes >= sizes.in_use_bytes;
        if is_enough && rows_bytes <= sizes.total_bytes {
            return Ok(());
        }
        Err(format!("{sizes:?}, and the rows are {rows_bytes} bytes"))
    }
}
