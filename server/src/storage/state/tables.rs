//! What is inside the file: tables, the store's own header, and what a row costs.
//!
//! ```text
//! revisions        row key -> stored bytes, sealed   one per change of a key, appended in order
//! store            name -> number                    the header below, with a checksum over all of it
//! meta, members…   key -> value, sealed              the small tables, as the state machine wrote them
//! ```
//!
//! [`seal`] says what sealed is.

use std::ops::Bound;

use bytes::Bytes;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableError, TableHandle, WriteTransaction,
};

use super::error::{Fault, Refusal};
use super::seal::{SEAL_BYTES, seal, unseal};
use crate::mvcc::{Row, RowKey};
use crate::state_machine::{Table, TableRow};

/// The format that this version writes, and the only one that it reads. In format 1, which no release
/// wrote, values had no checksums.
pub(super) const FORMAT: u64 = 2;

/// The most revisions between two keys that are worth walking over rather than searching again.
/// Measured: walking costs a fifth of searching, and a leaf holds a dozen rows of 300 bytes.
const GAP_MAX: i64 = 3;

/// The fewest keys that are worth a walk.
const RUN_MIN: usize = 8;

/// The fewest live bytes from which density can be told.
const DENSE_BYTES_MIN: u64 = 16 << 20;

/// redb's page, what a leaf page spends on itself and on its entry in the branch above, and on each
/// pair, in bytes (redb's design document, "leaf page").
const PAGE_BYTES: u64 = 4096;
const LEAF_BYTES: u64 = 4;
const BRANCH_BYTES: u64 = 64;
const PAIR_BYTES: u64 = 8;

/// The revision of a store in which nothing happened.
pub(super) const REVISION_FIRST: i64 = 1;

/// The name of the checksum over the other numbers of the header.
const CHECKSUM: &str = "checksum";

pub(super) const REVISIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("revisions");
const STORE: TableDefinition<'_, &str, u64> = TableDefinition::new("store");

/// Which cluster and which life of which member a store belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's ID.
    pub cluster_id: u64,
    /// What was drawn when the data dir was created.
    pub incarnation: u64,
}

/// The store's own record, written with every flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) generation: u64,
    pub(super) applied_index: u64,
    pub(super) revision: i64,
    /// What the live rows cost, by [`row_cost_bytes`].
    pub(super) live_bytes: u64,
    /// What the file took, and what its rows cost, when it was last rewritten; 0 if never.
    pub(super) dense_file_bytes: u64,
    pub(super) dense_live_bytes: u64,
}

impl Header {
    /// Reads the header of a store.
    pub(super) fn read(database: &Database) -> Result<Self, Fault> {
        let transaction = database.begin_read()?;
        let table = transaction.open_table(STORE)?;
        let number = |name: &str| -> Result<u64, Fault> {
            let value = table.get(name)?;
            value
                .map(|guard| guard.value())
                .ok_or_else(|| Fault::Damaged(format!("it has no {name}")))
        };
        let format = number("format")?;
        if format != FORMAT {
            return Err(Fault::Format(format));
        }
        let revision = i64::try_from(number("revision")?)
            .ok()
            .filter(|revision| (REVISION_FIRST..i64::MAX).contains(revision))
            .ok_or_else(|| Fault::Damaged("its revision is out of range".into()))?;
        let header = Self {
            identity: Identity {
                cluster_id: number("cluster_id")?,
                incarnation: number("incarnation")?,
            },
            generation: number("generation")?,
            applied_index: number("applied_index")?,
            revision,
            live_bytes: number("live_bytes")?,
            dense_file_bytes: number("dense_file_bytes")?,
            dense_live_bytes: number("dense_live_bytes")?,
        };
        if number(CHECKSUM)? != header.checksum() {
            return Err(Fault::Damaged("its header does not match its checksum".into()));
        }
        Ok(header)
    }

    /// What the live rows take, by how dense the last rewrite made them; at most four times their sum,
    /// and their sum while too little was rewritten to tell.
    pub(super) fn live_bytes_scaled(&self) -> u64 {
        if self.dense_live_bytes < DENSE_BYTES_MIN {
            return self.live_bytes;
        }
        let scaled = u128::from(self.live_bytes) * u128::from(self.dense_file_bytes)
            / u128::from(self.dense_live_bytes);
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
        scaled.clamp(self.live_bytes, self.live_bytes.saturating_mul(4))
    }

