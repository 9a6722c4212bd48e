//! What the tests of Quorate share: a simulator of everything outside the pure core, and a naive
//! model of the API that shares no code with the server.

pub mod model;
pub mod sim;
