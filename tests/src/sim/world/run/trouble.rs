//! What goes wrong in a run, beside what ends it: the disk, pauses, and what they met.

use std::path::Path;

use quorate_server::runtime::Room;
use quorate_server::storage::fs::FileSystem as _;

use super::super::member::Life;
use super::{End, Run};
use crate::sim::coverage::{Activity, Fault};
use crate::sim::fs::{DiskFault, FaultRates, Fired, OpKind, Operation};
use crate::sim::invariants::{Blame, During};

/// What goes wrong in a life of the member.
#[derive(Default)]
pub(in super::super) struct Faults {
    /// Whether chance breaks things, beside what was planned.
    pub(in super::super) on: bool,
    /// Decides what a power cut loses, beside the run itself.
    pub(in super::super) lose: u64,
    pub(super) planned: Option<DiskFault>,
    /// What may end this life.
    pub(super) blame: Blame,
    /// What fails by chance once this life serves.
    pub(super) rates: FaultRates,
    pub(super) frozen: Frozen,
}

/// Turns in which the flusher gets nothing done, or the owner.
#[derive(Default)]
pub(super) struct Frozen {
    pub(super) worker: u64,
    pub(super) owner: u64,
}

impl Run {
    /// Decides what goes wrong with the disk in this life.
    pub(super) fn break_the_disk(&mut self) {
        if !self.faults.on {
            return;
        }
        self.heal();
        self.faults.rates = FaultRates::default();
        let disk = self.disk();
        let next = disk.changes_total() + 1;
        let at = next + if self.rng.percent(30) { self.rng.below(30) } else { self.rng.below(600) };
        let rates = &mut self.faults.rates;
        match self.rng.below(12) {
            0..3 => disk.fail_at(at, DiskFault::Crash),
            3 | 4 => disk.fail_at(at, DiskFault::Kill),
            5 => rates.sync_error = 20_000,
            6 => rates.write_error = 8000,
            7 => rates.read_error = 50_000,
            8 => disk.fail_at(at, DiskFault::NoSpace),
            9 => disk.fail_at(at, DiskFault::Error),
            10 => rates.open_error = 100_000,
            _ => {}
        }
        if self.rng.percent(30) {
            disk.set_rates(self.faults.rates);
        }
        if self.rng.one_in(8) {
            disk.set_capacity(Some(disk.used_bytes() + self.rng.below(400 << 10)));
        } else if self.rng.percent(60) {
            disk.set_capacity(None);
        }
    }

    /// Something that does not end the process by itself.
    pub(super) fn trouble(&mut self, life: &mut Life) {
        match self.rng.below(3) {
            0 => {
                self.faults.frozen.worker = self.rng.between(20, 400);
                self.hit_active(life, Fault::SlowDisk);
            }
            1 => {
                self.faults.frozen.owner = self.rng.between(20, 200);
                self.leasing.pause();
                self.hit_active(life, Fault::Pause);
            }
            _ => {
                let is_low = self.plan.member.quota_bytes.is_some() && self.rng.percent(30);
                let is_tight = is_low || self.rng.percent(30);
                if let Ok(space) = self.disk().space(Path::new("data")) {
                    life.check_space(&Room { data: space, log: space, is_low, is_tight });
                }
                life.set_aside();
            }
        }
    }

    /// Notes the faults that happened; whether there were any.
    pub(super) fn met_faults(&mut self) -> bool {
        let is_starting = self.doing == Activity::Recovery;
        self.note_faults(if is_starting { During::Start } else { During::Service })
    }

    /// As [`Run::met_faults`], of something that is over.
    pub(super) fn note_faults(&mut self, during: During) -> bool {
        let fired = self.disk().take_fired();
        let is_hit = !fired.is_empty();
        for fired in fired {
            self.faults.blame.met(&fired, during);
            let Fired { fault, operation } = fired;
            self.record.trace.line(format_args!("{fault:?} in {operation}"));
            if matches!(fault, DiskFault::Crash | DiskFault::Kill) {
                self.faults.planned = Some(fault);
                self.record.was_cut = true;
            }
            let kind = operation.kind;
            if self.doing != Activity::Recovery {
                self.doing = activity_of(&operation, self.doing);
            }
            let fault = match (fault, kind) {
                (DiskFault::Crash, _) => Fault::Crash,
                (DiskFault::Kill, _) => Fault::Kill,
                (DiskFault::NoSpace, _) => Fault::NoSpace,
                (DiskFault::NoHandle, _) => Fault::OpenError,
                (DiskFault::Error, OpKind::Read) => Fault::ReadError,
                (DiskFault::Error, OpKind::Sync | OpKind::SyncDir) => Fault::SyncError,
                (DiskFault::Error, _) => Fault::WriteError,
            };
            self.record.coverage.hit(fault, self.doing);
        }
        is_hit
    }

    /// Counts an end that chance chose, for everything that was under way.
    pub(super) fn touch_all(&mut self, life: &mut Life, end: End) {
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
        active.into_iter().for_each(|activity| self.record.coverage.hit(fault, activity));
    }
}

/// What is going on when an operation on this file fails.
fn activity_of(operation: &Operation, doing: Activity) -> Activity {
    let path = operation.path.to_string_lossy();
    if path.contains("/wal") {
        let is_segment = path.ends_with(".wal");
        let is_append = is_segment && matches!(operation.kind, OpKind::Write | OpKind::Sync);
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
