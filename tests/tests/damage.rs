//! A state store whose pages were changed: the process ends with its file, and in no other way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_tests::process::{Program, Server, locate};
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

const PUTS: usize = 100;
const PAGE_BYTES: usize = 4096;
const LEAF: u8 = 1;
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts offsets into every leaf that point far behind it.
fn spoil(state: &Path) -> Outcome {
    let mut file = std::fs::read(state)?;
    let pages = file.chunks_exact_mut(PAGE_BYTES).skip(1);
    for page in pages.filter(|page| page[0] == LEAF) {
        page[4..16].fill(0x7f);
    }
    Ok(std::fs::write(state, file)?)
}

/// redb panicked, and the process was aborted: no file, no advice, and a code that no table has.
#[test]
fn damage_inside_pages_ends_the_process_with_the_file_and_what_to_do_and_not_by_a_signal() -> Outcome
{
    let mut server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut kv = KvClient::new(Channel::from_shared(server.url())?.connect().await?);
        for number in 0..PUTS {
            let (key, value) = (format!("{number}").into(), vec![b'v'; 100].into());
            kv.put(PutRequest { key, value, ..Default::default() }).await?;
        }
        anyhow::Ok(())
    })?;
    ensure!(server.terminate()? == Some(0), "{}", server.log());
    let state = server.data_dir().join("member/state.redb");
    spoil(&state)?;
    let logged = server.log().len();
    server.respawn()?;
    let code = server.wait_ended(DEADLINE)?;
    let log = server.log().split_off(logged);
    ensure!(code == Some(22), "{code:?}: {log}");
    let last = log.lines().last().context("it says nothing")?;
    let file = format!("the state store {}: the file is damaged: ", state.display());
    let advice = "; begin again with an empty data dir and the keys of a backup";
    ensure!(last.contains(&file) && last.contains("where redb reads it"), "{log}");
    ensure!(last.contains(advice) && !log.contains("panicked"), "{log}");
    Ok(())
}
