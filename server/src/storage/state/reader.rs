//! The flushed rows for readers on any thread.
//!
//! A call opens a read transaction, reads, and ends it: redb cannot reuse pages that a reader may
//! still see, and a reader held over many commits makes the file grow without bound. When the file is
//! rewritten, calls that began on the old one end there, and the next ones find the new one; both
//! hold the same rows.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::error::Fault;
use super::panics::{self, Inside};
use super::seal::unseal;
use super::tables::{REVISIONS, runs, worth_a_walk};
use crate::mvcc::{Revision, Row, RowKey, Rows, RowsError, ScanBounds};

/// What the store and its readers share.
pub(super) struct Shared {
    pub(super) path: Arc<Path>,
    /// The file of now, `None` once closed. A leaf lock: held to copy or replace the pointer, never
    /// while anything is read or another lock taken.
    current: RwLock<Option<Arc<Database>>>,
    failed: AtomicBool,
    point_reads: AtomicU64,
}

impl Shared {
    pub(super) fn new(path: Arc<Path>, database: Database) -> Arc<Self> {
        Arc::new(Self {
            path,
            current: RwLock::new(Some(Arc::new(database))),
            failed: AtomicBool::new(false),
            point_reads: AtomicU64::new(0),
        })
    }

    /// The file of now, for one call.
    pub(super) fn database(&self) -> Result<InUse, Fault> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Fault::Earlier);
        }
        let database = self.current.read().clone().ok_or(Fault::Earlier)?;
        Ok(InUse { database, _inside: panics::enter(&self.path) })
    }

    /// Replaces the file, or closes it with `None`; returns the one before.
    pub(super) fn replace(&self, next: Option<Database>) -> Option<Arc<Database>> {
        std::mem::replace(&mut *self.current.write(), next.map(Arc::new))
    }

    /// From now on every call fails.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// The file while it is used.
pub(super) struct InUse {
    database: Arc<Database>,
    /// After the file: the last one who uses a replaced one closes it.
    _inside: Inside,
}

impl Deref for InUse {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Reads flushed rows; clones share everything.
#[derive(Clone)]
pub struct StoreReader {
    shared: Arc<Shared>,
}

impl StoreReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How many rows were read by revision since the store was opened, over all readers.
    pub fn point_reads(&self) -> u64 {
        self.shared.point_reads.load(Ordering::Relaxed)
    }

    fn error(&self, fault: &Fault) -> RowsError {
        let text = format!("{}: {fault}", self.shared.path.display());
        if fault.is_damage() { RowsError::Corrupt(text) } else { RowsError::Io(text) }
    }
}

impl Rows for StoreReader {
    fn get_many(&self, revisions: &[Revision], out: &mut Vec<Bytes>) -> Result<(), RowsError> {
        self.shared.point_reads.fetch_add(revisions.len() as u64, Ordering::Relaxed);
        let database = self.shared.database().map_err(|fault| self.error(&fault))?;
        match get_many(&database, revisions, out) {
            Ok(None) => Ok(()),
            Ok(Some(missing)) => Err(RowsError::Missing(missing)),
            Err(fault) => Err(self.error(&fault)),
        }
    }

    fn scan_within(
        &self,
        from: Revision,
        bounds: ScanBounds,
        out: &mut Vec<Row>,
    ) -> Result<bool, RowsError> {
        let database = self.shared.database().map_err(|fault| self.error(&fault))?;
        let from = RowKey::new(from, false);
        scan(&database, from.as_bytes(), bounds, out).map_err(|fault| self.error(&fault))
    }
}

