//! The simulator: everything outside the pure core, decided by one seed.

pub mod coverage;
pub mod fs;
pub mod history;
pub mod invariants;
pub mod leases;
pub mod rng;
pub mod runner;
pub mod trace;
pub mod watching;
pub mod workload;
pub mod world;
