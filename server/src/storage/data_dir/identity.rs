//! Whose data it is: a small JSON file that is written once, when the data dir is complete.

use serde::{Deserialize, Serialize};

/// The format of the data dir that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Random and secret, drawn for this data dir and the stamp of its log: a member that lost its disk
    /// comes back with another one.
    pub incarnation: u64,
    /// The name that the member had when the data dir was made; for people.
    pub name: String,
    /// The version that made it; for people.
    pub created_by: String,
}

/// What is wrong with the file of an identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A newer version wrote it.
    Newer(u64),
    /// It is damaged.
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u64,
    cluster_id: String,
    member_id: String,
    incarnation: String,
    name: String,
    created_by: String,
    checksum: String,
}

/// The only part that every format shares.
#[derive(Deserialize)]
struct Versioned {
    format: u64,
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            format: FORMAT,
            cluster_id: hex(self.cluster_id),
            member_id: hex(self.member_id),
            incarnation: hex(self.incarnation),
            name: self.name.clone(),
            created_by: self.created_by.clone(),
            checksum: self.checksum(),
        };
        let mut bytes = serde_json::to_vec_pretty(&stored).expect("strings and a number");
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(Unreadable::Newer(format));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(damaged)?;
        let identity = Self {
            cluster_id: number(&stored.cluster_id)?,
            member_id: number(&stored.member_id)?,
            incarnation: number(&stored.incarnation)?,
            name: stored.name,
            created_by: stored.created_by,
        };
        if format != FORMAT || identity.checksum() != stored.checksum {
            return Err(Unreadable::Damaged("its checksum is wrong".to_owned()));
        }
        Ok(identity)
    }

    fn checksum(&self) -> String {
        let Self { cluster_id, member_id, incarnation, name, created_by } = self;
        let text = format!(
            "{FORMAT} {cluster_id:x} {member_id:x} {incarnation:x} {name:?} {created_by:?}"
        );
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

fn number(text: &str) -> Result<u64, Unreadable> {
    u64::from_str_radix(text, 16).map_err(|error| Unreadable::Damaged(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_with_any_flipped_bit_is_refused_or_unchanged() {
        let identity = Identity {
            cluster_id: 0xdead,
            member_id: u64::MAX,
            incarnation: 7,
            name: "a \"name\"\n".to_owned(),
            created_by: "0.1.0".to_owned(),
        };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes).unwrap(), identity);
        for position in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            // The case of a hexadecimal digit and the kind of white space are not data.
            assert!(
                Identity::decode(&flipped).map_or(true, |decoded| decoded == identity),
                "bit {position}"
            );
        }
        assert!(matches!(Identity::decode(b""), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn a_newer_format_is_recognised_whatever_else_it_holds() {
        assert_eq!(
            Identity::decode(br#"{"format": 2, "surprise": []}"#),
            Err(Unreadable::Newer(2))
        );
    }
}