    /// Writes the header as part of `transaction`.
    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), Fault> {
        let mut table = transaction.open_table(STORE)?;
        for (name, number) in self.numbers() {
            table.insert(name, number)?;
        }
        table.insert(CHECKSUM, self.checksum())?;
        Ok(())
    }

    fn numbers(&self) -> [(&'static str, u64); 9] {
        [
            ("format", FORMAT),
            ("cluster_id", self.identity.cluster_id),
            ("incarnation", self.identity.incarnation),
            ("generation", self.generation),
            ("applied_index", self.applied_index),
            ("revision", self.revision.cast_unsigned()),
            ("live_bytes", self.live_bytes),
            ("dense_file_bytes", self.dense_file_bytes),
            ("dense_live_bytes", self.dense_live_bytes),
        ]
    }

    /// CRC-32C over names and numbers.
    fn checksum(&self) -> u64 {
        let sum = self.numbers().into_iter().fold(0, |sum, (name, number)| {
            let sum = crc32c::crc32c_append(sum, name.as_bytes());
            crc32c::crc32c_append(sum, &number.to_le_bytes())
        });
        sum.into()
    }
}

/// Creates every table and writes `header`, durably.
pub(super) fn initialize(database: &Database, header: &Header) -> Result<(), Fault> {
    let transaction = begin(database, Durability::Immediate)?;
    transaction.open_table(REVISIONS)?;
    for table in Table::ALL {
        transaction.open_table(small(table))?;
    }
    header.write(&transaction)?;
    Ok(transaction.commit()?)
}

/// How many rows the file says that it holds.
pub(super) fn row_count(database: &Database) -> Result<u64, Fault> {
    Ok(database.begin_read()?.open_table(REVISIONS)?.len()?)
}

/// Whether no row is newer than the header says: else one of them is of another time.
pub(super) fn check_newest(database: &Database, revision: i64) -> Result<(), Fault> {
    let table = database.begin_read()?.open_table(REVISIONS)?;
    let Some((key, _)) = table.last()? else { return Ok(()) };
    match RowKey::decode(key.value()) {
        Some(newest) if newest.revision().main <= revision => Ok(()),
        _ => Err(Fault::Damaged(format!(
            "its last row is {:?}, and its header is of revision {revision}",
            key.value()
        ))),
    }
}

/// Begins a write that, once durable, opens in milliseconds after a crash.
///
/// Quick repair makes the commit two-phase and stores the allocator's state with it, so that redb
/// need not walk the file.
pub(super) fn begin(
    database: &Database,
    durability: Durability,
) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.try_begin_write()?;
    transaction.set_durability(durability)?;
    transaction.set_quick_repair(matches!(durability, Durability::Immediate));
    Ok(transaction)
}

/// Appends `rows`, which ascend and follow what is there; returns what they cost.
pub(super) fn append_rows(transaction: &WriteTransaction, rows: &[Row]) -> Result<u64, Appended> {
    let mut table = transaction.open_table(REVISIONS).map_err(Fault::from)?;
    let mut cursor = table.upper_bound_mut(Bound::<&[u8]>::Unbounded).map_err(Fault::from)?;
    let mut cost_bytes = 0;
    let mut buffer = Vec::new();
    for row in rows {
        let key = row.key.as_bytes();
        match cursor.insert_before(key, seal(key, &row.stored, &mut buffer)) {
            Ok(()) => cost_bytes += row_cost_bytes(&row.key, row.stored.len()),
            Err(redb::CursorError::UnorderedKey) => {
                return Err(Appended::Refused(Refusal::Row(row.key)));
            }
            Err(error) => return Err(Appended::Fault(error.into())),
        }
    }
    cursor.close().map_err(Fault::from)?;
    Ok(cost_bytes)
}

/// Why rows were not appended.
pub(super) enum Appended {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Fault> for Appended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Deletes the rows at `keys`, which ascend, in that order; returns what they cost. One that is
/// missing was deleted before.
pub(super) fn delete_rows(transaction: &WriteTransaction, keys: &[RowKey]) -> Result<u64, Fault> {
    assert!(keys.is_sorted(), "rows are deleted in ascending order");
    let mut table = transaction.open_table(REVISIONS)?;
    let mut cost_bytes = 0;
    for run in runs(keys, |key| key.revision().main) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if !worth_a_walk(run) {
            for key in run {
                if let Some(sealed) = table.remove(key.as_bytes())? {
                    cost_bytes += pair_cost_bytes(key.as_bytes().len() + sealed.value().len());
                }
            }
            continue;
        }
        let mut wanted = run.iter().peekable();
        let extracted = table.extract_from_if(first.as_bytes()..=last.as_bytes(), |found, _| {
            while wanted.next_if(|key| key.as_bytes() < found).is_some() {}
            wanted.next_if(|key| key.as_bytes() == found).is_some()
        })?;
        for pair in extracted {
            let (key, sealed) = pair?;
            cost_bytes += pair_cost_bytes(key.value().len() + sealed.value().len());
        }
    }
    Ok(cost_bytes)
}

