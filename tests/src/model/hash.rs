//! `HashKV`, computed by its definition.

use prost::Message as _;
use quorate_proto::etcdserverpb::HashKvResponse;
use quorate_proto::mvccpb::KeyValue;

use super::{Model, Refusal, Version, header};

/// The reversed Castagnoli polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

/// CRC-32C over `parts`, one after the other.
pub fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    !parts.into_iter().flatten().fold(!0, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        // Lossless: `at` is below 256.
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

impl Model {
    /// The hash of what is left at `revision` after the last compaction; 0 is the current revision.
    ///
    /// # Errors
    /// `FutureRevision` and `Compacted`, as for a read.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Refusal> {
        let revision = match revision {
            0 => self.revision,
            // A negative one is not refused: it is before every row.
            ..0 => revision,
            _ if revision < self.compact_revision => return Err(Refusal::Compacted),
            _ if revision > self.revision => return Err(Refusal::FutureRevision),
            _ => revision,
        };
        Ok(self.hash_between(self.compact_revision, revision))
    }

    /// The hash at `revision` as it was while `compact_revision` was the last compaction.
    pub fn hash_between(&self, compact_revision: i64, revision: i64) -> HashKvResponse {
        let rows = self.hashed_rows(compact_revision, revision);
        let parts = rows.iter().flat_map(|(key, value)| [key.as_slice(), value.as_slice()]);
        HashKvResponse {
            header: header(self.revision),
            hash: crc32c([b"key".as_slice()].into_iter().chain(parts)),
            compact_revision,
            hash_revision: revision,
        }
    }

    /// The stored form of every row that the hash covers, in the order of revisions.
    fn hashed_rows(&self, compact_revision: i64, revision: i64) -> Vec<(Vec<u8>, Vec<u8>)> {
        // Rows up to the compaction count if the hashed revision still shows them. Where it shows
        // nothing at all, those count that the compaction left.
        let shows = |revision: i64, key: &[u8], version: &Version| {
            version.kv.is_some() && self.at(key, revision) == version.kv.as_ref()
        };
        let nothing = self.keys.keys().all(|key| self.at(key, revision).is_none());
        let kept_at = if nothing { compact_revision } else { revision };
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = self
            .rows()
            .filter(|(_, version)| version.main <= revision)
            .filter(|(key, version)| {
                version.main > compact_revision || shows(kept_at, key, version)
            })
            .map(|(key, version)| stored(key, version))
            .collect();
        rows.sort();
        rows
    }
}

/// The key and value under which a version is stored.
fn stored(key: &[u8], version: &Version) -> (Vec<u8>, Vec<u8>) {
    let mut row = Vec::with_capacity(18);
    row.extend(version.main.to_be_bytes());
    row.push(b'_');
    row.extend(version.sub.to_be_bytes());
    let Some(kv) = &version.kv else {
        row.push(b't');
        let kv = KeyValue { key: key.to_vec().into(), ..KeyValue::default() };
        return (row, kv.encode_to_vec());
    };
    (row, kv.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_its_published_check_value() {
        assert_eq!(crc32c([b"123456789".as_slice()]), 0xe306_9283);
        assert_eq!(crc32c([b"1234".as_slice(), b"56789"]), 0xe306_9283);
    }
}
