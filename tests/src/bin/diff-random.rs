//! Random requests to Quorate and a real etcd, whose replies must be equal.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use quorate_tests::diff::run::{Difference, Summary, run};
use quorate_tests::diff::shrink::shrink;
use quorate_tests::process::{Program, locate};

/// Steps of a shrunk history that are printed.
const STEPS_SHOWN_MAX: usize = 200;

/// Sends random requests to two servers, one by one, and compares the whole replies; compares HashKV
/// at each revision after every 1,000 requests.
#[derive(Debug, Parser)]
struct Options {
    /// The etcd binary.
    #[arg(long)]
    etcd: PathBuf,
    /// The quorate binary [default: the one built beside this executable].
    #[arg(long)]
    quorate: Option<PathBuf>,
    /// What etcd is compared with; `etcd` shows that the method itself finds nothing.
    #[arg(long, value_enum, default_value = "quorate")]
    against: Against,
    /// How many requests.
    #[arg(long, default_value_t = 100_000)]
    ops: usize,
    /// The same seed sends the same requests [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Print how often each kind of reply and each error was compared.
    #[arg(long)]
    outcomes: bool,
    /// Do not search for a shorter history after a difference.
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Against {
    Quorate,
    Etcd,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let left = Program::etcd(options.etcd.clone());
    let right = match options.against {
        Against::Etcd => left.clone(),
        Against::Quorate => Program::quorate(locate::quorate(options.quorate.as_deref())?),
    };
    let programs = [left, right];
    let seed = options.seed.unwrap_or_else(seed_from_clock);
    println!("etcd against {}, seed {seed}, {} operations", programs[1].name(), options.ops);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(run(&programs, seed, options.ops, progress(options.ops)))?;
    if options.outcomes {
        for (outcome, count) in &summary.outcomes {
            println!("{count:>8} {outcome}");
        }
    }
    let Some(difference) = &summary.difference else {
        println!(
            "{} operations, {} requests compared, 0 differences",
            options.ops, summary.compared
        );
        return Ok(ExitCode::SUCCESS);
    };
    println!("seed {seed}: a difference after {} equal replies", summary.compared - 1);
    print(difference, programs[1].name());
    if !options.no_shrink {
        runtime.block_on(print_shrunk(&programs, &summary))?;
    }
    println!("again: --seed {seed} --ops {}", difference.number + 1);
    Ok(ExitCode::FAILURE)
}

async fn print_shrunk(programs: &[Program; 2], summary: &Summary) -> anyhow::Result<()> {
    println!("searching for a shorter history, two minutes at most ...");
    let Some(shrunk) = shrink(programs, &summary.steps).await? else {
        println!("no end of the history shows a difference by itself");
        return Ok(());
    };
    println!(
        "{} operations show one, on stores at revision {}, compacted at {}:",
        shrunk.steps.len(),
        shrunk.revision,
        shrunk.compacted
    );
    for step in &shrunk.steps[shrunk.steps.len().saturating_sub(STEPS_SHOWN_MAX)..] {
        println!("  {}", step.operation);
    }
    print(&shrunk.difference, programs[1].name());
    Ok(())
}

fn print(difference: &Difference, right: &str) {
    println!("operation {}: {}", difference.number, difference.request);
    println!("--- etcd\n{}\n--- {right}\n{}\n---", difference.left, difference.right);
}

/// A line that is written over on a terminal; elsewhere one after every 10,000 operations.
fn progress(operations: usize) -> impl FnMut(usize, u64) {
    let terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    move |done, compared| {
        let seconds = start.elapsed().as_secs();
        let line = format!("{done} of {operations} operations, {compared} compared, {seconds} s");
        let mut stderr = std::io::stderr().lock();
        // A progress line that cannot be written is no reason to stop.
        let _ = if terminal {
            write!(stderr, "\r{line}{}", if done == operations { "\n" } else { "" })
        } else if done % 10_000 == 0 {
            writeln!(stderr, "{line}")
        } else {
            Ok(())
        };
    }
}

fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |time| time.as_micros() as u64)
}
