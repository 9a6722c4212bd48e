//! The smallest server that can lose something: the scenario that proves the simulator itself.
//!
//! One client, a log with a sync per request, a redb file that is flushed now and then, and the model as
//! its state machine. It has every place where a real one goes wrong, and a seeded mistake for each.

mod server;

use bytes::Bytes;

use self::server::{Server, Wrong};
use super::coverage::{Activity, Coverage, Fault};
use super::fs::{DiskFault, FaultRates, Fired, OpKind, SimFs};
use super::history::{Event, StoredRow, StoredState};
use super::invariants::{Referee, Violation};
use super::rng::Rng;
use super::runner::{Failure, Mutant, Options, Scenario, SeedReport};
use super::trace::Trace;
use super::workload::{Shape, Workload};
use crate::model::{Refusal, Reply, Request, Version};

/// Requests of one run.
const REQUESTS: u64 = 250;
/// Requests of the run whose every disk operation is cut.
const REQUESTS_CUT: u64 = 60;

/// What the command-line tools run.
pub const SCENARIO: Scenario = Scenario { run_seed, run_cut, possible, mutants: MUTANTS };

const MUTANTS: &[Mutant] = &[
    Mutant { name: "acknowledge-before-sync", seeds_max: 50 },
    Mutant { name: "double-apply", seeds_max: 50 },
    Mutant { name: "half-transaction", seeds_max: 50 },
    Mutant { name: "rotation-without-folder-sync", seeds_max: 200 },
];

fn possible(fault: Fault, activity: Activity) -> bool {
    use Activity::{Append, Flush, Idle, Recovery, Rotation};
    match fault {
        Fault::Crash | Fault::Kill => {
            matches!(activity, Idle | Append | Flush | Rotation | Recovery)
        }
        Fault::TornWrite => matches!(activity, Append | Flush),
        Fault::WriteError | Fault::SyncError | Fault::NoSpace => {
            matches!(activity, Append | Flush | Rotation)
        }
        Fault::ReadError => matches!(activity, Recovery),
        Fault::SlowDisk | Fault::Pause => false,
    }
}

fn run_seed(seed: u64, options: &Options) -> SeedReport {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(&mut rng, options);
    run.faults = true;
    let result = run.all(REQUESTS);
    run.report(result)
}

/// The same requests each time, with one operation of the disk cut.
fn run_cut(seed: u64, options: &Options) -> SeedReport {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(&mut rng, options);
    if let Some(operation) = options.cut {
        run.disk.fail_at(operation, DiskFault::Crash);
        run.rng = Rng::new(options.way);
    }
    let result = run.all(REQUESTS_CUT);
    run.report(result)
}

struct Run {
    disk: SimFs,
    rng: Rng,
    workload: Workload,
    referee: Referee,
    trace: Trace,
    coverage: Coverage,
    mutant: Option<&'static str>,
    /// Whether chance breaks the disk, beside what was planned.
    faults: bool,
    requests: u64,
    restarts: u64,
    doing: Activity,
    /// A planned crash or kill that has happened and was not acted upon yet.
    planned: Option<DiskFault>,
    /// Whether any planned crash or kill has happened.
    cut: bool,
}

impl Run {
    fn new(rng: &mut Rng, options: &Options) -> Self {
        let disk = SimFs::new(rng.next_u64());
        let weights = [20, 50, 10, 20, 0, 3];
        let shape = Shape { weights, txn_depth_max: 1, ..Shape::default() };
        Self {
            disk,
            workload: Workload::new(shape, rng.fork("workload")),
            rng: rng.fork("run"),
            referee: Referee::new(),
            trace: Trace::new(options.echo),
            coverage: Coverage::default(),
            mutant: options.mutant,
            faults: false,
            requests: 0,
            restarts: 0,
            doing: Activity::Idle,
            planned: None,
            cut: false,
        }
    }

    fn report(self, result: Result<(), Violation>) -> SeedReport {
        SeedReport {
            hash: self.trace.hash(),
            requests: self.requests,
            restarts: self.restarts,
            was_cut: self.cut,
            disk_changes: self.disk.changes_total(),
            coverage: self.coverage,
            failure: result.err().map(|Violation { invariant, text }| Failure {
                what: invariant.to_owned(),
                text,
                trace: self.trace.to_string(),
            }),
        }
    }

    /// Serves requests from start to start, until all were sent; then checks once more without faults.
    fn all(&mut self, requests: u64) -> Result<(), Violation> {
        while self.requests < requests {
            match self.start()? {
                Some(server) => self.serve(server, requests)?,
                None => self.stop(None)?,
            }
        }
        if self.faults {
            self.faults = false;
            self.disk.clear_plan();
            self.disk.set_rates(FaultRates::default());
        }
        loop {
            // The last start ends in order, which a cut may disturb as well.
            let served = self.start()?.is_some();
            self.doing = Activity::Idle;
            self.met_faults();
            if served && self.planned.is_none() {
                return Ok(());
            }
            self.stop(None)?;
        }
    }

