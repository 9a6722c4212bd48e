//! Transcripts of the API against any server: what is expected is what a real etcd answered.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use quorate_tests::conformance::run::{self, Outcome, Place};
use quorate_tests::conformance::session::Session;
use quorate_tests::conformance::{ids, report};
use quorate_tests::process::Program;

/// Runs the cases of tests/conformance against a server. Each case begins by deleting every key and
/// lease of the server, so a server that holds keys is refused.
#[derive(Debug, Parser)]
struct Options {
    /// A running server, such as http://127.0.0.1:2379; cases that need a server of their own are
    /// skipped.
    #[arg(long, conflicts_with = "server")]
    endpoints: Option<String>,
    /// A binary of etcd or quorate, started for each file [default: the quorate built beside this].
    #[arg(long)]
    server: Option<PathBuf>,
    /// Only the files whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// Write the replies into the files. Needs --server with an etcd.
    #[arg(long, requires = "server")]
    update: bool,
    /// Say why each case that did not run was skipped, or is for later.
    #[arg(long)]
    verbose: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(&options))
}

async fn work(options: &Options) -> anyhow::Result<ExitCode> {
    let place = place(options)?;
    if let Place::Url(url) = &place {
        let keys = Session::connect(url).await?.keys().await?;
        ensure!(keys == 0, "{url} holds {keys} keys, which the first case would delete");
    }
    let folder = run::folder();
    let claims = ids::parse(&std::fs::read_to_string(folder.join("ids.txt"))?)?;
    let mut scripts = run::scripts(&folder)?;
    let only = options.only.clone().unwrap_or_default();
    scripts.retain(|script| script.name.contains(&only));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for script in &mut scripts {
        if options.update {
            if let Err(error) = run::update(script, &place).await {
                println!("{error:#}");
                continue;
            }
            std::fs::write(folder.join(format!("{}.txt", script.name)), script.text())?;
        }
        let outcome = run::run(script, &place).await?;
        outcome.failures().for_each(|difference| println!("{difference}"));
        if options.verbose {
            outcome.not_run(script).iter().for_each(|line| println!("{line}"));
        }
        outcomes.push(outcome);
    }
    let later = claims.values().filter(|claim| claim.later.is_some()).count();
    print!("{}", report::table(&outcomes, claims.len(), later));
    let failed = outcomes.iter().any(|outcome| outcome.counts().failed > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn place(options: &Options) -> anyhow::Result<Place> {
    if let Some(url) = &options.endpoints {
        return Ok(Place::Url(url.clone()));
    }
    let Some(path) = &options.server else {
        let path = quorate_tests::process::locate::quorate(None)?;
        return Ok(Place::Program(Program::quorate(path)));
    };
    let is_etcd = path.file_name().is_some_and(|name| name == "etcd");
    ensure!(
        is_etcd || !options.update,
        "what is expected comes from a real etcd; {} is none",
        path.display()
    );
    let program = if is_etcd { Program::etcd } else { Program::quorate };
    Ok(Place::Program(program(path.clone())))
}
