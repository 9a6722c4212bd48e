//! Quorate: a replicated key-value store that speaks the etcd v3 API.

pub mod api;
pub mod config;
pub mod consensus;
pub mod handle;
pub mod http;
pub mod listen;
pub mod mvcc;
pub mod replica;
pub mod runtime;
pub mod state_machine;
pub mod storage;
pub mod telemetry;
pub mod view;
