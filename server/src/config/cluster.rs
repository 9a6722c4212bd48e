//! The initial cluster: who forms it, and the IDs that follow from that.
//!
//! IDs are etcd's: a member's is the start of the SHA-1 of its sorted peer URLs and the cluster's
//! token, the cluster's is the start of the SHA-1 of all member IDs in ascending order.

use std::collections::BTreeMap;

use sha1::{Digest, Sha1};

use super::{ConfigError, Url};

/// What the flags say about the cluster.
pub(super) struct ClusterFlags {
    /// This member's name.
    pub(super) name: String,
    /// Peer URLs by member name, sorted.
    pub(super) initial: BTreeMap<String, Vec<Url>>,
    /// Whether to form a new cluster; otherwise to join one.
    pub(super) is_new: bool,
    /// The cluster's token.
    pub(super) token: String,
    /// Where others reach this member, sorted.
    pub(super) advertise_peer_urls: Vec<Url>,
}

/// The cluster that a new member forms with the others, each with its ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Whether to form it; otherwise it is there, and the member joins it.
    pub is_new: bool,
    /// The cluster's ID.
    pub cluster_id: u64,
    /// The ID of this member.
    pub member_id: u64,
    /// The cluster's token.
    pub token: String,
    /// Everybody, in ascending order of ID.
    pub members: Vec<InitialMember>,
}

/// A member of an [`InitialCluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its ID.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where others reach it, sorted.
    pub peer_urls: Vec<String>,
}

impl InitialCluster {
    /// The members as `--initial-cluster` has them.
    pub fn to_flag(&self) -> String {
        let each = |member: &InitialMember| {
            let item = |url: &String| format!("{}={url}", member.name);
            member.peer_urls.iter().map(item).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(each).collect::<Vec<_>>().join(",")
    }
}

impl ClusterFlags {
    /// The cluster that they describe; `label` is what a sentence calls a setting.
    ///
    /// # Errors
    /// If this member is not in it, or with other URLs than it advertises, or two members are the same,
    /// or there are several, which is not supported yet.
    pub(super) fn describe(
        &self,
        label: impl Fn(&str) -> String,
    ) -> Result<InitialCluster, ConfigError> {
        let initial = label("initial-cluster");
        let Some(own) = self.initial.get(&self.name) else {
            return Err(ConfigError::invalid(format!(
                "{initial} has no member named {:?}, which is the {} of this one",
                self.name,
                label("name")
            )));
        };
        if *own != self.advertise_peer_urls {
            return Err(ConfigError::invalid(format!(
                "{initial} has {:?} at {}, but {} is {}: make them the same",
                self.name,
                join(own),
                label("initial-advertise-peer-urls"),
                join(&self.advertise_peer_urls)
            )));
        }
        let mut members: Vec<InitialMember> = self
            .initial
            .iter()
            .map(|(name, urls)| InitialMember {
                id: member_id(urls, &self.token),
                name: name.clone(),
                peer_urls: urls.iter().map(|url| url.as_str().to_owned()).collect(),
            })
            .collect();
        members.sort_by_key(|member| member.id);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ConfigError::invalid(format!(
                "{initial} has {:?} and {:?} at the same URLs",
                pair[0].name, pair[1].name
            )));
        }
        if members.len() > 1 {
            return Err(ConfigError::invalid(format!(
                "{initial} names {} members, and clusters of several members are not supported yet: \
                 name this member alone",
                members.len()
            )));
        }
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        let member_id = member_id(own, &self.token);
        Ok(InitialCluster {
            is_new: self.is_new,
            cluster_id: cluster_id(&ids),
            member_id,
            token: self.token.clone(),
            members,
        })
    }
}

/// Reads `name=url,name=url`; a name may come several times.
///
/// # Errors
/// A clause that says what is wrong with it.
pub(crate) fn parse_initial(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, url) = item
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("{item:?} is not of the form name=url"))?;
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    let mut all: Vec<&Url> = members.values().flatten().collect();
    all.sort();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("{} is there twice", pair[0]));
    }
    Ok(members)
}

/// The ID of a member that the initial cluster names.
pub fn member_id(peer_urls: &[Url], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(Url::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    first_word(&hash.finalize())
}

/// The ID of a cluster of these members, given in ascending order.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut hash = Sha1::new();
    for id in member_ids {
        hash.update(id.to_be_bytes());
    }
    first_word(&hash.finalize())
}

fn first_word(digest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(word)
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, initial: &str, advertise: &str, token: &str) -> ClusterFlags {
        ClusterFlags {
            name: name.to_owned(),
            initial: parse_initial(initial).unwrap(),
            is_new: true,
            token: token.to_owned(),
            advertise_peer_urls: Url::parse_list(advertise).unwrap(),
        }
    }

    fn flag(name: &str) -> String {
        format!("--{name}")
    }

    #[test]
    fn ids_are_those_that_etcd_gives() {
        // Each line was read from etcd 3.7.3.
        let default = config(
            "default",
            "default=http://localhost:2380",
            "http://localhost:2380",
            "etcd-cluster",
        )
        .describe(flag)
        .unwrap();
        assert_eq!(default.cluster_id, 0xcdf8_1819_4e3a_8c32);
        assert_eq!(default.member_id, 0x8e9e_05c5_2164_694d);

        let other = "http://127.0.0.1:23701";
        let other = config("default", &format!("default={other}"), other, "etcd-cluster")
            .describe(flag)
            .unwrap();
        assert_eq!(other.cluster_id, 13_161_535_553_551_807_526);
        assert_eq!(other.member_id, 8_048_172_907_000_392_618);
    }

    #[test]
    fn a_cluster_as_a_flag_is_read_as_the_same_cluster() {
        let initial = "a=http://x:1,a=http://y:1";
        let cluster = config("a", initial, "http://y:1,http://x:1", "t").describe(flag).unwrap();
        assert_eq!(cluster.to_flag(), initial);
    }

    #[test]
    fn a_member_must_be_in_the_cluster_that_it_forms_at_its_own_urls() {
        let cases = [
            ("a", "b=http://x:1", "http://x:1", "no member named \"a\""),
            ("a", "a=http://x:1", "http://x:2", "--initial-advertise-peer-urls is http://x:2"),
            ("a", "a=http://x:1,b=http://x:2", "http://x:1", "names 2 members"),
        ];
        for (name, initial, advertise, expected) in cases {
            let error = config(name, initial, advertise, "t").describe(flag).expect_err(initial);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_bad_initial_cluster_is_refused_by_the_part_that_is_wrong() {
        let cases = [
            ("http://x:1", "form name=url"),
            ("=http://x:1", "form name=url"),
            ("a=x:1", "no scheme"),
            ("a=http://x:1,b=http://x:1", "twice"),
        ];
        for (text, expected) in cases {
            let error = parse_initial(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
