//! One run: lives of a member, one after the other, and what happens in each, as one seed decides.

mod asking;
mod quiet;
mod trouble;
mod watching;

use std::path::Path;

use quorate_proto::etcdserverpb::{CompactionRequest, HashKvRequest, RangeRequest};
use quorate_server::replica::AutoCompaction;
use quorate_server::runtime::RunError;
use quorate_server::storage::flusher::Step;
use quorate_server::storage::fs::FileSystem as _;

use super::clients::Clients;
use super::inspect::{Inspection, inspect};
use super::leasing::Leasing;
use super::member::{Life, Member};
use super::plan::Plan;
use super::watchers::Watchers;
use crate::model::Request;
use crate::sim::coverage::{Activity, Coverage, Fault};
use crate::sim::fs::{DiskFault, FaultRates, SimFs};
use crate::sim::history::Event;
use crate::sim::invariants::{
    AStartUsesTheCheckpoint, Blame, During, Ending, EndsOnlyWhenTheDiskFails,
    EveryRequestIsAnswered, QuotaHolds, Referee, SizesAreThoseOfTheRows, StartsAgainByItself,
    Violation, WhatIsStoredCanBeRead, named,
};
use crate::sim::rng::{MILLION, Rng};
use crate::sim::trace::Trace;
use crate::sim::workload::Workload;
use asking::Asking;
use trouble::{Faults, Frozen};

/// Turns without an end of a start or a stop: it hangs.
const TURNS_MAX: u64 = 20_000;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was done: in order, or not.
    Done,
    /// The disk went down, as planned.
    Down,
    /// The process ended by itself, and said why.
    Failed,
    PowerLost,
    Killed,
}

pub(super) struct Run {
    pub(super) member: Member,
    pub(super) rng: Rng,
    pub(super) record: Record,
    pub(super) faults: Faults,
    plan: Plan,
    asking: Asking,
    referee: Referee,
    clients: Clients,
    watchers: Watchers,
    leasing: Leasing,
    doing: Activity,
    seen: Seen,
}

/// What is left of a run.
pub(super) struct Record {
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) requests: u64,
    pub(super) restarts: u64,
    /// A planned crash or kill happened.
    pub(super) was_cut: bool,
}

/// What was last seen of the member.
struct Seen {
    applied_revision: i64,
    compact_revision: i64,
    /// A checkpoint was written, and none was given up since.
    has_checkpoint: bool,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Turn {
    Begin,
    Poll,
    Deliver,
    Owner,
    Worker,
    Segment,
    Tick,
    Trouble,
}

impl Run {
    pub(super) fn new(disk: SimFs, plan: Plan, rng: &mut Rng, echo: bool) -> Self {
        Self {
            member: Member::new(1, disk, plan.member.clone()),
            asking: Asking::new(Workload::new(plan.shape.clone(), rng.fork("workload"))),
            rng: rng.fork("run"),
            watchers: Watchers::new(plan.shape.keys, rng.fork("watchers")),
            record: Record {
                trace: Trace::new(echo),
                coverage: Coverage::default(),
                requests: 0,
                restarts: 0,
                was_cut: false,
            },
            faults: Faults::default(),
            plan,
            referee: Referee::new(),
            clients: Clients::default(),
            leasing: Leasing::default(),
            doing: Activity::Idle,
            seen: Seen { applied_revision: 1, compact_revision: -1, has_checkpoint: false },
        }
    }

    /// Lives until all requests were sent; then, without faults, a start after a crash and one after
    /// an orderly end.
    pub(super) fn all(&mut self, requests: u64) -> Result<(), Violation> {
        while self.record.requests < requests {
            self.live(requests, true)?;
        }
        if std::mem::take(&mut self.faults.on) {
            self.heal();
            self.disk().set_capacity(None);
        }
        let mut ended_in_order = 0;
        // A cut that is still planned may come in between.
        while ended_in_order < 2 {
            ended_in_order += u64::from(self.live(0, false)?);
        }
        Ok(())
    }

    /// One life; `true` if it ended in order.
    fn live(&mut self, requests: u64, may_crash: bool) -> Result<bool, Violation> {
        let Some(mut life) = self.start()? else {
            self.end(End::Failed)?;
            return Ok(false);
        };
        let end = match self.wake(&mut life)? {
            None => self.serve(&mut life, requests)?,
            Some(end) => end,
        };
        let end = if end == End::Done && requests == 0 { self.outlast(&mut life)? } else { end };
        if end == End::Done && !(may_crash && self.rng.percent(50)) {
            let stopped = self.stop(life)?;
            self.end(if stopped { End::Done } else { End::Failed })?;
            return Ok(stopped);
        }
        self.touch_all(&mut life, end);
        self.end(if end == End::Done { End::PowerLost } else { end })?;
        // What it still does while it is dropped comes too late.
        drop(life);
        Ok(false)
    }

