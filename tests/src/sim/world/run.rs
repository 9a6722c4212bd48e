//! One run: lives of a member, one after the other, and what happens in each, as one seed decides.

mod watching;

use std::path::Path;

use quorate_proto::etcdserverpb::{CompactionRequest, HashKvRequest, RangeRequest};
use quorate_server::replica::AutoCompaction;
use quorate_server::runtime::RunError;
use quorate_server::storage::flusher::Step;
use quorate_server::storage::fs::FileSystem as _;

use super::clients::{Answer, Ask, Clients, Verdict, Way, verdict};
use super::inspect::{Inspection, inspect};
use super::member::{Life, Member};
use super::plan::Plan;
use super::watchers::Watchers;
use crate::model::{Refusal, Reply, Request};
use crate::sim::coverage::{Activity, Coverage, Fault};
use crate::sim::fs::{DiskFault, FaultRates, Fired, OpKind, Operation, SimFs};
use crate::sim::history::Event;
use crate::sim::invariants::{
    Blame, EndsOnlyWhenTheDiskFails, ErrorsAreThoseOfTheApi, EveryRequestIsAnswered, QuotaHolds,
    Referee, SizesAreThoseOfTheRows, StartsAgainByItself, Violation, WhatIsStoredCanBeRead, named,
};
use crate::sim::rng::{MILLION, Rng};
use crate::sim::trace::Trace;
use crate::sim::workload::Workload;

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
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) requests: u64,
    pub(super) restarts: u64,
    /// A planned crash or kill happened.
    pub(super) was_cut: bool,
    /// Whether chance breaks things, beside what was planned.
    pub(super) faults: bool,
    plan: Plan,
    workload: Workload,
    referee: Referee,
    clients: Clients,
    watchers: Watchers,
    next_op: u64,
    /// What to ask before anything new.
    urgent: Vec<Request>,
    doing: Activity,
    planned: Option<DiskFault>,
    /// A fault that may end the process happened in this life.
    disk_failed: bool,
    /// What fails by chance once this life serves.
    rates: FaultRates,
    /// Turns in which the flusher gets nothing done, or the owner.
    frozen: Frozen,
    compact_revision: i64,
    /// Decides what a power cut loses, beside the run itself.
    pub(super) lose: u64,
}

