//! The owner: takes events, hands them to the replica and performs its effects.
//!
//! It runs on a thread of its own ([`Owner::run`]), or turn by turn under the simulator; what goes on
//! beside it is behind [`Beside`]. Everything else is the same code.
//!
//! What depends on a sync never leaves before it, and this file is where that is decided: the log is
//! appended and synced in [`Owner::perform`], and only then does the replica hear of it. Whatever
//! arrives during a sync is taken together afterwards, so one sync covers it all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::background::{ABANDON_WAIT, Background};
use super::compactions::Compactions;
use super::ending::Ending;
use super::log::{LogWriter, NextSegment, SegmentJob};
use super::{Core, RunError};
use crate::handle::{Delivery, Handle, Stop};
use crate::lease::Lessor;
use crate::mutants::{self, Mutant};
use crate::replica::{
    AutoCompaction, Effect, Event, Published, RaftState, Replica, Reply, RequestId,
};
use crate::state_machine::{Alarm, FlushBatch};
use crate::storage::data_dir::DataDir;

/// What goes on beside the owner.
pub trait Beside {
    /// Begins to flush a batch; its end arrives in the mailbox as [`Event::Flushed`].
    fn flush(&mut self, batch: FlushBatch);

    /// Has the next segment of the log made ready.
    fn prepare(&mut self, job: SegmentJob);
}

/// A replica with everything it needs to live.
pub struct Owner<B> {
    replica: Replica,
    handle: Handle,
    log: LogWriter,
    compactions: Compactions,
    /// The most time that one tick stands for.
    tick_elapsed_max: Duration,
    rounds: Rounds,
    beside: B,
}

/// What lives from one round to the next.
#[derive(Default)]
struct Rounds {
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    effects: Vec<Effect>,
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    published: Published,
    is_stopping: bool,
    /// What ticks left of a millisecond.
    untold: Duration,
}

