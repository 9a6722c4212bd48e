//! The way of changes to those who watch: the owner says that there is something new, and the runtime
//! that serves the streams finds out whom it concerns.
//!
//! ```text
//! owner: applied, changed() -> is anybody watching? -> notified() -> Hub::advance, until nothing is new
//! ```

use std::sync::Arc;

use tokio::sync::Notify;

use crate::mvcc::{Rows, RowsError};
use crate::view::View;
use crate::watch::Hub;

/// All watches, and what wakes them.
pub struct Watches {
    hub: Hub,
    changed: Notify,
}

impl Watches {
    /// Watches of what `hub` tells.
    pub fn new(hub: Hub) -> Self {
        Self { hub, changed: Notify::new() }
    }

    /// Who watches what.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Says that entries were applied. Costs nothing while nobody watches.
    pub fn changed(&self) {
        if self.hub.is_watched() {
            self.changed.notify_one();
        }
    }

    /// Whether [`Watches::changed`] woke the driver since this was asked last: for whoever drives the hub in
    /// turns instead of [`Watches::drive`], after the same decision.
    pub fn take_changed(&self) -> bool {
        std::pin::pin!(self.changed.notified()).enable()
    }

    /// Tells streams of changes as they come. To be spawned on the runtime that serves them; ends only
    /// when the store cannot be read.
    pub async fn drive(&self, view: &Arc<View>, rows: &Arc<dyn Rows>) -> RowsError {
        loop {
            self.changed.notified().await;
            loop {
                match self.hub.advance(view, rows.as_ref()) {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(error) => return error,
                }
            }
        }
    }
}
