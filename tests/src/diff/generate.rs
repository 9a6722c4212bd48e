//! Draws the requests of a history.
//!
//! Keys come from a short list with prefixes, a zero byte and the highest byte, so that ranges,
//! duplicates and overlaps happen all the time. Revisions are drawn around the current and the
//! compacted one. Most requests are valid; each field is now and then beyond what is.
//!
//! Left out is only what no server can be compared with etcd in:
//!
//! - `HashKV` between a compaction that is not physical and the next physical one: with no live key
//!   at its revision etcd hashes whatever the deletion in the background has not reached yet.
//! - `HashKV` at a revision at which history was compacted: etcd answers the last ten of those from a
//!   cache, with the compact revision before that one, and a hash over rows that are gone. Which of
//!   them it still has depends on its restarts.
//! - `RangeStream` with a target but no order: etcd sorts each chunk, so it sends keys twice.
//! - A put in one transaction with a deletion of all keys from one on (range end `\0`): etcd does not
//!   see that they overlap. It panics if the put keeps value or lease, and a key that is deleted and
//!   put again within one revision is lost by a compaction at that revision.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, MemberListRequest,
    PutRequest, RangeRequest, StatusRequest,
};

use super::operation::Operation;
use super::rng::Rng;

mod lease;
mod txn;
mod watch;

const KEYS: [&[u8]; 26] = [
    b"a",
    b"a\0",
    b"aa",
    b"ab",
    b"abc",
    b"b",
    b"b/",
    b"b/1",
    b"b/2",
    b"b/3",
    b"b/4",
    b"b/5",
    b"b/6",
    b"b/7",
    b"b/8",
    b"b0",
    b"c",
    b"registry/pods/default/x",
    b"registry/pods/default/y",
    b"registry/pods/system/x",
    b"registry/services/x",
    b"\0",
    b"\0\0",
    b"\x7f",
    b"\xff",
    b"\xff\xff",
];
const ENDS: [&[u8]; 12] = [
    b"\0",
    b"a",
    b"ac",
    b"b",
    b"b/",
    b"b0",
    b"c",
    b"registry/pods0",
    b"registry0",
    b"\xff",
    b"\xff\xff\xff",
    b"b/4",
];
const VALUES: [&[u8]; 8] = [b"", b"0", b"1", b"2", b"v", b"value", b"\0", b"\xff\xfe"];
/// Beyond the 1.5 MiB of a request, and beyond the 2 MiB of a message. Sizes between the two
/// limits' neighbourhoods are left out: how many bytes a header takes differs by its random id.
const LARGE: [usize; 4] = [100_000, 1_400_000, 1_600_000, 2_200_000];

/// Draws requests from a seed and what has been seen of the server.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    current: i64,
    compacted: i64,
    /// Every revision at which a compaction succeeded.
    compactions: BTreeSet<i64>,
    /// Deletions may still be under way in the background.
    deleting: bool,
}

impl Generator {
    /// Starts a history for an empty store.
    pub fn new(seed: u64) -> Generator {
        Generator {
            rng: Rng::new(seed),
            current: 1,
            compacted: 0,
            compactions: BTreeSet::new(),
            deleting: false,
        }
    }

    /// Takes note of the current revision, as a reply's header said it.
    pub fn saw_revision(&mut self, revision: i64) {
        self.current = self.current.max(revision);
    }

    /// Takes note of a compaction that succeeded.
    pub fn saw_compaction(&mut self, revision: i64, physical: bool) {
        self.compacted = self.compacted.max(revision);
        self.compactions.insert(revision);
        self.deleting = !physical;
    }

    /// The next request.
    pub fn draw(&mut self) -> Operation {
        // What lives longer than a request is drawn here, beside the requests.
        if self.rng.one_in(30) {
            return self.watch();
        }
        if self.rng.one_in(25) {
            return self.lease();
        }
        match self.rng.below(1000) {
            0..300 => Operation::Put(self.put()),
            300..560 => Operation::Range(self.range()),
            560..620 => Operation::RangeStream(self.streamed_range()),
            620..700 => Operation::Delete(self.delete()),
            700..950 => Operation::Txn(self.txn()),
            950..962 => Operation::Compact(self.compact()),
            962..964 => self.valid_compact(),
            964..990 if !self.deleting => {
                Operation::HashKv(HashKvRequest { revision: self.hash_revision() })
            }
            964..992 => {
                Operation::MemberList(MemberListRequest { linearizable: self.rng.one_in(2) })
            }
            992..996 => Operation::Status(StatusRequest::default()),
            _ => Operation::Alarm(AlarmRequest::default()),
        }
    }

    /// The check after a part of the history: compacts somewhere in what is left, most often in the
    /// first half, so that there are revisions to compare.
    pub fn check(&mut self) -> Operation {
        let low = self.compacted + 1;
        let high = self.current.max(low);
        let high = if self.rng.one_in(4) { high } else { low + (high - low) / 2 };
        Operation::Check { compact: self.rng.between(low, high) }
    }

    fn key(&mut self) -> Bytes {
        if self.rng.one_in(200) {
            return Bytes::new();
        }
        Bytes::from_static(self.rng.pick(&KEYS))
    }

    fn value(&mut self) -> Bytes {
        match self.rng.below(2000) {
            0 => Bytes::from(vec![b'x'; self.rng.pick(&LARGE)]),
            1..100 => {
                let length = self.rng.below(3000);
                Bytes::from(vec![b'y'; usize::try_from(length).expect("below 3,000")])
            }
            _ => Bytes::from_static(self.rng.pick(&VALUES)),
        }
    }