impl Rounds {
    /// The milliseconds that a tick stands for, at most `elapsed_max`. What is left over is for the next:
    /// it would be one in a hundred, and leases would last as much longer.
    fn whole_ms(&mut self, elapsed: Duration, elapsed_max: Duration) -> u64 {
        let whole = elapsed + self.untold;
        let elapsed =
            if mutants::on(Mutant::PauseCountsWhole) { whole } else { whole.min(elapsed_max) };
        self.untold = Duration::from_nanos(u64::from(elapsed.subsec_nanos() % 1_000_000));
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Owner<Threads> {
    /// Runs until somebody asks for an end or something fails.
    ///
    /// # Errors
    /// [`RunError`]: the process must end with it. Everything acknowledged is in the log.
    pub(super) fn run(mut self, tick: Duration) -> Result<(), RunError> {
        match self.run_to_end(tick) {
            Ok(()) => self.beside.stop(),
            Err(error) => {
                self.beside.abandon();
                Err(error)
            }
        }
    }

    fn run_to_end(&mut self, tick: Duration) -> Result<(), RunError> {
        let result = self.serve(tick);
        self.begin_stop(result)?;
        while !self.flush_rest()? {
            let delivery = self.handle.mailbox().take(Instant::now() + tick);
            self.take(delivery)?;
        }
        Ok(())
    }

    fn serve(&mut self, tick: Duration) -> Result<(), RunError> {
        let mut last_tick = Instant::now();
        let mut next_tick = last_tick + tick;
        loop {
            self.round()?;
            let deadline = if self.has_work() { Instant::now() } else { next_tick };
            let delivery = self.handle.mailbox().take(deadline);
            if self.take(delivery)? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next_tick {
                // After a pause one tick stands for all that were missed.
                if self.take_then_tick(now, now - last_tick)? {
                    return Ok(());
                }
                (last_tick, next_tick) = (now, now + tick);
            }
        }
    }
}

/// Threads beside the owner's.
pub(super) struct Threads {
    background: Background,
    /// What makes a segment ready, or did. One at a time.
    segment: Option<Ending<()>>,
    data_dir: Arc<DataDir>,
}

impl Threads {
    pub(super) fn new(background: Background, data_dir: Arc<DataDir>) -> Self {
        Self { background, segment: None, data_dir }
    }

    fn stop(self) -> Result<(), RunError> {
        let result = self.background.stop();
        end(self.segment);
        result
    }

    fn abandon(self) {
        self.background.abandon();
        end(self.segment);
    }
}

/// Waits for a segment to be ready, which the next start removes: it takes as long as the disk needs for
/// 64 MiB, or hangs with it.
fn end(segment: Option<Ending<()>>) {
    if segment.is_some_and(|segment| segment.within(ABANDON_WAIT).is_none()) {
        tracing::warn!("what makes a segment of the log ready hangs: ending without it");
    }
}

impl Beside for Threads {
    fn flush(&mut self, batch: FlushBatch) {
        self.background.flush(batch);
    }

    fn prepare(&mut self, job: SegmentJob) {
        self.segment = job.spawn(self.data_dir.clone());
    }
}

impl<B: Beside> Owner<B> {
    /// The owner of `replica`, with its log.
    pub fn new(core: Core, handle: Handle, beside: B) -> Self {
        let Core { replica, log, compactions, tick_elapsed_max } = core;
        handle.publish_records(replica.members(), replica.alarms());
        let rounds = Rounds::default();
        Self { replica, handle, log, compactions, tick_elapsed_max, rounds, beside }
    }

    /// What goes on beside.
    pub fn beside(&mut self) -> &mut B {
        &mut self.beside
    }

    /// What is to be seen of the replica.
    pub fn published(&self) -> Published {
        self.replica.published()
    }

    /// Whether [`Owner::round`] has more to do although nothing arrived.
    pub fn has_work(&self) -> bool {
        self.replica.has_work()
    }

    /// The leases, as they were applied.
    pub fn lessor(&self) -> &Lessor {
        self.replica.lessor()
    }

    /// Lets the tick at `now` pass, behind all that arrived before it: a renewal that waited in the
    /// mailbox while the disk hung was there in time. `true` if an orderly end was asked for.
    ///
    /// # Errors
    /// As [`Owner::take`].
    pub fn take_then_tick(&mut self, now: Instant, elapsed: Duration) -> Result<bool, RunError> {
        let arrived = self.handle.mailbox().take(now);
        let is_stopping = self.take(arrived)?;
        if !is_stopping {
            self.tick(elapsed)?;
        }
        Ok(is_stopping)
    }

    /// Lets a tick pass, `elapsed` after the last one. A pause counts for an election timeout at most.
    ///
    /// # Errors
    /// As [`Owner::round`].
    pub fn tick(&mut self, elapsed: Duration) -> Result<(), RunError> {
        let elapsed_ms = self.rounds.whole_ms(elapsed, self.tick_elapsed_max);
        Ok(self.replica.handle(Event::Tick { elapsed_ms }, &mut self.rounds.effects)?)
    }

    /// Begins an orderly end, after `served` went well: nothing is taken from clients any more.
    ///
    /// # Errors
    /// As [`Owner::round`], and that of `served`.
    pub fn begin_stop(&mut self, served: Result<(), RunError>) -> Result<(), RunError> {
        // Nothing keeps the view up to date from now on.
        self.rounds.is_stopping = true;
        self.handle.status().raft.leads_alone.store(false, Ordering::Release);
        // Whoever still waits is told that the member stopped; what was proposed is unknown.
        let left = self.handle.mailbox().close();
        self.rounds.waiting.clear();
        served?;
        // The flusher may have failed meanwhile: waiting for it would have no end.
        self.take(Delivery { requests: Default::default(), ..left })?;
        Ok(())
    }

    /// Flushes everything applied, so that the next start has nothing to apply again; `true` when
    /// nothing is left. Else to be called again after the mailbox had something.
    ///
    /// # Errors
    /// As [`Owner::round`].
    pub fn flush_rest(&mut self) -> Result<bool, RunError> {
        self.round()?;
        let is_flushed = self.replica.flush_all(&mut self.rounds.effects);
        self.round()?;
        Ok(is_flushed)
    }

    /// Takes what the mailbox delivered; `true` if an orderly end was asked for.
    ///
    /// # Errors
    /// As [`Owner::round`], and what another thread failed with.
    pub fn take(&mut self, delivery: Delivery) -> Result<bool, RunError> {
        match delivery.stop {
            Some(Stop::Failed(reason)) => return Err(RunError::Failed(reason)),
            Some(Stop::Damaged(reason)) => return Err(RunError::Damaged(reason)),
            Some(Stop::DiskFull(reason)) => return Err(RunError::DiskFull(reason)),
            Some(Stop::Requested) | None => {}
        }
        for event in delivery.events {
            self.replica.handle(event, &mut self.rounds.effects)?;
        }
        for request in delivery.requests {
            self.rounds.waiting.insert(request.id, request.reply);
            self.replica.handle(request.event, &mut self.rounds.effects)?;
        }
        Ok(delivery.stop.is_some())
    }

    /// Works until nothing is ready any more.
    ///
    /// # Errors
    /// [`RunError`]: the process must end with it. Everything acknowledged is in the log.
    pub fn round(&mut self) -> Result<(), RunError> {
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
                    self.log.append(persist, &self.handle.status().log_sync)?;
                    self.look_ahead();
                }
                Effect::PersistConfState { index, term, conf_state } => {
                    let status = &self.handle.status().log_sync;
                    self.log.append_conf_state((index, term), &conf_state, status)?;
                }
                Effect::Reply { id, reply } => {
                    if let Some(waiter) = self.rounds.waiting.remove(&id) {
                        self.rounds.replies.push((waiter, reply));
                    }
                }
                Effect::AutoCompact { revision, mode } => log_auto_compaction(revision, mode),
                Effect::Flush(batch) => self.beside.flush(batch),
                Effect::ReleaseLog { upto, is_tight } => {
                    self.log.release(upto, is_tight, &self.handle.status().log_sync)?;
                    if is_tight {
                        // One of those may become the next, and a disk that refused may have room again.
                        self.look_ahead();
                    }
                }
            }
        }
        self.rounds.effects = effects;
        self.handle.replies().send(&mut self.rounds.replies);
        if !mutants::on(Mutant::AcknowledgeBeforeSync) {
            self.log.sync_if_needed(&self.handle.status().log_sync)?;
        }
        if let Some(sync) = persisted {
            self.replica.handle(Event::Persisted { sync }, &mut self.rounds.effects)?;
        }
        Ok(())
    }

    /// Has the next segment of the log made ready.
    fn look_ahead(&mut self) {
        if let Some(job) = self.log.next_job() {
            self.beside.prepare(job);
        }
        let is_short = self.log.next_segment() == NextSegment::NoRoom;
        let was_short = self.handle.status().room.log_is_short.swap(is_short, Ordering::Relaxed);
        if is_short && !was_short {
            // At once: the next look at the room may be a second away. From then on it says so.
            self.handle.mailbox().event(Event::DiskSpace { is_low: true, is_tight: true });
        }
    }

    fn publish_records(&self) {
        let alarms = self.replica.alarms();
        let known = self.handle.alarms();
        for alarm in those_not_in(&known, &alarms) {
            let member_id = format_args!("{:x}", alarm.member_id);
            let status = self.handle.status();
            let size_bytes = status.space.db_size_in_use_bytes.load(Ordering::Relaxed);
            let quota_bytes = status.space.quota_bytes.load(Ordering::Relaxed);
            let data_free_bytes = status.room.data.free_bytes.load(Ordering::Relaxed);
            let log_free_bytes = status.room.log.free_bytes.load(Ordering::Relaxed);
            tracing::warn!(
                member_id,
                kind = ?alarm.kind,
                size_bytes,
                quota_bytes,
                data_free_bytes,
                log_free_bytes,
                "an alarm was raised"
            );
        }
        for alarm in those_not_in(&alarms, &known) {
            let member_id = format_args!("{:x}", alarm.member_id);
            tracing::info!(member_id, kind = ?alarm.kind, "an alarm was taken back");
        }
        self.handle.publish_records(self.replica.members(), alarms);
    }

    fn publish(&mut self) {
        let published = self.replica.published();
        if published == self.rounds.published {
            return;
        }
        let status = self.handle.status();
        let leads_alone = published.raft.leads_alone && !self.rounds.is_stopping;
        status.raft.publish(&RaftState { leads_alone, ..published.raft });
        status.space.publish(published.sizes);
        status.leases.publish(&published.leases);
        self.compactions.look(published.compact_scheduled, published.compact_finished);
        if published.record_changes != self.rounds.published.record_changes {
            self.publish_records();
        }
        if published.raft.applied_index != self.rounds.published.raft.applied_index {
            self.handle.watches().changed();
        }
        self.rounds.published = published;
    }
}

