//! `quorate`: reads the settings, starts the log, runs the member, and says by its exit code how it ended.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | stopped in order, or printed what was asked for |
//! | 1 | the settings or the environment do not allow a start, or what was asked for cannot be printed |
//! | 2 | the command line cannot be read |
//! | 10 to 22 | the data dir, log or state store cannot be used: see `storage::data_dir::exit` |

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use quorate_server::config::{
    self, Config, ConfigError, Loaded, LogConfig, LogFormat, LogLevel, LogOutput,
};
use quorate_server::server;
use quorate_server::storage::state::panics;
use quorate_server::telemetry::{self, LogError};
use tracing::level_filters::LevelFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A broken invariant on any thread ends the process: nothing may go on beside it. The hook runs before
    // anything unwinds, so it covers the tasks too whose panics the runtime would catch.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // One inside redb says that its file is damaged, and the process ends as for any other damage.
        if let Some(damaged) = panics::of_file(panic) {
            tracing::error!(error = %damaged, "the member ended");
            std::process::exit(damaged.exit_code().into());
        }
        report(panic);
        std::process::abort();
    }));
    let loaded = match arguments() {
        Ok((args, env)) => config::load(args, env),
        Err(error) => Err(error),
    };
    match loaded {
        Ok(Loaded::Print(text)) => print(&text),
        Ok(Loaded::Run(config)) => run(*config),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what was asked for. A reader that has seen enough and went away is content.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format_args!("cannot write to the standard output: {error}"));
            ExitCode::from(1)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says why there is no start, if there is anybody to listen: `eprintln!` would panic if not.
fn complain(reason: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "quorate: {reason}");
}

/// Arguments without the program's name, and the variables of the environment.
type Arguments = (Vec<String>, Vec<(String, String)>);

fn arguments() -> Result<Arguments, ConfigError> {
    let args = std::env::args_os().skip(1).map(|arg| {
        arg.into_string().map_err(|arg| {
            ConfigError::usage(format!("{} is not valid UTF-8", arg.to_string_lossy()))
        })
    });
    let args = args.collect::<Result<Vec<_>, _>>()?;
    // Variables that are not UTF-8 cannot be ours.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok((args, env.collect()))
}

fn run(config: Config) -> ExitCode {
    if let Err(error) = start_log(&config.log) {
        complain(&error);
        return ExitCode::from(1);
    }
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    match server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the member ended");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start_log(log: &LogConfig) -> Result<(), LogError> {
    let level = match log.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let json = log.format.map(|format| format == LogFormat::Json);
    let outputs: Vec<telemetry::LogTarget> = log
        .outputs
        .iter()
        .map(|output| match output {
            LogOutput::Stderr => telemetry::LogTarget::Stderr,
            LogOutput::Stdout => telemetry::LogTarget::Stdout,
            LogOutput::File(path) => telemetry::LogTarget::File(path.clone()),
        })
        .collect();
    telemetry::init_logs(level, json, &outputs)
}
