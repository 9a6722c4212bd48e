//! Long replies in one line: thousands of events, a snapshot.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use sha2::{Digest as _, Sha256};

use super::lens::Lens;
use super::{requests, show};

/// What is said of the events of a watch without showing them.
#[derive(Debug, Default)]
pub struct Events {
    /// How many came.
    pub count: usize,
    revisions: BTreeSet<i64>,
    last: i64,
    is_disordered: bool,
    is_split: bool,
    revisions_max: usize,
    fragments: usize,
    responses: usize,
    is_fragment: bool,
}

impl Events {
    /// Adds a response.
    pub fn add(&mut self, response: &DynamicMessage) {
        self.responses += 1;
        let mut of_response = BTreeSet::new();
        let events = response.get_field_by_name("events");
        for event in events.iter().filter_map(|list| list.as_list()).flatten() {
            let kv = event.as_message().and_then(|event| event.get_field_by_name("kv"));
            let Some(revision) =
                kv.and_then(|kv| Some(show::number(kv.as_message()?, "mod_revision")))
            else {
                continue;
            };
            self.count += 1;
            self.is_disordered |= revision < self.last;
            self.is_split |= !self.is_fragment
                && !of_response.contains(&revision)
                && self.revisions.contains(&revision);
            self.last = revision;
            of_response.insert(revision);
        }
        self.revisions_max = self.revisions_max.max(of_response.len());
        self.revisions.extend(of_response);
        self.is_fragment = response
            .get_field_by_name("fragment")
            .is_some_and(|value| value.as_bool() == Some(true));
        self.fragments += usize::from(self.is_fragment);
    }

    /// What is equal on every server: not how many responses there were.
    pub fn lines(&self, lens: &Lens) -> Vec<String> {
        let of = |end: Option<&i64>| end.map_or_else(String::new, |end| lens.revision(*end));
        let yes = |holds: bool| if holds { "yes" } else { "NO" };
        vec![
            format!(
                "{} events of {} revisions, {} to {}",
                self.count,
                self.revisions.len(),
                of(self.revisions.first()),
                of(self.revisions.last())
            ),
            format!("in order: {}", yes(!self.is_disordered)),
            format!("no revision split: {}", yes(!self.is_split)),
            format!("at most 1000 revisions in a response: {}", yes(self.revisions_max <= 1000)),
            format!("fragments: {}", if self.fragments > 0 { "yes" } else { "none" }),
            format!("last response is whole: {}", yes(!self.is_fragment)),
        ]
    }
}

/// A snapshot: its messages, its length, its trailer.
pub fn snapshot(messages: &[Bytes]) -> Vec<String> {
    let descriptor = requests::message("etcdserverpb.SnapshotResponse");
    let decoded = |bytes: &Bytes| DynamicMessage::decode(descriptor.clone(), bytes.clone());
    let Ok(messages) = messages.iter().map(decoded).collect::<Result<Vec<_>, _>>() else {
        return vec!["messages that cannot be decoded".to_owned()];
    };
    let blob = |message: &DynamicMessage| {
        let blob = message.get_field_by_name("blob");
        blob.and_then(|blob| blob.as_bytes().cloned()).unwrap_or_default()
    };
    let all: Vec<u8> = messages.iter().flat_map(blob).collect();
    let mut left = all.len() as u64;
    let mut counts_down = true;
    for message in &messages {
        left -= blob(message).len() as u64;
        // The trailer is not counted, and comes alone.
        counts_down &= show::unsigned(message, "remaining_bytes") == left.saturating_sub(32);
    }
    let body = all.len().saturating_sub(32);
    let trailer = Sha256::digest(&all[..body]).as_slice() == &all[body..];
    let chunk_max = messages.iter().map(|message| blob(message).len()).max().unwrap_or(0);
    let headers = messages.iter().filter(|message| message.has_field_by_name("header")).count();
    let versions: BTreeSet<String> = messages
        .iter()
        .filter_map(|message| Some(message.get_field_by_name("version")?.as_str()?.to_owned()))
        .collect();
    let yes = |holds: bool| if holds { "yes" } else { "NO" };
    vec![
        format!("messages with a header: {headers}"),
        format!("versions: {versions:?}"),
        format!("at most 32 KiB in a message: {}", yes(chunk_max <= 32 << 10)),
        format!("remaining_bytes counts down to 0: {}", yes(counts_down)),
        format!("length modulo 512: {}", all.len() % 512),
        format!(
            "last message is the SHA-256 of the rest, 32 bytes: {}",
            yes(trailer && messages.last().is_some_and(|last| blob(last).len() == 32))
        ),
    ]
}

/// The messages of a streamed range as one, as protobuf merges them: lists grow, the last of a single
/// field wins. How many keys a message carries is the server's choice.
pub fn merged(messages: &[Bytes]) -> Option<DynamicMessage> {
    let all: Vec<u8> = messages.iter().flatten().copied().collect();
    let descriptor = requests::message("etcdserverpb.RangeStreamResponse");
    let merged = DynamicMessage::decode(descriptor, &all[..]).ok()?;
    let range = merged.get_field_by_name("range_response")?.as_message().cloned();
    range.filter(|range| range.encoded_len() > 0)
}
