//! More clients than there are files to open: those that do not fit wait, and the member goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{CompactionRequest, PutRequest};
use quorate_tests::process::{Ports, Program, START_DEADLINE, Server, locate, run_to_end};
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

/// Of the shell; of them a member keeps 150, so 50 connections fit.
const OPEN_FILES: &str = "ulimit -n 200";
const CLIENTS: usize = 300;
/// Enough for a segment of the log, so that a next one is prepared.
const PUTS: usize = 80;
const VALUE_BYTES: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

/// The member, with what the shell says before it runs.
fn limited(limit: &str) -> anyhow::Result<Program> {
    let script = format!("{limit} && exec \"$@\"");
    let wrapper = ["bash", "-c", &script, "bash"].map(str::to_owned);
    Ok(Program::quorate(locate::built_quorate()?).wrapped(wrapper.into()))
}

fn connect_all(server: &Server) -> anyhow::Result<Vec<TcpStream>> {
    let connect = |_| TcpStream::connect(server.address()).context("a client cannot connect");
    (0..CLIENTS).map(connect).collect()
}

/// A client that asks for the health, however long that takes.
fn ask_health(server: &Server) -> JoinHandle<anyhow::Result<String>> {
    let address = server.address();
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    })
}

/// Puts, and a compaction that is done with when its deletions are durable; a checkpoint comes before it.
async fn put_and_compact(channel: Channel) -> Outcome {
    let mut kv = KvClient::new(channel);
    let mut revision = 0;
    for _ in 0..PUTS {
        let value = vec![b'v'; VALUE_BYTES].into();
        let put = PutRequest { key: "key".into(), value, ..Default::default() };
        revision = kv.put(put).await?.into_inner().header.context("no header")?.revision;
    }
    kv.compact(CompactionRequest { revision, physical: true }).await?;
    Ok(())
}

/// It ended with exit code 20: a checkpoint could not be created, nor the folder of the log synced.
#[test]
fn more_clients_than_files_to_open_wait_and_the_member_writes_and_compacts_and_starts() -> Outcome {
    let mut server = Server::start(&limited(OPEN_FILES)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let channel = runtime.block_on(Channel::from_shared(server.url())?.connect())?;
    let clients = connect_all(&server)?;
    let waiting = ask_health(&server);
    runtime.block_on(put_and_compact(channel))?;
    ensure!(!waiting.is_finished(), "there was room for all");
    drop(clients);
    let reply = waiting.join().expect("it asks and reads")?;
    ensure!(reply.contains("\"true\""), "{reply}");
    let log = server.log();
    ensure!(log.contains("the limit of open files is low"), "{log}");
    ensure!(log.matches("no more fit in the limit of open files").count() == 1, "{log}");
    ensure!(!log.contains("gave up a checkpoint"), "{log}");

    // They are back before the member is.
    server.kill()?;
    server.respawn()?;
    wait_listening(&mut server)?;
    let clients = connect_all(&server)?;
    let waiting = ask_health(&server);
    drop(clients);
    let reply = waiting.join().expect("it asks and reads")?;
    ensure!(reply.starts_with("HTTP/1.0"), "{reply}");
    server.wait_healthy(START_DEADLINE)?;
    let clients = connect_all(&server)?;
    ensure!(server.terminate()? == Some(0), "{}", server.log());
    drop(clients);
    Ok(())
}

fn wait_listening(server: &mut Server) -> Outcome {
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(server.address()).is_err() {
        server.check_running()?;
        ensure!(Instant::now() < deadline, "it does not listen:\n{}", server.log());
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> Outcome {
    let server = Server::start(&limited("ulimit -n 2000 && ulimit -Sn 200")?)?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()))?;
    let files =
        limits.lines().find(|line| line.starts_with("Max open files")).context("no limit")?;
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    ensure!(numbers == ["2000", "2000"], "{files}");
    ensure!(!server.log().contains("the limit of open files is low"), "{}", server.log());
    Ok(())
}

#[test]
fn a_limit_of_open_files_with_which_no_connection_fits_is_refused_in_a_sentence() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data");
    let mut command = limited("ulimit -n 150")?.command(&data_dir, Ports::free()?);
    let ended = run_to_end(&mut command, DEADLINE)?;
    ensure!(ended.code == Some(1), "{ended:?}");
    let refusal = "the limit of open files is 150, and a member needs more than 150; raise it by";
    ensure!(ended.text.contains(refusal), "{ended:?}");
    ensure!(!data_dir.exists(), "it was created");
    Ok(())
}
