//! What drives the flusher: a thread, or the simulator step by step.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::RunError;
use super::ending::Ending;
use super::place::{Place, Room};
use crate::handle::{Handle, Stop};
use crate::replica::Event;
use crate::state_machine::FlushBatch;
use crate::storage::flusher::{Flusher, FlusherError, Step};
use crate::telemetry::Metrics;

/// How often the file system is asked what is left, beside after each flush.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member that failed waits for a thread to put its work down.
pub(super) const ABANDON_WAIT: Duration = Duration::from_secs(5);

/// What the flusher is asked for. One flush at a time, so the channel stays short.
pub enum Work {
    /// Write this batch.
    Flush(FlushBatch),
    /// Give space back, and say when that is done.
    Rewrite(oneshot::Sender<Result<(), String>>),
    /// A last checkpoint, then the end.
    Stop,
    /// The end without that: the owner failed. For the one who drives the flusher.
    Abandon,
}

/// The thread, seen from the owner.
pub(super) struct Background {
    work: Sender<Work>,
    thread: Ending<Result<(), FlusherError>>,
}

/// The flusher, with those who want to know what it did.
pub struct Worker {
    flusher: Flusher,
    handle: Handle,
    metrics: Arc<Metrics>,
    rewrite_waiters: Vec<oneshot::Sender<Result<(), String>>>,
    flush_began: Instant,
}

impl Worker {
    pub(super) fn new(flusher: Flusher, handle: Handle, metrics: Arc<Metrics>) -> Self {
        let rewrite_waiters = Vec::new();
        Self { flusher, handle, metrics, rewrite_waiters, flush_began: Instant::now() }
    }

    /// Takes work, to be done by the steps that follow.
    pub fn take(&mut self, work: Work) {
        match work {
            Work::Flush(batch) => {
                self.flush_began = Instant::now();
                self.flusher.add(batch);
            }
            Work::Rewrite(done) => {
                // Who is dropped hears that the server stops.
                if self.flusher.request_rewrite() {
                    self.rewrite_waiters.push(done);
                }
            }
            Work::Stop => self.flusher.begin_stop(),
            Work::Abandon => {}
        }
    }

    /// Takes what was found of the room on the disk, and tells the owner.
    pub fn disk_space(&mut self, room: &Room) {
        self.flusher.disk_space(room.data);
        let Room { is_low, is_tight, .. } = *room;
        self.handle.mailbox().event(Event::DiskSpace { is_low, is_tight });
    }

    /// Does a step, and tells those concerned what it finished.
    ///
    /// # Errors
    /// The process must end.
    pub fn step(&mut self) -> Result<Step, FlusherError> {
        let step = self.flusher.step()?;
        self.report(&step);
        self.metrics.disk.defrag_inflight.set(self.flusher.is_rewriting().into());
        Ok(step)
    }

    /// Tells the owner why the process must end.
    pub fn failed(&self, error: &FlusherError) {
        let reason = error.to_string();
        self.handle.mailbox().stop(if error.is_storage_full() {
            Stop::DiskFull(reason)
        } else if error.is_damage() {
            Stop::Damaged(reason)
        } else {
            Stop::Failed(reason)
        });
    }

    /// The flusher.
    pub fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// Closes the state store.
    ///
    /// # Errors
    /// If the file cannot be written; what was flushed is safe.
    pub fn close(self) -> Result<(), FlusherError> {
        self.flusher.close()
    }

    fn report(&mut self, step: &Step) {
        match step {
            Step::Idle | Step::Busy => {}
            Step::Flushed(report) => {
                let seconds = self.flush_began.elapsed().as_secs_f64();
                self.metrics.disk.commit_seconds.observe(seconds);
                self.publish_file_bytes(report.file_bytes);
                self.handle.mailbox().event(Event::Flushed {
                    generation: report.generation,
                    applied_index: report.applied_index,
                });
            }
            Step::Checkpointed(report) => {
                tracing::info!(bytes = report.bytes, "wrote a checkpoint of the index");
            }
            Step::CheckpointSkipped(reason) => {
                tracing::warn!(reason, "gave up a checkpoint of the index");
            }
            Step::Rewritten(report) => {
                tracing::info!(
                    bytes_before = report.file_bytes_before,
                    bytes = report.file_bytes,
                    "gave unused space of the state store back"
                );
                self.publish_file_bytes(report.file_bytes);
                self.rewrite_done(&Ok(()));
            }
            Step::RewriteSkipped(error) => {
                tracing::warn!(%error, "cannot give unused space of the state store back");
                self.rewrite_done(&Err(error.to_string()));
            }
        }
    }