/// The alarms that are not among `known`; both are ascending, and as many as clients raised.
fn those_not_in<'a>(known: &'a [Alarm], alarms: &'a [Alarm]) -> impl Iterator<Item = &'a Alarm> {
    alarms.iter().filter(|alarm| known.binary_search(alarm).is_err())
}

/// Says what nobody asked for; in revision mode with the number of revisions to keep.
fn log_auto_compaction(revision: i64, mode: AutoCompaction) {
    match mode {
        AutoCompaction::Revision { retention, .. } => {
            tracing::info!(revision, retention, "starting auto revision compaction");
        }
        AutoCompaction::Periodic { .. } => {
            tracing::info!(revision, "starting auto periodic compaction");
        }
        AutoCompaction::Off => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::AlarmKind;

    #[test]
    fn alarms_are_compared_in_little_time_however_many_clients_raised() {
        let kinds = [AlarmKind::NoSpace, AlarmKind::Corrupt];
        let of_kind = |kind| (0..100_000).map(move |member_id| Alarm { kind, member_id });
        let before: Vec<_> = kinds.into_iter().flat_map(of_kind).collect();
        let mut after = before.clone();
        let taken_back = after.remove(150_000);
        let raised = Alarm { kind: AlarmKind::Corrupt, member_id: u64::MAX };
        after.push(raised);
        assert_eq!(those_not_in(&before, &after).collect::<Vec<_>>(), [&raised]);
        assert_eq!(those_not_in(&after, &before).collect::<Vec<_>>(), [&taken_back]);
    }

    #[test]
    fn what_ticks_leave_of_a_millisecond_adds_up_and_a_pause_is_bounded() {
        let mut rounds = Rounds::default();
        let max = Duration::from_secs(1);
        let tick = Duration::from_micros(100_900);
        let ms: u64 = (0..1000).map(|_| rounds.whole_ms(tick, max)).sum();
        assert_eq!(ms, 100_900);
        assert_eq!(rounds.whole_ms(Duration::MAX / 2, max), 1000);
        assert_eq!(rounds.whole_ms(Duration::ZERO, max), 0);
    }
}
