//! Whose data it is: a small JSON file that is written once, when the data dir is complete.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format of the data dir that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 2;
/// The one before, which does not say with which flags it was made.
const FORMAT_WITHOUT_FLAGS: u64 = 1;

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
    /// The flags that it was made with, from which the IDs follow; for people. A data dir of format 1 does
    /// not say.
    pub made_with: Option<MadeWith>,
}

/// The flags from which the IDs of a cluster and its first members follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeWith {
    /// `--initial-cluster`, or what stands for it.
    pub initial_cluster: String,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
}

impl fmt::Display for MadeWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initial_cluster, initial_cluster_token } = self;
        write!(
            f,
            "--initial-cluster={initial_cluster} and --initial-cluster-token={initial_cluster_token}"
        )
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    made_with: Option<MadeWith>,
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
            format: self.format(),
            cluster_id: hex(self.cluster_id),
            member_id: hex(self.member_id),
            incarnation: hex(self.incarnation),
            name: self.name.clone(),
            created_by: self.created_by.clone(),
            made_with: self.made_with.clone(),
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
            made_with: stored.made_with,
        };
        if format != identity.format() || identity.checksum() != stored.checksum {
            return Err(Unreadable::Damaged("its checksum is wrong".to_owned()));
        }
        Ok(identity)
    }

    /// The oldest format that holds it.
    fn format(&self) -> u64 {
        if self.made_with.is_some() { FORMAT } else { FORMAT_WITHOUT_FLAGS }
    }

    fn checksum(&self) -> String {
        let Self { cluster_id, member_id, incarnation, name, created_by, made_with } = self;
        let format = self.format();
        let mut text = format!(
            "{format} {cluster_id:x} {member_id:x} {incarnation:x} {name:?} {created_by:?}"
        );
        if let Some(MadeWith { initial_cluster, initial_cluster_token }) = made_with {
            text.push_str(&format!(" {initial_cluster:?} {initial_cluster_token:?}"));
        }
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
            made_with: Some(MadeWith {
                initial_cluster: "a=http://x:1,b=http://y:1".to_owned(),
                initial_cluster_token: "a \"token\"".to_owned(),
            }),
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
            Identity::decode(br#"{"format": 3, "surprise": []}"#),
            Err(Unreadable::Newer(3))
        );
    }

    /// A file of the version that wrote format 1.
    #[test]
    fn a_file_of_format_1_is_read_and_does_not_say_with_which_flags_it_was_made() {
        let file = br#"{
  "format": 1,
  "cluster_id": "00000000000000c1",
  "member_id": "00000000000000a1",
  "incarnation": "0000000000000007",
  "name": "one",
  "created_by": "quorate 0.1.0",
  "checksum": "fb733338"
}
"#;
        let identity = Identity::decode(file).unwrap();
        assert_eq!((identity.cluster_id, identity.name.as_str()), (0xc1, "one"));
        assert_eq!(identity.made_with, None);
        assert_eq!(identity.encode(), file);
    }
}
