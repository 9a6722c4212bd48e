//! The log: JSON lines for machines, text for people on a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    #[error("cannot open the log file {path}: {error}")]
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

/// Starts to log from `level` on, to each of `outputs` (`-` is stdout, nothing is stderr, else a file).
///
/// `json` forces the form; without it, text goes to a terminal and JSON elsewhere.
///
/// # Errors
/// If a file cannot be opened, or logging was started before.
pub fn init(level: LevelFilter, json: Option<bool>, outputs: &[&str]) -> Result<(), LogError> {
    let json = json.unwrap_or_else(|| !io::stderr().is_terminal());
    let ansi = !json && outputs == [""] && io::stderr().is_terminal();
    let outputs = outputs.iter().map(|name| Output::open(name)).collect::<Result<_, _>>()?;
    let writer = Outputs { outputs: Arc::new(outputs) };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false);
    let started = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init()
    } else {
        builder.finish().try_init()
    };
    started.map_err(|_| LogError::Twice)
}

impl Output {
    fn open(name: &&str) -> Result<Self, LogError> {
        match *name {
            "" => Ok(Self::Stderr),
            "-" => Ok(Self::Stdout),
            path => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Self::File)
                .map_err(|error| LogError::Open { path: path.into(), error }),
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
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in self.outputs.iter() {
            match output {
                Output::Stderr => io::stderr().write_all(line)?,
                Output::Stdout => io::stdout().write_all(line)?,
                Output::File(file) => (&*file).write_all(line)?,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
