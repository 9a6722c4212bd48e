//! Watches: who is told of which change, in which order, and when. Pure.
//!
//! A watcher is a *cursor* on the revisions: the next one that it wants. The [`Hub`] learns of new rows
//! from the key space's recent window ([`Hub::advance`]), finds whom they concern, and wakes their
//! streams; a stream *pulls* ([`Hub::pull`]) when its client can take more. So a client that never
//! reads costs its cursors here, and the owner of the key space never waits for anyone.
//!
//! ```text
//! rows      5 put a    6 put x    7 del a               hub.revision = 7
//! group a   5, 7       (the trail: which events of the log concern it)
//! watcher   next 5  -> pull: response(5: put a), response(7: delete a) -> next 8
//! watcher   next 2  -> behind: pull says Behind(scan); the scan reads 2..7 from store and window
//! ```
//!
//! Watchers of the same keys are a *group*: an event is found once for all of them, and encoded once.
//!
//! # Invariants
//!
//! - A watcher gets each event of its keys from its start on once, in order, and never half a revision.
//! - The header of events and of progress says no revision whose events are still to come. That of the
//!   creation or the end of a watcher says where the key space is, as in etcd, which says nothing about the
//!   other watchers of the stream.
//! - Everything from `trail.known_from` on is in the trail; who wants more reads the key space first.
//! - What is waiting to be sent is never stored per watcher, except responses without events. What is
//!   stored of events, the log with its trails and the stretches of history, is bounded for the hub.
//! - What was read without the lock is taken only if nothing came between that it does not know of.
//!
//! Lock order: the hub, then the key space. Nobody holds the hub while the store is read.

mod deliver;
mod encode;
mod event;
mod group;
mod hub;
mod interests;
mod interval;
mod log;
mod ready;
mod scan;
mod stream;
mod stretch;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use crate::mutants;
use crate::mvcc::{Revision, Row, Rows, RowsError, ScanBounds};
use crate::view::{Recent, STEP_KEYS_MAX, View};
use event::{Event, Previous, has_previous, key_of};
use hub::Inner;

pub use deliver::{PORTION_BYTES, Pulled};
pub use encode::{Head, MESSAGE_BYTES_MAX, Notice, PREFIX_LEN, Sent};
pub use event::Filter;
pub use scan::Scan;
pub use stream::{Interest, StreamId};

/// What the log of events, with the trails of it, may keep beside the recent window, in bytes.
pub const LOG_BYTES_MAX: usize = 4 << 20;

/// The bytes of rows, and of previous versions, at which one look ends; one revision may be more.
const STRETCH_BYTES_MAX: usize = if cfg!(test) { 400 } else { 4 << 20 };

/// How many groups the rows of one step may concern together, beside one row that concerns more: some
/// milliseconds of work under the lock, for whoever serves sockets waits for it.
const STEP_CONCERNS_MAX: usize = if cfg!(test) { 20 } else { 100_000 };

/// Previous versions that are read at once: each may be as large as a request.
const PREVIOUS_PER_READ: usize = if cfg!(test) { 3 } else { 32 };

/// All watches of one member. Shared by those who serve streams and whoever drives it forward.
pub struct Hub {
    inner: Mutex<Inner>,
    /// Whether anybody watches, so that nobody is woken for nothing.
    is_watched: AtomicBool,
    fragment_bytes: usize,
}

/// What there is now, and what was sent since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: u64,
    /// Watchers on them.
    pub watchers: u64,
    /// Those of them that read history before they join the others.
    pub behind: u64,
    /// Events that were sent.
    pub events: u64,
}

/// Why a watcher was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The stream has a watcher of that name.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    Duplicate,
    /// The stream was closed.
    #[error("the stream is closed")]
    NoStream,
}

/// What the driver read of the window.
struct News {
    /// Where the hub was.
    from: Revision,
    recent: Recent,
    /// With their keys.
    events: Vec<(bytes::Bytes, Row, Previous)>,
}

