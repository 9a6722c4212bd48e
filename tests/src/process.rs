//! Real `quorate` and `etcd` processes: started, watched, killed.
//!
//! A [`Program`] is a binary and what kind of server it is. A [`Server`] is one running process of
//! it with its own ports and its own data directory. Nothing here waits for a fixed time: a start
//! polls `/health` until a deadline and fails at once, with the end of the log, when the process
//! ends. Dropping a [`Server`] kills it, so a failed test leaves nothing behind.
//!
//! ```no_run
//! use quorate_tests::process::{Program, Server};
//!
//! let server = Server::start(&Program::etcd("etcd".into()))?;
//! println!("{} uses {} bytes", server.url(), server.usage()?.anonymous_bytes);
//! # anyhow::Ok(())
//! ```

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub mod http;
pub mod locate;
pub mod usage;

use self::usage::Usage;

/// The longest that a start may take; a million keys are back long before.
pub const START_DEADLINE: Duration = Duration::from_secs(180);
/// The longest that an orderly stop may take.
pub const STOP_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 15;
/// Below the range from which the kernel takes ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Which server a binary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The peer that everything is compared with.
    Etcd,
    /// Ours.
    Quorate,
}

/// A server binary.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which server it is.
    pub kind: Kind,
    /// The binary.
    pub path: PathBuf,
    /// Further arguments of each start.
    pub arguments: Vec<String>,
    /// A command that runs the binary, such as `strace` with its options; it must keep the server
    /// as its own process image, so that the process id is the server's.
    pub wrapper: Vec<String>,
}

impl Program {
    /// A real etcd.
    pub fn etcd(path: PathBuf) -> Program {
        Program { kind: Kind::Etcd, path, arguments: Vec::new(), wrapper: Vec::new() }
    }

    /// Our server.
    pub fn quorate(path: PathBuf) -> Program {
        Program { kind: Kind::Quorate, path, arguments: Vec::new(), wrapper: Vec::new() }
    }

    /// The same program, started with further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Program {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// The same program, run by another command.
    #[must_use]
    pub fn wrapped(mut self, wrapper: Vec<String>) -> Program {
        self.wrapper = wrapper;
        self
    }

    /// The name for tables and messages.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Etcd => "etcd",
            Kind::Quorate => "quorate",
        }
    }

    /// The command that starts a lone member on `ports` with `data_dir`.
    pub fn command(&self, data_dir: &Path, ports: Ports) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.path.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("--name=default").arg(format!("--data-dir={}", data_dir.display()));
        for flag in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{flag}={}", ports.client_url()));
        }
        for flag in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{flag}={}", ports.peer_url()));
        }
        command.arg(format!("--initial-cluster=default={}", ports.peer_url()));
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }
}

/// The two ports of a member on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Where clients connect.
    pub client: u16,
    /// Where other members connect.
    pub peer: u16,
}

impl Ports {
    /// Two ports that nobody listens on.
    ///
    /// # Errors
    /// When the whole range is taken.
    pub fn free() -> anyhow::Result<Ports> {
        Ok(Ports { client: free_port()?, peer: free_port()? })
    }

    /// The address for clients.
    pub fn client_url(self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    /// The address for other members.
    pub fn peer_url(self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }
}

/// A port that nobody listens on and that this process has not given out before.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let length = PORTS.end - PORTS.start;
    let spread = u16::try_from(std::process::id() % u32::from(length)).expect("below a u16");
    for _ in 0..length {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (u32::from(spread) * 7 + u32::from(offset)) as u16 % length;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 from {} to {}", PORTS.start, PORTS.end)
}

/// One running server process.
#[derive(Debug)]
pub struct Server {
    program: Program,
    child: Child,
    ports: Ports,
    data_dir: PathBuf,
    folder: TempDir,
}

impl Server {
    /// Starts a lone member on a fresh data directory and waits until it is healthy.
    ///
    /// # Errors
    /// When the binary cannot run, ends, or is not healthy within [`START_DEADLINE`]; the text holds the
    /// end of its log.
    pub fn start(program: &Program) -> anyhow::Result<Server> {
        let mut server = Server::spawn(program)?;
        server.wait_healthy(START_DEADLINE)?;
        Ok(server)
    }

    /// Starts a lone member on a fresh data directory and waits for nothing.
    ///
    /// # Errors
    /// When the binary cannot run.
    pub fn spawn(program: &Program) -> anyhow::Result<Server> {
        Server::spawn_on(program, |_, _| Ok(()))
    }