    /// An end: none, of the prefix, of everything, or anything.
    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.rng.below(10) {
            0..3 => Bytes::new(),
            3..5 => prefix_end(key),
            5 => Bytes::from_static(b"\0"),
            6..9 => Bytes::from_static(self.rng.pick(&ENDS)),
            _ => self.key(),
        }
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.rng.one_in(15);
        let given = !ignore_value || self.rng.one_in(10);
        PutRequest {
            key: self.key(),
            value: if given { self.value() } else { Bytes::new() },
            lease: if self.rng.one_in(6) { self.lease_id() } else { 0 },
            prev_kv: self.rng.one_in(3),
            ignore_value,
            ignore_lease: self.rng.one_in(20),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        if self.rng.one_in(150) {
            let everything = Bytes::from_static(b"\0");
            return DeleteRangeRequest {
                key: everything.clone(),
                range_end: everything,
                prev_kv: false,
            };
        }
        let key = self.key();
        // Wide deletions are rarer, so that there is something to read.
        let range_end = if self.rng.one_in(3) { self.range_end(&key) } else { Bytes::new() };
        DeleteRangeRequest { key, range_end, prev_kv: self.rng.one_in(2) }
    }

    fn range(&mut self) -> RangeRequest {
        let everything = self.rng.one_in(6);
        let key = if everything { Bytes::from_static(b"\0") } else { self.key() };
        let range_end = if everything { Bytes::from_static(b"\0") } else { self.range_end(&key) };
        let sorted = self.rng.one_in(3);
        let filtered = self.rng.one_in(4);
        RangeRequest {
            key,
            range_end,
            limit: if self.rng.one_in(3) { self.rng.between(-1, 12) } else { 0 },
            revision: if self.rng.one_in(3) { self.revision() } else { 0 },
            sort_order: if sorted { self.enumeration(2) } else { 0 },
            sort_target: if sorted { self.enumeration(4) } else { 0 },
            serializable: self.rng.one_in(4),
            keys_only: self.rng.one_in(5),
            count_only: self.rng.one_in(8),
            min_mod_revision: self.bound(filtered),
            max_mod_revision: self.bound(filtered),
            min_create_revision: self.bound(filtered),
            max_create_revision: self.bound(filtered),
        }
    }

    /// A value of an enumeration up to `last`, or now and then an unknown one.
    fn enumeration(&mut self, last: i64) -> i32 {
        let value = if self.rng.one_in(50) {
            self.rng.pick(&[-1, last + 1, 77])
        } else {
            self.rng.between(0, last)
        };
        i32::try_from(value).expect("small numbers")
    }

    fn bound(&mut self, filtered: bool) -> i64 {
        if filtered && self.rng.one_in(3) { self.revision() } else { 0 }
    }

    /// Most often a readable revision; now and then a compacted, future or negative one.
    fn revision(&mut self) -> i64 {
        let (low, high) = (self.compacted.max(1), self.current);
        match self.rng.below(20) {
            0 => self.rng.between(1, low),
            1 => high + self.rng.between(1, 3),
            2 => self.rng.pick(&[-1, i64::MIN, i64::MAX, low - 1]),
            3..6 => high - self.rng.between(0, 3).min(high - 1),
            6..8 => low + self.rng.between(0, 2),
            _ => self.rng.between(low, high.max(low)),
        }
    }

    fn hash_revision(&mut self) -> i64 {
        loop {
            let revision = if self.rng.one_in(5) { 0 } else { self.revision() };
            if !self.compactions.contains(&revision) {
                return revision;
            }
        }
    }

    fn streamed_range(&mut self) -> RangeRequest {
        let mut range = self.range();
        if range.sort_order == 0 {
            range.sort_target = 0;
        }
        range
    }

    /// A compaction that is most often refused: of what is compacted already, or of the future.
    fn compact(&mut self) -> CompactionRequest {
        let revision = match self.rng.below(4) {
            0 => self.compacted,
            1 => self.current + self.rng.between(1, 100),
            2 => self.rng.between(-2, self.compacted),
            _ => self.rng.pick(&[0, -1, i64::MIN, i64::MAX]),
        };
        // The first compaction at 0 succeeds in both, and from then on etcd answers a hash at revision
        // 0, which stands for the current one, from its cache of compactions.
        let revision = if revision == 0 { -1 } else { revision };
        CompactionRequest { revision, physical: self.rng.one_in(2) }
    }

    fn valid_compact(&mut self) -> Operation {
        let low = self.compacted.clamp(1, self.current);
        let revision = self.rng.between(low, self.current);
        Operation::Compact(CompactionRequest { revision, physical: self.rng.one_in(2) })
    }
}

/// The first key behind all that begin with `prefix`; a zero byte when there is none.
fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_history() {
        let history = |seed| {
            let mut generator = Generator::new(seed);
            (0..500)
                .map(|number| {
                    generator.saw_revision(number);
                    generator.draw().to_string()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(history(1), history(1));
        assert_ne!(history(1), history(2));
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(&"b/".into()), "b0");
        assert_eq!(prefix_end(&Bytes::from_static(b"a\xff")), "b");
        assert_eq!(prefix_end(&Bytes::from_static(b"\xff\xff")), "\0");
    }
}
