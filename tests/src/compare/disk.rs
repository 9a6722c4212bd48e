//! What the disk itself takes for the smallest durable write.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use super::statistics::Spread;

const BATCHES: u64 = 5;
const WRITES_PER_BATCH: u64 = 100;
const WRITE_BYTES: u64 = 512;
/// Far more than is written, and written before: what a log does that prepares its segments.
const FILE_BYTES: usize = 4 << 20;

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