impl Hub {
    /// A hub that tells of what happens after `revision`. Responses to watchers that allow it are cut
    /// at `fragment_bytes`; `log_bytes_max` is [`LOG_BYTES_MAX`] but in tests. `seed` is a secret, drawn at
    /// the start of the process.
    pub fn new(revision: i64, fragment_bytes: usize, log_bytes_max: usize, seed: u64) -> Self {
        Self {
            inner: Mutex::new(Inner::new(revision, log_bytes_max, seed)),
            is_watched: AtomicBool::new(false),
            fragment_bytes,
        }
    }

    /// Opens a stream.
    pub fn open(&self) -> StreamId {
        self.lock().open()
    }

    /// Closes a stream and forgets its watchers.
    pub fn close(&self, stream: StreamId) {
        let mut inner = self.lock();
        inner.close(stream);
        self.is_watched.store(inner.counts.watchers > 0, Ordering::Release);
    }

    /// Adds a watcher. Its `created` response is sent before anything else of it.
    ///
    /// # Errors
    /// [`CreateError::Duplicate`]; the stream goes on.
    pub fn create(
        &self,
        stream: StreamId,
        interest: Interest,
        view: &View,
    ) -> Result<(), CreateError> {
        let mut inner = self.lock();
        // From here on the driver is told of what happens; the revision is read after that.
        self.is_watched.store(true, Ordering::SeqCst);
        let at = view.revisions();
        let created = inner.create(stream, interest, at);
        self.is_watched.store(inner.counts.watchers > 0, Ordering::SeqCst);
        created
    }

    /// Ends a watcher and says so; of one that is not there nothing is said.
    pub fn cancel(&self, stream: StreamId, watch_id: i64, view: &View) {
        let mut inner = self.lock();
        if inner.cancel(stream, watch_id) {
            let (now, _) = view.revisions();
            let notice = Notice { watch_id, canceled: true, ..Notice::default() };
            inner.say(stream, now, notice);
        }
    }

    /// Has a response without events sent, its header with the current revision.
    pub fn say(&self, stream: StreamId, notice: Notice, view: &View) {
        let (now, _) = view.revisions();
        self.lock().say(stream, now, notice);
    }

    /// Asks how far the stream has come. The answer follows every event up to now.
    pub fn request_progress(&self, stream: StreamId, view: &View) {
        let (now, _) = view.revisions();
        self.lock().request_progress(stream, now);
    }

    /// Tells how far they have come to those watchers of a stream that want to hear it from time to
    /// time.
    pub fn tell_progress(&self, stream: StreamId) {
        self.lock().tell_progress(stream);
    }

    /// Whether a stream takes requests: not while too many answers wait to be sent.
    pub fn takes_requests(&self, stream: StreamId) -> bool {
        self.lock().takes_requests(stream)
    }

    /// Appends what `stream` has to send to `sent`. When it says [`Pulled::Idle`], `waker` is called
    /// as soon as there is more.
    pub fn pull(&self, stream: StreamId, sent: &mut Sent, waker: &Waker) -> Pulled {
        let mut inner = self.lock();
        let before = sent.events;
        let pulled = inner.pull(stream, self.fragment_bytes, sent);
        inner.counts.events += sent.events - before;
        if matches!(pulled, Pulled::Idle) {
            inner.sleep(stream, waker);
        }
        pulled
    }

    /// Takes a step of rows from the window; true if there are more. Wakes the streams that have
    /// something to send.
    ///
    /// # Errors
    /// [`RowsError`]: the store cannot be read and the process must end.
    pub fn advance(&self, view: &Arc<View>, rows: &dyn Rows) -> Result<bool, RowsError> {
        let mut wakers = Vec::new();
        let more = self.advance_step(view, rows, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        more
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::SeqCst)
    }

