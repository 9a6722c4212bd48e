//! The log: JSON lines for machines, text for people on a terminal.
//!
//! A line that cannot be written is lost, and nothing else: a full disk or a reader of stderr that went
//! away is no reason to end a member.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Libraries that have a line for each frame and each poll: below a warning they only hide what a member says.
const TALKATIVE: [&str; 3] = ["h2", "hyper", "hyper_util"];

/// Where log lines go; each goes to all.
#[derive(Clone)]
struct Outputs {
    outputs: Arc<Vec<Output>>,
}

enum Output {
    Stderr,
    Stdout,
    File(File),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file cannot be written.
    #[error("cannot open {path}, which --log-outputs names: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Something else already takes the events of this process.
    #[error("the log was set up twice")]
    Twice,
}

/// Where log lines are asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum LogTarget {
    Stderr,
    Stdout,
    File(PathBuf),
}

/// Starts to log from `level` on, to each of `targets`.
///
/// `json` forces the form; without it, text goes to a terminal and JSON elsewhere.
///
/// # Errors
/// If a file cannot be opened, or logging was started before.
pub fn init(level: LevelFilter, json: Option<bool>, targets: &[LogTarget]) -> Result<(), LogError> {
    let terminal = match targets {
        [LogTarget::Stderr] => io::stderr().is_terminal(),
        [LogTarget::Stdout] => io::stdout().is_terminal(),
        _ => false,
    };
    let json = json.unwrap_or(!terminal);
    let outputs = targets.iter().map(Output::open).collect::<Result<_, _>>()?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(Outputs { outputs: Arc::new(outputs) })
        .with_ansi(terminal)
        .with_target(false)
        // It would tell stderr that a line is lost, and panic where stderr is what cannot be written.
        .log_internal_errors(false);
    let wanted = TALKATIVE.iter().map(|library| (*library, level.min(LevelFilter::WARN)));
    let wanted = Targets::new().with_default(level).with_targets(wanted);
    let started = if json {
        let builder = builder.json().flatten_event(true);
        builder.with_current_span(false).with_span_list(false).finish().with(wanted).try_init()
    } else {
        builder.finish().with(wanted).try_init()
    };
    started.map_err(|_| LogError::Twice)
}

impl Output {
    fn open(target: &LogTarget) -> Result<Self, LogError> {
        match target {
            LogTarget::Stderr => Ok(Self::Stderr),
            LogTarget::Stdout => Ok(Self::Stdout),
            LogTarget::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Self::File)
                .map_err(|error| LogError::Open { path: path.clone(), error }),
        }
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Outputs {
    /// Each output gets the line, whatever became of the others; the first failure is returned.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.outputs.iter().map(|output| match output {
            Output::Stderr => io::stderr().write_all(line),
            Output::Stdout => io::stdout().write_all(line),
            Output::File(file) => (&*file).write_all(line),
        });
        written.fold(Ok(()), Result::and).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_cannot_be_written_starves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let targets = ["/dev/full".into(), path.clone()].map(LogTarget::File);
        let outputs = targets.iter().map(Output::open).collect::<Result<_, _>>().unwrap();
        let mut outputs = Outputs { outputs: Arc::new(outputs) };
        let failed = outputs.write(b"line\n").unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "line\n");
    }
}
