//! From a data dir to everything that a member needs to run.
//!
//! ```text
//! data dir    locked, checked; created if there is none
//! store       opened: records, applied index A, flushed revision F
//! checkpoint  the newest that fits: the index as of some revision ≤ F
//! rows        from there to F complete the index; leases learn from it which keys they have
//! log         entries behind A are applied again by the replica
//! ```
//!
//! No threads and no clock: the simulator recovers through the same code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::RecoverError;
use crate::consensus::{self, bootstrap_entries};
use crate::lease::Lessor;
use crate::mutants::{self, Mutant};
use crate::mvcc::{KeySpace, Limits, Restorer, Revision, Rows, ScanBounds, Standing};
use crate::replica;
use crate::state_machine::{Member, Restored};
use crate::storage::checkpoint::{CheckpointReader, Wanted, load_newest};
use crate::storage::data_dir::{DataDir, Expected, Identity, MadeWith, reserve_paths};
use crate::storage::fs::SharedFs;
use crate::storage::reserve::Reserve;
use crate::storage::state::{self, OpenError, Opened, StateStore, StoreOptions, check_count};
use crate::storage::wal::{Metadata, Wal, WalOptions};
use crate::view::View;

/// Rows that are read at once to complete the index, at the most.
const SCAN_ROWS: usize = 4096;
/// Bytes of rows at which one such read ends; one row may be more. Rows can be as large as requests.
const SCAN_BYTES: usize = 4 << 20;

/// The generation of a store that no snapshot has replaced.
const FIRST_GENERATION: u64 = 1;