    /// What there is, and what was sent.
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts { behind: inner.behind_count(), ..inner.counts }
    }

    fn advance_step(
        &self,
        view: &Arc<View>,
        rows: &dyn Rows,
        wakers: &mut Vec<Waker>,
    ) -> Result<bool, RowsError> {
        let news = self.read_news(view, rows)?;
        Ok(self.take_news(news, wakers))
    }

    /// Reads what comes next, without the lock.
    fn read_news(&self, view: &Arc<View>, rows: &dyn Rows) -> Result<News, RowsError> {
        let from = self.lock().next;
        let mut new = Vec::new();
        let mut recent = view.recent_rows(from, step_bounds(STRETCH_BYTES_MAX), &mut new);
        let found = new.len();
        let events = self.prepare(new, view, rows)?;
        recent.has_more |= events.len() < found;
        Ok(News { from, recent, events })
    }

    /// Takes what was read; true if there is more. The hub may have moved on meanwhile, as it does
    /// when the first watcher comes: then this is old, and the next step reads again.
    fn take_news(&self, News { from, recent, events }: News, wakers: &mut Vec<Waker>) -> bool {
        let mut inner = self.lock();
        if inner.next != from {
            return true;
        }
        if !recent.is_held {
            if recent.current >= from.main {
                inner.skip_to(recent.current, wakers);
            }
            return false;
        }
        let last = events.last().map(|(_, row, _)| row.key.revision());
        for (key, row, prev) in events {
            inner.push(&key, || Event::new(&row, prev));
        }
        match last.filter(|_| recent.has_more) {
            Some(last) => {
                inner.next = last.next();
                inner.complete(last.main - 1, wakers);
            }
            None => {
                inner.next = Revision::new(recent.current + 1, 0);
                inner.complete(recent.current, wakers);
            }
        }
        recent.has_more
    }

    /// The first of these rows, as many as one step takes, with their keys, and with their previous versions
    /// where anybody wants those. Of large ones only the first are read: whoever wants the others is behind,
    /// and reads them in stretches.
    fn prepare(
        &self,
        new: Vec<Row>,
        view: &Arc<View>,
        rows: &dyn Rows,
    ) -> Result<Vec<(bytes::Bytes, Row, Previous)>, RowsError> {
        let mut keyed = Vec::with_capacity(new.len());
        let mut wants_prev = Vec::new();
        let mut concerns = 0;
        let inner = self.lock();
        for row in new {
            if concerns >= STEP_CONCERNS_MAX {
                break;
            }
            let at = row.key.revision();
            let key = key_of(&row).ok_or(RowsError::Damaged(at))?;
            // Nobody asks about it otherwise.
            let has_none = inner.with_prev > 0 && !has_previous(&row);
            let unread = if has_none { Previous::None } else { Previous::NotRead };
            let (groups, wants_prev_of_key) = inner.concern(&key);
            concerns += groups;
            let is_wanted = unread == Previous::NotRead && wants_prev_of_key;
            if is_wanted {
                wants_prev.push((key.clone(), at.main));
            }
            keyed.push((key, row, unread, is_wanted));
        }
        drop(inner);
        let mut found = previous(&wants_prev, STRETCH_BYTES_MAX, view, rows)?.into_iter();
        let with_previous = |(key, row, unread, is_wanted): (bytes::Bytes, Row, Previous, bool)| {
            let previous = match is_wanted.then(|| found.next()).flatten() {
                Some(found) => found.map_or(Previous::None, Previous::Kv),
                None => unread,
            };
            (key, row, previous)
        };
        Ok(keyed.into_iter().map(with_previous).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

/// What one look at rows may take.
fn step_bounds(bytes_max: usize) -> ScanBounds {
    ScanBounds { rows_max: mutants::step(STEP_KEYS_MAX), bytes_max }
}

/// The versions that the first of `changes` (key and main revision, ascending) replaced: whole
/// revisions, at least one, until they have `bytes_max`.
fn previous(
    changes: &[(bytes::Bytes, i64)],
    bytes_max: usize,
    view: &Arc<View>,
    rows: &dyn Rows,
) -> Result<Vec<Option<bytes::Bytes>>, RowsError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let rest = &changes[found.len()..]
        && !rest.is_empty()
        && bytes < bytes_max
    {
        let mut slice = rest.len().min(PREVIOUS_PER_READ);
        let last = rest[slice - 1].1;
        slice += rest[slice..].iter().take_while(|(_, main)| *main == last).count();
        let read = view.previous(&rest[..slice], rows)?;
        bytes += read.iter().flatten().map(bytes::Bytes::len).sum::<usize>();
        found.extend(read);
    }
    Ok(found)
}
