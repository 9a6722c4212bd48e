//! How many connections there may be: each takes a file descriptor, and what holds the data comes first.
//!
//! A checkpoint that cannot be created costs the next start some time; a log that cannot open its folder ends
//! the member. So connections leave some descriptors alone, as etcd's do, and those that do not fit wait until
//! others end. That counts from the first one on: clients come back before recovery has opened its files.
//!
//! ```text
//! 1024 files   150 for the member | 874 connections, of all listeners together
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files that connections leave to the member, as in etcd. It has some 20 open; each listener may
/// hold one more connection that waits to be admitted.
const RESERVED_FILES: u64 = 150;

/// Connections of those who look how a member is, on ports of their own: of the files that are left to it, so
/// that clients who take all others do not make it look dead.
const OBSERVERS_MAX: usize = 50;

/// Fewer connections than this are worth a warning.
const FEW_CONNECTIONS: usize = 1000;

/// How often it is said that connections wait: clients that come and go at the bound would fill the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// The process may open so few files that no connection fits.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {open_files_max}, and a member needs more than {RESERVED_FILES}; raise it \
     by `ulimit -n`, or LimitNOFILE of the service"
)]
pub struct TooFewFiles {
    open_files_max: u64,
}

/// Who lets connections in; clones share the bound.
#[derive(Clone)]
pub struct Admission {
    free: Arc<Semaphore>,
    connections_max: usize,
    /// When it was said that connections wait. A leaf lock, held for one look or note.
    told: Arc<Mutex<Option<Instant>>>,
}

impl Admission {
    /// By the limit of open files, which is first raised as far as the process may, as Go does.
    ///
    /// # Errors
    /// If no connection fits; say so and end the start.
    pub fn of_process() -> Result<Self, TooFewFiles> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let open_files_max = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            // What there is remains; some kernels refuse a limit that is higher than their own.
            Err(_) => limit.current,
        };
        Self::beside_files(open_files_max.unwrap_or(u64::MAX))
    }

    fn beside_files(open_files_max: u64) -> Result<Self, TooFewFiles> {
        let connections_max = open_files_max.saturating_sub(RESERVED_FILES);
        let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        if connections_max == 0 {
            return Err(TooFewFiles { open_files_max });
        }
        if connections_max < FEW_CONNECTIONS {
            tracing::warn!(connections_max, open_files_max, "the limit of open files is low");
        }
        Ok(Self::of(connections_max))
    }

    /// For ports on which nothing is served but metrics and health.
    pub fn of_observers() -> Self {
        Self::of(OBSERVERS_MAX)
    }

    /// Lets so many connections in at once.
    pub(super) fn of(connections_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(connections_max));
        Self { free, connections_max, told: Arc::default() }
    }

    /// Waits until one more connection fits; it does as long as the permit lives.
    pub(super) async fn admit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return permit;
        }
        if self.may_tell() {
            let connections_max = self.connections_max;
            tracing::warn!(
                connections_max,
                "connections wait: no more fit in the limit of open files"
            );
        }
        self.free.clone().acquire_owned().await.expect("nobody closes it")
    }

    fn may_tell(&self) -> bool {
        let mut told = self.told.lock();
        let is_due = told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_member_its_files_or_it_does_not_start() {
        let fit = |open_files_max| {
            let admission = Admission::beside_files(open_files_max);
            admission.map(|it| it.free.available_permits()).map_err(|error| error.to_string())
        };
        assert_eq!(fit(1024), Ok(874));
        assert_eq!(fit(151), Ok(1));
        assert_eq!(fit(u64::MAX), Ok(Semaphore::MAX_PERMITS));
        let refusal = "the limit of open files is 150, and a member needs more than 150; raise it by \
                       `ulimit -n`, or LimitNOFILE of the service";
        assert_eq!(fit(150), Err(refusal.to_owned()));
    }
}