    fn start(&mut self) -> Result<Option<Server>, Violation> {
        self.doing = Activity::Recovery;
        self.break_the_disk();
        let opened = Server::open(&self.disk, self.mutant);
        self.met_faults();
        let server = match opened {
            Ok(server) => server,
            Err(Wrong::Disk(error)) => {
                self.trace.line(format_args!("cannot start: {error}"));
                return Ok(None);
            }
            Err(Wrong::Broken(text)) => {
                return Err(Violation { invariant: "a restart needs no help", text });
            }
        };
        let state = state_of(&server);
        self.trace.line(format_args!("started at revision {}", state.current_revision));
        self.referee.observe(&Event::Inspected { state: &state })?;
        Ok(Some(server))
    }

    /// Decides what goes wrong in this life of the server.
    fn break_the_disk(&mut self) {
        if !self.faults {
            return;
        }
        self.disk.set_rates(FaultRates::default());
        self.disk.clear_plan();
        let next = self.disk.changes_total() + 1;
        let at = next + if self.rng.percent(30) { self.rng.below(10) } else { self.rng.below(250) };
        match self.rng.below(10) {
            0..3 => self.disk.fail_at(at, DiskFault::Crash),
            3..5 => self.disk.fail_at(at, DiskFault::Kill),
            5 => self.disk.set_rates(FaultRates { sync_error: 20_000, ..FaultRates::default() }),
            6 => self.disk.set_rates(FaultRates { write_error: 10_000, ..FaultRates::default() }),
            7 => self.disk.set_rates(FaultRates { read_error: 100_000, ..FaultRates::default() }),
            8 => self.disk.fail_at(at, DiskFault::NoSpace),
            _ => {}
        }
    }

    fn serve(&mut self, mut server: Server, requests: u64) -> Result<(), Violation> {
        while self.requests < requests {
            if self.faults && self.rng.one_in(100) {
                self.doing = Activity::Idle;
                return self.stop(Some(server));
            }
            let request = self.workload.next_request(self.referee.history().known_revision());
            let op = self.requests;
            self.requests += 1;
            self.referee.observe(&Event::Begun { op, request: &request })?;
            match self.answer(&mut server, &request) {
                Ok(Ok(reply)) => {
                    self.trace.line(format_args!("{op} at {}", reply.revision()));
                    self.referee.observe(&Event::Replied { op, reply: &reply })?;
                }
                Ok(Err(refusal)) => {
                    self.trace.line(format_args!("{op} {}", refusal.text()));
                    self.referee.observe(&Event::Refused { op, refusal })?;
                }
                Err(error) => {
                    self.trace.line(format_args!("{op} ended by {error}"));
                    return self.stop(Some(server));
                }
            }
        }
        self.doing = Activity::Idle;
        self.stop(Some(server))
    }

    /// One request, and the housekeeping that is due after it.
    fn answer(
        &mut self,
        server: &mut Server,
        request: &Request,
    ) -> std::io::Result<Result<Reply, Refusal>> {
        self.doing = Activity::Append;
        let answered = server.call(request);
        self.met_faults();
        let answered = answered?;
        if server.log_is_full() {
            self.doing = Activity::Flush;
            let flushed = server.flush();
            self.met_faults();
            flushed?;
            self.doing = Activity::Rotation;
            let rotated = server.rotate();
            self.met_faults();
            rotated?;
        }
        Ok(answered)
    }

    /// Ends the process: as planned, or by losing power more often than not.
    fn stop(&mut self, server: Option<Server>) -> Result<(), Violation> {
        self.met_faults();
        let planned = self.planned.take();
        let loses_power =
            planned.map_or(self.faults && self.rng.percent(60), |fault| fault == DiskFault::Crash);
        if loses_power {
            let report = self.disk.crash(self.rng.next_u64());
            self.trace.line(format_args!("{report:?}"));
            if planned.is_none() {
                self.coverage.hit(Fault::Crash, self.doing);
            }
            if report.files_torn > 0 {
                self.coverage.hit(Fault::TornWrite, self.doing);
            }
        } else {
            self.disk.kill();
            if planned.is_none() {
                self.coverage.hit(Fault::Kill, self.doing);
            }
        }
        // What it still does while it is dropped comes too late.
        drop(server);
        self.restarts += 1;
        self.referee.observe(&Event::Stopped)
    }

    fn met_faults(&mut self) {
        for Fired { fault, operation } in self.disk.take_fired() {
            self.trace.line(format_args!("{fault:?} in {operation}"));
            if matches!(fault, DiskFault::Crash | DiskFault::Kill) {
                self.planned = Some(fault);
                self.cut = true;
            }
            let fault = match (fault, operation.kind) {
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
}

fn state_of(server: &Server) -> StoredState {
    let row = |(key, version): (&Bytes, &Version)| StoredRow {
        key: key.clone(),
        version: version.clone(),
    };
    let mut rows: Vec<StoredRow> = server.model().rows().map(row).collect();
    rows.sort_by_key(|row| (row.version.main, row.version.sub));
    StoredState {
        current_revision: server.model().revision(),
        compact_revision: server.model().compact_revision(),
        rows,
    }
}
