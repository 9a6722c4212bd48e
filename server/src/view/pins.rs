//! Pins: revisions that readers still need.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{ReadError, View};
use crate::mvcc::RowsError;

/// Milliseconds after which a pin expires: a reader that stalls must not hold compaction back for ever.
pub const PIN_MS_MAX: u64 = 60_000;

/// How many milliseconds a read of up to so many bytes may take whose pace is a client's: an hour, and a
/// minute for each GiB that was begun.
pub(super) const fn ms_at_a_clients_pace(bytes: u64) -> u64 {
    // A pin lasts a minute.
    (60 + bytes.div_ceil(1 << 30)) * PIN_MS_MAX
}

/// The registered pins. Small: one per read under way.
#[derive(Default)]
pub(super) struct Pins(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    now_ms: u64,
    next_id: u64,
    /// By revision and id, with the time at which each expires.
    pins: BTreeMap<(i64, u64), u64>,
}

/// A revision that compaction must leave readable until this is dropped or expires.
pub struct Pin {
    view: Arc<View>,
    revision: i64,
    id: u64,
    /// The time beyond which it is not renewed.
    ends_ms: u64,
}

impl Pins {
    pub(super) fn pass(&self, elapsed_ms: u64) {
        let mut registered = self.0.lock();
        registered.now_ms += elapsed_ms;
        let now_ms = registered.now_ms;
        registered.pins.retain(|_, expires_ms| *expires_ms > now_ms);
    }

    pub(super) fn oldest(&self) -> Option<i64> {
        self.0.lock().pins.first_key_value().map(|((revision, _), _)| *revision)
    }
}

impl Pin {
    /// Registers a pin. The caller checked under the lock of the key space that `revision` is readable.
    pub(super) fn new(view: Arc<View>, revision: i64) -> Self {
        Self::lasting(view, revision, u64::MAX)
    }

    /// Registers a pin that ends after `ms_max`, however often it is renewed.
    pub(super) fn lasting(view: Arc<View>, revision: i64, ms_max: u64) -> Self {
        let mut registered = view.pins.0.lock();
        registered.next_id += 1;
        let id = registered.next_id;
        let ends_ms = registered.now_ms.saturating_add(ms_max);
        let expires_ms = (registered.now_ms + PIN_MS_MAX).min(ends_ms);
        registered.pins.insert((revision, id), expires_ms);
        drop(registered);
        Self { view, revision, id, ends_ms }
    }

    /// The pinned revision (main).
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether the pin still holds.
    pub fn is_valid(&self) -> bool {
        self.view.pins.0.lock().pins.contains_key(&(self.revision, self.id))
    }

    /// Lets the pin last as long again as a new one, though not beyond its end. One that has expired
    /// holds again if nothing that it held back was compacted meanwhile; `false` if something was.
    pub fn renew(&self) -> bool {
        if self.prolong(false) {
            return true;
        }
        // Under the lock, so that no compaction is scheduled between the check and the pin.
        let space = self.view.read();
        space.compact_revision() <= self.revision && self.prolong(true)
    }

    fn prolong(&self, may_revive: bool) -> bool {
        let mut registered = self.view.pins.0.lock();
        let expires_ms = (registered.now_ms + PIN_MS_MAX).min(self.ends_ms);
        let name = (self.revision, self.id);
        let is_there = registered.pins.contains_key(&name);
        let may = is_there || may_revive && expires_ms > registered.now_ms;
        if may {
            registered.pins.insert(name, expires_ms);
        }
        may
    }

    /// Lets the pin be renewed until `ms_max` from now, and renews it.
    pub(super) fn extend(&mut self, ms_max: u64) {
        self.ends_ms = self.view.pins.0.lock().now_ms.saturating_add(ms_max);
        self.renew();
    }

    /// A row that is missing under an expired pin was compacted; under a valid one the store is
    /// damaged.
    pub(super) fn explain(&self, error: RowsError) -> ReadError {
        match error {
            RowsError::Missing(_) if !self.is_valid() => ReadError::Compacted,
            error => ReadError::Rows(error),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.view.pins.0.lock().pins.remove(&(self.revision, self.id));
    }
}
