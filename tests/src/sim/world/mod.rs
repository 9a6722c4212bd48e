//! The whole server under simulation: the shipped code, without its threads, sockets and clock.
//!
//! ```text
//! clients (futures over the shipped services)     deliver replies
//!        \                                           /
//!         mailbox -> owner's turn (replica, log) ---+      flusher's steps, next segment
//!                          \________ simulated disk ________/
//! ```
//!
//! A seed draws a plan (all sizes shrunk), then decides turn by turn who goes on: so reads in steps meet
//! apply, flush, compaction, checkpoint and rewrite in every order. Members are values, so several need
//! only a network between them.

mod clients;
mod inspect;
mod leasing;
mod member;
mod plan;
mod run;
mod watchers;
mod woken;

use quorate_server::mutants::{self, Mutant as Mistake};

use self::plan::Plan;
use self::run::Run;
use super::coverage::{Activity, Fault};
use super::fs::{DiskFault, SimFs};
use super::invariants::Violation;
use super::rng::Rng;
use super::runner::{Failure, Mutant, Options, Scenario, SeedReport};

/// Requests of one run.
const REQUESTS: u64 = 400;
/// Requests of the run whose every disk operation is cut.
const REQUESTS_CUT: u64 = 110;

/// What the command-line tools run.
pub const SCENARIO: Scenario = Scenario { run_seed, run_cut, possible, mutants: MUTANTS };

const MUTANTS: &[Mutant] = &[
    Mutant { name: "acknowledge-before-sync", seeds_max: 20 },
    Mutant { name: "tombstone-before-puts", seeds_max: 200 },
    Mutant { name: "evicted-before-flush", seeds_max: 50 },
    Mutant { name: "hard-state-lost", seeds_max: 200 },
    Mutant { name: "double-apply", seeds_max: 50 },
    Mutant { name: "pin-ignored", seeds_max: 200 },
    Mutant { name: "outdated-checkpoint", seeds_max: 200 },
    Mutant { name: "half-transaction", seeds_max: 20 },
    Mutant { name: "half-flush", seeds_max: 50 },
    Mutant { name: "rename-not-synced", seeds_max: 200 },
    Mutant { name: "checkpoint-kept", seeds_max: 200 },
    Mutant { name: "checkpointed-unknown", seeds_max: 50 },
    Mutant { name: "revoke-leaves-key", seeds_max: 50 },
    Mutant { name: "detach-forgotten", seeds_max: 50 },
    Mutant { name: "watch-past-compaction", seeds_max: 400 },
    Mutant { name: "progress-ahead-of-events", seeds_max: 20 },
    Mutant { name: "hand-over-twice", seeds_max: 20 },
    Mutant { name: "live-event-lost", seeds_max: 50 },
    Mutant { name: "expiry-forgotten", seeds_max: 20 },
    Mutant { name: "pause-counts-whole", seeds_max: 50 },
    Mutant { name: "checkpoint-needs-room", seeds_max: 50 },
    Mutant { name: "checkpoint-not-synced", seeds_max: 50 },
    Mutant { name: "slice-needs-the-one-before", seeds_max: 20 },
    Mutant { name: "rewrite-needs-disk", seeds_max: 20 },
];

