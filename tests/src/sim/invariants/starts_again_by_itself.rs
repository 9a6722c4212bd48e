//! A member starts again by itself.

use super::{Blame, Ending};

/// Whatever ended a life, the next start leads and serves, unless the disk fails it or has no room.
pub struct StartsAgainByItself;

impl StartsAgainByItself {
    /// The name of the invariant.
    pub const NAME: &'static str = "starts again by itself";

    /// A start ended like this.
    ///
    /// # Errors
    /// It, if nobody but the member is to blame.
    pub fn failed(ending: &Ending, blame: &Blame) -> Result<(), String> {
        blame.excuses(ending)
    }

    /// A start went on and on.
    ///
    /// # Errors
    /// Always.
    pub fn hangs() -> Result<(), String> {
        Err("it does not lead".to_owned())
    }
}
