//! Images: the whole state of one moment as a bbolt file that etcd and its tools read, as a stream.
//!
//! `Maintenance.Snapshot` sends one. It is a file only where it arrives: here it never touches the disk,
//! so a disk that is nearly full can be saved, and a crash leaves nothing behind.
//!
//! A bbolt file begins with a page that names the root of its tree and how many pages there are, and a
//! client wants to know the length first; both are known when everything was seen. So an image takes two
//! passes over the same pinned rows:
//!
//! ```text
//! measure × n   lays out every page and throws it away            -> pages, and so the length
//! write × n     lays out every page again, the same, and hands it out
//!
//! | meta | meta | no free pages | alarm .. | key: leaf leaf .. branch leaf .. | .. | buckets |
//!    `------`-------------------------------------------------------------------------^ the root
//! ```
//!
//! Between two steps an image keeps one unfinished page per level of a tree and the records beside the
//! keys; a step takes about a megabyte. The price is a second scan of the rows, which costs less than
//! copying them to the disk and back. That both passes see the same is what a
//! [`History`] promises.

mod contents;
mod page;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use self::contents::{Bucket, Content};
use self::page::{Entry, Key, PAGE_BYTES, Pages};
use self::tree::Tree;
use crate::mvcc::{Row, Rows};
use crate::state_machine::Inventory;
use crate::view::{History, HistoryRead, ReadError};

/// Records of the small buckets that one step takes.
const RECORDS_PER_STEP: usize = 10_000;

/// The length of the digest that follows a saved image, in bytes.
pub const DIGEST_BYTES: usize = 32;

/// An image being measured and then written.
pub struct Image {
    source: Source,
    stage: Stage,
    digest: Sha256,
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its rows cannot be read any more.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The two passes did not see the same.
    #[error("{written_pages} pages were written where {measured_pages} were measured")]
    Torn {
        /// Pages that were laid out so far.
        written_pages: u64,
        /// Pages that the client was promised.
        measured_pages: u64,
    },
}

/// What an image is made of.
struct Source {
    history: Arc<History>,
    rows: Arc<dyn Rows>,
    buckets: Vec<Bucket>,
}

enum Stage {
    Measure(Pass),
    Write { pass: Pass, pages: u64 },
}

/// One pass over everything.
struct Pass {
    pages: Pages,
    /// Buckets that are finished, and the roots of their trees.
    roots: Vec<Entry>,
    tree: Tree,
    /// How many records of the present bucket are in its tree.
    records: usize,
    read: HistoryRead,
    batch: Vec<Row>,
}

impl Image {
    /// An image of the keys of `history` and of `inventory`, taken at the same moment.
    ///
    /// `storage_version` is the version of etcd whose format it has, such as "3.7.0".
    pub fn new(
        (history, rows): (Arc<History>, Arc<dyn Rows>),
        inventory: &Inventory,
        storage_version: &str,
    ) -> Self {
        let buckets = contents::buckets(inventory, history.compact_revision(), storage_version);
        let source = Source { history, rows, buckets };
        let stage = Stage::Measure(Pass::new(Pages::counted(), &source));
        Self { source, stage, digest: Sha256::new() }
    }

    /// Measures on; `Some` is the length of the image in bytes, once it is known.
    ///
    /// # Errors
    /// `Compacted` if nothing was read for so long that the pin expired, and history was compacted since;
    /// `Rows` if the store cannot be read.
    pub fn measure(&mut self) -> Result<Option<u64>, ReadError> {
        if let Stage::Measure(pass) = &mut self.stage {
            if pass.step(&self.source)? {
                return Ok(None);
            }
            let pages = pass.pages.count();
            let pass = Pass::new(Pages::written(pages), &self.source);
            self.stage = Stage::Write { pass, pages };
        }
        Ok(self.len())
    }

    /// Whether [`Image::measure`] has come to its end.
    pub fn is_measured(&self) -> bool {
        matches!(self.stage, Stage::Write { .. })
    }

    /// Appends the next bytes to `out`, at most a few megabytes; `false` when they were the last ones.
    ///
    /// # Errors
    /// As [`Image::measure`]; also if there are other pages than were measured. What was written is then
    /// worth nothing.
    ///
    /// # Panics
    /// If it was not measured to the end.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Result<bool, ImageError> {
        let Stage::Write { pass, pages } = &mut self.stage else {
            panic!("an image is measured before it is written");
        };
        let has_more = pass.step(&self.source)?;
        let start = out.len();
        pass.pages.drain(out);
        self.digest.update(&out[start..]);
        let count = pass.pages.count();
        if count > *pages || !has_more && count != *pages {
            return Err(ImageError::Torn { written_pages: count, measured_pages: *pages });
        }
        Ok(has_more)
    }

    /// The SHA-256 of everything that was written.
    pub fn digest(&self) -> [u8; DIGEST_BYTES] {
        self.digest.clone().finalize().into()
    }

    fn len(&self) -> Option<u64> {
        match self.stage {
            Stage::Measure(_) => None,
            Stage::Write { pages, .. } => Some(pages * PAGE_BYTES as u64),
        }
    }
}

impl Pass {
    fn new(pages: Pages, source: &Source) -> Self {
        Self {
            pages,
            roots: Vec::new(),
            tree: Tree::default(),
            records: 0,
            read: source.history.read(),
            batch: Vec::new(),
        }
    }

    /// Lays out the next pages; `false` when they were the last ones.
    fn step(&mut self, source: &Source) -> Result<bool, ReadError> {
        let Some(bucket) = source.buckets.get(self.roots.len()) else {
            let root = self.pages.leaf_of_buckets(&self.roots);
            assert_eq!(root + 1, self.pages.count(), "the root is the last page");
            return Ok(false);
        };
        let has_more = match &bucket.content {
            Content::Rows => self.add_rows(source)?,
            Content::Records(records) => self.add_records(records),
        };
        if !has_more {
            let root = std::mem::take(&mut self.tree).finish(&mut self.pages);
            // A bucket is its root and a sequence, which etcd does not use.
            let value = [root.to_le_bytes(), [0; 8]].concat().into();
            self.roots.push(Entry { key: Key::Bytes(bucket.name.into()), value });
            self.records = 0;
        }
        Ok(true)
    }

    fn add_rows(&mut self, source: &Source) -> Result<bool, ReadError> {
        let has_more = self.read.step(source.rows.as_ref(), &mut self.batch)?;
        for Row { key, stored } in self.batch.drain(..) {
            self.tree.push(Entry { key: Key::Row(key), value: stored }, &mut self.pages);
        }
        Ok(has_more)
    }

    fn add_records(&mut self, records: &[(Bytes, Bytes)]) -> bool {
        for (key, value) in records.iter().skip(self.records).take(RECORDS_PER_STEP) {
            let entry = Entry { key: Key::Bytes(key.clone()), value: value.clone() };
            self.tree.push(entry, &mut self.pages);
            self.records += 1;
        }
        self.records < records.len()
    }
}