/// Appends the rows from `from` on, in order; returns whether a bound stopped it.
///
/// # Errors
/// [`Fault::Damaged`] if a row does not come after `from` and the row before it: a page is not where it was.
pub(super) fn scan(
    database: &Database,
    from: &[u8],
    bounds: ScanBounds,
    out: &mut Vec<Row>,
) -> Result<bool, Fault> {
    let (mut rows, mut bytes) = (0, 0);
    let mut last: Option<RowKey> = None;
    let table = database.begin_read()?.open_table(REVISIONS)?;
    for pair in ReadableTable::range(&table, from..)? {
        if rows >= bounds.rows_max || bytes >= bounds.bytes_max {
            return Ok(true);
        }
        let (key, sealed) = pair?;
        let key = RowKey::decode(key.value())
            .ok_or_else(|| Fault::Damaged(format!("{:?} is not a row key", key.value())))?;
        let ascends = match &last {
            Some(last) => last.as_bytes() < key.as_bytes(),
            None => from <= key.as_bytes(),
        };
        if !ascends {
            return Err(Fault::Damaged(format!("row {key:?} is out of order")));
        }
        last = Some(key);
        let stored = stored(&key, sealed.value())?;
        rows += 1;
        bytes += stored.len();
        out.push(Row { key, stored });
    }
    Ok(false)
}

/// Appends the stored bytes at `revisions`; names the first that is not there.
fn get_many(
    database: &Database,
    revisions: &[Revision],
    out: &mut Vec<Bytes>,
) -> Result<Option<Revision>, Fault> {
    let table = database.begin_read()?.open_table(REVISIONS)?;
    if revisions.is_sorted() {
        return get_ascending(&table, revisions, out);
    }
    let mut order: Vec<(Revision, usize)> = revisions.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let ascending: Vec<Revision> = order.iter().map(|&(revision, _)| revision).collect();
    let mut found = Vec::with_capacity(ascending.len());
    if let Some(missing) = get_ascending(&table, &ascending, &mut found)? {
        return Ok(Some(missing));
    }
    let start = out.len();
    out.resize(start + revisions.len(), Bytes::new());
    for ((_, position), stored) in order.into_iter().zip(found) {
        out[start + position] = stored;
    }
    Ok(None)
}

/// Neighbours are read by one walk over the leaves, others by a search each.
fn get_ascending(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    revisions: &[Revision],
    out: &mut Vec<Bytes>,
) -> Result<Option<Revision>, Fault> {
    for run in runs(revisions, |revision| revision.main) {
        let missing =
            if worth_a_walk(run) { walk(table, run, out)? } else { search(table, run, out)? };
        if missing.is_some() {
            return Ok(missing);
        }
    }
    Ok(None)
}

fn search(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    run: &[Revision],
    out: &mut Vec<Bytes>,
) -> Result<Option<Revision>, Fault> {
    for &revision in run {
        let key = RowKey::new(revision, false);
        match ReadableTable::get(table, key.as_bytes())? {
            Some(sealed) => out.push(stored(&key, sealed.value())?),
            None => return Ok(Some(revision)),
        }
    }
    Ok(None)
}

fn walk(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    run: &[Revision],
    out: &mut Vec<Bytes>,
) -> Result<Option<Revision>, Fault> {
    let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return Ok(None) };
    let (first, last) = (RowKey::new(first, false), RowKey::new(last, false));
    let mut wanted = run.iter().copied().peekable();
    for pair in ReadableTable::range(table, first.as_bytes()..=last.as_bytes())? {
        let (key, sealed) = pair?;
        // The same revision may be asked for twice.
        while let Some(&revision) = wanted.peek() {
            let sought = RowKey::new(revision, false);
            if sought.as_bytes() < key.value() {
                return Ok(Some(revision));
            }
            if sought.as_bytes() != key.value() {
                break;
            }
            out.push(stored(&sought, sealed.value())?);
            wanted.next();
        }
    }
    Ok(wanted.next())
}

/// The stored bytes of the row at `key`: the one copy out of redb's page.
fn stored(key: &RowKey, sealed: &[u8]) -> Result<Bytes, Fault> {
    let stored = unseal(key.as_bytes(), sealed, || format!("row {key:?}"))?;
    Ok(Bytes::copy_from_slice(stored))
}
