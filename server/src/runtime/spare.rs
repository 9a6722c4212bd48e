//! Space set aside on each file system that a member writes to, as far as it can be had.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::RunError;
use crate::storage::fs::SharedFs;
use crate::storage::reserve::Reserve;

/// The reserve files.
pub struct SpareSpace {
    reserves: Vec<Reserve>,
}

impl SpareSpace {
    /// Reserves of `bytes` each. One that cannot be looked at is done without.
    pub(super) fn open<'a>(
        fs: &SharedFs,
        paths: impl IntoIterator<Item = &'a Path>,
        bytes: u64,
    ) -> Self {
        let open = |path: &Path| match Reserve::open(fs.clone(), path, bytes) {
            Ok(reserve) => Some(reserve),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot look at the reserve file");
                None
            }
        };
        Self { reserves: paths.into_iter().filter_map(open).collect() }
    }

    /// Sets the space aside as soon as there is plenty, looking every `interval` until `ended` has no
    /// other end any more.
    pub(super) fn keep_aside(&mut self, ended: &Receiver<()>, interval: Duration) {
        if self.set_aside() {
            return;
        }
        tracing::warn!(
            "too little of the disk is free to set space aside for the day it is full: a full disk may end \
             this member before NOSPACE is raised"
        );
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) && !self.set_aside() {}
    }

    /// Sets the space aside where there is plenty; whether nothing is left to do.
    pub fn set_aside(&mut self) -> bool {
        let mut is_done = true;
        for reserve in &mut self.reserves {
            is_done &= reserve.restore().unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot set space aside for the day the disk is full");
                false
            });
        }
        is_done
    }

    /// Gives the space up if the member ended because a disk is full: the next start needs room.
    pub fn ended(&mut self, result: &Result<(), RunError>) {
        if !matches!(result, Err(error) if error.is_storage_full()) {
            return;
        }
        for reserve in &mut self.reserves {
            let released = reserve.release();
            let path = reserve.path().display();
            match released {
                Ok(true) => {
                    tracing::warn!(%path, "the disk is full: gave up the reserve for the next start");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%path, %error, "the disk is full and the reserve is stuck")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;

    use super::*;
    use crate::storage::tests::test_fs::TestFs;

    const RESERVES: [&str; 2] = ["d/reserve", "d/log/reserve"];

    fn spare(fs: &TestFs) -> SpareSpace {
        SpareSpace::open(&fs.shared(), RESERVES.map(Path::new), 1024)
    }

    #[test]
    fn the_reserve_is_set_aside_once_there_is_room() {
        let fs = TestFs::recording("d");
        fs.shared().create_dir_all("d/log".as_ref()).unwrap();
        fs.say_free(3071);
        let mut reserve = spare(&fs);
        let (running, ended) = mpsc::channel();
        let looked = fs.calls();
        let reserving = std::thread::spawn(move || {
            reserve.keep_aside(&ended, Duration::from_millis(1));
        });
        while fs.calls() < looked + 6 {
            std::thread::yield_now();
        }
        assert_eq!(fs.file(&PathBuf::from(RESERVES[0])), None);
        fs.say_free(3072);
        reserving.join().unwrap();
        for path in RESERVES {
            assert_eq!(fs.bytes(Path::new(path)).len(), 1024);
        }
        drop(running);
    }

    #[test]
    fn nobody_waits_for_the_reserve_of_a_member_that_ends() {
        let fs = TestFs::recording("d");
        fs.say_free(0);
        let (running, ended) = mpsc::channel();
        drop(running);
        spare(&fs).keep_aside(&ended, Duration::MAX);
    }

    #[test]
    fn a_full_disk_gets_all_of_the_reserve_and_no_other_end_does() {
        let fs = TestFs::recording("d");
        fs.shared().create_dir_all("d/log".as_ref()).unwrap();
        let mut reserve = spare(&fs);
        assert!(reserve.set_aside());
        reserve.ended(&Err(RunError::Failed(String::new())));
        reserve.ended(&Ok(()));
        let held = || RESERVES.map(|path| fs.file(Path::new(path)).is_some());
        assert_eq!(held(), [true, true]);
        reserve.ended(&Err(RunError::DiskFull(String::new())));
        assert_eq!(held(), [false, false]);
    }
}
