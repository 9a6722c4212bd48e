//! P15: the size of the state store after its keys were rewritten ten times.

use std::path::Path;
use std::time::Instant;

use super::sample::{KEY_BYTES, Sample, Scale, VALUE_BYTES, load};
use crate::load::{Keys, Session};
use crate::process::usage::size_of;
use crate::process::{Program, Server};

const MIB: f64 = 1024.0 * 1024.0;
const REWRITES: usize = 10;
/// Parts of the names of what is not state: the log, the checkpoint of the index, the reserve.
const NOT_STATE: [&str; 4] = ["wal", "checkpoint", "index", "reserve"];

/// One sample of each program. All members rest together.
///
/// # Errors
/// When a server cannot start, ends, or refuses a request.
pub fn samples(programs: &[Program], scale: &Scale) -> anyhow::Result<Vec<Sample>> {
    let keys = Keys::new(scale.rewrite_keys, KEY_BYTES);
    let mut members = Vec::new();
    for program in programs {
        let each = rewritten(program, &keys, true)?;
        let end = rewritten(program, &keys, false)?;
        members.push([each, end]);
    }
    let mut samples = Vec::new();
    for [(each, _), (end, rewritten)] in members {
        std::thread::sleep(scale.rest.saturating_sub(rewritten.elapsed()));
        let live = keys.count() as f64 * (KEY_BYTES + VALUE_BYTES) as f64 / MIB;
        samples.push(Sample::from([
            ("compacted_each", state_mib(each.data_dir())?),
            ("compacted_end", state_mib(end.data_dir())?),
            ("log_mib", size_of(&end.data_dir().join("member/wal"))? as f64 / MIB),
            ("live_mib", live),
        ]));
    }
    Ok(samples)
}

fn rewritten(
    program: &Program,
    keys: &Keys,
    compact_each: bool,
) -> anyhow::Result<(Server, Instant)> {
    let mut server = Server::start(&program.clone().with(&["--quota-backend-bytes=17179869184"]))?;
    let mut session = Session::open(&server.url())?;
    for rewrite in 0..=REWRITES {
        load(&mut server, keys, VALUE_BYTES)?;
        if compact_each || rewrite == REWRITES {
            session.compact_all()?;
        }
    }
    Ok((server, Instant::now()))
}

fn state_mib(folder: &Path) -> anyhow::Result<f64> {
    Ok(state_bytes(folder)? as f64 / MIB)
}

fn state_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if NOT_STATE.iter().any(|part| name.contains(part)) {
            continue;
        }
        let path = entry.path();
        bytes += if path.is_dir() { state_bytes(&path)? } else { size_of(&path)? };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_checkpoint_and_reserve_are_not_state() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["wal", "snap"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let files = ["wal/0.wal", "snap/db", "snap/index-checkpoint", "reserve", "snap/state.redb"];
        for name in files {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            std::io::Write::write_all(&mut &file, &[1; 10_000]).unwrap();
            file.sync_all().unwrap();
        }
        let one = size_of(&folder.path().join("reserve")).unwrap();
        assert!(one >= 10_000);
        assert_eq!(state_bytes(folder.path()).unwrap(), 2 * one);
    }
}
