//! The toy's log, store and recovery.
//!
//! ```text
//! log.N    frames: length, CRC-32C, index, kind, request     synced before the reply
//! store    redb: rows by revision, "applied" and "revision"    one transaction per flush
//! ```
//!
//! After a flush a new log is begun and the old one removed; at start, the store is read and the frames
//! behind its applied index are applied again.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};
use quorate_proto::mvccpb::KeyValue;
use quorate_server::storage::fs::{File, FileSystem as _, OpenMode};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

use crate::model::{Model, Refusal, Reply, Request, Version, crc32c};
use crate::sim::fs::SimFs;

/// A row's main and sub, and its key and value.
type Rows = TableDefinition<'static, (i64, i64), (&'static [u8], &'static [u8])>;
const ROWS: Rows = TableDefinition::new("rows");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
/// A log longer than this is flushed and begun anew.
const LOG_BYTES_MAX: u64 = 3000;
const HEAD_BYTES: usize = 17;

/// Why the toy does not start.
pub(super) enum Wrong {
    /// The disk failed.
    Disk(io::Error),
    /// What it found makes no sense.
    Broken(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl<E: Into<redb::Error>> From<Redb<E>> for Wrong {
    fn from(Redb(error): Redb<E>) -> Self {
        match error.into() {
            redb::Error::Io(error) => Self::Disk(error),
            redb::Error::PreviousIo => Self::Disk(io::Error::other("redb failed before")),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// Any of redb's errors.
struct Redb<E>(E);

pub(super) struct Server {
    disk: SimFs,
    mutant: Option<&'static str>,
    model: Model,
    db: Database,
    log: Box<dyn File>,
    log_number: u64,
    log_bytes: u64,
    /// The last request in the log.
    index: i64,
    flushed_revision: i64,
}

impl Server {
    pub(super) fn open(disk: &SimFs, mutant: Option<&'static str>) -> Result<Self, Wrong> {
        let db = open_store(disk)?;
        let (mut model, applied) = read_store(&db)?;
        let flushed_revision = model.revision();
        let (number, frames) = read_logs(disk)?;
        let mut index = applied;
        for (at, request) in frames {
            if at == index + 1 {
                index = at;
                // A refusal was an answer as well.
                let _ = model.call(&request);
            } else if at > index {
                return Err(Wrong::Broken(format!("after request {index} comes {at} in the log")));
            }
        }
        let log_number = number + 1;
        let log = create_log(disk, log_number, None)?;
        let mut server = Self {
            disk: disk.clone(),
            mutant,
            model,
            db,
            log,
            log_number,
            log_bytes: 0,
            index,
            flushed_revision,
        };
        server.flush()?;
        remove_logs_before(disk, log_number)?;
        Ok(server)
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn log_is_full(&self) -> bool {
        self.log_bytes > LOG_BYTES_MAX
    }

    pub(super) fn call(&mut self, request: &Request) -> io::Result<Result<Reply, Refusal>> {
        let Some((kind, body)) = encode(request) else { return Ok(self.model.call(request)) };
        self.index += 1;
        let mut payload = self.index.to_be_bytes().to_vec();
        payload.push(kind);
        payload.extend(body);
        let mut frame =
            u32::try_from(payload.len()).expect("a short request").to_be_bytes().to_vec();
        frame.extend(crc32c([payload.as_slice()]).to_be_bytes());
        frame.extend(payload);
        self.log.write_at(self.log_bytes, &frame)?;
        if self.mutant != Some("acknowledge-before-sync") {
            self.log.sync_data()?;
        }
        self.log_bytes += frame.len() as u64;
        Ok(self.model.call(request))
    }

    /// Writes what changed since the last flush, with the index that it covers.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let flushed = self.write_rows().map_err(|wrong| match wrong {
            Wrong::Disk(error) => error,
            Wrong::Broken(text) => io::Error::other(text),
        });
        self.flushed_revision = self.model.revision();
        flushed
    }

    fn write_rows(&mut self) -> Result<(), Wrong> {
        let mut txn = self.db.begin_write().map_err(Redb)?;
        txn.set_quick_repair(true);
        {
            let mut rows = txn.open_table(ROWS).map_err(Redb)?;
            let unflushed = |version: &Version| version.main > self.flushed_revision;
            for (key, version) in self.model.rows().filter(|(_, version)| unflushed(version)) {
                if self.mutant == Some("half-transaction") && version.sub > 0 {
                    continue;
                }
                let value = version.kv.as_ref().map_or_else(Vec::new, KeyValue::encode_to_vec);
                let place = (version.main, version.sub);
                rows.insert(place, (key.as_ref(), value.as_slice())).map_err(Redb)?;
            }
            let mut meta = txn.open_table(META).map_err(Redb)?;
            if self.mutant != Some("double-apply") {
                meta.insert("applied", self.index).map_err(Redb)?;
            }
            meta.insert("revision", self.model.revision()).map_err(Redb)?;
        }
        txn.commit().map_err(Redb)?;
        Ok(())
    }

    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.log = create_log(&self.disk, self.log_number + 1, self.mutant)?;
        self.log_number += 1;
        self.log_bytes = 0;
        if self.mutant == Some("double-apply") {
            return Ok(());
        }
        remove_logs_before(&self.disk, self.log_number)
    }
}

struct Backend(Box<dyn File>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// Opens the store. A new one is made under another name, because redb refuses one that is half made.
fn open_store(disk: &SimFs) -> Result<Database, Wrong> {
    let (path, new) = (Path::new("store"), Path::new("store.new"));
    if !disk.exists(path)? {
        if disk.exists(new)? {
            disk.remove_file(new)?;
        }
        drop(open_file(disk, new)?);
        disk.rename(new, path)?;
        disk.sync_dir(Path::new(""))?;
    }
    open_file(disk, path)
}

fn open_file(disk: &SimFs, path: &Path) -> Result<Database, Wrong> {
    let file = disk.open(path, OpenMode::Create)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(1 << 20);
    Ok(builder.create_with_backend(Backend(file)).map_err(Redb)?)
}

fn read_store(db: &Database) -> Result<(Model, i64), Wrong> {
    let txn = db.begin_read().map_err(Redb)?;
    let Ok(rows) = txn.open_table(ROWS) else { return Ok((Model::new(), 0)) };
    let mut changes = Vec::new();
    for row in rows.iter().map_err(Redb)? {
        let (place, row) = row.map_err(Redb)?;
        let ((main, sub), (key, value)) = (place.value(), row.value());
        let kv = if value.is_empty() { None } else { KeyValue::decode(value).ok() };
        changes.push((Bytes::copy_from_slice(key), Version { main, sub, kv }));
    }
    let meta = txn.open_table(META).map_err(Redb)?;
    let number = |name: &str| -> Result<i64, Wrong> {
        Ok(meta.get(name).map_err(Redb)?.map_or(0, |value| value.value()))
    };
    Ok((Model::restore(number("revision")?.max(1), -1, changes), number("applied")?))
}

fn log_path(number: u64) -> PathBuf {
    PathBuf::from(format!("log.{number:08}"))
}

fn create_log(disk: &SimFs, number: u64, mutant: Option<&str>) -> io::Result<Box<dyn File>> {
    let log = disk.open(&log_path(number), OpenMode::Create)?;
    log.set_len(0)?;
    log.sync_data()?;
    if mutant != Some("rotation-without-folder-sync") {
        disk.sync_dir(Path::new(""))?;
    }
    Ok(log)
}

fn log_numbers(disk: &SimFs) -> io::Result<Vec<u64>> {
    let number = |name: &PathBuf| name.to_str()?.strip_prefix("log.")?.parse().ok();
    Ok(disk.read_dir(Path::new(""))?.iter().filter_map(number).collect())
}

fn remove_logs_before(disk: &SimFs, number: u64) -> io::Result<()> {
    for old in log_numbers(disk)?.into_iter().filter(|old| *old < number) {
        disk.remove_file(&log_path(old))?;
    }
    Ok(())
}

/// The number of the last log, and every whole frame of all in order.
fn read_logs(disk: &SimFs) -> Result<(u64, Vec<(i64, Request)>), Wrong> {
    let numbers = log_numbers(disk)?;
    let mut frames = Vec::new();
    for number in &numbers {
        let log = disk.open(&log_path(*number), OpenMode::Existing)?;
        let len = usize::try_from(log.len()?).map_err(|error| Wrong::Broken(error.to_string()))?;
        let mut bytes = vec![0; len];
        log.read_at(0, &mut bytes)?;
        let mut rest = bytes.as_slice();
        while let Some((frame, behind)) = decode_frame(rest) {
            frames.push(frame);
            rest = behind;
        }
    }
    Ok((numbers.last().copied().unwrap_or(0), frames))
}

/// The frame at the start, unless it is torn or there is none.
fn decode_frame(bytes: &[u8]) -> Option<((i64, Request), &[u8])> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let len = usize::try_from(u32::from_be_bytes(head[..4].try_into().ok()?)).ok()?;
    let (payload, behind) = rest.split_at_checked(len)?;
    if len < HEAD_BYTES - 8 || crc32c([payload]).to_be_bytes() != head[4..] {
        return None;
    }
    let index = i64::from_be_bytes(payload[..8].try_into().ok()?);
    Some(((index, decode(payload[8], &payload[9..])?), behind))
}

/// The form of a write in the log; reads are not logged.
fn encode(request: &Request) -> Option<(u8, Vec<u8>)> {
    match request {
        Request::Put(put) => Some((0, put.encode_to_vec())),
        Request::DeleteRange(delete) => Some((1, delete.encode_to_vec())),
        Request::Txn(txn) => Some((2, txn.encode_to_vec())),
        Request::Range(_) | Request::Compact(_) | Request::HashKv(_) => None,
    }
}

fn decode(kind: u8, body: &[u8]) -> Option<Request> {
    match kind {
        0 => PutRequest::decode(body).ok().map(Request::Put),
        1 => DeleteRangeRequest::decode(body).ok().map(Request::DeleteRange),
        2 => TxnRequest::decode(body).ok().map(Request::Txn),
        _ => None,
    }
}