#[derive(Default)]
struct Frozen {
    worker: u64,
    owner: u64,
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
            member: Member::new(1, disk, plan.clone()),
            workload: Workload::new(plan.shape.clone(), rng.fork("workload")),
            rng: rng.fork("run"),
            watchers: Watchers::new(plan.shape.keys, rng.fork("watchers")),
            trace: Trace::new(echo),
            coverage: Coverage::default(),
            requests: 0,
            restarts: 0,
            was_cut: false,
            faults: false,
            plan,
            referee: Referee::new(),
            clients: Clients::default(),
            next_op: 0,
            urgent: Vec::new(),
            doing: Activity::Idle,
            planned: None,
            disk_failed: false,
            rates: FaultRates::default(),
            frozen: Frozen::default(),
            compact_revision: -1,
            lose: 0,
        }
    }

    /// Lives until all requests were sent; then, without faults, a start after a crash and one after
    /// an orderly end.
    pub(super) fn all(&mut self, requests: u64) -> Result<(), Violation> {
        while self.requests < requests {
            self.live(requests, true)?;
        }
        if std::mem::take(&mut self.faults) {
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
        let needed_bytes = 2 * self.plan.segment_bytes;
        let space = self.disk().space(Path::new("data"));
        let lacks_room = space.is_ok_and(|space| space.free_bytes < needed_bytes);
        Blame { disk_failed: self.disk_failed, lacks_room }
    }

    fn heal(&mut self) {
        self.disk().clear_plan();
        self.disk().set_rates(FaultRates::default());
    }

    // Starting.

    fn start(&mut self) -> Result<Option<Life>, Violation> {
        self.doing = Activity::Recovery;
        self.disk_failed = false;
        self.frozen = Frozen::default();
        self.break_the_disk();
        let started = self.member.start()?;
        self.met_faults();
        match started {
            Ok(life) => {
                self.trace.line(format_args!("start {}: {:?}", self.restarts, life.report));
                Ok(Some(life))
            }
            Err(error) => {
                self.trace.line(format_args!("cannot start: {error}"));
                let excused = StartsAgainByItself::failed(&error, self.blame());
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
            if life.published().leads_alone && !life.has_work() {
                life.ready();
                let inspected = self.inspect(life);
                self.met_faults();
                if self.disk().is_down() {
                    return Ok(Some(End::Down));
                }
                return inspected.map(|()| None);
            }
            self.doing = life.flushing().unwrap_or(Activity::Idle);
            life.worker_step();
            self.met_faults();
            if self.disk().is_down() {
                return Ok(Some(End::Down));
            }
            if self.rng.percent(10) {
                let ticked = life.tick();
                if let Some(end) = self.after(life, ticked)? {
                    return Ok(Some(end));
                }
            }
        }
        named(StartsAgainByItself::NAME, StartsAgainByItself::hangs()).map(|()| None)
    }

    fn inspect(&mut self, life: &Life) -> Result<(), Violation> {
        self.disk().set_rates(FaultRates::default());
        let Inspection { state, cost_bytes } = named(WhatIsStoredCanBeRead::NAME, inspect(life))?;
        let revision = state.current_revision;
        self.trace.line(format_args!(
            "holds {} rows, revision {revision}, compacted {}",
            state.rows.len(),
            state.compact_revision
        ));
        self.note_compaction(life)?;
        self.referee.observe(&Event::Inspected { state: &state })?;
        let sizes = life.handle.view().sizes();
        let said = SizesAreThoseOfTheRows::says(sizes, cost_bytes);
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
        self.urgent = vec![hash(0), hash(past.max(1)), range(past.max(1)), range(0)];
        Ok(())
    }

    // Serving.

    fn serve(&mut self, life: &mut Life, requests: u64) -> Result<End, Violation> {
        self.disk().set_rates(if self.faults { self.rates } else { FaultRates::default() });
        self.resume_watches(life)?;
        for _ in 0..TURNS_MAX {
            let is_over = self.requests >= requests && self.urgent.is_empty();
            if is_over && self.clients.len() == 0 {
                self.rest_watches(life)?;
                return Ok(End::Done);
            }
            let turn = self.choose(life, is_over);
            let turned = self.turn(life, turn)?;
            if let Some(end) = self.after(life, turned)? {
                return Ok(end);
            }
            self.watch(life)?;
            if matches!(turn, Turn::Trouble) && self.faults {
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
        self.frozen.worker = self.frozen.worker.saturating_sub(1);
        self.frozen.owner = self.frozen.owner.saturating_sub(1);
        let may_begin = !is_over && self.clients.len() < self.plan.clients;
        let weights = [
            if may_begin { 20 } else { 0 },
            if self.clients.can_go_on() { 40 } else { 0 },
            15,
            if self.frozen.owner > 0 { 0 } else { 25 },
            if self.frozen.worker > 0 { 0 } else { 20 },
            if life.has_segment_job() { 6 } else { 0 },
            if self.frozen.owner > 0 { 0 } else { 4 },
            u64::from(self.faults),
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
                return Ok(life.tick());
            }
            Turn::Worker => {
                self.doing = life.flushing().unwrap_or(Activity::Flush);
                let step = life.worker_step();
                self.note_step(step.as_ref());
            }
            Turn::Segment => {
                self.doing = Activity::Rotation;
                life.segment_step();
            }
            Turn::Trouble => {}
        }
        Ok(Ok(()))
    }

    /// A turn of the owner. It reads so seldom, for compares of values, that chance has it fail now and
    /// then by itself.
    fn owner_turn(&mut self, life: &mut Life) -> Result<(), RunError> {
        if !self.faults || !self.rng.one_in(8) {
            return life.owner_turn();
        }
        self.disk().set_rates(FaultRates { read_error: MILLION / 2, ..self.rates });
        let turned = life.owner_turn();
        self.disk().set_rates(self.rates);
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
            self.trace.line(format_args!("ended: {error}"));
            let excused = EndsOnlyWhenTheDiskFails::failed(&error.to_string(), self.blame());
            named(EndsOnlyWhenTheDiskFails::NAME, excused)?;
            life.failed(error);
            return Ok(Some(End::Failed));
        }
        let published = life.published();
        self.member.observe(&published);
        self.note_compaction(life)?;
        let used = QuotaHolds::uses(self.plan.quota_bytes, published.sizes.in_use_bytes);
        named(QuotaHolds::NAME, used).map(|()| None)
    }

    /// Compactions by the clock are requests that nobody sent.
    fn note_compaction(&mut self, life: &Life) -> Result<(), Violation> {
        let revision = life.handle.view().compact_revision();
        if self.plan.auto_compaction == AutoCompaction::Off || revision <= self.compact_revision {
            return Ok(());
        }
        self.compact_revision = revision;
        let request = Request::Compact(CompactionRequest { revision, physical: false });
        let op = self.name();
        self.referee.observe(&Event::Begun { op, request: &request })?;
        self.referee.observe(&Event::Unknown { op })
    }

    fn name(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    fn begin(&mut self, life: &Life) -> Result<(), Violation> {
        if self.urgent.is_empty() && self.rng.one_in(self.plan.defragment_one_in) {
            return self.defragment(life);
        }
        if self.plan.defragment_at.take_if(|at| *at <= self.requests).is_some() {
            return self.defragment(life);
        }
        let request = match self.urgent.pop() {
            Some(request) => request,
            None => {
                self.requests += 1;
                self.workload.next_request(self.referee.history().known_revision())
            }
        };
        let op = self.name();
        self.referee.observe(&Event::Begun { op, request: &request })?;
        let way = *self.rng.pick(&[Way::Whole, Way::ByRound, Way::Stream]);
        let way = if way.suits(&request) { way } else { Way::Whole };
        let ask = Ask::Known(op, request);
        let future = life.services.clone().call(ask.clone(), way);
        self.clients.begin(ask, future);
        Ok(())
    }

    fn defragment(&mut self, life: &Life) -> Result<(), Violation> {
        self.trace.line(format_args!("defragment"));
        let future = life.services.clone().call(Ask::Defragment, Way::Whole);
        self.clients.begin(Ask::Defragment, future);
        Ok(())
    }

    fn answered(&mut self, life: &Life, ask: Ask, answer: Answer) -> Result<(), Violation> {
        let Ask::Known(op, _) = ask else {
            self.trace.line(format_args!("{ask:?}: {:?}", answer.err().map(|e| e.to_string())));
            return Ok(());
        };
        let status = match answer {
            Ok(Some(reply)) => return self.replied(op, &reply),
            Ok(None) => return Ok(()),
            Err(status) => status,
        };
        self.trace.line(format_args!("{op}: {}", status.message()));
        let verdict = ErrorsAreThoseOfTheApi::read(&status, verdict(&status));
        match named(ErrorsAreThoseOfTheApi::NAME, verdict)? {
            Verdict::Refused(refusal) => self.refused(op, refusal),
            Verdict::Shed { no_space } => {
                self.referee.observe(&Event::Shed { op })?;
                if no_space && self.rng.one_in(3) {
                    self.make_room(life)?;
                }
                Ok(())
            }
            Verdict::Unknown => self.referee.observe(&Event::Unknown { op }),
        }
    }

    fn replied(&mut self, op: u64, reply: &Reply) -> Result<(), Violation> {
        self.trace.line(format_args!("{op} at {}", reply.revision()));
        self.referee.observe(&Event::Replied { op, reply })
    }

    fn refused(&mut self, op: u64, refusal: Refusal) -> Result<(), Violation> {
        self.referee.observe(&Event::Refused { op, refusal })
    }

    /// What an operator does about NOSPACE: compacts everything, then takes the alarm back.
    fn make_room(&mut self, life: &Life) -> Result<(), Violation> {
        let revision = self.referee.history().known_revision();
        self.urgent.push(Request::Compact(CompactionRequest { revision, physical: true }));
        let future = life.services.clone().call(Ask::Disarm, Way::Whole);
        self.clients.begin(Ask::Disarm, future);
        Ok(())
    }

    fn note_step(&mut self, step: Option<&Step>) {
        match step {
            Some(Step::Flushed(report)) => self.trace.line(format_args!(
                "flushed {} rows to {}, applied {}, deleted {:?}",
                report.rows, report.revision, report.applied_index, report.deletions
            )),
            Some(Step::Checkpointed(report)) => {
                self.trace.line(format_args!("checkpoint {}", report.path.display()));
            }
            Some(Step::Rewritten(report)) => {
                self.trace.line(format_args!("rewritten {} rows", report.rows));
            }
            Some(Step::CheckpointSkipped(reason)) => {
                self.trace.line(format_args!("no checkpoint: {reason}"))
            }
            Some(Step::RewriteSkipped(error)) => {
                self.trace.line(format_args!("no rewrite: {error}"))
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
                self.trace.line(format_args!("stopped"));
                Ok(true)
            }
            Err(error) => {
                let excused = EndsOnlyWhenTheDiskFails::failed(&error.to_string(), self.blame());
                named(EndsOnlyWhenTheDiskFails::NAME, excused).map(|()| false)
            }
        }
    }

    /// The machine or the process is gone, and with it all clients.
    fn end(&mut self, end: End) -> Result<(), Violation> {
        let planned = self.planned.take();
        // The way to lose data concerns the planned cut alone: before it, all ways are the same run.
        let lose = planned.map_or(0, |_| self.lose);
        let loses_power = match planned {
            Some(fault) => fault == DiskFault::Crash,
            None => match end {
                End::PowerLost => true,
                End::Killed | End::Done | End::Down => false,
                End::Failed => self.faults && self.rng.percent(50),
            },
        };
        if loses_power {
            let report = self.disk().crash(self.rng.next_u64() ^ lose);
            self.trace.line(format_args!("{end:?}: {report:?}"));
            if report.files_torn > 0 {
                self.coverage.hit(Fault::TornWrite, self.doing);
            }
        } else {
            self.disk().kill();
            self.trace.line(format_args!("{end:?}"));
        }
        self.clients = Clients::default();
        self.watchers.lost();
        self.restarts += 1;
        self.referee.observe(&Event::Stopped)
    }

    // Trouble.

    /// Decides what goes wrong with the disk in this life.
    fn break_the_disk(&mut self) {
        if !self.faults {
            return;
        }
        self.heal();
        self.rates = FaultRates::default();
        let disk = self.disk();
        let next = disk.changes_total() + 1;
        let at = next + if self.rng.percent(30) { self.rng.below(30) } else { self.rng.below(600) };
        let rates = |read_error, write_error, sync_error| FaultRates {
            read_error,
            write_error,
            sync_error,
        };
        match self.rng.below(12) {
            0..3 => disk.fail_at(at, DiskFault::Crash),
            3 | 4 => disk.fail_at(at, DiskFault::Kill),
            5 => self.rates = rates(0, 0, 20_000),
            6 => self.rates = rates(0, 8000, 0),
            7 => self.rates = rates(50_000, 0, 0),
            8 => disk.fail_at(at, DiskFault::NoSpace),
            9 => disk.fail_at(at, DiskFault::Error),
            _ => {}
        }
        if self.rng.percent(30) {
            disk.set_rates(self.rates);
        }
        if self.rng.one_in(8) {
            disk.set_capacity(Some(disk.used_bytes() + self.rng.below(400 << 10)));
        } else if self.rng.percent(60) {
            disk.set_capacity(None);
        }
    }

    /// Something that does not end the process by itself.
    fn trouble(&mut self, life: &mut Life) {
        match self.rng.below(3) {
            0 => {
                self.frozen.worker = self.rng.between(20, 400);
                self.hit_active(life, Fault::SlowDisk);
            }
            1 => {
                self.frozen.owner = self.rng.between(20, 200);
                self.hit_active(life, Fault::Pause);
            }
            _ => {
                let is_low = self.plan.quota_bytes.is_some() && self.rng.percent(30);
                life.check_space(is_low);
            }
        }
    }

    fn met_faults(&mut self) {
        for Fired { fault, operation } in self.disk().take_fired() {
            self.trace.line(format_args!("{fault:?} in {operation}"));
            self.disk_failed = true;
            if matches!(fault, DiskFault::Crash | DiskFault::Kill) {
                self.planned = Some(fault);
                self.was_cut = true;
            }
            let kind = operation.kind;
            if self.doing != Activity::Recovery {
                self.doing = activity_of(&operation, self.doing);
            }
            let fault = match (fault, kind) {
                (DiskFault::Crash, _) => Fault::Crash,
                (DiskFault::Kill, _) => Fault::Kill,
                (DiskFault::NoSpace, _) => Fault::NoSpace,
                (DiskFault::Error, OpKind::Read) => Fault::ReadError,
                (DiskFault::Error, OpKind::Sync | OpKind::SyncDir) => Fault::SyncError,
                (DiskFault::Error, _) => Fault::WriteError,
            };
            self.coverage.hit(fault, self.doing);
        }
    }

    /// Counts an end that chance chose, for everything that was under way.
    fn touch_all(&mut self, life: &mut Life, end: End) {
        match end {
            End::PowerLost => self.hit_active(life, Fault::Crash),
            End::Killed => self.hit_active(life, Fault::Kill),
            End::Done | End::Down | End::Failed => {}
        }
    }

    fn hit_active(&mut self, life: &mut Life, fault: Fault) {
        let mut active = Vec::new();
        active.extend(life.flushing());
        active.extend(self.clients.is_reading().then_some(Activity::Read));
        active.extend(self.watchers.is_catching_up().then_some(Activity::CatchUp));
        active.extend(life.has_work().then_some(Activity::Apply));
        active.extend(life.has_segment_job().then_some(Activity::Rotation));
        if active.is_empty() {
            active.push(Activity::Idle);
        }
        self.doing = active[0];
        active.into_iter().for_each(|activity| self.coverage.hit(fault, activity));
    }
}

/// What is going on when an operation on this file fails.
fn activity_of(operation: &Operation, doing: Activity) -> Activity {
    let path = operation.path.to_string_lossy();
    // A segment is written under the name by which it was prepared; its first write names whose it is.
    let is_append = match operation.kind {
        OpKind::Write => operation.offset > 0,
        kind => kind == OpKind::Sync,
    };
    if path.contains("/wal") {
        let is_append = is_append && doing != Activity::Rotation;
        return if is_append { Activity::Append } else { Activity::Rotation };
    }
    if path.contains("/index") {
        return Activity::Checkpoint;
    }
    if path.ends_with(".part") {
        return Activity::Rewrite;
    }
    doing
}
