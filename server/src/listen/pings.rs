//! How often a client may ping: the rule of gRPC for Go, which etcd's clients are made for.
//!
//! A ping is a strike if it comes sooner after the one before than the policy allows, or within two hours
//! when no call is open. More than two strikes end the connection. Whatever the server sends for a call
//! forgives all of them, so a client that measures its link by pings is never punished.
//!
//! ```text
//! ping  ping: strike  ping: strike  reply sent  ping: forgiven  ping  ...  ping: third strike, go away
//! ```

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::frames::{ACK, DATA, END_STREAM, HEADERS, Head, PING, RST_STREAM};

/// Strikes that are let pass.
const STRIKES_MAX: u8 = 2;
/// Shortest time between two pings while no call is open.
const IDLE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// Shortest time between two pings where nothing else was said; that of gRPC.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What is known of one connection.
pub(super) struct Pings {
    interval: Duration,
    last: Option<Instant>,
    strikes: u8,
    /// Whether anything was sent for a call since the last ping.
    forgiven: bool,
    /// Calls that the client began and the server has not ended.
    open: HashSet<u32>,
    last_stream: u32,
}

impl Pings {
    /// A new connection on which pings may come every `interval`; zero stands for gRPC's own five minutes.
    pub(super) fn new(interval: Duration) -> Self {
        let interval = if interval.is_zero() { DEFAULT_INTERVAL } else { interval };
        Self {
            interval,
            last: None,
            strikes: 0,
            forgiven: false,
            open: HashSet::new(),
            last_stream: 0,
        }
    }

    /// Takes a frame from the client; true if the connection has to end.
    pub(super) fn received(&mut self, head: Head) -> bool {
        match head.kind {
            // A second one on the same stream are trailers.
            HEADERS if head.stream > self.last_stream => {
                self.last_stream = head.stream;
                self.open.insert(head.stream);
            }
            RST_STREAM => {
                self.open.remove(&head.stream);
            }
            PING if head.flags & ACK == 0 => return self.pinged(Instant::now()),
            _ => {}
        }
        false
    }

    /// Takes a frame to the client.
    pub(super) fn sent(&mut self, head: Head) {
        let speaks = matches!(head.kind, HEADERS | DATA);
        self.forgiven |= speaks;
        if head.kind == RST_STREAM || (speaks && head.flags & END_STREAM != 0) {
            self.open.remove(&head.stream);
        }
    }

    /// The last stream that the client opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    fn pinged(&mut self, now: Instant) -> bool {
        let before = self.last.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let interval = if self.open.is_empty() { IDLE_INTERVAL } else { self.interval };
        if before.is_some_and(|before| now.duration_since(before) < interval) {
            self.strikes = self.strikes.saturating_add(1);
        }
        self.strikes > STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(5);

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { kind, flags, stream }
    }

    /// Pings at these seconds; the first at which the connection ends.
    fn first_refused(pings: &mut Pings, at: &[u64]) -> Option<u64> {
        let start = Instant::now();
        at.iter().copied().find(|&at| pings.pinged(start + Duration::from_secs(at)))
    }

    #[test]
    fn the_third_strike_ends_a_connection_without_calls_even_at_long_intervals() {
        let mut pings = Pings::new(MIN);
        assert_eq!(first_refused(&mut pings, &[0, 3600, 7200, 10800]), Some(10800));
        let mut pings = Pings::new(MIN);
        assert_eq!(first_refused(&mut pings, &[0, 7200, 14400, 21600, 28800]), None);
    }

    #[test]
    fn with_a_call_open_pings_may_come_at_their_interval() {
        let mut pings = Pings::new(MIN);
        pings.received(head(HEADERS, 0, 1));
        assert_eq!(first_refused(&mut pings, &[0, 5, 10, 15, 20, 25, 30]), None);
        assert_eq!(first_refused(&mut pings, &[31, 32, 33]), Some(33));
    }

    #[test]
    fn a_reply_forgives_and_an_ended_call_is_no_longer_open() {
        let mut pings = Pings::new(MIN);
        pings.received(head(HEADERS, END_STREAM, 1));
        assert_eq!(first_refused(&mut pings, &[0, 1, 2]), None);
        pings.sent(head(HEADERS, 0, 1));
        assert_eq!(first_refused(&mut pings, &[3, 4, 5]), None, "two strikes after a reply");
        for ended_by_server in [true, false] {
            let mut pings = Pings::new(MIN);
            pings.received(head(HEADERS, 0, 1));
            match ended_by_server {
                true => pings.sent(head(RST_STREAM, 0, 1)),
                false => assert!(!pings.received(head(RST_STREAM, 0, 1))),
            }
            assert_eq!(first_refused(&mut pings, &[0, 10, 20, 30]), Some(30));
        }
    }

    #[test]
    fn without_an_interval_that_of_grpc_counts_and_answers_to_pings_never_do() {
        let mut pings = Pings::new(Duration::ZERO);
        pings.received(head(HEADERS, 0, 1));
        assert_eq!(first_refused(&mut pings, &[0, 300, 599, 898, 1197]), Some(1197));
        let mut pings = Pings::new(MIN);
        assert!((0..100).all(|_| !pings.received(head(PING, ACK, 0))));
        assert_eq!((0..4).filter(|_| pings.received(head(PING, 0, 0))).count(), 1);
    }
}
