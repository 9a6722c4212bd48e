//! The way of replies back to those who wait.
//!
//! Waking a task from another thread costs a system call. The owner therefore hands over all replies
//! of one round together, with one wake, and [`Replies::deliver`] completes them on the runtime of
//! those who wait, where a wake costs next to nothing.

use std::convert::Infallible;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::replica::Reply;

/// Replies on their way. Its lock is held only to append or to take all.
#[derive(Default)]
pub struct Replies {
    ready: Mutex<Vec<(oneshot::Sender<Reply>, Reply)>>,
    arrived: Notify,
}

impl Replies {
    /// Hands over the replies of one round and leaves `replies` empty.
    pub fn send(&self, replies: &mut Vec<(oneshot::Sender<Reply>, Reply)>) {
        if replies.is_empty() {
            return;
        }
        self.ready.lock().append(replies);
        self.arrived.notify_one();
    }

    /// Completes replies as they come. To be spawned on the runtime that serves the requests.
    /// Nothing ends it.
    pub async fn deliver(&self) -> Infallible {
        loop {
            self.arrived.notified().await;
            let ready = std::mem::take(&mut *self.ready.lock());
            for (waiter, reply) in ready {
                // Whoever gave up waiting needs no reply.
                let _ = waiter.send(reply);
            }
        }
    }
}
