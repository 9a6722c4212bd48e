//! What the tests of Quorate share: a simulator of everything outside the pure core, a naive model of
//! the API that shares no code with the server, real processes beside a real etcd, and a lean load.

pub mod compare;
pub mod conformance;
pub mod diff;
pub mod load;
pub mod model;
pub mod process;
pub mod sim;
