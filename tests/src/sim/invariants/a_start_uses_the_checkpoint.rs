//! A start uses the checkpoint of the index that is there.

use quorate_server::runtime::Report;

use super::Blame;

/// A start whose disk works, after a checkpoint that nobody gave up, does not read all rows. Nobody but the
/// member touches the files of checkpoints, so it rejects one only if the disk failed it in this very start.
pub struct AStartUsesTheCheckpoint;

impl AStartUsesTheCheckpoint {
    /// The name of the invariant.
    pub const NAME: &'static str = "a start uses the checkpoint";

    /// A start said `report`, in which the disk did what `blame` says; `is_there` says that it could have
    /// used a checkpoint. Once one was written, no crash is reason enough to read all rows, also not in the
    /// middle of a compaction.
    ///
    /// # Errors
    /// A checkpoint that was rejected for no fault of the disk; the report, if it read all rows although no
    /// checkpoint was rejected.
    pub fn read(is_there: bool, report: &Report, blame: &Blame) -> Result<(), String> {
        let rejected = &report.rejected_checkpoints;
        if let Some(reason) = rejected.iter().find(|reason| !blame.was_met(reason)) {
            return Err(format!("rejected, and not because of the disk: {reason}"));
        }
        let reads_all_rows = report.checkpoint_revision == 0 && rejected.is_empty();
        if is_there && reads_all_rows { Err(format!("{report:?}")) } else { Ok(()) }
    }
}
