//! Who waits until something about keys is true, without asking again and again.
//!
//! A waiter says what it waits for as a look at the view, which is repeated after each round in which the
//! owner applied anything. While nobody waits that costs the owner one load. It wakes a single task, which
//! then wakes all who wait: a wake from another thread costs a system call.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Those who wait.
#[derive(Default)]
pub struct Changes {
    waiters: AtomicUsize,
    applied: Notify,
    repeat: Notify,
}

struct Registered<'a>(&'a AtomicUsize);

impl Changes {
    /// Waits until `look` finds something. It is called now, and after each change until then.
    pub async fn wait_until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        // Before the first look: what the owner applies after that look, it reports.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let _registered = Registered(&self.waiters);
        loop {
            let repeat = self.repeat.notified();
            if let Some(found) = look() {
                return found;
            }
            repeat.await;
        }
    }

    /// The owner applied something. Only the owner calls this, after readers can see it.
    pub fn applied(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.applied.notify_one();
        }
    }

    /// Wakes those who wait. To be spawned on the runtime that serves the requests.
    /// Nothing ends it.
    pub async fn deliver(&self) -> Infallible {
        loop {
            self.applied.notified().await;
            self.repeat.notify_waiters();
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[tokio::test]
    async fn a_waiter_sees_each_change_and_leaves_nothing_behind() {
        let changes = Arc::new(Changes::default());
        let deliverer = changes.clone();
        let delivery = tokio::spawn(async move { deliverer.deliver().await });
        let value = Arc::new(AtomicU64::new(0));
        let waiters: Vec<_> = (1..=10)
            .map(|wanted| {
                let (changes, value) = (changes.clone(), value.clone());
                tokio::spawn(async move {
                    let look = || Some(value.load(Ordering::SeqCst)).filter(|now| *now >= wanted);
                    changes.wait_until(look).await
                })
            })
            .collect();
        let owner = changes.clone();
        let thread = std::thread::spawn(move || {
            for now in 1..=10 {
                value.store(now, Ordering::SeqCst);
                owner.applied();
            }
        });
        for (waiter, wanted) in waiters.into_iter().zip(1..) {
            assert!(waiter.await.unwrap() >= wanted);
        }
        thread.join().unwrap();
        assert_eq!(changes.waiters.load(Ordering::SeqCst), 0);
        delivery.abort();
    }

    #[tokio::test]
    async fn who_gives_up_no_longer_costs_the_owner_anything() {
        let changes = Changes::default();
        let never = changes.wait_until(|| None::<()>);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, never).await.is_err());
        assert_eq!(changes.waiters.load(Ordering::SeqCst), 0);
    }
}