    fn disk(&self) -> SimFs {
        self.member.disk().clone()
    }

    /// What the disk did in this life.
    fn blame(&self) -> Blame {
        let needed_bytes = self.plan.member.store.segment_bytes;
        let space = self.disk().space(Path::new("data"));
        let has_room = space.is_ok_and(|space| space.free_bytes >= needed_bytes);
        self.faults.blame.with_room(has_room)
    }

    fn heal(&mut self) {
        self.disk().clear_plan();
        self.disk().set_rates(FaultRates::default());
    }

    // Starting.

    fn start(&mut self) -> Result<Option<Life>, Violation> {
        self.doing = Activity::Recovery;
        self.faults.blame = Blame::default();
        self.faults.frozen = Frozen::default();
        self.break_the_disk();
        let started = self.member.start()?;
        self.met_faults();
        match started {
            Ok(life) => {
                self.record
                    .trace
                    .line(format_args!("start {}: {:?}", self.record.restarts, life.report));
                let is_there = self.seen.has_checkpoint;
                let blame = &self.faults.blame;
                let read = AStartUsesTheCheckpoint::read(is_there, &life.report, blame);
                named(AStartUsesTheCheckpoint::NAME, read)?;
                Ok(Some(life))
            }
            Err(ending) => {
                self.record.trace.line(format_args!("cannot start: {}", ending.text));
                let excused = StartsAgainByItself::failed(&ending, &self.blame());
                named(StartsAgainByItself::NAME, excused)?;
                // A person makes room.
                if self.rng.percent(50) {
                    self.disk().set_capacity(None);
                }
                Ok(None)
            }
        }
    }

    /// Turns until the member leads and has applied all that it knew; then looks at what it holds.
    fn wake(&mut self, life: &mut Life) -> Result<Option<End>, Violation> {
        for _ in 0..TURNS_MAX {
            self.doing = Activity::Apply;
            let turned = life.owner_turn();
            if let Some(end) = self.after(life, turned)? {
                return Ok(Some(end));
            }
            if life.published().raft.leads_alone && !life.has_work() {
                life.ready();
                self.leasing.begin_life();
                self.look_at_leases(life)?;
                let inspected = self.inspect(life);
                self.met_faults();
                if self.disk().is_down() {
                    return Ok(Some(End::Down));
                }
                return inspected;
            }
            self.doing = life.flushing().unwrap_or(Activity::Idle);
            let step = life.worker_step();
            self.note_step(step.as_ref());
            self.met_faults();
            if self.disk().is_down() {
                return Ok(Some(End::Down));
            }
            if self.rng.percent(10) {
                let elapsed_ms = self.leasing.next_tick(&mut self.rng);
                let ticked = life.tick(elapsed_ms);
                if let Some(end) = self.after(life, ticked)? {
                    return Ok(Some(end));
                }
            }
        }
        named(StartsAgainByItself::NAME, StartsAgainByItself::hangs()).map(|()| None)
    }

    fn inspect(&mut self, life: &Life) -> Result<Option<End>, Violation> {
        self.disk().set_rates(FaultRates::default());
        let inspected = inspect(life);
        // A read may push pages of a running flush out of redb's memory, and so meet a planned fault.
        let is_hit = self.met_faults();
        let Inspection { state, cost_bytes } = match inspected {
            Err(_) if self.disk().is_down() => return Ok(Some(End::Down)),
            Err(error) if is_hit && self.faults.blame.explains(&error) => {
                return Ok(Some(End::Failed));
            }
            inspected => named(WhatIsStoredCanBeRead::NAME, inspected)?,
        };
        let revision = state.current_revision;
        self.record.trace.line(format_args!(
            "holds {} rows, revision {revision}, compacted {}",
            state.rows.len(),
            state.compact_revision
        ));
        self.note_compaction(life)?;
        self.referee.observe(&Event::Inspected { state: &state })?;
        let sizes = life.handle.view().sizes();
        // What a compaction deleted before the start counts until it has been done again.
        let view = life.handle.view();
        let is_done = view.finished_compaction() >= view.begun_compaction();
        let said = SizesAreThoseOfTheRows::says(sizes, cost_bytes, is_done);
        named(SizesAreThoseOfTheRows::NAME, said)?;
        let past = state.compact_revision.max(revision - 5);
        let hash = |revision| Request::HashKv(HashKvRequest { revision });
        let range = |revision| {
            Request::Range(RangeRequest {
                key: "\0".into(),
                range_end: "\0".into(),
                revision,
                ..RangeRequest::default()
            })
        };
        self.asking.urgent = vec![hash(0), hash(past.max(1)), range(past.max(1)), range(0)];
        Ok(None)
    }

