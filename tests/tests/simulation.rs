//! The simulator, briefly: what `simulate` and `crashpoints` do at length.

use quorate_tests::sim::runner::{Options, Scenario, run_all};
use quorate_tests::sim::world;

const SCENARIO: Scenario = world::SCENARIO;

#[test]
fn a_few_seeds_break_no_invariant() {
    let options = Options::default();
    let summary = run_all(1, 16, &|seed| (SCENARIO.run_seed)(seed, &options), &|_| {});
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    assert!(summary.restarts > 100, "{} restarts", summary.restarts);
}

#[test]
fn a_seed_replays_to_the_same_event_log() {
    let options = Options::default();
    for seed in 1..3 {
        let (one, two) = ((SCENARIO.run_seed)(seed, &options), (SCENARIO.run_seed)(seed, &options));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(one.coverage, two.coverage, "seed {seed}");
    }
    let hash = |seed| (SCENARIO.run_seed)(seed, &options).hash;
    assert_ne!(hash(1), hash(2));
}

/// Those that a few seeds show; `simulate --mutants` runs all.
#[test]
fn quick_mutants_are_found() {
    const SEEDS: u64 = 4;
    let quick = [
        "acknowledge-before-sync",
        "double-apply",
        "half-transaction",
        "half-flush",
        "detach-forgotten",
        "progress-ahead-of-events",
        "hand-over-twice",
        "expiry-forgotten",
    ];
    for name in quick {
        let options = Options { mutant: Some(name), ..Options::default() };
        let job = |seed| (SCENARIO.run_seed)(seed, &options);
        let summary = run_all(1, SEEDS, &job, &|_| {});
        let by_invariant = summary.failures.values().any(|failure| failure.what != "panic");
        assert!(by_invariant, "{name} in {} seeds: {:?}", summary.seeds, summary.failures);
    }
}

#[test]
fn a_cut_in_any_of_some_operations_is_survived() {
    let operations = (SCENARIO.run_cut)(1, &Options::default()).disk_changes;
    let job = |step: u64| {
        let cut = Some(step * 37 % operations + 1);
        (SCENARIO.run_cut)(1, &Options { cut, way: step, ..Options::default() })
    };
    let summary = run_all(0, 40, &job, &|_| {});
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
}
