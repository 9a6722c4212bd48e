//! Where a member writes, and what room is left there.

use std::io;
use std::sync::Arc;

use super::Setup;
use crate::storage::data_dir::DataDir;
use crate::storage::fs::{SharedFs, Space};
use crate::storage::reserve::bytes_for_start;

/// The folders that a member writes to.
pub(super) struct Place {
    fs: SharedFs,
    /// Locked as long as this lives.
    data_dir: Arc<DataDir>,
    /// What the log takes at once.
    segment_bytes: u64,
    was_low: bool,
}

/// What is left on the file systems of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Of the keys.
    pub(super) data: Space,
    /// Of the log; the same one unless `--wal-dir` says otherwise.
    pub(super) log: Space,
    /// The log finds no room for its next segment.
    pub(super) log_is_short: bool,
}

impl Room {
    /// Whether writes that add are refused.
    pub(super) fn is_low(&self) -> bool {
        self.data.is_low() || self.log.is_low() || self.log_is_short
    }
}

impl Place {
    pub(super) fn new(fs: SharedFs, data_dir: Arc<DataDir>, segment_bytes: u64) -> Self {
        Self { fs, data_dir, segment_bytes, was_low: false }
    }

    /// Looks what is left, and says when that begins or ceases to be too little. `log_is_short` if the log
    /// could not make its next segment ready: that lasts until there is room for one, whether it has
    /// tried again or not.
    pub(super) fn look(&mut self, log_is_short: bool) -> io::Result<Room> {
        let data = self.fs.space(self.data_dir.path())?;
        let log = self.fs.space(self.data_dir.wal_dir())?;
        let log_is_short = log_is_short && log.free_bytes < self.segment_bytes + log.low_bytes();
        let room = Room { data, log, log_is_short };
        if std::mem::replace(&mut self.was_low, room.is_low()) != room.is_low() {
            self.report(&room);
        }
        Ok(room)
    }

    fn report(&self, room: &Room) {
        let folder =
            if room.data.is_low() { self.data_dir.path() } else { self.data_dir.wal_dir() };
        let Space { free_bytes, .. } = if room.data.is_low() { room.data } else { room.log };
        if room.is_low() {
            let low_bytes = if room.data.is_low() { room.data } else { room.log }.low_bytes();
            let segment_bytes = if room.log_is_short { self.segment_bytes } else { 0 };
            tracing::warn!(
                folder = %folder.display(),
                free_bytes,
                needed_bytes = low_bytes + segment_bytes,
                "the disk is almost full: writes that add are refused (NOSPACE)"
            );
        } else {
            tracing::info!(free_bytes, "the disk has room again");
        }
    }
}

/// Says how much must be free for the next start, where it is not: `beside_bytes`, and a copy of a segment of
/// the log.
pub fn say_what_to_free(setup: &Setup, request_bytes_max: usize, beside_bytes: u64) {
    for folder in std::iter::once(&setup.data_dir).chain(&setup.wal_dir) {
        // One that cannot be looked at has its own error.
        let Ok(space) = setup.fs.space(folder) else { continue };
        let segment_bytes = space.share_bytes(setup.wal.segment_bytes);
        let needed_bytes = bytes_for_start(segment_bytes, request_bytes_max, beside_bytes);
        if space.free_bytes < needed_bytes {
            tracing::error!(
                folder = %folder.display(),
                free_bytes = space.free_bytes,
                missing_bytes = needed_bytes - space.free_bytes,
                "the disk is full: free what is missing before the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::data_dir::Expected;
    use crate::storage::tests::test_fs::TestFs;

    const SEGMENT_BYTES: u64 = 64 << 20;

    /// Where 512 MiB are few.
    fn place(fs: &TestFs) -> (Place, [&'static Path; 2]) {
        let [root, log] = ["/d", "/log"].map(Path::new);
        let data_dir = DataDir::open(fs.shared(), root, Some(log), Expected::default()).unwrap();
        (Place::new(fs.shared(), Arc::new(data_dir), SEGMENT_BYTES), [root, log])
    }

    #[test]
    fn the_disk_is_low_where_the_keys_are_or_where_the_log_is() {
        let fs = TestFs::default();
        let (mut place, [root, log]) = place(&fs);
        let mut is_low = |keys_mib: u64, log_mib: u64| {
            fs.say_free_below(root, keys_mib << 20);
            fs.say_free_below(log, log_mib << 20);
            place.look(false).unwrap().is_low()
        };
        assert!(!is_low(700, 700));
        assert!(is_low(500, 700) && is_low(700, 500));
    }

    #[test]
    fn a_log_that_found_no_room_for_a_segment_is_short_until_there_is_room() {
        let fs = TestFs::default();
        let (mut place, [_, log]) = place(&fs);
        let mut is_low = |log_mib: u64, log_is_short: bool| {
            fs.say_free_below(log, log_mib << 20);
            place.look(log_is_short).unwrap().is_low()
        };
        assert!(!is_low(550, false), "its next segment is there already");
        assert!(is_low(550, true));
        assert!(!is_low(580, true), "it will find room when it tries again");
    }
}
