//! The heads of HTTP/2 frames in a stream of bytes that may be cut anywhere (RFC 9113, section 4.1).
//!
//! ```text
//! length 3 | type 1 | flags 1 | stream 4 | payload
//! ```
//!
//! Payloads are skipped by their length and never looked at, so a megabyte costs as much as a byte.

const HEAD_LEN: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
/// On `DATA` and `HEADERS`: the sender says no more on this stream.
pub(super) const END_STREAM: u8 = 1;
/// On `PING`: an answer.
pub(super) const ACK: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 for the connection itself.
    pub(super) stream: u32,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// What is still to come of the payload, in bytes.
    payload_len: usize,
}

impl Frames {
    /// Looks through the next piece and calls `each` for every frame whose head ends in it.
    pub(super) fn feed(&mut self, mut data: &[u8], mut each: impl FnMut(Head)) {
        while !data.is_empty() {
            let skipped = self.payload_len.min(data.len());
            self.payload_len -= skipped;
            data = &data[skipped..];
            let len = (HEAD_LEN - self.head_len).min(data.len());
            self.head[self.head_len..self.head_len + len].copy_from_slice(&data[..len]);
            self.head_len += len;
            data = &data[len..];
            if self.head_len == HEAD_LEN {
                each(self.take_head());
            }
        }
    }

    fn take_head(&mut self) -> Head {
        let [l0, l1, l2, kind, flags, stream @ ..] = self.head;
        self.head_len = 0;
        self.payload_len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Head { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }

    /// How many bytes may follow before anything is known about the frame that they belong to; 0 between
    /// two frames.
    pub(super) fn owed(&self) -> usize {
        match (self.payload_len, self.head_len) {
            (0, 0) => 0,
            (0, head_len) => HEAD_LEN - head_len,
            (payload_len, _) => payload_len,
        }
    }
}

/// The frame that ends a connection: `last_stream` is the last one that was looked at.
pub(super) fn goaway(last_stream: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let payload_len = u32::try_from(8 + debug.len()).expect("a word about the reason");
    let mut frame = payload_len.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(debug);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, 1];
        frame.extend_from_slice(&(stream | 1 << 31).to_be_bytes());
        frame.resize(frame.len() + usize::from(len), 0xff);
        frame
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let frames = [(HEADERS, 1, 200), (DATA, 1, 0), (PING, 0, 8), (RST_STREAM, 77, 4)];
        let bytes = frames.map(|(kind, stream, len)| frame(kind, stream, len)).concat();
        for piece_len in [1, 2, 8, 9, 10, 209, 1000] {
            let (mut found, mut direction) = (Vec::new(), Frames::default());
            for piece in bytes.chunks(piece_len) {
                direction.feed(piece, |head| found.push((head.kind, head.stream, head.flags)));
            }
            let expected = frames.map(|(kind, stream, _)| (kind, stream, 1));
            assert_eq!(found, expected, "pieces of {piece_len}");
            assert_eq!(direction.owed(), 0);
        }
    }

    #[test]
    fn what_is_owed_ends_at_a_frame() {
        let bytes = frame(DATA, 1, 5);
        let mut direction = Frames::default();
        for (at, byte) in bytes.iter().enumerate() {
            let expected = if at == 0 {
                0
            } else if at < 9 {
                9 - at
            } else {
                14 - at
            };
            assert_eq!(direction.owed(), expected, "before byte {at}");
            direction.feed(&[*byte], |_| {});
        }
        assert_eq!(direction.owed(), 0);
    }

    #[test]
    fn a_goaway_is_a_frame_of_the_connection() {
        let mut heads = Vec::new();
        let mut direction = Frames::default();
        direction.feed(&goaway(5, 11, b"why"), |head| heads.push(head));
        assert_eq!(heads, [Head { kind: GOAWAY, flags: 0, stream: 0 }]);
        assert_eq!(direction.owed(), 0);
    }
}
