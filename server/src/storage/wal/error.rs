//! What can be wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::storage::fs::is_storage_full;

/// Why the log cannot be read or written. Every one of them ends the process.
#[derive(Debug, Error)]
pub enum WalError {
    /// The disk refused. Nothing written since the last successful sync may be taken as durable.
    #[error("cannot {operation} {}: {error}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A segment does not hold what was written to it.
    #[error(
        "log segment {} is damaged at byte {offset}: {what}; \
         begin again with an empty data dir and the keys of a backup",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the first record that cannot be believed begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log begins after the index that was asked for.
    #[error(
        "the log in {} does not reach back to index {from}: its first segment begins at {first}; \
         the state store is older than the log, put back both as they were at one time",
        dir.display()
    )]
    TooShort {
        /// The folder of the log.
        dir: PathBuf,
        /// The index that was asked for.
        from: u64,
        /// Where the log begins.
        first: u64,
    },
    /// The log ends before what was applied from it: acknowledged entries are gone.
    #[error(
        "the log in {} ends at index {last}, but entries up to {known} were {how}; \
         entries are lost: begin again with an empty data dir and the keys of a backup",
        dir.display()
    )]
    Lost {
        /// The folder of the log.
        dir: PathBuf,
        /// The last entry of the log.
        last: u64,
        /// The index that is known to have existed.
        known: u64,
        /// How it is known: `applied` or `committed`.
        how: &'static str,
    },
    /// There is no log to open.
    #[error("there is no log in {}; check --wal-dir and --data-dir", dir.display())]
    Absent {
        /// The folder that was looked at.
        dir: PathBuf,
    },
    /// There is a log already where one should be created.
    #[error("there is a log in {} already; it is left as it is", dir.display())]
    Present {
        /// The folder.
        dir: PathBuf,
    },
    /// An earlier call failed; what is on disk is unknown until the log is opened again.
    #[error("the log is closed after a failure: {reason}")]
    Poisoned {
        /// The text of that failure.
        reason: String,
    },
}

impl WalError {
    /// Whether the file system was full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io { error, .. } if is_storage_full(error))
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { operation, path: path.to_owned(), error }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}
