//! What a transcript sees of one server: numbers that differ from server to server get names.

use std::collections::BTreeMap;

/// Ids above this were picked by a server; those of the transcripts are small.
const PICKED_MIN: i64 = 1 << 32;

/// The identity of a server, and what it answered so far in a case.
#[derive(Clone, Debug, Default)]
pub struct Lens {
    /// The cluster's id.
    pub cluster: u64,
    /// The member's id.
    pub member: u64,
    /// The term.
    pub term: u64,
    /// The member's name.
    pub name: String,
    /// Addresses, and what stands for them.
    pub urls: BTreeMap<String, &'static str>,
    /// The revision at the start of the case; 0 shows revisions as they are.
    pub base: i64,
    /// Hashes are shown as they are: the histories are equal to the byte.
    pub exact_hashes: bool,
    hashes: Vec<u32>,
    id: i64,
    key: Vec<u8>,
    other: u64,
}

impl Lens {
    /// A server by its ids and term, none of which has been seen yet.
    #[cfg(test)]
    pub(crate) fn of(cluster: u64, member: u64, term: u64) -> Lens {
        Lens { cluster, member, term, ..Lens::default() }
    }

    /// Forgets what the last case saw, and counts revisions from `base`.
    pub fn begin(&mut self, base: i64, exact_hashes: bool) {
        self.base = base;
        self.exact_hashes = exact_hashes;
        self.hashes.clear();
        (self.id, self.other) = (0, 0);
        self.key.clear();
    }

    /// A revision, counted from the start of the case.
    pub fn revision(&self, revision: i64) -> String {
        match revision {
            ..=0 => revision.to_string(),
            _ => format!("{:+}", revision - self.base),
        }
    }

    /// A lease, watch or other id.
    pub fn id(&mut self, id: i64) -> String {
        if id < PICKED_MIN {
            return id.to_string();
        }
        self.id = id;
        "<id>".to_owned()
    }

    /// The id of a cluster or member.
    pub fn member_id(&mut self, id: u64) -> String {
        match id {
            _ if id == self.member => "<member>".to_owned(),
            _ if id == self.cluster => "<cluster>".to_owned(),
            ..=0xffff => id.to_string(),
            _ => {
                self.other = id;
                "<other>".to_owned()
            }
        }
    }

    /// A hash: its number in order of appearance, or itself.
    pub fn hash(&mut self, hash: u32) -> String {
        if self.exact_hashes {
            return format!("{hash:08x}");
        }
        let known = self.hashes.iter().position(|known| *known == hash);
        let at = known.unwrap_or_else(|| {
            self.hashes.push(hash);
            self.hashes.len() - 1
        });
        format!("<hash {}>", at + 1)
    }

    /// A text with names for addresses and for this member's name.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if self.member != 0 {
            text = text.replace(&self.member.to_string(), "<member>");
            text = text.replace(&format!("{:x}", self.member), "<member>");
        }
        for (url, name) in &self.urls {
            text = text.replace(url, name);
        }
        text
    }

    /// A key; the hexadecimal id of a picked lease at its end gets a name.
    pub fn key(&mut self, key: &[u8]) -> String {
        let shown = super::words::escaped(key);
        let picked = shown
            .rsplit_once('/')
            .filter(|(_, end)| i64::from_str_radix(end, 16).is_ok_and(|id| id >= PICKED_MIN));
        match picked {
            Some((prefix, _)) => {
                let shown = format!("{prefix}/<id>");
                self.key = key.to_owned();
                shown
            }
            None => shown,
        }
    }

    /// What a word that begins with `$` stands for, as text that a request is built from.
    pub fn variable(&self, name: &str) -> Option<String> {
        match name {
            "$id" => Some(self.id.to_string()),
            "$key" => Some(super::words::escaped(&self.key)),
            "$member" => Some(self.member.to_string()),
            "$cluster" => Some(self.cluster.to_string()),
            "$other" => Some(self.other.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_server_to_server_gets_a_name() {
        let mut lens = Lens { cluster: 1 << 60, member: 1 << 61, ..Lens::default() };
        lens.begin(41, false);
        assert_eq!((lens.revision(42), lens.revision(0), lens.revision(-1)).0, "+1");
        assert_eq!(lens.revision(0), "0");
        assert_eq!(lens.id(7), "7");
        assert_eq!(lens.id(1 << 40), "<id>");
        assert_eq!(lens.variable("$id").unwrap(), (1_i64 << 40).to_string());
        assert_eq!(lens.member_id(1 << 61), "<member>");
        assert_eq!((lens.hash(5), lens.hash(6), lens.hash(5)).2, "<hash 1>");
        assert_eq!(lens.key(b"lock/694d9a3f0b1c2d3e"), "lock/<id>");
        assert_eq!(lens.variable("$key").unwrap(), "lock/694d9a3f0b1c2d3e");
        assert_eq!(lens.key(b"lock/5"), "lock/5");
    }
}
