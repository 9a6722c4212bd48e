//! Pages of a bbolt file, each written once and in ascending order.
//!
//! ```text
//! page      id u64 | flags u16 | count u16 | overflow u32 | elements | keys and values
//! leaf      flags u32 | pos u32 | key length u32 | value length u32          (16 bytes)
//! branch    pos u32 | key length u32 | page u64                              (16 bytes)
//! meta      magic, version, page size, flags: u32 | root u64, sequence u64 | freelist u64 |
//!           pages u64 | transaction u64 | FNV-1a of all before it u64
//! ```
//!
//! Numbers are little-endian; `pos` counts from its own element. What does not fit into one page goes on
//! in the `overflow` pages right behind it.

use bytes::Bytes;

use crate::mvcc::RowKey;

/// The size of a page, in bytes: that of the usual machine, and any reader takes it from the file.
pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const ELEMENT_BYTES: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
/// The value of the element is a bucket.
const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Both meta pages and the list of free pages, which is empty.
const FIRST_PAGES: u64 = 3;
const FREELIST_PAGE: u64 = 2;

/// A key in a page, without an allocation for the many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Row(RowKey),
    Bytes(Bytes),
}

/// One element of a leaf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Bytes,
}

/// One element of a branch: a page and the first key in it.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) key: Key,
    pub(super) page: u64,
}

/// Gives out page ids, and writes the pages unless they are only counted.
pub(super) struct Pages {
    next: u64,
    out: Option<Vec<u8>>,
}

impl Key {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Row(key) => key.as_bytes(),
            Self::Bytes(key) => key,
        }
    }
}

impl Entry {
    pub(super) fn cost_bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.as_bytes().len() + self.value.len()
    }
}

impl Child {
    pub(super) fn cost_bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.as_bytes().len()
    }
}

impl Pages {
    /// Pages that are only counted.
    pub(super) fn counted() -> Self {
        Self { next: FIRST_PAGES, out: None }
    }

    /// The same pages, written: the file has `pages`, of which the last one is the root.
    pub(super) fn written(pages: u64) -> Self {
        let mut out = Vec::new();
        for transaction in [0, 1] {
            header(&mut out, transaction, (META, 0), 1);
            meta(&mut out, transaction, pages);
            out.resize(PAGE_BYTES * (transaction as usize + 1), 0);
        }
        header(&mut out, FREELIST_PAGE, (FREELIST, 0), 1);
        out.resize(PAGE_BYTES * 3, 0);
        Self { next: FIRST_PAGES, out: Some(out) }
    }

    /// How many pages there are so far, and so the id of the next one.
    pub(super) fn count(&self) -> u64 {
        self.next
    }

    /// Appends what was written since the last call.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) {
        if let Some(written) = &mut self.out {
            out.append(written);
        }
    }

    /// A leaf with these entries; returns its id.
    pub(super) fn leaf(&mut self, entries: &[Entry]) -> u64 {
        self.leaf_of(entries, 0)
    }

    /// A leaf whose entries are buckets.
    pub(super) fn leaf_of_buckets(&mut self, entries: &[Entry]) -> u64 {
        self.leaf_of(entries, IS_BUCKET)
    }

    fn leaf_of(&mut self, entries: &[Entry], element_flags: u32) -> u64 {
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        self.page((LEAF, entries.len()), bytes, |out| {
            let mut pos = entries.len() * ELEMENT_BYTES;
            for entry in entries {
                let (key, value) = (entry.key.as_bytes(), &entry.value);
                for word in [element_flags, word(pos), word(key.len()), word(value.len())] {
                    out.extend_from_slice(&word.to_le_bytes());
                }
                pos = pos - ELEMENT_BYTES + key.len() + value.len();
            }
            for entry in entries {
                out.extend_from_slice(entry.key.as_bytes());
                out.extend_from_slice(&entry.value);
            }
        })
    }

    /// A branch with these children; returns its id.
    pub(super) fn branch(&mut self, children: &[Child]) -> u64 {
        let bytes = children.iter().map(Child::cost_bytes).sum();
        self.page((BRANCH, children.len()), bytes, |out| {
            let mut pos = children.len() * ELEMENT_BYTES;
            for child in children {
                let key = child.key.as_bytes();
                out.extend_from_slice(&word(pos).to_le_bytes());
                out.extend_from_slice(&word(key.len()).to_le_bytes());
                out.extend_from_slice(&child.page.to_le_bytes());
                pos = pos - ELEMENT_BYTES + key.len();
            }
            for child in children {
                out.extend_from_slice(child.key.as_bytes());
            }
        })
    }

    fn page(
        &mut self,
        (flags, count): (u16, usize),
        bytes: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> u64 {
        let id = self.next;
        let pages = pages_of(HEADER_BYTES + bytes);
        self.next += pages as u64;
        if let Some(out) = &mut self.out {
            let end = out.len() + pages * PAGE_BYTES;
            let count = u16::try_from(count).expect("a page ends long before");
            header(out, id, (flags, count), pages);
            fill(out);
            assert!(out.len() <= end, "the size of a page was computed");
            out.resize(end, 0);
        }
        id
    }
}

/// How many pages hold this many bytes, the header among them.
pub(super) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

fn header(out: &mut Vec<u8>, id: u64, (flags, count): (u16, u16), pages: usize) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&word(pages - 1).to_le_bytes());
}

fn meta(out: &mut Vec<u8>, transaction: u64, pages: u64) {
    let start = out.len();
    for word in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for long in [pages - 1, 0, FREELIST_PAGE, pages, transaction] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    let checksum = fnv1a(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

fn word(number: usize) -> u32 {
    u32::try_from(number).expect("a page holds a few requests, each far below 4 GiB")
}
