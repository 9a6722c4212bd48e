//! Whole members against each other, over a network and disks that fail by a seed.

mod chaos;
mod cluster;
mod lone_voter;
mod members;
mod messages;

/// The owner is a thread of its own.
const fn is_send<T: Send>() {}
const _: () = is_send::<super::Consensus>();