/// What recovery has to know.
pub struct Setup {
    /// Where everything is.
    pub fs: SharedFs,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`.
    pub wal_dir: Option<PathBuf>,
    /// The cluster as the flags describe it.
    pub cluster_id: u64,
    /// This member as the flags describe it.
    pub member: Member,
    /// Whether an empty data dir may become a new cluster (`--initial-cluster-state new`).
    pub may_create: bool,
    /// The initial members, this one among them.
    pub initial_members: Vec<Member>,
    /// The flags that a data dir is made with, for people who start it with others.
    pub made_with: MadeWith,
    /// Random and secret; names the data dir, and stamps its log, if it is created now.
    pub incarnation: u64,
    /// Sizes of the log.
    pub wal: WalOptions,
    /// The cache of the state store, in bytes.
    pub cache_bytes: usize,
    /// Bounds of the key space.
    pub limits: Limits,
}

/// How far recovery has come, for those who wait.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
}

impl Progress {
    /// Rows read so far to complete the index.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

/// A member that is about to run.
pub struct Recovered {
    /// Locked as long as this lives.
    pub data_dir: DataDir,
    /// The log, open behind its last entry.
    pub wal: Wal,
    /// The state store.
    pub store: StateStore,
    /// The keys as of the applied index.
    pub view: Arc<View>,
    /// For [`replica::Replica::new`].
    pub replica: replica::Recovered,
    /// What was found.
    pub report: Report,
}

/// What recovery found, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The data dir was created now.
    pub created: bool,
    /// The last entry that the state store has applied.
    pub applied_index: u64,
    /// The flushed revision.
    pub revision: i64,
    /// The revision of the checkpoint that was used; 0 for none.
    pub checkpoint_revision: i64,
    /// Checkpoints that could not be used, and why.
    pub rejected_checkpoints: Vec<String>,
    /// Rows read behind the checkpoint.
    pub rows: u64,
    /// Entries of the log to apply again.
    pub entries: u64,
    /// Where a record was cut short that nobody had been answered for.
    pub torn_at: Option<u64>,
    /// What the data dir holds that is not ours.
    pub foreign: Vec<PathBuf>,
}

/// Where restoring the index says what it found and how far it is.
struct Found<'a> {
    report: &'a mut Report,
    progress: &'a Progress,
}

/// Opens the data dir, creating it if there is none.
///
/// Recovery writes before it reads. On a full disk the reserve is given up for it.
///
/// # Errors
/// [`RecoverError`]: the process must end with its text and exit code. Nothing was lost.
pub fn recover(setup: &Setup, progress: &Progress) -> Result<Recovered, RecoverError> {
    match try_recover(setup, progress) {
        Err(error) if error.is_storage_full() && give_reserve_up(setup) => {
            try_recover(setup, progress)
        }
        result => result,
    }
}

/// Whether there was a reserve to give up.
fn give_reserve_up(setup: &Setup) -> bool {
    let paths = reserve_paths(&setup.data_dir, setup.wal_dir.as_deref());
    let give_up = |path: &PathBuf| Reserve::give_up(&setup.fs, path).unwrap_or(false);
    paths.iter().filter(|path| give_up(path)).count() > 0
}

fn try_recover(setup: &Setup, progress: &Progress) -> Result<Recovered, RecoverError> {
    let expected =
        Expected { cluster_id: Some(setup.cluster_id), member_id: Some(setup.member.id) };
    let wal_dir = setup.wal_dir.as_deref();
    // Asked before anything is locked: a start that is refused leaves no folders behind.
    if !setup.may_create && !DataDir::holds_member(&setup.fs, &setup.data_dir, wal_dir)? {
        return Err(RecoverError::NothingToContinue { path: setup.data_dir.clone() });
    }
    let mut data_dir = DataDir::open(setup.fs.clone(), &setup.data_dir, wal_dir, expected)?;
    let mut report = Report { foreign: data_dir.foreign()?, ..Report::default() };
    if data_dir.identity().is_none() {
        create(setup, &mut data_dir)?;
        report.created = true;
    }
    let opened = open_store(setup, &data_dir, false)?;
    let mut stored = Restored::from_rows(opened.tables)?;
    (report.applied_index, report.revision) = (opened.applied_index, opened.revision);

    data_dir.check_log(Wal::owner(&setup.fs, data_dir.wal_dir())?)?;
    let (wal, log) =
        Wal::open(setup.fs.clone(), data_dir.wal_dir(), setup.wal, opened.applied_index)?;
    if log.snapshot.index != opened.applied_index {
        return Err(RecoverError::Gap { store: opened.applied_index, log: log.snapshot.index });
    }
    (report.entries, report.torn_at) = (log.entries.len() as u64, log.torn_at);

    let standing = Standing {
        revision: opened.revision,
        compact_scheduled: stored.cut.compact_scheduled,
        compact_begun: stored.cut.compact_begun,
        compact_finished: stored.cut.compact_finished,
    };
    let rows = opened.store.reader();
    let mut found = Found { report: &mut report, progress };
    let space =
        restore(setup, (&data_dir.index_dir(), opened.generation), standing, &rows, &mut found)?;
    check_rows(data_dir.state_path(), opened.rows, &report)?;
    attach_keys(&space, stored.machine.lessor_mut());
    let log = consensus::Recovered {
        hard_state: log.hard_state,
        conf_state: stored.cut.conf_state.clone(),
        entries: log.entries,
        snapshot_index: log.snapshot.index,
        snapshot_term: log.snapshot.term,
        applied_index: opened.applied_index,
    };
    let replica = replica::Recovered { log, stored, generation: opened.generation };
    let view = View::new(space);
    Ok(Recovered { data_dir, wal, store: opened.store, view, replica, report })
}

/// Creates what a data dir needs; its identity comes last, so a crash in between begins again.
///
/// The log begins with one configuration change per initial member, in etcd's way: the configuration
/// exists only by applying them.
fn create(setup: &Setup, data_dir: &mut DataDir) -> Result<(), RecoverError> {
    let metadata = Metadata { cluster_id: setup.cluster_id, member_id: setup.member.id };
    let (fs, stamp) = (setup.fs.clone(), setup.incarnation);
    let mut wal = Wal::create(fs, data_dir.wal_dir(), setup.wal, metadata, stamp)?;
    let members: Vec<_> =
        setup.initial_members.iter().map(|member| (member.id, member.encode())).collect();
    let (hard_state, entries) = bootstrap_entries(&members);
    wal.append(&entries, Some(&hard_state))?;
    wal.sync()?;
    open_store(setup, data_dir, true)?.store.close()?;
    Ok(data_dir.finish_creation(Identity {
        cluster_id: setup.cluster_id,
        member_id: setup.member.id,
        incarnation: setup.incarnation,
        name: setup.member.name.clone(),
        created_by: format!("quorate {}", env!("CARGO_PKG_VERSION")),
        made_with: Some(setup.made_with.clone()),
    })?)
}

fn open_store(setup: &Setup, data_dir: &DataDir, create: bool) -> Result<Opened, RecoverError> {
    let incarnation = data_dir.identity().map_or(setup.incarnation, |known| known.incarnation);
    let identity = state::Identity { cluster_id: setup.cluster_id, incarnation };
    let options = StoreOptions {
        cache_bytes: setup.cache_bytes,
        identity,
        create,
        generation: FIRST_GENERATION,
    };
    Ok(StateStore::open(setup.fs.clone(), &data_dir.state_path(), &options)?)
}

/// Builds the key space: a checkpoint if one can be used, then the rows behind it.
fn restore(
    setup: &Setup,
    (index_dir, generation): (&Path, u64),
    standing: Standing,
    rows: &dyn Rows,
    found: &mut Found<'_>,
) -> Result<KeySpace, RecoverError> {
    let wanted =
        Wanted { cluster_id: setup.cluster_id, generation, revision_max: standing.revision };
    let loaded = load_newest(&setup.fs, index_dir, wanted)?;
    found.report.rejected_checkpoints = loaded
        .rejected
        .iter()
        .map(|rejected| format!("{}: {}", rejected.path.display(), rejected.reason))
        .collect();
    // Rows of a compaction beyond the checkpoint may be gone from the store, tombstones among them:
    // the keys that they ended would come back to life. One that had not begun took nothing yet. And one
    // that is unfinished is done again: the checkpoint lacks no row that is still in the store.
    let usable = |reader: &CheckpointReader| {
        standing.compact_begun <= reader.head().flushed_revision
            || mutants::on(Mutant::OutdatedCheckpoint)
    };
    if let Some(reader) = loaded.reader.filter(usable) {
        let head = reader.head();
        match restore_checkpoint(setup.limits, reader) {
            Ok(restorer) => {
                found.report.checkpoint_revision = head.flushed_revision;
                // What was compacted since it was written is in it, and is compacted again.
                let compact_finished = standing.compact_finished.min(head.compact_revision);
                let standing = Standing { compact_finished, ..standing };
                return complete(restorer, head.flushed_revision, standing, rows, found);
            }
            Err(reason) => found.report.rejected_checkpoints.push(reason),
        }
    }
    complete(KeySpace::restore(setup.limits), 0, standing, rows, found)
}

/// Where all rows were read, they must be as many as the store says: a page that was lost, or came back as it
/// was earlier, lacks some. Behind a checkpoint nobody knows how many there should be.
fn check_rows(path: PathBuf, said: u64, report: &Report) -> Result<(), OpenError> {
    if report.checkpoint_revision > 0 {
        return Ok(());
    }
    check_count("rows", report.rows, said).map_err(|fault| OpenError::Failed {
        path,
        action: "read",
        fault,
    })
}

/// Tells leases which keys they have. Without leases no key has one.
fn attach_keys(space: &KeySpace, lessor: &mut Lessor) {
    if lessor.is_empty() {
        return;
    }
    let mut after = None;
    loop {
        let keys_max = mutants::step(SCAN_ROWS);
        let mut attach = |key: &[u8], lease| lessor.attach(Bytes::copy_from_slice(key), lease);
        after = space.attached(after.as_deref(), keys_max, &mut attach);
        if after.is_none() {
            return;
        }
    }
}

fn restore_checkpoint(limits: Limits, reader: CheckpointReader) -> Result<Restorer, String> {
    let path = reader.path().display().to_string();
    let mut restorer = KeySpace::restore(limits);
    for chunk in reader {
        let chunk = chunk.map_err(|error| format!("{path}: {error}"))?;
        restorer.checkpoint_chunk(&chunk).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(restorer)
}

/// Adds the rows behind `revision`.
fn complete(
    mut restorer: Restorer,
    revision: i64,
    standing: Standing,
    rows: &dyn Rows,
    found: &mut Found<'_>,
) -> Result<KeySpace, RecoverError> {
    let mut next = Revision::new(revision + 1, 0);
    loop {
        let bounds = ScanBounds { rows_max: mutants::step(SCAN_ROWS), bytes_max: SCAN_BYTES };
        let mut slice = Vec::new();
        let has_more = rows.scan_within(next, bounds, &mut slice)?;
        for row in &slice {
            restorer.row(row)?;
        }
        found.report.rows += slice.len() as u64;
        found.progress.rows.store(found.report.rows, Ordering::Relaxed);
        let Some(last) = slice.last().filter(|_| has_more) else {
            return Ok(restorer.finish(standing));
        };
        next = last.key.revision().next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Put;
    use crate::mvcc::tests::store::Store;

    #[test]
    fn rows_that_a_store_lacks_are_damage_where_all_of_them_were_read() {
        let check = |rows, checkpoint_revision| {
            let report = Report { rows, checkpoint_revision, ..Report::default() };
            let checked = check_rows("state.redb".into(), 7, &report).map_err(RecoverError::from);
            checked.map_err(|error| (error.exit_code(), error.to_string()))
        };
        let damaged = "cannot read the state store state.redb: the file is damaged: it says that it holds 7 \
                       rows, and 6 are there; begin again with an empty data dir and the keys of a backup";
        assert_eq!(check(6, 0), Err((22, damaged.to_owned())));
        assert_eq!(check(8, 0).map_err(|(code, _)| code), Err(22));
        assert_eq!((check(7, 0), check(6, 5)), (Ok(()), Ok(())));
    }

    #[test]
    fn large_rows_complete_the_index_a_few_megabytes_at_a_time() {
        const VALUE_BYTES: usize = 512 << 10;
        let limits = Limits { window_bytes_max: 0 };
        let view = View::new(KeySpace::new(limits));
        let store = Store::default();
        for key in 0..40 {
            let key = Bytes::from(format!("k{key}"));
            let value = Some(Bytes::from(vec![b'v'; VALUE_BYTES]));
            let put = Put { key, value, lease: Some(0), prev_kv: false };
            view.write().put(&put, &store).unwrap().unwrap();
        }
        store.insert(&view.take_unflushed(usize::MAX).rows);
        let standing = Standing {
            revision: view.current_revision(),
            compact_scheduled: -1,
            compact_begun: -1,
            compact_finished: -1,
        };
        let (mut report, progress) = (Report::default(), Progress::default());
        let mut found = Found { report: &mut report, progress: &progress };
        let restorer = KeySpace::restore(limits);
        let space = complete(restorer, 0, standing, &store, &mut found).unwrap();
        assert_eq!((space.key_count(), report.rows), (40, 40));
        let largest = *store.largest_scan_bytes.lock();
        assert!(largest < SCAN_BYTES + 2 * VALUE_BYTES, "{largest} bytes at once");
    }
}
