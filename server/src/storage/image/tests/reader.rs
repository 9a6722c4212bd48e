//! A small reader of bbolt files that trusts nothing: ids, kinds, counts, orders, and that each page
//! belongs to exactly one place. It shares no code with what writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const PAGE: usize = 4096;

/// A file that was read and found in order.
pub(super) struct File {
    pub(super) buckets: BTreeMap<String, Bucket>,
}

pub(super) struct Bucket {
    pub(super) entries: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    seen: BTreeSet<u64>,
}

/// An element of a leaf: flags, key, value.
type Element = (u32, Vec<u8>, Vec<u8>);

impl File {
    pub(super) fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len() % PAGE, 0);
        let pages = (bytes.len() / PAGE) as u64;
        let mut reader = Reader { bytes, seen: BTreeSet::new() };
        let root = reader.metas(pages);
        let (list, list_count, _) = reader.page(2, 0x10);
        assert_eq!(list_count, 0, "no page is free");
        assert_eq!(list.len(), PAGE);
        let mut elements = Vec::new();
        reader.tree(root, None, true, &mut elements);
        let mut buckets = BTreeMap::new();
        for (flags, name, value) in elements {
            assert_eq!(flags, 1, "the root holds buckets");
            assert_eq!(value.len(), 16);
            assert_eq!(long(&value, 8), 0, "the sequence");
            let mut inside = Vec::new();
            reader.tree(long(&value, 0), None, true, &mut inside);
            assert!(inside.iter().all(|(flags, ..)| *flags == 0));
            assert!(inside.windows(2).all(|pair| pair[0].1 < pair[1].1), "keys ascend");
            let entries = inside.into_iter().map(|(_, key, value)| (key, value)).collect();
            buckets.insert(String::from_utf8(name).unwrap(), Bucket { entries });
        }
        assert_eq!(reader.seen.len() as u64, pages, "each page is used, and none twice");
        Self { buckets }
    }
}

impl Reader<'_> {
    /// Both meta pages, which say the same but for the transaction; returns the root.
    fn metas(&mut self, pages: u64) -> u64 {
        let mut roots = BTreeSet::new();
        for transaction in [0, 1] {
            let (page, ..) = self.page(transaction, 0x04);
            let meta = &page[16..80];
            assert_eq!((word(meta, 0), word(meta, 4)), (0xED0C_DAED, 2), "magic and version");
            assert_eq!((word(meta, 8), word(meta, 12)), (PAGE as u32, 0), "size and flags");
            assert_eq!(long(meta, 24), 0, "the sequence of the root");
            assert_eq!(long(meta, 32), 2, "the free list");
            assert_eq!(long(meta, 40), pages);
            assert_eq!(long(meta, 48), transaction);
            let mut hash = 14_695_981_039_346_656_037_u64;
            for byte in &meta[..56] {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
            }
            assert_eq!(long(meta, 56), hash, "the checksum");
            roots.insert(long(meta, 16));
        }
        assert_eq!(roots.len(), 1);
        *roots.first().unwrap()
    }

    /// The bytes of a page with those behind it, its count, and its pages.
    fn page(&mut self, id: u64, kind: u16) -> (Vec<u8>, usize, u64) {
        let start = usize::try_from(id).unwrap() * PAGE;
        let head = &self.bytes[start..start + 16];
        assert_eq!(long(head, 0), id, "a page knows its id");
        let flags = u16::from_le_bytes([head[8], head[9]]);
        assert_eq!(flags, kind, "the kind of page {id}");
        let count = u16::from_le_bytes([head[10], head[11]]);
        let pages = u64::from(word(head, 12)) + 1;
        for page in id..id + pages {
            assert!(self.seen.insert(page), "page {page} is used twice");
        }
        let end = start + usize::try_from(pages).unwrap() * PAGE;
        (self.bytes[start..end].to_vec(), count.into(), pages)
    }

    fn is_branch(&self, id: u64) -> bool {
        self.bytes[usize::try_from(id).unwrap() * PAGE + 8] == 1
    }

    /// Appends what is below `id`, whose first key is `first`; returns how deep it is.
    fn tree(
        &mut self,
        id: u64,
        first: Option<&[u8]>,
        is_root: bool,
        out: &mut Vec<Element>,
    ) -> u32 {
        if self.is_branch(id) {
            let (page, count, pages) = self.page(id, 0x01);
            assert_eq!(pages, 1, "a branch is one page");
            assert!(count >= 2, "branch {id} has {count} children");
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut depths = BTreeSet::new();
            let mut used = 16 + count * 16..PAGE;
            for element in (16..).step_by(16).take(count) {
                let key =
                    take(&page, element, word(&page, element), word(&page, element + 4), &mut used);
                let child = long(&page, element + 8);
                depths.insert(self.tree(child, Some(&key), false, out));
                keys.push(key);
            }
            assert!(keys.is_sorted(), "the children of {id} ascend");
            assert!(first.is_none_or(|first| first == keys[0]));
            assert_eq!(depths.len(), 1, "all leaves are equally deep");
            return depths.first().unwrap() + 1;
        }
        let (page, count, pages) = self.page(id, 0x02);
        assert!(is_root || count > 0, "leaf {id} is empty");
        let mut used = 16 + count * 16..page.len();
        for element in (16..).step_by(16).take(count) {
            let [flags, pos, key, value] =
                [0, 4, 8, 12].map(|offset| word(&page, element + offset));
            let key = take(&page, element, pos, key, &mut used);
            let value_at = u32::try_from(used.start - element).unwrap();
            let value = take(&page, element, value_at, value, &mut used);
            out.push((flags, key, value));
        }
        let first_here = out.len() - count;
        assert!(first.is_none_or(|first| first == out[first_here].1));
        let room = usize::try_from(pages).unwrap() * PAGE;
        assert!(used.start > room - PAGE, "leaf {id} has no page too many");
        assert!(page[used].iter().all(|byte| *byte == 0), "what is left is zero");
        0
    }
}

/// What an element at `element` points to, which comes right behind what came before it.
fn take(page: &[u8], element: usize, pos: u32, length: u32, used: &mut Range<usize>) -> Vec<u8> {
    let start = element + pos as usize;
    assert_eq!(start, used.start, "keys and values follow each other");
    used.start += length as usize;
    page[start..used.start].to_vec()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