fn mistake(name: &str) -> Mistake {
    match name {
        "acknowledge-before-sync" => Mistake::AcknowledgeBeforeSync,
        "tombstone-before-puts" => Mistake::TombstoneBeforePuts,
        "evicted-before-flush" => Mistake::EvictedBeforeFlush,
        "hard-state-lost" => Mistake::HardStateLost,
        "double-apply" => Mistake::DoubleApply,
        "pin-ignored" => Mistake::PinIgnored,
        "outdated-checkpoint" => Mistake::OutdatedCheckpoint,
        "half-transaction" => Mistake::HalfTransaction,
        "half-flush" => Mistake::HalfFlush,
        "rename-not-synced" => Mistake::RenameNotSynced,
        "checkpoint-kept" => Mistake::CheckpointKept,
        "checkpointed-unknown" => Mistake::CheckpointedUnknown,
        "revoke-leaves-key" => Mistake::RevokeLeavesKey,
        "detach-forgotten" => Mistake::DetachForgotten,
        "watch-past-compaction" => Mistake::WatchPastCompaction,
        "progress-ahead-of-events" => Mistake::ProgressAheadOfEvents,
        "hand-over-twice" => Mistake::HandOverTwice,
        "live-event-lost" => Mistake::LiveEventLost,
        "expiry-forgotten" => Mistake::ExpiryForgotten,
        "pause-counts-whole" => Mistake::PauseCountsWhole,
        "checkpoint-needs-room" => Mistake::CheckpointNeedsRoom,
        "checkpoint-not-synced" => Mistake::CheckpointNotSynced,
        "slice-needs-the-one-before" => Mistake::SliceNeedsTheOneBefore,
        "rewrite-needs-disk" => Mistake::RewriteNeedsDisk,
        _ => panic!("{name} is a mutant without a mistake"),
    }
}

fn possible(fault: Fault, activity: Activity) -> bool {
    use Activity::{
        Append, Apply, CatchUp, Checkpoint, Compaction, Flush, Idle, Read, Recovery, Rewrite,
        Rotation,
    };
    match fault {
        Fault::Crash | Fault::Kill => true,
        Fault::TornWrite => {
            matches!(
                activity,
                Append | Flush | Rotation | Compaction | Checkpoint | Rewrite | Recovery
            )
        }
        Fault::NoSpace | Fault::WriteError | Fault::SyncError => {
            !matches!(activity, Idle | Apply | Read | CatchUp)
        }
        Fault::OpenError => matches!(activity, Rotation | Checkpoint | Rewrite | Recovery),
        Fault::ReadError => matches!(activity, Read | CatchUp | Apply | Flush | Rewrite | Recovery),
        Fault::SlowDisk | Fault::Pause => !matches!(activity, Append | Recovery),
    }
}

/// Sets this thread up for one run; dropped, it is as before.
struct Switched;

impl Switched {
    fn on(options: &Options, step: usize) -> Self {
        mutants::select(options.mutant.map(mistake));
        mutants::shrink_steps(step);
        Self
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        mutants::select(None);
        mutants::shrink_steps(usize::MAX);
    }
}

fn run_seed(seed: u64, options: &Options) -> SeedReport {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng);
    let _switched = Switched::on(options, plan.step);
    let disk = SimFs::new(rng.next_u64());
    let mut run = Run::new(disk, plan, &mut rng, options.echo);
    run.faults.on = true;
    let result = run.all(REQUESTS);
    report(run, result)
}

/// The same requests each time, with one operation of the disk cut.
fn run_cut(seed: u64, options: &Options) -> SeedReport {
    let mut rng = Rng::new(seed);
    let plan = Plan::of_cuts(&mut rng);
    let _switched = Switched::on(options, plan.step);
    let disk = SimFs::new(rng.next_u64());
    let mut run = Run::new(disk, plan, &mut rng, options.echo);
    if let Some(operation) = options.cut {
        run.member.disk().fail_at(operation, DiskFault::Crash);
        run.faults.lose = options.way;
    }
    let result = run.all(REQUESTS_CUT);
    report(run, result)
}

fn report(run: Run, result: Result<(), Violation>) -> SeedReport {
    SeedReport {
        hash: run.record.trace.hash(),
        requests: run.record.requests,
        restarts: run.record.restarts,
        was_cut: run.record.was_cut,
        disk_changes: run.member.disk().changes_total(),
        coverage: run.record.coverage,
        failure: result.err().map(|Violation { invariant, text }| Failure {
            what: invariant.to_owned(),
            text,
            trace: run.record.trace.to_string(),
        }),
    }
}
