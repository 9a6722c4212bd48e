//! Threads whose end can be awaited for a while.
//!
//! A thread that hangs in a dead disk never ends, and a process that ends must not wait for it.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A thread that runs.
pub(super) struct Ending<T> {
    thread: JoinHandle<T>,
    /// Has no other end any more once the thread did its work.
    running: Receiver<()>,
}

impl<T: Send + 'static> Ending<T> {
    pub(super) fn spawn(
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (runs, running) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = work();
            drop(runs);
            result
        })?;
        Ok(Self { thread, running })
    }

    /// Waits for the end; `None` if it does not come within `wait`. Then the thread is left alone.
    pub(super) fn within(self, wait: Duration) -> Option<thread::Result<T>> {
        let has_ended = self.running.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected);
        has_ended.then(|| self.thread.join())
    }

    /// Waits for the end.
    pub(super) fn join(self) -> thread::Result<T> {
        self.thread.join()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_not_awaited_for_ever() {
        let (go, goes) = mpsc::channel::<()>();
        let hangs = Ending::spawn("hangs", move || goes.recv()).unwrap();
        assert!(hangs.within(Duration::from_millis(1)).is_none());
        drop(go);
        let ends = Ending::spawn("ends", || 7).unwrap();
        assert_eq!(ends.within(Duration::MAX).unwrap().unwrap(), 7);
    }
}
