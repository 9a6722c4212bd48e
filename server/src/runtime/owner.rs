//! The owner: one thread that takes events, hands them to the replica and performs its effects.
//!
//! What depends on a sync never leaves before it, and this file is where that is decided: the log is
//! appended and synced in [`Owner::perform`], and only then does the replica hear of it. Whatever
//! arrives during a sync is taken together afterwards, so one sync covers it all.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::RunError;
use super::background::Background;
use super::log::LogWriter;
use crate::handle::{Delivery, Handle, Stop};
use crate::replica::{Effect, Event, Published, Replica, Reply, RequestId};

/// A replica with everything it needs to live.
pub(super) struct Owner {
    pub(super) replica: Replica,
    pub(super) handle: Handle,
    pub(super) log: LogWriter,
    pub(super) background: Background,
    pub(super) tick: Duration,
    pub(super) rounds: Rounds,
}

/// What lives from one round to the next.
#[derive(Default)]
pub(super) struct Rounds {
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    effects: Vec<Effect>,
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    published: Published,
}

impl Owner {
    /// Runs until somebody asks for an end or something fails.
    ///
    /// # Errors
    /// [`RunError`]: the process must end with it. Everything acknowledged is in the log.
    pub(super) fn run(mut self) -> Result<(), RunError> {
        self.handle.publish_records(self.replica.members(), self.replica.alarms());
        let result = self.serve();
        // Whoever still waits is told that the member stopped; what was proposed is unknown.
        let left = self.handle.mailbox().close();
        self.rounds.waiting.clear();
        result?;
        self.take(Delivery { requests: Default::default(), ..left })?;
        self.flush_all()?;
        self.background.stop()
    }

    fn serve(&mut self) -> Result<(), RunError> {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            self.round()?;
            let deadline = if self.replica.has_work() { Instant::now() } else { next_tick };
            let mut delivery = self.handle.mailbox().take(deadline);
            match delivery.stop.take() {
                Some(Stop::Requested) => return Ok(()),
                Some(Stop::Failed(reason)) => return Err(RunError::Failed(reason)),
                None => self.take(delivery)?,
            }
            let now = Instant::now();
            if now >= next_tick {
                // After a pause one tick stands for all that were missed.
                self.replica.handle(Event::Tick, &mut self.rounds.effects)?;
                next_tick = now + self.tick;
            }
        }
    }

    fn take(&mut self, delivery: Delivery) -> Result<(), RunError> {
        for event in delivery.events {
            self.replica.handle(event, &mut self.rounds.effects)?;
        }
        for request in delivery.requests {
            self.rounds.waiting.insert(request.id, request.reply);
            self.replica.handle(request.event, &mut self.rounds.effects)?;
        }
        Ok(())
    }

    /// Works until nothing is ready any more.
    fn round(&mut self) -> Result<(), RunError> {
        loop {
            self.replica.settle(&mut self.rounds.effects)?;
            self.publish();
            if self.rounds.effects.is_empty() {
                return Ok(());
            }
            self.perform()?;
        }
    }

    /// Performs effects in their order. One sync serves all appends of the list, and nothing is
    /// reported as persisted before it.
    fn perform(&mut self) -> Result<(), RunError> {
        let mut effects = std::mem::take(&mut self.rounds.effects);
        let mut persisted = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(persist) => {
                    persisted = persist.sync.or(persisted);
                    self.log.append(persist)?;
                }
                Effect::PersistConfState { index, term, conf_state } => {
                    self.log.append_conf_state((index, term), &conf_state)?;
                }
                Effect::Reply { id, reply } => {
                    if let Some(waiter) = self.rounds.waiting.remove(&id) {
                        self.rounds.replies.push((waiter, reply));
                    }
                }
                Effect::Flush(batch) => self.background.flush(batch),
                Effect::ReleaseLog { upto } => self.log.release(upto)?,
            }
        }
        self.rounds.effects = effects;
        self.handle.replies().send(&mut self.rounds.replies);
        self.log.sync_if_needed()?;
        if let Some(sync) = persisted {
            self.replica.handle(Event::Persisted { sync }, &mut self.rounds.effects)?;
        }
        Ok(())
    }

    /// Flushes everything applied, so that the next start has nothing to apply again.
    fn flush_all(&mut self) -> Result<(), RunError> {
        loop {
            self.round()?;
            self.replica.flush_all(&mut self.rounds.effects);
            self.round()?;
            if !self.replica.is_flushing() {
                return Ok(());
            }
            let delivery = self.handle.mailbox().take(Instant::now() + self.tick);
            if let Some(Stop::Failed(reason)) = delivery.stop {
                return Err(RunError::Failed(reason));
            }
            for event in delivery.events {
                self.replica.handle(event, &mut self.rounds.effects)?;
            }
            if !self.replica.is_flushing() {
                return Ok(());
            }
        }
    }

    fn publish(&mut self) {
        let published = self.replica.published();
        if published == self.rounds.published {
            return;
        }
        let status = self.handle.status();
        // Before anything is sent: a read must not take this member for the only leader too long.
        status.leads_alone.store(published.leads_alone, Ordering::Release);
        status.term.store(published.term, Ordering::Relaxed);
        status.leader_id.store(published.leader_id, Ordering::Relaxed);
        status.commit_index.store(published.commit_index, Ordering::Relaxed);
        status.applied_index.store(published.applied_index, Ordering::Relaxed);
        status.proposals_pending.store(published.proposals_pending, Ordering::Relaxed);
        status.proposals_failed.store(published.proposals_failed, Ordering::Relaxed);
        status.leader_changes.store(published.leader_changes, Ordering::Relaxed);
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        status.db_size_bytes.store(size(published.sizes.total_bytes), Ordering::Relaxed);
        status.db_size_in_use_bytes.store(size(published.sizes.in_use_bytes), Ordering::Relaxed);
        if published.record_changes != self.rounds.published.record_changes {
            self.handle.publish_records(self.replica.members(), self.replica.alarms());
        }
        self.rounds.published = published;
    }
}
