//! Whether something that sleeps was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// A flag that a waker sets.
pub(super) struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.rouse();
    }
}

impl Woken {
    /// One who has yet to look for the first time.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(super) fn is_awake(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn rouse(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn fall_asleep(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}