    // Serving.

    fn serve(&mut self, life: &mut Life, requests: u64) -> Result<End, Violation> {
        self.disk().set_rates(if self.faults.on {
            self.faults.rates
        } else {
            FaultRates::default()
        });
        self.resume_watches(life)?;
        for _ in 0..TURNS_MAX {
            let is_over = self.record.requests >= requests && self.asking.urgent.is_empty();
            if is_over && self.clients.len() == 0 {
                self.rest_watches(life)?;
                return Ok(End::Done);
            }
            let turn = self.choose(life, is_over);
            let turned = self.turn(life, turn)?;
            if let Some(end) = self.after(life, turned)? {
                return Ok(end);
            }
            if matches!(turn, Turn::Owner | Turn::Tick) {
                self.look_at_leases(life)?;
            }
            self.watch(life)?;
            if matches!(turn, Turn::Trouble) && self.faults.on {
                match self.rng.below(12) {
                    0..3 => return Ok(End::PowerLost),
                    3 | 4 => return Ok(End::Killed),
                    _ => self.trouble(life),
                }
            }
        }
        let ended = EveryRequestIsAnswered::turns_ended(self.clients.len());
        named(EveryRequestIsAnswered::NAME, ended).map(|()| End::Done)
    }

    fn choose(&mut self, life: &mut Life, is_over: bool) -> Turn {
        const TURNS: [Turn; 8] = [
            Turn::Begin,
            Turn::Poll,
            Turn::Deliver,
            Turn::Owner,
            Turn::Worker,
            Turn::Segment,
            Turn::Tick,
            Turn::Trouble,
        ];
        self.faults.frozen.worker = self.faults.frozen.worker.saturating_sub(1);
        self.faults.frozen.owner = self.faults.frozen.owner.saturating_sub(1);
        let may_begin = !is_over && self.clients.len() < self.plan.clients;
        let weights = [
            if may_begin { 20 } else { 0 },
            if self.clients.can_go_on() { 40 } else { 0 },
            15,
            if self.faults.frozen.owner > 0 { 0 } else { 25 },
            if self.faults.frozen.worker > 0 { 0 } else { 20 },
            if life.has_segment_job() { 6 } else { 0 },
            if self.faults.frozen.owner > 0 { 0 } else { 4 },
            u64::from(self.faults.on),
        ];
        TURNS[self.rng.weighted(&weights)]
    }

    fn turn(&mut self, life: &mut Life, turn: Turn) -> Result<Result<(), RunError>, Violation> {
        match turn {
            Turn::Begin => self.begin(life)?,
            Turn::Poll => {
                self.doing = Activity::Read;
                if let Some((ask, answer)) = self.clients.poll(&mut self.rng) {
                    self.answered(life, ask, answer)?;
                }
            }
            Turn::Deliver => life.deliver(),
            Turn::Owner => {
                self.doing = Activity::Apply;
                return Ok(self.owner_turn(life));
            }
            Turn::Tick => {
                self.doing = Activity::Apply;
                let elapsed_ms = self.leasing.next_tick(&mut self.rng);
                return Ok(life.tick(elapsed_ms));
            }
            Turn::Worker => {
                self.doing = life.flushing().unwrap_or(Activity::Flush);
                let step = life.worker_step();
                self.note_step(step.as_ref());
            }
            Turn::Segment => {
                self.doing = Activity::Rotation;
                life.segment_step();
                self.note_faults(During::Preparation);
            }
            Turn::Trouble => {}
        }
        Ok(Ok(()))
    }

    /// A turn of the owner. It reads so seldom, for compares of values, that chance has it fail now and
    /// then by itself.
    fn owner_turn(&mut self, life: &mut Life) -> Result<(), RunError> {
        if !self.faults.on || !self.rng.one_in(8) {
            return life.owner_turn();
        }
        self.disk().set_rates(FaultRates { read_error: MILLION / 2, ..self.faults.rates });
        let turned = life.owner_turn();
        self.disk().set_rates(self.faults.rates);
        turned
    }

