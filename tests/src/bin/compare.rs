//! Quorate and etcd side by side, as a table and as JSON.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use quorate_tests::compare::rows::Group;
use quorate_tests::compare::sample::Scale;
use quorate_tests::compare::{Setup, compare};
use quorate_tests::process::{Program, locate};

/// Measures CPU, latency, memory, bytes and syncs of Quorate and etcd in pairs, after a null run of
/// etcd against etcd; takes about 40 minutes.
#[derive(Debug, Parser)]
struct Options {
    /// The etcd binary.
    #[arg(long)]
    etcd: PathBuf,
    /// The quorate binary [default: the one built beside this executable].
    #[arg(long)]
    quorate: Option<PathBuf>,
    /// What etcd is compared with.
    #[arg(long, value_enum, default_value = "quorate")]
    against: Against,
    /// Few and short pairs, to try it; the figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Which rows, with commas between [default: all].
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Group>,
    /// Writes the report as JSON to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Against {
    Quorate,
    Etcd,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let etcd = Program::etcd(options.etcd);
    let ours = match options.against {
        Against::Etcd => etcd.clone(),
        Against::Quorate => Program::quorate(locate::quorate(options.quorate.as_deref())?),
    };
    let groups =
        if options.rows.is_empty() { Group::value_variants().to_vec() } else { options.rows };
    let scale = if options.quick { Scale::QUICK } else { Scale::WHOLE };
    let setup = Setup { etcd, ours, groups: groups.into_iter().collect(), scale };
    let report = compare(&setup, &mut |line| eprintln!("{line}"))?;
    println!("{report}");
    if options.quick {
        println!("with --quick these figures say nothing");
    }
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
