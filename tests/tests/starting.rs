//! Starts: calls that come meanwhile wait and never meet a member that is not there yet, and nothing is
//! the matter if there is nowhere to say that it starts.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_tests::process::{Program, Server, locate};
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

const RESTARTS: usize = 3;
const CALLS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

#[test]
fn a_call_that_requires_a_leader_waits_until_a_starting_member_leads() -> Outcome {
    let mut server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    for _ in 0..RESTARTS {
        server.kill()?;
        server.respawn()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let channel = connect(&mut server).await?;
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..CALLS {
                calls.spawn(put_with_a_leader(channel.clone(), number));
            }
            for reply in calls.join_all().await {
                ensure!(reply.is_ok(), "{reply:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Connects as soon as the port is open, long before the member serves.
async fn connect(server: &mut Server) -> anyhow::Result<Channel> {
    let deadline = Instant::now() + DEADLINE;
    let endpoint = Channel::from_shared(server.url())?;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => bail!("no connection: {error}"),
            Err(_) => server.check_running()?,
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn put_with_a_leader(channel: Channel, number: usize) -> Result<(), tonic::Status> {
    let key = format!("{number}").into();
    let mut request = tonic::Request::new(PutRequest { key, ..Default::default() });
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request.set_timeout(DEADLINE);
    KvClient::new(channel).put(request).await.map(|_| ())
}

/// A start logs a dozen lines, and so does an orderly end.
#[test]
fn a_log_that_cannot_be_written_ends_no_member() -> Outcome {
    for stderr in ["2>/dev/full", "2>&-", "2> >(:)"] {
        let script = format!("exec \"$@\" {stderr}");
        let wrapper = ["bash", "-c", &script, "bash"].map(str::to_owned);
        let quorate = Program::quorate(locate::built_quorate()?);
        let mut server = Server::start(&quorate.wrapped(wrapper.into()))?;
        ensure!(server.terminate()? == Some(0), "{stderr}: {}", server.log());
    }
    Ok(())
}
