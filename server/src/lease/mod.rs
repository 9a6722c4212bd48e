//! Leases: a time to live that keys can be attached to, and which ends with their deletion. Pure.
//!
//! Two halves that know nothing of each other:
//!
//! - [`Lessor`]: the replicated records, changed by entries alone and equal on every member: which leases
//!   there are, their time to live, what of it was left at the last *checkpoint*, and their keys.
//! - [`Expiry`]: the leader's deadlines, in its own elapsed time. Nobody else has any, and they say
//!   nothing about the records: when a deadline passes, the leader proposes to revoke.
//!
//! ```text
//! entry   grant 7, 60 s       Lessor: 7 -> 60 s, no keys       Expiry: 7 ends at  60 s
//! entry   put k, lease 7      Lessor: 7 -> 60 s, {k}
//! client  renew 7 at 40 s                                      Expiry: 7 ends at 100 s
//! entry   checkpoint 7, 20 s  Lessor: 7 -> 60 s, 20 s left     what a new leader would begin with
//! clock   100 s                                                Expiry: 7 is to be revoked
//! entry   revoke 7            Lessor: nothing; k is deleted    Expiry: nothing
//! ```
//!
//! A deadline is never early: what happens between two ticks counts from the second on.

mod expiry;
mod lessor;
#[cfg(test)]
mod tests;

pub use expiry::{Cleared, Expiry, Renewal, Timing};
pub use lessor::{Changed, Grant, LEASE_BYTES, Lease, LeaseCounts, LeaseError, Lessor, TTL_S_MAX};
