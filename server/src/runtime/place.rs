//! Where a member writes, and what room is left there.

use std::io;
use std::path::Path;
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
    /// What the log keeps at most although nobody needs it.
    kept_bytes: u64,
    told: Told,
}

/// Of which file systems it was said that they are almost full.
#[derive(Default)]
struct Told {
    data: bool,
    log: bool,
}

/// What is left on the file systems of a member.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of the keys.
    pub data: Space,
    /// Of the log; the same one unless `--wal-dir` says otherwise.
    pub log: Space,
    /// Whether writes that add have to be refused.
    pub is_low: bool,
    /// Whether there is so little that the log keeps nothing that is not needed. That comes first: nothing is
    /// refused for what can be given up.
    pub is_tight: bool,
}

impl Room {
    /// What there is; `log_is_short` if the log could not make its next segment ready when it last tried, and
    /// `kept_bytes` is what it keeps at most although nobody needs it.
    pub fn of(data: Space, log: Space, log_is_short: bool, kept_bytes: u64) -> Self {
        let is_low = data.is_low() || log.is_low() || log_is_short;
        let is_tight = is_low || log.free_bytes < log.low_bytes().saturating_add(kept_bytes);
        Self { data, log, is_low, is_tight }
    }
}

impl Place {
    pub(super) fn new(fs: SharedFs, data_dir: Arc<DataDir>, kept_bytes: u64) -> Self {
        Self { fs, data_dir, kept_bytes, told: Told::default() }
    }

    /// Looks what is left, and says when that begins or ceases to be too little.
    pub(super) fn look(&mut self, log_is_short: bool) -> io::Result<Room> {
        let data = self.fs.space(self.data_dir.path())?;
        let log = self.fs.space(self.data_dir.wal_dir())?;
        tell(&mut self.told.data, data.is_low(), self.data_dir.path(), data);
        // Said of the folder of the log only where that is another file system, or has another reason.
        let is_low = (log_is_short || log.is_low()) && !data.is_low();
        tell(&mut self.told.log, is_low, self.data_dir.wal_dir(), log);
        Ok(Room::of(data, log, log_is_short, self.kept_bytes))
    }
}

fn tell(was_low: &mut bool, is_low: bool, folder: &Path, space: Space) {
    if std::mem::replace(was_low, is_low) == is_low {
        return;
    }
    let (folder, free_bytes, low_bytes) = (folder.display(), space.free_bytes, space.low_bytes());
    if is_low {
        tracing::warn!(
            %folder,
            free_bytes,
            low_bytes,
            "the disk is almost full: writes that add are refused (NOSPACE)"
        );
    } else {
        tracing::info!(%folder, free_bytes, low_bytes, "the disk has room again");
    }
}

/// Says how much must be free for the next start, where it is not: `beside_bytes`, and where the log is a copy
/// of a segment.
pub fn say_what_to_free(setup: &Setup, request_bytes_max: usize, beside_bytes: u64) {
    for folder in std::iter::once(&setup.data_dir).chain(&setup.wal_dir) {
        // One that cannot be looked at has its own error.
        let Ok(space) = setup.fs.space(folder) else { continue };
        let holds_log = setup.wal_dir.as_ref().is_none_or(|wal_dir| wal_dir == folder);
        let needed_bytes = match holds_log {
            true => {
                let segment_bytes = setup.wal.segment_bytes_on(space);
                bytes_for_start(segment_bytes, request_bytes_max, beside_bytes)
            }
            false => beside_bytes,
        };
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
    use super::*;
    use crate::storage::data_dir::Expected;
    use crate::storage::tests::test_fs::TestFs;

    const KEPT_BYTES: u64 = 300 << 20;

    #[test]
    fn room_is_looked_at_where_the_keys_are_and_where_the_log_is() {
        let fs = TestFs::default();
        let [root, log] = ["/d", "/log"].map(Path::new);
        let data_dir = DataDir::open(fs.shared(), root, Some(log), Expected::default()).unwrap();
        let mut place = Place::new(fs.shared(), Arc::new(data_dir), KEPT_BYTES);
        let mut look = |keys_mib: u64, log_mib: u64, log_is_short| {
            fs.say_free_below(root, keys_mib << 20);
            fs.say_free_below(log, log_mib << 20);
            let room = place.look(log_is_short).unwrap();
            (room.is_low, room.is_tight)
        };
        // 512 MiB are few.
        assert_eq!(look(700, 900, false), (false, false));
        assert_eq!(look(500, 900, false), (true, true));
        assert_eq!(look(700, 500, false), (true, true));
        // Nothing is refused for segments that nobody needs.
        assert_eq!(look(700, 800, false), (false, true));
        // Space may be refused although there is some.
        assert_eq!(look(700, 900, true), (true, true));
    }
}
