//! Why a data dir is refused, and the process exit code of each reason.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::identity::MadeWith;
use crate::storage::wal::WalError;

/// Exit codes of refusals, so that whoever runs the process can tell them apart.
///
/// | code | meaning |
/// |---|---|
/// | 1 | it is the inside of a data dir of ours: the setting is wrong, not the data |
/// | 10 | another process uses the data dir |
/// | 11 | it is a data dir of etcd, or the inside of one |
/// | 12 | it belongs to another cluster |
/// | 13 | it belongs to another member |
/// | 14 | a newer version wrote it, or the state store is of another one |
/// | 15 | its identity is damaged or gone |
/// | 16 | it is not a folder |
/// | 17 | the process may not use it |
/// | 18 | its log is gone |
/// | 19 | the folder of the log holds a log of something else |
/// | 20 | the disk refused: full, or an I/O error |
/// | 21 | its log is damaged |
pub mod exit {
    /// It is the inside of a data dir of ours: the setting is wrong, not the data.
    pub const SETTING: u8 = 1;
    /// Another process uses the data dir.
    pub const LOCKED: u8 = 10;
    /// It is a data dir of etcd, or the inside of one.
    pub const ETCD: u8 = 11;
    /// It belongs to another cluster.
    pub const OTHER_CLUSTER: u8 = 12;
    /// It belongs to another member.
    pub const OTHER_MEMBER: u8 = 13;
    /// A newer version wrote it, or the state store is of another one.
    pub const NEWER_FORMAT: u8 = 14;
    /// Its identity is damaged or gone.
    pub const IDENTITY_DAMAGED: u8 = 15;
    /// It is not a folder.
    pub const NOT_A_FOLDER: u8 = 16;
    /// The process may not use it.
    pub const NO_PERMISSION: u8 = 17;
    /// Its log is gone.
    pub const LOG_ABSENT: u8 = 18;
    /// The folder of the log holds a log of something else.
    pub const LOG_FOREIGN: u8 = 19;
    /// The disk refused: full, or an I/O error.
    pub const DISK: u8 = 20;
    /// Its log is damaged.
    pub const LOG_DAMAGED: u8 = 21;
    /// The state store holds what cannot be read, or an entry cannot be applied.
    pub const STATE_DAMAGED: u8 = 22;
}

/// Why a data dir cannot be used. Each text says what to do; nothing was changed in the folder.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error(
        "{} is in use by a running process; stop that one, or choose another folder by {flag}",
        path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
    },
    /// It holds the files of etcd and none of ours.
    #[error(
        "{} is a data dir of etcd; choose another folder by --data-dir, and bring the keys in from a \
         running etcd with `etcdctl make-mirror`",
        path.display()
    )]
    Etcd {
        /// The folder.
        path: PathBuf,
    },
    /// It is the `member` folder of a data dir of etcd.
    #[error(
        "{} looks like a part of {}, the data dir of an etcd; choose another folder by --data-dir, and bring \
         the keys in from a running etcd with `etcdctl make-mirror`",
        path.display(),
        above.display()
    )]
    InsideEtcd {
        /// The folder.
        path: PathBuf,
        /// The data dir.
        above: PathBuf,
    },
    /// It is the `member` folder of a data dir of ours.
    #[error(
        "{} is a part of {}, which is a data dir of Quorate; give that one by --data-dir, or choose \
         another folder",
        path.display(),
        above.display()
    )]
    InsideOwn {
        /// The folder.
        path: PathBuf,
        /// The data dir.
        above: PathBuf,
    },
    /// The identity names another cluster.
    #[error(
        "{} belongs to cluster {found:x}, not to {expected:x}; give again {}, as the ID follows from \
         them, or choose another folder by --data-dir",
        path.display(),
        flags(made_with.as_ref())
    )]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// The ID in it.
        found: u64,
        /// The ID from the configuration.
        expected: u64,
        /// The flags that it was made with, if it says so.
        made_with: Option<MadeWith>,
    },
    /// The identity names another member.
    #[error(
        "{} belongs to member {found:x}, {name:?}, not to {expected:x}; choose the data dir of this \
         member by --data-dir, or give again {}",
        path.display(),
        flags(made_with.as_ref())
    )]
    OtherMember {
        /// The folder.
        path: PathBuf,
        /// The ID in it.
        found: u64,
        /// The name that goes with it.
        name: String,
        /// The ID from the configuration.
        expected: u64,
        /// The flags that it was made with, if it says so.
        made_with: Option<MadeWith>,
    },
    /// A version after this one wrote it.
    #[error(
        "{} has format {found}, and this version knows formats up to {known}; start it with the \
         version that wrote it or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// The format in it.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// Nobody knows any more whose data it is.
    #[error(
        "{} cannot be trusted: {what}; put it back as it was, or begin again with an empty data dir \
         and the keys of a backup",
        path.display()
    )]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It is a file, or something on the way to it is.
    #[error("{} is not a folder; choose another by {flag}", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The process may not read or write there.
    #[error(
        "no permission for {}; give the folder and all in it to the user that runs this process",
        path.display()
    )]
    NoPermission {
        /// The path.
        path: PathBuf,
    },
    /// There is an identity and no log.
    #[error(
        "there is no log in {}, but this member has had one; set --wal-dir to where it is, or begin \
         again with an empty data dir and the keys of a backup",
        path.display()
    )]
    LogAbsent {
        /// The folder of the log.
        path: PathBuf,
    },
    /// The folder of the log holds a log that this data dir did not write.
    #[error(
        "the log in {} belongs to {found}, not to this data dir; set --wal-dir to the right \
         folder, or to an empty one for a new member",
        path.display()
    )]
    LogForeign {
        /// The folder of the log.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// The disk refused.
    #[error("cannot {operation} {}: {error}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl DataDirError {
    /// The exit code of the process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } => exit::LOCKED,
            Self::Etcd { .. } | Self::InsideEtcd { .. } => exit::ETCD,
            Self::InsideOwn { .. } => exit::SETTING,
            Self::OtherCluster { .. } => exit::OTHER_CLUSTER,
            Self::OtherMember { .. } => exit::OTHER_MEMBER,
            Self::NewerFormat { .. } => exit::NEWER_FORMAT,
            Self::IdentityDamaged { .. } => exit::IDENTITY_DAMAGED,
            Self::NotAFolder { .. } => exit::NOT_A_FOLDER,
            Self::NoPermission { .. } => exit::NO_PERMISSION,
            Self::LogAbsent { .. } => exit::LOG_ABSENT,
            Self::LogForeign { .. } => exit::LOG_FOREIGN,
            Self::Io { .. } => exit::DISK,
        }
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let path = path.to_owned();
            match error.kind() {
                io::ErrorKind::PermissionDenied => Self::NoPermission { path },
                io::ErrorKind::NotADirectory => Self::NotAFolder { path, flag: "--data-dir" },
                _ => Self::Io { operation, path, error },
            }
        }
    }
}

/// The flags to give again, as well as they are known.
fn flags(made_with: Option<&MadeWith>) -> String {
    match made_with {
        Some(flags) => format!("{flags}, with --initial-advertise-peer-urls to match"),
        None => "the peer URLs and the --initial-cluster-token that it was made with".to_owned(),
    }
}

impl WalError {
    /// The exit code of the process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } | Self::Poisoned { .. } => exit::DISK,
            Self::Corrupt { .. } | Self::TooShort { .. } | Self::Lost { .. } => exit::LOG_DAMAGED,
            Self::Absent { .. } => exit::LOG_ABSENT,
            Self::Present { .. } => exit::LOG_FOREIGN,
        }
    }
}