    fn rewrite_done(&mut self, result: &Result<(), String>) {
        for waiter in self.rewrite_waiters.drain(..) {
            let _ = waiter.send(result.clone());
        }
    }

    fn publish_file_bytes(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.handle.status().space.db_file_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Background {
    pub(super) fn spawn(
        worker: Worker,
        (work, queue): (Sender<Work>, Receiver<Work>),
        place: Place,
    ) -> Result<Self, RunError> {
        let stopping = Stopping::No;
        let driver = Driver { worker, queue, stopping, space_checked: None, place };
        let thread = Ending::spawn("flusher", move || driver.run())
            .map_err(|error| RunError::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { work, thread })
    }

    pub(super) fn flush(&self, batch: FlushBatch) {
        // A thread that ended has told the owner why through the mailbox.
        let _ = self.work.send(Work::Flush(batch));
    }

    /// Ends the thread after a last checkpoint.
    pub(super) fn stop(self) -> Result<(), RunError> {
        let _ = self.work.send(Work::Stop);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(RunError::Failed("the flusher thread panicked".into())),
        }
    }

    /// Ends the thread after the step that it is at, unless that takes too long: a disk may hang.
    pub(super) fn abandon(self) {
        let _ = self.work.send(Work::Abandon);
        // What it failed with is not the reason of this end, or the owner has heard of it.
        if self.thread.within(ABANDON_WAIT).is_none() {
            tracing::warn!("what flushes hangs: ending without it");
        }
    }
}

/// How a flusher ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// When nothing is left to do.
    InOrder,
    AtOnce,
}

struct Driver {
    worker: Worker,
    queue: Receiver<Work>,
    stopping: Stopping,
    space_checked: Option<Instant>,
    /// The last: its data dir is locked until everything above is gone.
    place: Place,
}

impl Driver {
    fn run(mut self) -> Result<(), FlusherError> {
        let result = self.work();
        match result {
            Ok(()) if self.stopping == Stopping::AtOnce => Ok(()),
            Ok(()) => self.worker.close(),
            Err(error) => {
                self.worker.failed(&error);
                Err(error)
            }
        }
    }

    fn work(&mut self) -> Result<(), FlusherError> {
        let mut is_idle = false;
        loop {
            match self.next(is_idle) {
                Some(Work::Abandon) => {
                    self.stopping = Stopping::AtOnce;
                    return Ok(());
                }
                Some(work) => {
                    if matches!(work, Work::Stop) {
                        self.stopping = Stopping::InOrder;
                    }
                    self.worker.take(work);
                }
                None => {}
            }
            self.check_space();
            let step = self.worker.step()?;
            if matches!(step, Step::Flushed(_)) {
                // Who writes fast fills a small disk between two looks.
                self.space_checked = None;
            }
            is_idle = matches!(step, Step::Idle);
            if is_idle && self.stopping == Stopping::InOrder {
                return Ok(());
            }
        }
    }

    fn next(&self, is_idle: bool) -> Option<Work> {
        if !is_idle || self.stopping == Stopping::InOrder {
            return self.queue.try_recv().ok();
        }
        // It never has no other end: the worker's own handle holds one. The owner says how to end.
        self.queue.recv_timeout(SPACE_INTERVAL).ok()
    }

    fn check_space(&mut self) {
        if self.space_checked.is_some_and(|checked| checked.elapsed() < SPACE_INTERVAL) {
            return;
        }
        self.space_checked = Some(Instant::now());
        let status = &self.worker.handle.status().room;
        match self.place.look(status.log_is_short.load(Ordering::Relaxed)) {
            Ok(room) => {
                status.data.publish(room.data.free_bytes, room.data.low_bytes());
                status.log.publish(room.log.free_bytes, room.log.low_bytes());
                self.worker.disk_space(&room);
            }
            Err(error) => tracing::warn!(%error, "cannot tell how much disk space is left"),
        }
    }
}

/// A queue for the thread.
pub(super) fn queue() -> (Sender<Work>, Receiver<Work>) {
    mpsc::channel()
}