    /// Looks at what a turn left behind; `Some` if the process is over.
    fn after(
        &mut self,
        life: &mut Life,
        turned: Result<(), RunError>,
    ) -> Result<Option<End>, Violation> {
        self.met_faults();
        if self.disk().is_down() {
            return Ok(Some(End::Down));
        }
        if let Err(error) = turned {
            self.record.trace.line(format_args!("ended: {error}"));
            let excused = EndsOnlyWhenTheDiskFails::failed(&Ending::from(&error), &self.blame());
            named(EndsOnlyWhenTheDiskFails::NAME, excused)?;
            life.failed(error);
            return Ok(Some(End::Failed));
        }
        let published = life.published();
        self.member.observe(&published);
        self.note_rows(life)?;
        self.note_compaction(life)?;
        let used = QuotaHolds::uses(self.plan.member.quota_bytes, published.sizes.in_use_bytes);
        named(QuotaHolds::NAME, used).map(|()| None)
    }

    /// Looks at what was applied while it is still in memory.
    fn note_rows(&mut self, life: &Life) -> Result<(), Violation> {
        let current = life.handle.view().current_revision();
        if current <= self.seen.applied_revision {
            return Ok(());
        }
        let rows = life.rows_after(self.seen.applied_revision);
        self.seen.applied_revision = current;
        self.referee.observe(&Event::Applied { rows: &rows })
    }

    /// Compactions by the clock are requests that nobody sent.
    fn note_compaction(&mut self, life: &Life) -> Result<(), Violation> {
        let revision = life.handle.view().compact_revision();
        if self.plan.member.auto_compaction == AutoCompaction::Off
            || revision <= self.seen.compact_revision
        {
            return Ok(());
        }
        self.seen.compact_revision = revision;
        let request = Request::Compact(CompactionRequest { revision, physical: false });
        let op = self.name();
        self.referee.observe(&Event::Begun { op, request: &request })?;
        self.referee.observe(&Event::Unknown { op })
    }

    /// The end of a lease by its time is a request that nobody sent.
    fn look_at_leases(&mut self, life: &Life) -> Result<(), Violation> {
        for request in self.leasing.look(life)? {
            let op = self.name();
            self.record.trace.line(format_args!("{op} {request:?} was seen"));
            self.referee.observe(&Event::Begun { op, request: &request })?;
            self.referee.observe(&Event::Unknown { op })?;
        }
        self.asking.workload.set_leases(self.leasing.to_name());
        Ok(())
    }

    fn note_step(&mut self, step: Option<&Step>) {
        match step {
            Some(Step::Flushed(report)) => self.record.trace.line(format_args!(
                "flushed {} rows to {}, applied {}, deleted {:?}",
                report.rows, report.revision, report.applied_index, report.deletions
            )),
            Some(Step::Checkpointed(report)) => {
                self.seen.has_checkpoint = true;
                self.record.trace.line(format_args!("checkpoint {}", report.path.display()));
            }
            Some(Step::Rewritten(report)) => {
                self.record.trace.line(format_args!("rewritten {} rows", report.rows));
            }
            Some(Step::CheckpointSkipped(reason)) => {
                self.seen.has_checkpoint = false;
                self.record.trace.line(format_args!("no checkpoint: {reason}"));
            }
            Some(Step::RewriteSkipped(error)) => {
                self.record.trace.line(format_args!("no rewrite: {error}"))
            }
            Some(Step::Idle | Step::Busy) | None => {}
        }
    }

    // Ending.

    fn stop(&mut self, life: Life) -> Result<bool, Violation> {
        self.doing = Activity::Flush;
        let stopped = life.stop();
        self.met_faults();
        match stopped {
            Ok(()) => {
                self.record.trace.line(format_args!("stopped"));
                Ok(true)
            }
            Err(error) => {
                let excused =
                    EndsOnlyWhenTheDiskFails::failed(&Ending::from(&error), &self.blame());
                named(EndsOnlyWhenTheDiskFails::NAME, excused).map(|()| false)
            }
        }
    }

    /// The machine or the process is gone, and with it all clients.
    fn end(&mut self, end: End) -> Result<(), Violation> {
        let planned = self.faults.planned.take();
        // The way to lose data concerns the planned cut alone: before it, all ways are the same run.
        let lose = planned.map_or(0, |_| self.faults.lose);
        let loses_power = match planned {
            Some(fault) => fault == DiskFault::Crash,
            None => match end {
                End::PowerLost => true,
                End::Killed | End::Done | End::Down => false,
                End::Failed => self.faults.on && self.rng.percent(50),
            },
        };
        if loses_power {
            let report = self.disk().crash(self.rng.next_u64() ^ lose);
            self.record.trace.line(format_args!("{end:?}: {report:?}"));
            if report.files_torn > 0 {
                self.record.coverage.hit(Fault::TornWrite, self.doing);
            }
        } else {
            self.disk().kill();
            self.record.trace.line(format_args!("{end:?}"));
        }
        self.clients = Clients::default();
        self.watchers.lost();
        self.record.restarts += 1;
        self.referee.observe(&Event::Stopped)
    }
}
