//! Whole members against each other, over a network and disks that fail by a seed.

mod chaos;
mod cluster;
mod lone_voter;
mod members;
mod messages;
