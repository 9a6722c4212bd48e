//! What the disk itself takes for the smallest durable write, and what it was given to write.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::statistics::Spread;

const BATCHES: u64 = 5;
const WRITES_PER_BATCH: u64 = 100;
const WRITE_BYTES: u64 = 512;
/// Far more than is written, and written before: what a log does that prepares its segments.
const FILE_BYTES: usize = 4 << 20;
/// Block devices count in these, whatever their own are.
const SECTOR_BYTES: u64 = 512;

/// The median time, in microseconds, of a write of 512 bytes into a prepared file and its
/// `fdatasync`, in this folder. Of five batches the fastest counts: what others did to the disk
/// meanwhile is not the disk's.
///
/// # Errors
/// When the file cannot be written.
pub fn fdatasync_p50_us(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("fdatasync");
    let file = File::options().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let mut fastest_us = f64::INFINITY;
    for batch in 0..BATCHES {
        fastest_us = fastest_us.min(batch_p50_us(&file, batch * WRITES_PER_BATCH)?);
    }
    std::fs::remove_file(&path)?;
    Ok(fastest_us)
}

/// Bytes that the block device below a folder has been given to write since the machine started, after
/// everything that waited was written.
///
/// Not from `/proc/PID/io`: that counts a page of the cache when it becomes dirty, and one that was
/// written in one piece may have 2 MiB, of which a put changes 4 KiB.
///
/// # Errors
/// When the folder is on no block device, or others may not look at it.
pub fn device_written_bytes(folder: &Path) -> anyhow::Result<u64> {
    let synced = Command::new("sync").arg("-f").arg(folder).status()?;
    ensure!(synced.success(), "sync -f {} failed", folder.display());
    let device = std::fs::metadata(folder)?.dev();
    let (major, minor) = (major_of(device), minor_of(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "{} is on no block device ({path}): set TMPDIR to a folder on one",
            folder.display()
        )
    })?;
    sectors_written(&text)
        .map(|sectors| sectors * SECTOR_BYTES)
        .with_context(|| format!("an unexpected form of {path}: {text:?}"))
}

fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().nth(6)?.parse().ok()
}

/// As glibc's `major`.
fn major_of(device: u64) -> u64 {
    (device >> 32) & 0xffff_f000 | (device >> 8) & 0xfff
}

/// As glibc's `minor`.
fn minor_of(device: u64) -> u64 {
    (device >> 12) & 0xffff_ff00 | device & 0xff
}

fn batch_p50_us(file: &File, first: u64) -> anyhow::Result<f64> {
    let record = [1; WRITE_BYTES as usize];
    let mut times_us = Vec::new();
    for number in first..first + WRITES_PER_BATCH {
        let start = Instant::now();
        file.write_all_at(&record, number * WRITE_BYTES)?;
        file.sync_data()?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&times_us).map_or(f64::NAN, |spread| spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices_are_taken_apart_as_the_system_does() {
        assert_eq!((major_of(0xfe01), minor_of(0xfe01)), (254, 1));
        assert_eq!((major_of(0x1_0003_0001), minor_of(0x0010_0002)), (0x300, 0x102));
    }

    #[test]
    fn written_sectors_are_the_seventh_figure() {
        assert_eq!(sectors_written("  10 0 20 1 30 2 40 5 0 9 9\n"), Some(40));
        assert_eq!(sectors_written("10 0"), None);
    }
}
