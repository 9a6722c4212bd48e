//! The owner's lock, and somebody who measures it: this room has no clock.
//!
//! ```text
//! waits .. takes ........ releases      for each time that the owner has the key space for itself
//! ```

use std::ops::{Deref, DerefMut};

use parking_lot::{RwLock, RwLockWriteGuard};

use crate::mvcc::KeySpace;

/// Hears, on the owner's thread, what the owner does with the lock.
pub trait LockObserver: Send + Sync {
    /// It begins to wait for it.
    fn waits(&self);
    /// It has it.
    fn takes(&self);
    /// It is about to let go of it.
    fn releases(&self);
}

/// The key space, for its owner alone.
pub struct OwnerGuard<'a> {
    observer: Option<&'a dyn LockObserver>,
    space: RwLockWriteGuard<'a, KeySpace>,
}

impl<'a> OwnerGuard<'a> {
    pub(super) fn take(
        space: &'a RwLock<KeySpace>,
        observer: Option<&'a dyn LockObserver>,
    ) -> Self {
        observer.inspect(|observer| observer.waits());
        let space = space.write();
        observer.inspect(|observer| observer.takes());
        Self { observer, space }
    }
}

impl Deref for OwnerGuard<'_> {
    type Target = KeySpace;

    fn deref(&self) -> &KeySpace {
        &self.space
    }
}

impl DerefMut for OwnerGuard<'_> {
    fn deref_mut(&mut self) -> &mut KeySpace {
        &mut self.space
    }
}

impl Drop for OwnerGuard<'_> {
    fn drop(&mut self) {
        self.observer.inspect(|observer| observer.releases());
    }
}
