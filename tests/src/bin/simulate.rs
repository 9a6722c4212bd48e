//! Runs the simulator over many seeds, and says what the faults met.
//!
//! ```text
//! simulate --seeds 2000 --from 1     all of them; the table of faults by activity; no zero in it
//! simulate --seed 17                 one, with its event-log hash; twice prints the same
//! simulate --seed 17 --trace         and the log itself
//! simulate --mutants                 each seeded mistake is found
//! ```

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use quorate_tests::sim::runner::{
    Failure, Mutant, Options, Scenario, Summary, name_seeds_in_panics, run_all,
};
use quorate_tests::sim::world;

/// What is simulated.
const SCENARIO: Scenario = world::SCENARIO;
/// From this many seeds on, a zero in the table is a failure.
const SEEDS_FOR_COVERAGE: u64 = 1000;

/// Simulates whole servers, each from one seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Show the event log of `--seed` as it happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run each seeded mistake until an invariant finds it.
    #[arg(long)]
    mutants: bool,
    /// Give `--seed` or `--seeds` this seeded mistake.
    #[arg(long)]
    mutant: Option<String>,
    /// Print no progress.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    name_seeds_in_panics();
    let mutant = match arguments.mutant.as_deref().map(known_mutant) {
        Some(Err(unknown)) => {
            eprintln!("{unknown}");
            return ExitCode::FAILURE;
        }
        Some(Ok(mutant)) => Some(mutant.name),
        None => None,
    };
    let options = Options { mutant, echo: arguments.trace, ..Options::default() };
    let passed = match arguments.seed {
        _ if arguments.mutants => all_mutants(&arguments),
        Some(seed) => one_seed(seed, &options),
        None => many_seeds(&arguments, &options),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn known_mutant(name: &str) -> Result<&'static Mutant, String> {
    let names: Vec<&str> = SCENARIO.mutants.iter().map(|mutant| mutant.name).collect();
    let found = SCENARIO.mutants.iter().find(|mutant| mutant.name == name);
    found.ok_or_else(|| format!("there is no mutant `{name}`, but: {}", names.join(", ")))
}

fn one_seed(seed: u64, options: &Options) -> bool {
    let job = |seed| (SCENARIO.run_seed)(seed, options);
    let summary = run_all(seed, 1, &job, &|_| {});
    println!("{}", summary.coverage.table(SCENARIO.possible));
    println!("{} requests, {} restarts", summary.requests, summary.restarts);
    for (seed, hash) in &summary.hashes {
        println!("seed {seed}: event log {hash:016x}");
    }
    print_failures(&summary)
}

fn many_seeds(arguments: &Arguments, options: &Options) -> bool {
    let started = Instant::now();
    let job = |seed| (SCENARIO.run_seed)(seed, options);
    let summary = run_all(arguments.from, arguments.seeds, &job, &|done| progress(arguments, done));
    clear_progress(arguments);
    println!("{}", summary.coverage.table(SCENARIO.possible));
    println!(
        "{} seeds from {} in {:.1} s: {} requests, {} restarts, {} disk operations, logs {:016x}",
        summary.seeds,
        arguments.from,
        started.elapsed().as_secs_f64(),
        summary.requests,
        summary.restarts,
        summary.disk_changes,
        summary.hash()
    );
    let passed = print_failures(&summary);
    if !passed || summary.seeds < SEEDS_FOR_COVERAGE {
        return passed;
    }
    let zeros = summary.coverage.zeros(SCENARIO.possible);
    for (fault, activity) in &zeros {
        println!("never met: {} during {}", fault.name(), activity.name());
    }
    zeros.is_empty()
}

fn print_failures(summary: &Summary) -> bool {
    for (seed, Failure { what, text, trace }) in &summary.failures {
        println!("--- seed {seed} failed: {what}\n{text}\n{trace}");
        println!("--- again: simulate --seed {seed} --trace");
    }
    summary.failures.is_empty()
}

/// Looks for each mistake from seed 1 on, and says which seed showed it. First the same seeds without
/// one: what fails there shows no mistake.
fn all_mutants(arguments: &Arguments) -> bool {
    let seeds = SCENARIO.mutants.iter().map(|mutant| mutant.seeds_max).max().unwrap_or(0);
    let job = |seed| (SCENARIO.run_seed)(seed, &Options::default());
    let summary = run_all(1, seeds, &job, &|done| progress(arguments, done));
    clear_progress(arguments);
    if !print_failures(&summary) {
        return false;
    }
    println!("{:<26} nothing found in {seeds} seeds", "(no mistake)");
    let mut all_found = true;
    for mutant in SCENARIO.mutants {
        let options = Options { mutant: Some(mutant.name), ..Options::default() };
        let job = |seed| (SCENARIO.run_seed)(seed, &options);
        let summary = run_all(1, mutant.seeds_max, &job, &|done| progress(arguments, done));
        clear_progress(arguments);
        let found = summary.failures.iter().find(|(_, failure)| failure.what != "panic");
        match found.or_else(|| summary.failures.iter().next()) {
            Some((seed, failure)) => {
                println!(
                    "{:<26} found by `{}` in seed {seed} of at most {}",
                    mutant.name, failure.what, mutant.seeds_max
                );
            }
            None => println!("{:<26} not found in {} seeds", mutant.name, mutant.seeds_max),
        }
        all_found &= found.is_some();
    }
    all_found
}

fn progress(arguments: &Arguments, done: u64) {
    if !arguments.quiet && done.is_multiple_of(16) && std::io::stderr().is_terminal() {
        eprint!("\r{done} seeds");
        // A lost line of progress is no loss.
        let _ = std::io::stderr().flush();
    }
}

fn clear_progress(arguments: &Arguments) {
    if !arguments.quiet && std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
