//! Cuts the power in every write, sync and change of names of a workload, once each.
//!
//! ```text
//! crashpoints --all             every operation, several ways to lose what was not synced
//! crashpoints --cut 120         one operation
//! ```

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use quorate_tests::sim::coverage::{Activity, Coverage, Fault};
use quorate_tests::sim::runner::{
    Failure, Options, Scenario, SeedReport, name_seeds_in_panics, run_all,
};
use quorate_tests::sim::world;

/// What is cut.
const SCENARIO: Scenario = world::SCENARIO;

/// Recovers from a power cut in every disk operation of a workload.
#[derive(Parser)]
struct Arguments {
    /// Cut every operation.
    #[arg(long, conflicts_with = "cut", required_unless_present_any = ["cut", "trace"])]
    all: bool,
    /// Cut this operation only.
    #[arg(long)]
    cut: Option<u64>,
    /// In how many ways to lose what each cut finds unsynced.
    #[arg(long, default_value_t = 4)]
    ways: u64,
    /// The seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show the event log of the workload without a cut, and stop.
    #[arg(long)]
    trace: bool,
    /// Print only failures.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    name_seeds_in_panics();
    let started = Instant::now();
    let ways = arguments.ways.max(1);
    let uncut = Options { echo: arguments.trace, ..Options::default() };
    let operations = (SCENARIO.run_cut)(arguments.seed, &uncut).disk_changes;
    if arguments.trace {
        return ExitCode::SUCCESS;
    }
    let (from, count) = match arguments.cut {
        Some(operation) => (operation * ways, ways),
        None => (ways, operations * ways),
    };
    let job = |number| cut(arguments.seed, number / ways, number % ways);
    let summary = run_all(from, count, &job, &|_| {});
    if !arguments.quiet {
        println!("{}", summary.coverage.table(is_cut));
        println!(
            "{operations} operations, {} cuts in {:.1} s, {} restarts checked",
            summary.seeds,
            started.elapsed().as_secs_f64(),
            summary.restarts
        );
    }
    for (number, Failure { what, text, trace }) in &summary.failures {
        let operation = number / ways;
        println!(
            "--- cut at operation {operation}, way {}: {what}\n{text}\n{trace}",
            number % ways
        );
        println!(
            "--- again: crashpoints --seed {} --cut {operation} --ways {ways}",
            arguments.seed
        );
    }
    let missed = missed(&arguments, &summary.coverage);
    if !missed.is_empty() {
        println!("never cut: {}", missed.join(", "));
    }
    if summary.failures.is_empty() && missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One run with a cut, which must have happened.
fn cut(seed: u64, operation: u64, way: u64) -> SeedReport {
    let options = Options { cut: Some(operation), way, ..Options::default() };
    let mut report = (SCENARIO.run_cut)(seed, &options);
    if !report.was_cut && report.failure.is_none() {
        let text = format!("the workload ended before operation {operation}");
        let what = "nothing was cut".to_owned();
        report.failure = Some(Failure { what, text, trace: String::new() });
    }
    report
}

/// What a whole sweep must have cut and did not.
fn missed(arguments: &Arguments, coverage: &Coverage) -> Vec<&'static str> {
    const WANTED: [Activity; 7] = [
        Activity::Append,
        Activity::Flush,
        Activity::Rotation,
        Activity::Compaction,
        Activity::Checkpoint,
        Activity::Rewrite,
        Activity::Recovery,
    ];
    let is_missed = |activity: &Activity| coverage.count(Fault::Crash, *activity) == 0;
    let wanted = WANTED.into_iter().filter(|_| arguments.all);
    wanted.filter(is_missed).map(Activity::name).collect()
}

/// What a sweep of cuts can meet.
fn is_cut(fault: Fault, activity: Activity) -> bool {
    matches!(fault, Fault::Crash | Fault::TornWrite) && (SCENARIO.possible)(fault, activity)
}
