//! Who is to blame for an error of a member.

/// What the disk of a member did in its present life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blame {
    /// An operation on it failed.
    pub disk_failed: bool,
    /// It has no room for another segment. The log asks before it begins one, so the disk itself need
    /// not have refused anything.
    pub lacks_room: bool,
}

impl Blame {
    /// Lets an error pass that the disk is to blame for.
    ///
    /// # Errors
    /// Any other.
    pub fn excuses(self, error: &str) -> Result<(), String> {
        if self.disk_failed || self.lacks_room { Ok(()) } else { Err(error.to_owned()) }
    }
}
