//! The folder that holds everything a member has.
//!
//! ```text
//! D/identity.json        whose it is; its presence means that the folder is complete
//! D/creating.json        only while it is being created
//! D/lock                 held by the process that uses it
//! D/member/wal/          the log, unless --wal-dir puts it elsewhere, and a lock of its own
//! D/member/state.redb    the state store
//! D/member/index/        checkpoints of the key index
//! D/member/snap/db       a note to etcd, which refuses to open it
//! D/member/reserve       space to start again when the disk is full; another one beside a log elsewhere
//! ```
//!
//! A data dir is created in this order: `creating.json`; the folders; the log and the first state, by the
//! caller; `identity.json`; away with `creating.json`. Each step is durable before the next. So a crash
//! at any point leaves a folder that the next start either completes from the beginning or uses: one
//! with `creating.json` and no identity never held anything acknowledged, one with data but neither
//! file has lost something and is refused. Files that are not ours are never touched.

mod error;
mod identity;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::error::{DataDirError, exit};
use self::identity::Unreadable;
pub use self::identity::{FORMAT, Identity, MadeWith};
use super::fs::{OpenMode, SharedFs};
use super::wal::{self, Owner};

/// What etcd finds where it looks for its database. It says `invalid database` and stops.
const NOTE_TO_ETCD: &[u8] = b"This is a data dir of Quorate, not of etcd.\n";
/// What the folder holds of ours, and of the file system.
const OWN_NAMES: [&str; 7] = [
    "identity.json",
    "identity.part",
    "creating.json",
    "creating.part",
    "lock",
    "member",
    "lost+found",
];
/// No file that is read as a whole is longer, bytes.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;

/// Whose data the configuration expects; `None` where it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The cluster.
    pub cluster_id: Option<u64>,
    /// The member.
    pub member_id: Option<u64>,
}

/// The files that reserve space for the data dir at `root`, also for one that cannot be opened: one on each
/// file system that it may be on.
pub fn reserve_paths(root: &Path, wal_dir: Option<&Path>) -> Vec<PathBuf> {
    Layout::new(root, wal_dir).reserves()
}

/// A data dir that this process has locked.
pub struct DataDir {
    fs: SharedFs,
    layout: Layout,
    identity: Option<Identity>,
    _locks: Vec<Box<dyn Send + Sync>>,
}

impl DataDir {
    /// Whether there is a member at `path`, whose creation was finished. Changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), for what can be seen without the lock.
    pub fn holds_member(
        fs: &SharedFs,
        path: &Path,
        wal_dir: Option<&Path>,
    ) -> Result<bool, DataDirError> {
        let found = Layout::new(path, wal_dir).survey(fs)?;
        Ok(matches!(found, Found::Complete(_)))
    }

    /// Locks a data dir, creating it if there is none.
    ///
    /// Without an [`identity`](Self::identity) it is new: the caller creates the log and the first state
    /// in it, then calls [`finish_creation`](Self::finish_creation).
    ///
    /// # Errors
    /// The process must end with the error's text and [`DataDirError::exit_code`].
    pub fn open(
        fs: SharedFs,
        path: &Path,
        wal_dir: Option<&Path>,
        expected: Expected,
    ) -> Result<Self, DataDirError> {
        let layout = Layout::new(path, wal_dir);
        // First without the lock: a folder that is not ours does not get a lock file either.
        layout.survey(&fs)?;
        let locks = layout.lock(&fs)?;
        let identity = match layout.survey(&fs)? {
            Found::Complete(identity) => {
                layout.check(&identity, expected)?;
                layout.settle(&fs)?;
                Some(identity)
            }
            Found::Unfinished => {
                layout.clear(&fs)?;
                layout.begin_creation(&fs)?;
                None
            }
            Found::Nothing => {
                layout.begin_creation(&fs)?;
                None
            }
        };
        Ok(Self { fs, layout, identity, _locks: locks })
    }

