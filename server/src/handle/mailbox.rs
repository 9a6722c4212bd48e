//! The owner's queue: lanes under one lock, taken all at once.
//!
//! Completions and stop requests never wait for room, so nothing deadlocks; clients come last and are
//! bounded. The owner takes whole lanes by swapping, so a lock is held for nanoseconds, and the lock
//! order is trivial: nothing else is locked while it is held.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::replica::{Event, Reply, RequestId};

/// The most client requests that wait for the owner. Beyond it they are refused at once.
const CLIENTS_MAX: usize = 10_000;

/// The most bytes of their commands and changes of members, beside one that alone is more: as much as raft
/// lets wait for its quorum, for which the next batch is meant.
const CLIENT_BYTES_MAX: usize = 64 << 20;

/// A request with the place where its reply is awaited.
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// What is asked.
    pub event: Event,
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Why the owner has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for an orderly end.
    Requested,
    /// Something failed; the text is for a person.
    Failed(String),
    /// As `Failed`, because the state store is damaged.
    Damaged(String),
    /// As `Failed`, because the disk is full.
    DiskFull(String),
}

/// What the owner finds when it looks.
#[derive(Default)]
pub struct Delivery {
    /// Completions and other events for which nobody waits.
    pub events: VecDeque<Event>,
    /// Requests of clients, in the order of their arrival.
    pub requests: VecDeque<Request>,
    /// Set once the owner has to stop.
    pub stop: Option<Stop>,
}

/// The lanes.
#[derive(Default)]
pub struct Mailbox {
    lanes: Mutex<Lanes>,
    arrived: Condvar,
}

#[derive(Default)]
struct Lanes {
    delivery: Delivery,
    /// What the commands in `delivery` take.
    client_bytes: usize,
    /// The owner sleeps, so whoever brings something must wake it.
    asleep: bool,
    closed: bool,
}

impl Mailbox {
    /// Adds an event for which nobody waits. Never blocks, never refuses.
    pub fn event(&self, event: Event) {
        self.put(|lanes| lanes.delivery.events.push_back(event));
    }

    /// Adds a client's request.
    ///
    /// # Errors
    /// Gives the request back if the lane is full or the owner has stopped.
    pub fn request(&self, request: Request) -> Result<(), Refused> {
        let mut refused = None;
        self.put(|lanes| {
            if lanes.closed {
                refused = Some(Refused::Stopped);
            } else if lanes.is_full_for(&request) {
                refused = Some(Refused::Full);
            } else {
                lanes.client_bytes += request.command_bytes();
                lanes.delivery.requests.push_back(request);
            }
        });
        refused.map_or(Ok(()), Err)
    }

    /// Asks the owner to stop. The first reason stays.
    pub fn stop(&self, stop: Stop) {
        self.put(|lanes| {
            lanes.delivery.stop.get_or_insert(stop);
        });
    }

    /// Takes everything that is there; waits until `deadline` if that is nothing.
    pub fn take(&self, deadline: Instant) -> Delivery {
        let mut lanes = self.lanes.lock();
        while lanes.delivery.is_empty() {
            lanes.asleep = true;
            let timed_out = self.arrived.wait_until(&mut lanes, deadline).timed_out();
            lanes.asleep = false;
            if timed_out {
                break;
            }
        }
        lanes.take()
    }

    /// Refuses requests from now on. What is left in the lanes is returned.
    pub fn close(&self) -> Delivery {
        let mut lanes = self.lanes.lock();
        lanes.closed = true;
        lanes.take()
    }

    fn put(&self, put: impl FnOnce(&mut Lanes)) {
        let mut lanes = self.lanes.lock();
        put(&mut lanes);
        let wake = lanes.asleep;
        drop(lanes);
        if wake {
            self.arrived.notify_one();
        }
    }
}

impl Request {
    fn command_bytes(&self) -> usize {
        match &self.event {
            Event::Propose { command, .. } => command.len(),
            Event::ProposeConfChange { change, .. } => change.len(),
            _ => 0,
        }
    }
}

impl Lanes {
    fn is_full_for(&self, request: &Request) -> bool {
        let command_bytes = request.command_bytes();
        let adds = self.client_bytes > 0 && command_bytes > 0;
        self.delivery.requests.len() >= CLIENTS_MAX
            || (adds && self.client_bytes + command_bytes > CLIENT_BYTES_MAX)
    }

    fn take(&mut self) -> Delivery {
        self.client_bytes = 0;
        std::mem::take(&mut self.delivery)
    }
}

impl Delivery {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.requests.is_empty() && self.stop.is_none()
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lane is full.
    Full,
    /// The owner has stopped.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64) -> Request {
        let id = RequestId(id);
        Request { id, event: Event::ReadIndex { id }, reply: oneshot::channel().0 }
    }

    #[test]
    fn clients_are_bounded_and_completions_are_not() {
        let mailbox = Mailbox::default();
        for id in 1..=CLIENTS_MAX as u64 {
            assert_eq!(mailbox.request(request(id)), Ok(()));
        }
        assert_eq!(mailbox.request(request(0)), Err(Refused::Full));
        mailbox.event(Event::Tick { elapsed_ms: 100 });
        let delivery = mailbox.take(Instant::now());
        assert_eq!((delivery.requests.len(), delivery.events.len()), (CLIENTS_MAX, 1));
        mailbox.close();
        assert_eq!(mailbox.request(request(0)), Err(Refused::Stopped));
    }

    #[test]
    fn what_clients_may_leave_for_the_owner_is_bounded_in_bytes_too() {
        let mailbox = Mailbox::default();
        let put = |id: u64, len: usize| {
            let id = RequestId(id);
            let event = Event::Propose { id, command: bytes::Bytes::from(vec![0; len]) };
            mailbox.request(Request { id, event, reply: oneshot::channel().0 })
        };
        assert_eq!(put(1, CLIENT_BYTES_MAX + 1), Ok(()), "one always fits");
        assert_eq!(put(2, 1), Err(Refused::Full));
        assert_eq!(mailbox.request(request(3)), Ok(()), "a read takes nothing");
        assert_eq!(mailbox.take(Instant::now()).requests.len(), 2);
        assert_eq!((put(4, CLIENT_BYTES_MAX), put(5, 1)), (Ok(()), Err(Refused::Full)));
        let change = |id: u64, len: usize| {
            let id = RequestId(id);
            let event = Event::ProposeConfChange { id, change: vec![0; len].into() };
            mailbox.request(Request { id, event, reply: oneshot::channel().0 })
        };
        assert_eq!(change(6, 1), Err(Refused::Full), "a change of a member takes as much");
        mailbox.take(Instant::now());
        assert_eq!((change(7, CLIENT_BYTES_MAX), put(8, 1)), (Ok(()), Err(Refused::Full)));
    }

    #[test]
    fn a_sleeping_owner_is_woken_and_a_deadline_ends_its_sleep() {
        let mailbox = std::sync::Arc::new(Mailbox::default());
        let sender = mailbox.clone();
        let thread = std::thread::spawn(move || {
            // The lock is free only while the owner sleeps, from the moment that this is set.
            while !sender.lanes.lock().asleep {
                std::thread::yield_now();
            }
            sender.stop(Stop::Requested);
        });
        let (began, far) = (Instant::now(), std::time::Duration::from_secs(60));
        assert_eq!(mailbox.take(began + far).stop, Some(Stop::Requested));
        assert!(began.elapsed() < far / 2, "it was its deadline that ended its sleep");
        thread.join().unwrap();
        assert!(mailbox.take(Instant::now()).is_empty());
    }
}
