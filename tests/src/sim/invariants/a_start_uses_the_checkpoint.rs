//! A start uses the checkpoint of the index that is there.

/// A start whose disk works, after a checkpoint that nobody gave up, does not read all rows.
pub struct AStartUsesTheCheckpoint;

impl AStartUsesTheCheckpoint {
    /// The name of the invariant.
    pub const NAME: &'static str = "a start uses the checkpoint";

    /// A start said `report`; `is_there` says that it could have used a checkpoint.
    ///
    /// # Errors
    /// The report, if it read all rows nevertheless.
    pub fn read(is_there: bool, reads_all_rows: bool, report: String) -> Result<(), String> {
        if is_there && reads_all_rows { Err(report) } else { Ok(()) }
    }
}
