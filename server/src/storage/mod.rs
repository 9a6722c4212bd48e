//! Everything on disk: the data dir, the log, the state store, checkpoints of the index. I/O.

pub mod checkpoint;
pub mod data_dir;
pub mod flusher;
pub mod fs;
pub mod image;
pub mod os_fs;
pub mod reserve;
pub mod state;
pub mod wal;

#[cfg(test)]
pub(crate) mod tests;
