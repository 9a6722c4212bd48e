//! Runs many seeds on a few threads, each seed on one, and adds up what they met.
//!
//! A scenario is a set of functions; nothing of it is shared between seeds, so the threads change only
//! the order in which seeds are done, never what a seed does.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::coverage::{Coverage, Possible};
use super::trace::Trace;

/// How many threads run seeds.
pub const WORKERS: usize = 2;
/// After so many failing seeds a run is over.
pub const FAILURES_MAX: usize = 3;

/// What one run of a seed is to do differently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The seeded mistake, by name.
    pub mutant: Option<&'static str>,
    /// Cut this changing operation of the disk, instead of what the seed would do to it.
    pub cut: Option<u64>,
    /// Which of the ways to lose what a cut finds unsynced.
    pub way: u64,
    /// Show the event log as it is written.
    pub echo: bool,
}

/// What one run of a seed was like.
#[derive(Clone, Debug, Default)]
pub struct SeedReport {
    /// The hash of the event log.
    pub hash: u64,
    /// Requests that clients sent.
    pub requests: u64,
    /// Starts after a crash or kill.
    pub restarts: u64,
    /// Changing operations of the disk.
    pub disk_changes: u64,
    /// Whether a planned crash or kill happened.
    pub was_cut: bool,
    /// What the faults met.
    pub coverage: Coverage,
    /// What was wrong.
    pub failure: Option<Failure>,
}

/// Why a seed failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The invariant, or what else it was.
    pub what: String,
    /// How.
    pub text: String,
    /// The end of the event log.
    pub trace: String,
}

/// A seeded mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// Within how many seeds, from 1, an invariant must find it.
    pub seeds_max: u64,
}

/// Something to simulate.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Runs one seed.
    pub run_seed: fn(u64, &Options) -> SeedReport,
    /// Runs the workload whose every disk operation is cut once; `Options::cut` says which.
    pub run_cut: fn(u64, &Options) -> SeedReport,
    /// Which faults can meet which activities.
    pub possible: Possible,
    /// The mistakes that it can be given.
    pub mutants: &'static [Mutant],
}

/// What many seeds were like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many were run.
    pub seeds: u64,
    /// Requests of all.
    pub requests: u64,
    /// Restarts of all.
    pub restarts: u64,
    /// Changing operations of the disk of all.
    pub disk_changes: u64,
    /// What the faults met in all.
    pub coverage: Coverage,
    /// The hash of the event log of each.
    pub hashes: BTreeMap<u64, u64>,
    /// The failures, by seed or by cut.
    pub failures: BTreeMap<u64, Failure>,
}

/// One job: a seed, or the number of a cut.
pub type Job<'a> = &'a (dyn Fn(u64) -> SeedReport + Sync);

/// Runs `job` for each number from `from`, `count` of them, telling `progress` how many are done.
/// Stops early after [`FAILURES_MAX`] failures.
pub fn run_all(from: u64, count: u64, job: Job<'_>, progress: &(dyn Fn(u64) + Sync)) -> Summary {
    let next = AtomicU64::new(from);
    let enough = AtomicBool::new(false);
    // Nothing else is locked while this is.
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number - from >= count {
                        return;
                    }
                    let report = run_guarded(number, job);
                    let mut summary = summary.lock();
                    summary.add(number, report);
                    if summary.failures.len() >= FAILURES_MAX {
                        enough.store(true, Ordering::Relaxed);
                    }
                    progress(summary.seeds);
                }
            });
        }
    });
    summary.into_inner()
}

impl Summary {
    /// A hash over the event logs of all, in the order of their numbers.
    pub fn hash(&self) -> u64 {
        let mut all = Trace::new(false);
        self.hashes.iter().for_each(|(number, hash)| all.line(format_args!("{number} {hash:x}")));
        all.hash()
    }

    fn add(&mut self, number: u64, report: SeedReport) {
        self.seeds += 1;
        self.requests += report.requests;
        self.restarts += report.restarts;
        self.disk_changes += report.disk_changes;
        self.coverage.add(&report.coverage);
        self.hashes.insert(number, report.hash);
        if let Some(failure) = report.failure {
            self.failures.insert(number, failure);
        }
    }
}

thread_local! {
    /// What this thread runs, and where it panicked.
    static RUNNING: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Makes panics name the seed that they happened in. Call it once, before the first run.
pub fn name_seeds_in_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        RUNNING.with_borrow_mut(|(number, place)| {
            // Where a panic ends the process, this is the last chance to say whose it was.
            if cfg!(panic = "abort") {
                let line = format_args!("seed or cut {number}: {text}\n").to_string();
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
            *place = text;
        });
    }));
}

/// Runs a job; a panic is its failure.
fn run_guarded(number: u64, job: Job<'_>) -> SeedReport {
    RUNNING.set((number, String::new()));
    catch_unwind(AssertUnwindSafe(|| job(number))).unwrap_or_else(|panic| {
        let place = RUNNING.with_borrow(|(_, place)| place.clone());
        let text = if place.is_empty() { message_of(panic.as_ref()) } else { place };
        let failure = Failure { what: "panic".to_owned(), text, trace: String::new() };
        SeedReport { failure: Some(failure), ..SeedReport::default() }
    })
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_does_not_depend_on_the_order_and_failures_end_a_run() {
        let job =
            |number: u64| SeedReport { hash: number * 7, requests: 2, ..SeedReport::default() };
        let one = run_all(1, 50, &job, &|_| {});
        let two = run_all(1, 50, &job, &|_| {});
        assert_eq!((one.seeds, one.requests, one.hash()), (50, 100, two.hash()));

        let failing = |number: u64| {
            assert!(number.is_multiple_of(2), "odd");
            SeedReport::default()
        };
        let summary = run_all(1, 1000, &failing, &|_| {});
        assert!(summary.seeds < 20);
        assert!(summary.failures.values().all(|failure| failure.text.contains("odd")));
    }
}
