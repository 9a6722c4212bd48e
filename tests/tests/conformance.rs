//! Conformance: each claim has a case, and each case holds on Quorate and on a real etcd.
//!
//! One test for each file, so that a file can be run by its name:
//! `cargo test -p quorate-tests --test conformance quorate::watch`.

use anyhow::{Context as _, ensure};
use quorate_tests::conformance::run::{self, Place};
use quorate_tests::conformance::script::Script;
use quorate_tests::conformance::{ids, report};
use quorate_tests::process::{Program, locate};

type Outcome = anyhow::Result<()>;

const CASES_MIN: usize = 250;

fn script(name: &str) -> anyhow::Result<Script> {
    let path = run::folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Script::parse(name, &text)
}

fn holds(name: &str, program: Program) -> Outcome {
    let script = script(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run::run(&script, &Place::Program(program)))?;
    let skipped = outcome.counts().skipped;
    ensure!(skipped == 0, "{skipped} cases were skipped, and none needs to be");
    outcome.not_run(&script).iter().for_each(|line| println!("{line}"));
    let failures: Vec<&str> = outcome.failures().collect();
    ensure!(
        failures.is_empty(),
        "\n{}\n{}",
        failures.join("\n"),
        report::table(std::slice::from_ref(&outcome), 0, 0)
    );
    Ok(())
}

/// The files, a test for each on Quorate.
macro_rules! files {
    ($($name:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];

        /// Each file, on the `quorate` of this build.
        mod quorate {
            use super::*;

            $(
                #[test]
                fn $name() -> Outcome {
                    holds(stringify!($name), Program::quorate(locate::built_quorate()?))
                }
            )*
        }
    };
}

files! {
    alarm, auth, cluster, compact, compare, delete, downgrade, downgrade_job, election, hash,
    headers, keepalive, learner, lease, lease_expiry, limits, lock, maintenance, method, progress,
    put, quota, range, restart, stream, txn, txn_limits, watch, watch_events, watch_history, watch_many,
}

#[test]
fn a_real_etcd_answers_as_it_is_written() -> Outcome {
    let test = "a_real_etcd_answers_as_it_is_written";
    let Some(etcd) = locate::tool("etcd", test) else { return Ok(()) };
    for name in FILES {
        holds(name, Program::etcd(etcd.clone())).with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

#[test]
fn every_claim_has_a_case_and_every_case_a_claim() -> Outcome {
    let scripts = run::scripts(&run::folder())?;
    let claims = ids::parse(&std::fs::read_to_string(run::folder().join("ids.txt"))?)?;
    let misfits = ids::misfits(&claims, &scripts);
    ensure!(misfits.is_empty(), "{}", misfits.join("\n"));
    let cases: usize = scripts.iter().map(|script| script.cases.len()).sum();
    ensure!(cases >= CASES_MIN, "{cases} cases, at least {CASES_MIN}");
    Ok(())
}

#[test]
fn every_file_is_run() -> Outcome {
    let scripts = run::scripts(&run::folder())?;
    let names: Vec<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
    assert_eq!(names, FILES, "the files of tests/conformance, in order, are those of `files!`");
    Ok(())
}
