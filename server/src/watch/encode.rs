//! `WatchResponse` on the wire, many in one buffer.
//!
//! A response to a watcher is a head of some thirty bytes and the encoded events, which watchers of the
//! same keys share. Whoever sends the buffer needs to know nothing about what is in it.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};

/// Bytes before each message of gRPC: whether it is compressed, and its length.
pub const PREFIX_LEN: usize = 5;
/// The longest message: gRPC for Go sends and takes none that is longer. Only without fragments can a
/// response come near it, when one transaction deletes gigabytes.
pub const MESSAGE_BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { i32::MAX as usize };

/// `WatchResponse.header` and its own fields.
const HEADER: u32 = 1;
const CLUSTER_ID: u32 = 1;
const MEMBER_ID: u32 = 2;
const REVISION: u32 = 3;
const RAFT_TERM: u32 = 4;
const WATCH_ID: u32 = 2;
const CREATED: u32 = 3;
const CANCELED: u32 = 4;
const COMPACT_REVISION: u32 = 5;
const CANCEL_REASON: u32 = 6;
const FRAGMENT: u32 = 7;

/// What every header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that answers.
    pub member_id: u64,
    /// The term in which it answers.
    pub raft_term: u64,
}

/// A response without events: that a watcher was created, ended, or how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of `WatchResponse`.
pub struct Notice {
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: String,
}

/// Encoded responses, each with the prefix that gRPC wants.
#[derive(Debug, Default)]
pub struct Sent {
    bytes: Vec<u8>,
    head: Head,
    /// Responses so far.
    pub messages: u64,
    /// Events in them.
    pub events: u64,
    /// A response that was left out because it is too large to be sent, in bytes. The stream has to end:
    /// it would miss events.
    pub too_large_bytes: Option<usize>,
}

impl Sent {
    /// An empty buffer for responses with this head.
    pub fn new(head: Head) -> Self {
        Self { head, ..Self::default() }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is to be sent.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Appends a response whose events are encoded already; `is_part` says that more of the same
    /// revision follows.
    pub(super) fn events(&mut self, revision: i64, watch_id: i64, events: &[u8], is_part: bool) {
        if events.len() > MESSAGE_BYTES_MAX {
            // Not even copied.
            self.too_large_bytes = Some(events.len());
            return;
        }
        let start = self.bytes.len();
        self.bytes.reserve(PREFIX_LEN + 64 + events.len());
        self.bytes.put_slice(&[0; PREFIX_LEN]);
        self.header(revision);
        number(WATCH_ID, watch_id.cast_unsigned(), &mut self.bytes);
        number(FRAGMENT, u64::from(is_part), &mut self.bytes);
        self.bytes.put_slice(events);
        self.close(start);
    }

    /// Appends a response without events.
    pub(super) fn notice(&mut self, revision: i64, notice: &Notice) {
        let start = self.bytes.len();
        self.bytes.put_slice(&[0; PREFIX_LEN]);
        self.header(revision);
        number(WATCH_ID, notice.watch_id.cast_unsigned(), &mut self.bytes);
        number(CREATED, u64::from(notice.created), &mut self.bytes);
        number(CANCELED, u64::from(notice.canceled), &mut self.bytes);
        number(COMPACT_REVISION, notice.compact_revision.cast_unsigned(), &mut self.bytes);
        if !notice.cancel_reason.is_empty() {
            encode_key(CANCEL_REASON, WireType::LengthDelimited, &mut self.bytes);
            encode_varint(notice.cancel_reason.len() as u64, &mut self.bytes);
            self.bytes.put_slice(notice.cancel_reason.as_bytes());
        }
        self.close(start);
    }

    fn header(&mut self, revision: i64) {
        const LEN_BYTES: usize = 1;
        encode_key(HEADER, WireType::LengthDelimited, &mut self.bytes);
        let start = self.bytes.len();
        self.bytes.put_slice(&[0; LEN_BYTES]);
        number(CLUSTER_ID, self.head.cluster_id, &mut self.bytes);
        number(MEMBER_ID, self.head.member_id, &mut self.bytes);
        number(REVISION, revision.cast_unsigned(), &mut self.bytes);
        number(RAFT_TERM, self.head.raft_term, &mut self.bytes);
        let len = self.bytes.len() - start - LEN_BYTES;
        self.bytes[start] = u8::try_from(len).expect("four numbers of at most eleven bytes");
    }

    /// Ends the message that begins at `start`, or leaves it out if nobody could take it.
    fn close(&mut self, start: usize) {
        let len_bytes = self.bytes.len() - start - PREFIX_LEN;
        match u32::try_from(len_bytes) {
            Ok(len) if len_bytes <= MESSAGE_BYTES_MAX => {
                self.bytes[start + 1..start + PREFIX_LEN].copy_from_slice(&len.to_be_bytes());
                self.messages += 1;
            }
            _ => {
                self.bytes.truncate(start);
                self.too_large_bytes = Some(len_bytes);
            }
        }
    }
}

fn number(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}
