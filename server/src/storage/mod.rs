//! Everything on disk: the data dir, the log, the state store, checkpoints of the index. I/O.

pub mod checkpoint;
pub mod fs;
pub mod state;