    /// Makes a new data dir complete: from now on it is this member's, and losing a part of it is loss.
    ///
    /// # Errors
    /// The process must end; the next start begins again.
    ///
    /// # Panics
    /// If it has an identity.
    pub fn finish_creation(&mut self, identity: Identity) -> Result<(), DataDirError> {
        assert!(self.identity.is_none(), "a data dir gets its identity once");
        write_whole(&self.fs, &self.layout.identity(), &identity.encode())?;
        self.layout.settle(&self.fs)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Whose it is; `None` until its creation is finished.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Compares the owner of the log with the identity: `--wal-dir` may name the log of another member, or
    /// of another data dir whose flags were the same.
    ///
    /// # Errors
    /// `LogForeign`.
    pub fn check_log(&self, owner: Owner) -> Result<(), DataDirError> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let Owner { metadata, stamp } = owner;
        let path = self.layout.wal.clone();
        let ids = (identity.cluster_id, identity.member_id);
        if ids != (metadata.cluster_id, metadata.member_id) {
            return Err(DataDirError::LogForeign { path, found: metadata.to_string() });
        }
        if stamp.is_some_and(|stamp| stamp != identity.incarnation) {
            let found = format!("another data dir of {metadata}");
            return Err(DataDirError::LogForeign { path, found });
        }
        Ok(())
    }

    /// What is in the folder and not ours: it is never touched, and somebody may have meant another one.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn foreign(&self) -> Result<Vec<PathBuf>, DataDirError> {
        let mut names = list(&self.fs, &self.layout.root)?;
        let is_own = |name: &PathBuf| OWN_NAMES.iter().any(|own| name == Path::new(own));
        let is_log = |name: &PathBuf| self.layout.wal.starts_with(self.layout.root.join(name));
        names.retain(|name| !is_own(name) && !is_log(name));
        Ok(names)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.layout.root
    }

    /// The folder of the log.
    pub fn wal_dir(&self) -> &Path {
        &self.layout.wal
    }

    /// The file of the state store.
    pub fn state_path(&self) -> PathBuf {
        self.layout.state()
    }

    /// The folder of the index checkpoints.
    pub fn index_dir(&self) -> PathBuf {
        self.layout.index()
    }

    /// The files that reserve space.
    pub fn reserve_paths(&self) -> Vec<PathBuf> {
        self.layout.reserves()
    }
}

/// The folder that holds `path`.
pub(in crate::storage) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What a folder holds of ours.
enum Found {
    Nothing,
    Unfinished,
    Complete(Identity),
}

/// The content of `creating.json`.
#[derive(Serialize, Deserialize)]
struct Creating {
    /// Where the log is being created: elsewhere no file is ours.
    wal_dir: PathBuf,
}

struct Layout {
    root: PathBuf,
    wal: PathBuf,
    is_wal_elsewhere: bool,
}

impl Layout {
    fn new(root: &Path, wal_dir: Option<&Path>) -> Self {
        let inside = root.join("member/wal");
        let wal = wal_dir.map_or_else(|| inside.clone(), Path::to_owned);
        Self { root: root.to_owned(), is_wal_elsewhere: wal != inside, wal }
    }

    fn snap(&self) -> PathBuf {
        self.root.join("member/snap")
    }

    fn index(&self) -> PathBuf {
        self.root.join("member/index")
    }

    fn state(&self) -> PathBuf {
        self.root.join("member/state.redb")
    }

    fn note(&self) -> PathBuf {
        self.root.join("member/snap/db")
    }

    fn reserves(&self) -> Vec<PathBuf> {
        let beside_log = self.is_wal_elsewhere.then(|| self.wal.join("reserve"));
        std::iter::once(self.root.join("member/reserve")).chain(beside_log).collect()
    }

    fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    fn creating(&self) -> PathBuf {
        self.root.join("creating.json")
    }