/// Writes or removes records of the small tables.
pub(super) fn write_tables(
    transaction: &WriteTransaction,
    records: &[TableRow],
) -> Result<(), Fault> {
    let mut buffer = Vec::new();
    for record in records {
        let mut table = transaction.open_table(small(record.table))?;
        let key = record.key.as_ref();
        match &record.value {
            Some(value) => drop(table.insert(key, seal(key, value, &mut buffer))?),
            None => drop(table.remove(key)?),
        }
    }
    Ok(())
}

/// Reads all of the small tables.
///
/// A table that is not there is empty: a version before it wrote the file. One whose name is unknown is one that
/// cannot be found by its own.
pub(super) fn read_tables(transaction: &ReadTransaction) -> Result<Vec<TableRow>, Fault> {
    let is_known = |name: &str| {
        [REVISIONS.name(), STORE.name()].contains(&name)
            || Table::ALL.iter().any(|table| table.name() == name)
    };
    if let Some(unknown) = transaction.list_tables()?.find(|table| !is_known(table.name())) {
        return Err(Fault::Damaged(format!("it has the unknown table {:?}", unknown.name())));
    }
    let mut records = Vec::new();
    for table in Table::ALL {
        let opened = match transaction.open_table(small(table)) {
            Ok(opened) => opened,
            // A version before this table wrote the file.
            Err(TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut last: Option<Bytes> = None;
        let mut read = 0;
        for pair in opened.iter()? {
            let (key, sealed) = pair?;
            let key = Bytes::copy_from_slice(key.value());
            if last.replace(key.clone()).is_some_and(|last| last >= key) {
                let what = format!("record {key:?} of table {} is out of order", table.name());
                return Err(Fault::Damaged(what));
            }
            let value = unseal(&key, sealed.value(), || {
                format!("record {key:?} of table {}", table.name())
            })?;
            let value = Some(Bytes::copy_from_slice(value));
            records.push(TableRow { table, key, value });
            read += 1;
        }
        check_count(&format!("records of table {}", table.name()), read, opened.len()?)?;
    }
    Ok(records)
}

/// Compares how many `what` were found with how many there are said to be.
///
/// # Errors
/// [`Fault::Damaged`] if some were lost, or came back.
pub fn check_count(what: &str, found: u64, said: u64) -> Result<(), Fault> {
    if found == said {
        return Ok(());
    }
    Err(Fault::Damaged(format!("it says that it holds {said} {what}, and {found} are there")))
}

fn small(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// What a row takes in a file that was loaded in order, in bytes: its share of a leaf full of rows of
/// its size, or its own pages, of which redb takes a power of two.
pub(super) fn row_cost_bytes(key: &RowKey, stored_bytes: usize) -> u64 {
    pair_cost_bytes(key.as_bytes().len() + stored_bytes + SEAL_BYTES)
}

fn pair_cost_bytes(pair_bytes: usize) -> u64 {
    let pair_bytes = pair_bytes as u64 + PAIR_BYTES;
    match (PAGE_BYTES - LEAF_BYTES) / pair_bytes {
        0 => {
            let pages = (pair_bytes + LEAF_BYTES).div_ceil(PAGE_BYTES).next_power_of_two();
            pages * PAGE_BYTES + BRANCH_BYTES
        }
        per_leaf => (PAGE_BYTES + BRANCH_BYTES).div_ceil(per_leaf),
    }
}

/// Splits ascending `items` into runs without a gap over [`GAP_MAX`] in `main`; runs shorter than
/// [`RUN_MIN`] are not worth a walk.
pub(super) fn runs<T>(items: &[T], main: impl Fn(&T) -> i64) -> impl Iterator<Item = &[T]> {
    items.chunk_by(move |a, b| main(b).saturating_sub(main(a)) <= GAP_MAX)
}

/// Whether a run is worth a walk.
pub(super) fn worth_a_walk<T>(run: &[T]) -> bool {
    run.len() >= RUN_MIN
}
