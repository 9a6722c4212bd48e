//! A running member ends only when the disk fails.

use super::{Blame, Ending};

/// A member that nobody asked to stop ends only because of what its disk did; and one that was asked
/// to stop does so in order, unless the disk prevents that.
pub struct EndsOnlyWhenTheDiskFails;

impl EndsOnlyWhenTheDiskFails {
    /// The name of the invariant.
    pub const NAME: &'static str = "ends only when the disk fails";

    /// A running member ended like this.
    ///
    /// # Errors
    /// It, if nobody but the member is to blame.
    pub fn failed(ending: &Ending, blame: &Blame) -> Result<(), String> {
        blame.excuses(ending)
    }
}
