//! Opening and creating a state store.
//!
//! A new store is built beside its place, made durable whole, and renamed into it: at any instant
//! there is either no store or a usable one. What an interrupted creation or rewrite left behind is
//! removed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use redb::ReadableDatabase;

use super::backend::{FileOptions, OpenFile, open_file};
use super::error::{Fault, OpenError};
use super::panics;
use super::reader::Shared;
use super::tables::{self, FORMAT, Header, REVISION_FIRST};
use super::{Identity, Opened, StateStore, StoreOptions};
use crate::storage::data_dir::parent;
use crate::storage::fs::{FileSystem, OpenMode, SharedFs};

/// What redb may keep in memory of a file that is only created, in bytes.
const CREATE_CACHE_BYTES: usize = 1 << 20;

impl StateStore {
    /// Opens the store at `path`, in a folder that exists.
    ///
    /// # Errors
    /// The process must not go on: the data dir is wrong, of a later version, or damaged, or the file
    /// system refuses. An interrupted call is safe to repeat.
    pub fn open(fs: SharedFs, path: &Path, options: &StoreOptions) -> Result<Opened, OpenError> {
        let shared_path: Arc<Path> = path.into();
        let _inside = panics::enter(&shared_path);
        let failed =
            |action| move |fault: Fault| OpenError::Failed { path: path.to_owned(), action, fault };
        remove_if_there(&*fs, &part_path(path)).map_err(failed("clean up beside"))?;
        // A process that was killed may have left the name of a rewritten store in memory only.
        fs.sync_dir(parent(path)).map_err(|error| failed("sync the folder of")(error.into()))?;
        let exists = fs.exists(path).map_err(|error| failed("find")(error.into()))?;
        if !exists {
            if !options.create {
                return Err(OpenError::Missing { path: path.to_owned() });
            }
            create(&*fs, path, options).map_err(failed("create"))?;
        }
        let file_options =
            FileOptions { mode: OpenMode::Existing, cache_bytes: options.cache_bytes, meter: None };
        let OpenFile { database, meter, repaired } =
            open_file(&*fs, path, file_options).map_err(|fault| unreadable(path, fault))?;
        let header = Header::read(&database).map_err(|fault| unreadable(path, fault))?;
        check_identity(path, options.identity, header.identity)?;
        let tables = database
            .begin_read()
            .map_err(Fault::from)
            .and_then(|transaction| tables::read_tables(&transaction))
            .map_err(|fault| unreadable(path, fault))?;
        tables::check_newest(&database, header.revision)
            .map_err(|fault| unreadable(path, fault))?;
        let rows = tables::row_count(&database).map_err(|fault| unreadable(path, fault))?;
        let file_bytes = meter.file_bytes();
        let store = Self {
            fs,
            cache_bytes: options.cache_bytes,
            shared: Shared::new(shared_path.clone(), database),
            meter,
            header,
            running: None,
            rewrite: Weak::new(),
            retired: Vec::new(),
        };
        Ok(Opened {
            store,
            tables,
            rows,
            applied_index: header.applied_index,
            revision: header.revision,
            generation: header.generation,
            file_bytes,
            repaired,
        })
    }
}

fn create(fs: &dyn FileSystem, path: &Path, options: &StoreOptions) -> Result<(), Fault> {
    let part: Arc<Path> = part_path(path).into();
    let _inside = panics::enter(&part);
    let file_options =
        FileOptions { mode: OpenMode::CreateNew, cache_bytes: CREATE_CACHE_BYTES, meter: None };
    let OpenFile { database, .. } = open_file(fs, &part, file_options)?;
    let header = Header {
        identity: options.identity,
        generation: options.generation,
        revision: REVISION_FIRST,
        ..Header::default()
    };
    tables::initialize(&database, &header)?;
    database.close()?;
    install(fs, &part, path)
}

/// Makes `part` durable and puts it in the place of `path`, durably.
pub(super) fn install(fs: &dyn FileSystem, part: &Path, path: &Path) -> Result<(), Fault> {
    fs.open(part, OpenMode::Existing)?.sync_data()?;
    fs.rename(part, path)?;
    Ok(fs.sync_dir(parent(path))?)
}

/// Where a store is built before it takes its place.
pub(super) fn part_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".part");
    name.into()
}

/// Whether `path` is where a store is built.
pub(super) fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "part")
}

/// Removes a file, if it is there. Its name may come back after a crash.
pub(super) fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<(), Fault> {
    if fs.exists(path)? {
        fs.remove_file(path)?;
    }
    Ok(())
}

fn unreadable(path: &Path, fault: Fault) -> OpenError {
    let path = path.to_owned();
    match fault {
        Fault::Format(found) => OpenError::Format { path, found, known: FORMAT },
        fault => OpenError::Failed { path, action: "open", fault },
    }
}

fn check_identity(path: &Path, expected: Identity, found: Identity) -> Result<(), OpenError> {
    let pairs = [
        ("cluster", expected.cluster_id, found.cluster_id),
        ("incarnation", expected.incarnation, found.incarnation),
    ];
    match pairs.into_iter().find(|(_, expected, found)| expected != found) {
        Some((what, expected, found)) => {
            Err(OpenError::Foreign { path: path.to_owned(), what, found, expected })
        }
        None => Ok(()),
    }
}