    /// Looks at the folder and changes nothing.
    fn survey(&self, fs: &SharedFs) -> Result<Found, DataDirError> {
        let flagged = [(&self.root, "--data-dir"), (&self.wal, "--wal-dir")];
        for (path, flag) in flagged {
            match fs.read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(DataDirError::NotAFolder { path: path.clone(), flag });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(DataDirError::io("list", path)(error));
                }
                _ => {}
            }
        }
        let path = self.identity();
        if let Some(bytes) = read_whole(fs, &path)? {
            let identity = Identity::decode(&bytes).map_err(|error| self.unreadable(error))?;
            return self.survey_complete(fs, identity);
        }
        if let Some(creating) = read_whole(fs, &self.creating())? {
            return self.survey_unfinished(fs, &creating);
        }
        let note = read_whole(fs, &self.note())?;
        let is_noted = note.as_deref() == Some(NOTE_TO_ETCD);
        let has_log = has_log(fs, &self.wal)?;
        if exists(fs, &self.state())? || is_noted && has_log {
            let what = "there is data beside it, but the file is gone".to_owned();
            return Err(DataDirError::IdentityDamaged { path, what });
        }
        if note.is_some() && !is_noted || has_log && !self.is_wal_elsewhere {
            return Err(DataDirError::Etcd { path: self.root.clone() });
        }
        if has_log {
            return Err(self.log_of_unknown());
        }
        self.refuse_inside(fs)?;
        Ok(Found::Nothing)
    }

    /// Refuses the `member` folder of a data dir, which may be given for the data dir itself.
    ///
    /// What is in the way of a look, like a file named `snap`, is somebody else's and not of a member.
    fn refuse_inside(&self, fs: &SharedFs) -> Result<(), DataDirError> {
        let inside = |name| self.root.join(name);
        let note = read_whole(fs, &inside("snap/db")).unwrap_or_default();
        let is_noted = note.as_deref() == Some(NOTE_TO_ETCD);
        let (path, above) = (self.root.clone(), above(&self.root));
        if is_noted || exists(fs, &inside("state.redb")).unwrap_or_default() {
            return Err(DataDirError::InsideOwn { path, above });
        }
        if note.is_some() || has_log(fs, &inside("wal")).unwrap_or_default() {
            return Err(DataDirError::InsideEtcd { path, above });
        }
        Ok(())
    }

    fn survey_complete(&self, fs: &SharedFs, identity: Identity) -> Result<Found, DataDirError> {
        let note = self.note();
        if read_whole(fs, &note)?.is_some_and(|bytes| bytes != NOTE_TO_ETCD) {
            let what = "it was replaced by something else, perhaps by etcd".to_owned();
            return Err(DataDirError::IdentityDamaged { path: note, what });
        }
        if !has_log(fs, &self.wal)? {
            return Err(DataDirError::LogAbsent { path: self.wal.clone() });
        }
        Ok(Found::Complete(identity))
    }

    fn survey_unfinished(&self, fs: &SharedFs, creating: &[u8]) -> Result<Found, DataDirError> {
        let creating: Creating = serde_json::from_slice(creating).map_err(|error| {
            DataDirError::IdentityDamaged { path: self.creating(), what: error.to_string() }
        })?;
        if creating.wal_dir != self.wal && has_log(fs, &self.wal)? {
            return Err(self.log_of_unknown());
        }
        Ok(Found::Unfinished)
    }

    fn log_of_unknown(&self) -> DataDirError {
        let found = "something else".to_owned();
        DataDirError::LogForeign { path: self.wal.clone(), found }
    }

    fn unreadable(&self, error: Unreadable) -> DataDirError {
        match error {
            Unreadable::Newer(found) => {
                DataDirError::NewerFormat { path: self.root.clone(), found, known: FORMAT }
            }
            Unreadable::Damaged(what) => {
                DataDirError::IdentityDamaged { path: self.identity(), what }
            }
        }
    }

    fn check(&self, identity: &Identity, expected: Expected) -> Result<(), DataDirError> {
        let (path, made_with) = (self.root.clone(), identity.made_with.clone());
        match (expected.cluster_id, expected.member_id) {
            (Some(cluster_id), _) if cluster_id != identity.cluster_id => {
                Err(DataDirError::OtherCluster {
                    path,
                    found: identity.cluster_id,
                    expected: cluster_id,
                    made_with,
                })
            }
            (_, Some(member_id)) if member_id != identity.member_id => {
                Err(DataDirError::OtherMember {
                    path,
                    found: identity.member_id,
                    name: identity.name.clone(),
                    expected: member_id,
                    made_with,
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes the locks; the folders that hold them are created.
    fn lock(&self, fs: &SharedFs) -> Result<Vec<Box<dyn Send + Sync>>, DataDirError> {
        // The log has a lock of its own wherever it is: another data dir may be told of it by --wal-dir.
        let folders = [(&self.root, "--data-dir"), (&self.wal, "--wal-dir")];
        let mut locks = Vec::new();
        for (folder, flag) in folders {
            create_durably(fs, folder)?;
            let path = folder.join("lock");
            locks.push(fs.lock(&path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => DataDirError::Locked { path: folder.clone(), flag },
                _ => DataDirError::io("lock", &path)(error),
            })?);
        }
        Ok(locks)
    }

    fn begin_creation(&self, fs: &SharedFs) -> Result<(), DataDirError> {
        let creating = Creating { wal_dir: self.wal.clone() };
        let text = serde_json::to_vec(&creating).map_err(|error| DataDirError::Io {
            operation: "name",
            path: self.wal.clone(),
            error: error.into(),
        })?;
        write_whole(fs, &self.creating(), &text)?;
        for folder in [&self.wal, &self.index(), &self.snap()] {
            create_durably(fs, folder)?;
        }
        write_whole(fs, &self.note(), NOTE_TO_ETCD)
    }

    /// Removes what an unfinished creation left; only what it had written itself.
    fn clear(&self, fs: &SharedFs) -> Result<(), DataDirError> {
        for name in list(fs, &self.wal)? {
            if wal::is_ours(&name) {
                remove(fs, &self.wal.join(name))?;
            }
        }
        for name in list(fs, &self.index())? {
            remove(fs, &self.index().join(name))?;
        }
        if exists(fs, &self.state())? {
            remove(fs, &self.state())?;
        }
        Ok(())
    }

    /// Brings a complete data dir into its final form after a crash.
    fn settle(&self, fs: &SharedFs) -> Result<(), DataDirError> {
        if exists(fs, &self.creating())? {
            remove(fs, &self.creating())?;
        }
        // Also for a process that was killed between a change of names and its sync.
        fs.sync_dir(&self.root).map_err(DataDirError::io("sync", &self.root))?;
        for folder in [self.index(), self.snap()] {
            create_durably(fs, &folder)?;
        }
        if exists(fs, &self.note())? {
            return Ok(());
        }
        write_whole(fs, &self.note(), NOTE_TO_ETCD)
    }
}

/// Whether a folder holds a log, of whomever.
fn has_log(fs: &SharedFs, folder: &Path) -> Result<bool, DataDirError> {
    let is_segment = |name: &PathBuf| name.extension().is_some_and(|end| end == "wal");
    Ok(list(fs, folder)?.iter().any(is_segment))
}

/// The folder above `path`, also of one without a name, like `.`.
fn above(path: &Path) -> PathBuf {
    match path.file_name() {
        Some(_) => parent(path).to_owned(),
        None => path.join(".."),
    }
}

/// Creates a folder and makes its name durable, and those of the folders above it that are new.
fn create_durably(fs: &SharedFs, path: &Path) -> Result<(), DataDirError> {
    let folders = || path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    let mut existed = 0;
    for folder in folders() {
        existed += usize::from(exists(fs, folder)?);
    }
    fs.create_dir_all(path).map_err(DataDirError::io("create", path))?;
    let missing = folders().count() - existed;
    for (position, folder) in folders().enumerate() {
        let above = parent(folder);
        match fs.sync_dir(above) {
            // One that was there may be another user's, or of a file system that takes no changes or
            // syncs no folders. Else its name may still be in memory only: a process that was killed
            // right after creating it did not sync it.
            Err(error) if position >= missing && is_no_folder_of_ours(&error) => {}
            result => result.map_err(DataDirError::io("sync", above))?,
        }
    }
    Ok(())
}

/// Whether a folder cannot be synced because of what it is, not because of what the disk does.
fn is_no_folder_of_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// The content of a small file, if there is one. One that is too long for us is read in part: it is
/// not ours.
fn read_whole(fs: &SharedFs, path: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    let file = match fs.open(path, OpenMode::Existing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(DataDirError::io("open", path))?,
    };
    let len = file.len().map_err(DataDirError::io("measure", path))?.min(SMALL_FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(len).expect("at most SMALL_FILE_BYTES_MAX")];
    file.read_at(0, &mut bytes).map_err(DataDirError::io("read", path))?;
    Ok(Some(bytes))
}

/// Writes a file that exists as a whole or not at all.
fn write_whole(fs: &SharedFs, path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let partial = path.with_extension("part");
    let file = fs.open(&partial, OpenMode::Create).map_err(DataDirError::io("create", &partial))?;
    file.set_len(0).map_err(DataDirError::io("resize", &partial))?;
    file.write_at(0, bytes).map_err(DataDirError::io("write", &partial))?;
    file.sync_data().map_err(DataDirError::io("sync", &partial))?;
    fs.rename(&partial, path).map_err(DataDirError::io("rename", &partial))?;
    let folder = parent(path);
    fs.sync_dir(folder).map_err(DataDirError::io("sync", folder))
}

fn list(fs: &SharedFs, path: &Path) -> Result<Vec<PathBuf>, DataDirError> {
    match fs.read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(DataDirError::io("list", path)),
    }
}

fn exists(fs: &SharedFs, path: &Path) -> Result<bool, DataDirError> {
    fs.exists(path).map_err(DataDirError::io("look at", path))
}

fn remove(fs: &SharedFs, path: &Path) -> Result<(), DataDirError> {
    fs.remove_file(path).map_err(DataDirError::io("remove", path))
}