    /// Starts a lone member on a data directory that `prepare` makes for it, and waits until it is
    /// healthy.
    ///
    /// # Errors
    /// As [`Server::start`], and those of `prepare`.
    pub fn start_on(
        program: &Program,
        prepare: impl FnOnce(&Path, Ports) -> anyhow::Result<()>,
    ) -> anyhow::Result<Server> {
        let mut server = Server::spawn_on(program, prepare)?;
        server.wait_healthy(START_DEADLINE)?;
        Ok(server)
    }

    fn spawn_on(
        program: &Program,
        prepare: impl FnOnce(&Path, Ports) -> anyhow::Result<()>,
    ) -> anyhow::Result<Server> {
        let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir()?;
        let data_dir = folder.path().join("data");
        let ports = Ports::free()?;
        prepare(&data_dir, ports)?;
        let child = run(program, &data_dir, ports, &folder.path().join("log"))?;
        Ok(Server { program: program.clone(), child, ports, data_dir, folder })
    }

    /// Starts the process again on the same data directory and ports, and waits for nothing.
    ///
    /// # Errors
    /// When the binary cannot run.
    pub fn respawn(&mut self) -> anyhow::Result<()> {
        self.child = run(&self.program, &self.data_dir, self.ports, &self.log_path())?;
        Ok(())
    }

    /// Starts the process again on the same data directory and ports, and waits until it is healthy.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.respawn()?;
        self.wait_healthy(START_DEADLINE)
    }

    /// Waits until `/health` says so.
    ///
    /// # Errors
    /// When the process ends or the deadline passes; the text holds the end of its log.
    pub fn wait_healthy(&mut self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if http::is_healthy(self.address()) {
                return Ok(());
            }
            self.check_running()?;
            if Instant::now() > deadline {
                bail!("{} is not healthy after {within:?}:\n{}", self.name(), self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Fails with the end of the log if the process has ended.
    ///
    /// # Errors
    /// When it has.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name(), self.log_tail());
        }
        Ok(())
    }

    /// Ends the process at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill")?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, waits, and returns its exit code.
    ///
    /// # Errors
    /// When it does not end within [`STOP_DEADLINE`].
    pub fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("cannot signal")?;
        match wait_until(&mut self.child, STOP_DEADLINE)? {
            // etcd ends itself with the signal once it has stopped in order.
            Some(status) if status.signal() == Some(Signal::TERM.as_raw()) => Ok(None),
            Some(status) => Ok(status.code()),
            None => {
                bail!("{} runs {STOP_DEADLINE:?} after SIGTERM:\n{}", self.name(), self.log_tail())
            }
        }
    }

    /// Waits until the process has ended by itself, and returns its exit code.
    ///
    /// # Errors
    /// When it does not end within this time.
    pub fn wait_ended(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        match wait_until(&mut self.child, within)? {
            Some(status) => Ok(status.code()),
            None => bail!("{} still runs after {within:?}:\n{}", self.name(), self.log_tail()),
        }
    }

    /// CPU, bytes written and memory of the process until now.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid()).with_context(|| {
            format!("{} ended while it was measured:\n{}", self.name(), self.log_tail())
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name for tables and messages.
    pub fn name(&self) -> &'static str {
        self.program.name()
    }

    /// The address for clients, with its scheme.
    pub fn url(&self) -> String {
        self.ports.client_url()
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.client))
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A folder that lives as long as this value, on the file system of the data directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that the process wrote to its standard output and error, over all its starts.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.len().saturating_sub(LOG_TAIL_LINES);
        // A stack trace can be longer than the tail; what went wrong is above it.
        let start = lines.iter().rposition(|line| line.starts_with("panic:")).unwrap_or(end);
        lines[start.min(end)..].iter().take(LOG_TAIL_LINES).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process; `None` when the deadline passed.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_until(child: &mut Child, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, if it was not a signal.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
}

/// Runs a command that is expected to end by itself; its standard input is the caller's to set.
///
/// # Errors
/// When it cannot run, or still runs when the deadline passes; then it is killed.
pub fn run_to_end(command: &mut Command, within: Duration) -> anyhow::Result<Ended> {
    let out = tempfile::NamedTempFile::new()?;
    let append = || File::options().append(true).open(out.path());
    command.stdout(append()?).stderr(append()?);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let status = wait_until(&mut child, within)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let text = String::from_utf8_lossy(&std::fs::read(out.path())?).into_owned();
    match status {
        Some(status) => Ok(Ended { code: status.code(), text }),
        None => bail!("{command:?} still runs after {within:?}:\n{text}"),
    }
}

fn run(program: &Program, data_dir: &Path, ports: Ports, log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    program
        .command(data_dir, ports)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {}", program.path.display()))
}
