//! What a process has used, from `/proc`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// `/proc` counts CPU time in hundredths of a second on every architecture of Linux.
const TICKS_PER_SECOND: u64 = 100;
/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

/// CPU, bytes written and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads, ended ones too.
    pub cpu: Duration,
    /// Bytes that the process caused to be sent to storage.
    pub written_bytes: u64,
    /// Memory that no file backs.
    pub anonymous_bytes: u64,
    /// Memory in all.
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads the figures of a running process.
    ///
    /// # Errors
    /// When the process has ended or belongs to another user.
    pub fn of(pid: u32) -> anyhow::Result<Usage> {
        let folder = format!("/proc/{pid}");
        let stat = std::fs::read_to_string(format!("{folder}/stat"))?;
        let io = std::fs::read_to_string(format!("{folder}/io"))?;
        let memory = std::fs::read_to_string(format!("{folder}/smaps_rollup"))?;
        Ok(Usage {
            cpu: cpu(&stat).context("an unexpected form of /proc/PID/stat")?,
            written_bytes: field(&io, "write_bytes:")?,
            anonymous_bytes: field(&memory, "Anonymous:")? * 1024,
            resident_bytes: field(&memory, "Rss:")? * 1024,
        })
    }
}

/// The 14th and 15th words; the second is a name in brackets that may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut words = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let system: u64 = words.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {name} in /proc"))
}

/// Bytes that all files below a folder take on disk, or one file: holes in them take nothing.
///
/// # Errors
/// When a folder cannot be read. A file that vanishes meanwhile counts nothing.
pub fn size_of(path: &Path) -> anyhow::Result<u64> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(0) };
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * BLOCK_BYTES);
    }
    std::fs::read_dir(path)?.map(|entry| size_of(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_a_name_with_brackets_and_spaces() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu("7 (cut"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.anonymous_bytes > 0 && usage.resident_bytes >= usage.anonymous_bytes);
    }

    #[test]
    fn a_folder_counts_what_is_below_it_without_holes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        for (name, data_bytes, bytes) in [("inner/file", 1 << 20, 1 << 20), ("file", 0, 64 << 20)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            std::io::Write::write_all(&mut &file, &vec![1; data_bytes]).unwrap();
            file.set_len(bytes).unwrap();
            file.sync_all().unwrap();
        }
        let size = size_of(folder.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&size), "{size}");
        assert_eq!(size_of(&folder.path().join("none")).unwrap(), 0);
    }
}
