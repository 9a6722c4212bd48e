//! Panics inside redb, told from our own.
//!
//! redb believes the pages that it reads. Where an offset in one of them was changed it may panic, and what ends
//! the process then is not a broken invariant of ours but a damaged file. So whoever calls redb says first, by
//! `enter`, which file it is about, and the process asks in its hook, by [`of_file`], whether a panic is of
//! that kind. Nothing is caught: the process ends either way, with the reason that is true.

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::is_part;
use crate::storage::data_dir::exit;

thread_local! {
    /// The file that this thread is in.
    static FILE: Cell<Option<Arc<Path>>> = const { Cell::new(None) };
}

/// As long as it lives, this thread may be inside redb.
pub(super) struct Inside {
    outer: Option<Arc<Path>>,
}

/// Says that what follows is about the file at `path`.
pub(super) fn enter(path: &Arc<Path>) -> Inside {
    Inside { outer: FILE.replace(Some(path.clone())) }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Where the thread itself ends there is nobody left to ask.
        let _ = FILE.try_with(|file| file.set(self.outer.take()));
    }
}

/// A file in which redb panicked: the process ends with this text and [`exit_code`](Self::exit_code).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedFile {
    /// The state store.
    #[error(
        "cannot read the state store {}: the file is damaged: {reason}; begin again with an empty data \
         dir and the keys of a backup",
        path.display()
    )]
    Store {
        /// The file.
        path: PathBuf,
        /// What redb panicked with.
        reason: String,
    },
    /// The copy that a rewrite makes of it.
    #[error(
        "cannot read {}, the copy that was to replace the state store: the file is damaged: {reason}; \
         start again, the state store is as it was",
        path.display()
    )]
    Copy {
        /// The file.
        path: PathBuf,
        /// What redb panicked with.
        reason: String,
    },
}

impl DamagedFile {
    fn new(path: &Path, reason: String) -> Self {
        let path = path.to_owned();
        if is_part(&path) { Self::Copy { path, reason } } else { Self::Store { path, reason } }
    }

    /// The exit code of the process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { .. } => exit::STATE_DAMAGED,
            Self::Copy { .. } => exit::DISK,
        }
    }
}

/// The damaged file, if `panic` is one of redb; for the hook of the process, which asks once.
pub fn of_file(panic: &PanicHookInfo<'_>) -> Option<DamagedFile> {
    let path = FILE.try_with(Cell::take).ok()??;
    let location = panic.location()?;
    // What we call redb with, and what it calls of us, is as much ours as anything else.
    if location.file().starts_with(own_folder()) {
        return None;
    }
    let message = panic.payload_as_str().unwrap_or("no reason is told");
    let message = message.lines().next().unwrap_or_default();
    Some(DamagedFile::new(&path, format!("{message}, where redb reads it ({location})")))
}

/// Where the sources of this crate are, as locations name it.
fn own_folder() -> &'static str {
    file!().strip_suffix("storage/state/panics.rs").expect("this is the file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_store_is_lost_and_a_damaged_copy_is_made_again() {
        let ends = |path: &str| {
            let damaged = DamagedFile::new(Path::new(path), "why".into());
            (damaged.exit_code(), damaged.to_string())
        };
        let store = "cannot read the state store d/state.redb: the file is damaged: why; begin again with \
                     an empty data dir and the keys of a backup";
        assert_eq!(ends("d/state.redb"), (22, store.to_owned()));
        let copy = "cannot read d/state.redb.part, the copy that was to replace the state store: the file is \
                    damaged: why; start again, the state store is as it was";
        assert_eq!(ends("d/state.redb.part"), (20, copy.to_owned()));
    }

    #[test]
    fn calls_within_calls_name_the_innermost_file_and_then_the_one_before() {
        let [store, copy]: [Arc<Path>; 2] = ["store", "copy"].map(|path| Path::new(path).into());
        let named = || {
            let named = FILE.take();
            FILE.set(named.clone());
            named
        };
        let outer = enter(&store);
        let inner = enter(&copy);
        assert_eq!(named(), Some(copy.clone()));
        drop(inner);
        assert_eq!(named(), Some(store.clone()));
        drop(outer);
        assert_eq!(named(), None);
    }
}
