//! Why the state store cannot go on: one enum per operation, each with its path.

use std::io;
use std::path::PathBuf;

use crate::mvcc::RowKey;
use crate::storage::fs::is_storage_full;

/// What went wrong underneath.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file system refused.
    #[error("{0}")]
    Io(io::Error),
    /// The file does not hold what it must.
    #[error(
        "the file is damaged: {0}; begin again with an empty data dir and the keys of a backup"
    )]
    Damaged(String),
    /// The file has a format of another version.
    #[error("the file has the unknown format {0}")]
    Format(u64),
    /// An operation before this one failed; its error has the reason.
    #[error("an earlier operation on the file failed")]
    Earlier,
}

impl Fault {
    /// Whether the file does not hold what was written to it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Format(_))
    }

    /// Whether the file system is full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io(error) if is_storage_full(error))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Implements `From` for errors of redb, which no signature outside this room shows.
macro_rules! fault_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                fault(error.into())
            }
        })*
    };
}

fault_from!(
    redb::CommitError,
    redb::CursorError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

fn fault(error: redb::Error) -> Fault {
    match error {
        // What redb says of a file that is not its own.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Fault::Damaged(error.to_string())
        }
        redb::Error::Io(error) => Fault::Io(error),
        redb::Error::Corrupted(reason) => Fault::Damaged(reason),
        redb::Error::UpgradeRequired(version) => Fault::Format(version.into()),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Fault::Earlier,
        other => Fault::Damaged(other.to_string()),
    }
}

/// Why a state store could not be opened. What it holds is untouched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and none was to be created.
    #[error(
        "there is no state store at {}, but this member has had one; put it back, or begin \
         again with an empty data dir and the keys of a backup",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Another version wrote it: run that version, or restore a backup.
    #[error(
        "the state store {} has format {found}, and this version reads format {known} only; start it \
         with the version that wrote it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format that this version reads.
        known: u64,
    },
    /// It belongs to another cluster or another member.
    #[error("the state store {} has {what} {found:016x} where {expected:016x} is expected", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As the file has it.
        found: u64,
        /// As the data dir has it.
        expected: u64,
    },
    /// It cannot be used: damaged, or the file system refuses.
    #[error("cannot {action} the state store {}: {fault}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        fault: Fault,
    },
}

/// Why a batch was not flushed. All but [`FlushError::Refused`] end the process: the store takes no
/// further call, and what the last flush acknowledged is found at the next start.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The batch does not follow what is stored; nothing was written.
    #[error("the batch does not follow the state store {}: {refusal}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        refusal: Refusal,
    },
    /// Writing failed.
    #[error("cannot write the state store {}: {fault}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        fault: Fault,
    },
}

/// Why a batch does not follow what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its entries were applied already.
    #[error("applied index {batch} is below the stored {stored}")]
    AppliedIndex {
        /// Of the batch.
        batch: u64,
        /// Of the store.
        stored: u64,
    },
    /// Its revision was passed already.
    #[error("revision {batch} is below the stored {stored}")]
    Revision {
        /// Of the batch.
        batch: i64,
        /// Of the store.
        stored: i64,
    },
    /// It was cut for another store.
    #[error("generation {batch} is not the stored {stored}")]
    Generation {
        /// Of the batch.
        batch: u64,
        /// Of the store.
        stored: u64,
    },
    /// A row at or below the stored revision, above the batch's, or not above the row before it.
    #[error("row {0:?} is out of order")]
    Row(RowKey),
    /// Another batch is being flushed.
    #[error("another batch is being flushed")]
    Busy,
}

/// Why space was not given back.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// Another rewrite or a flush is running; try again after it.
    #[error("the state store {} is busy", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file system has no room for the copy; the store goes on as it was.
    #[error(
        "rewriting the state store {} needs {needed_bytes} free bytes, for a copy of the live rows and for \
         writes meanwhile, and {free_bytes} are free: free some, or try again when a compaction is flushed",
        path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Room for the live rows and what must be left beside them.
        needed_bytes: u64,
        /// What the file system has.
        free_bytes: u64,
    },
    /// The copy failed and was given up; the store goes on as it was.
    #[error("cannot write the copy {}: {fault}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why it failed.
        fault: Fault,
    },
    /// The store cannot be read, or may have been replaced by the copy or not: the process ends.
    #[error("cannot replace the state store {}: {fault}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        fault: Fault,
    },
}
