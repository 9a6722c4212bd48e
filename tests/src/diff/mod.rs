//! Random requests to two servers, whose replies must be equal.
//!
//! One seed makes one history: the [`generate::Generator`] draws requests over a small key space,
//! so that they meet each other's keys, revisions and compactions. Each is sent to both servers at
//! once ([`exchange`]), and both replies are brought to a form in which they can be equal
//! ([`normal`]): ids and terms are masked, ties of an unstable sort are put in order. After every
//! 1,000 requests the history is compacted physically, and `HashKV` is compared at each revision
//! that is left. Leases ([`leases`]) come and go, with the keys of puts that name them. Watches go on
//! beside the requests ([`watches`]): now and then everything is brought to rest, and what each watcher
//! was sent is compared. A difference is printed, and a shorter history that shows one is searched
//! ([`shrink`]).
//!
//! The first request that differs ends the run: behind it the two states are not comparable.

pub mod describe;
pub mod exchange;
pub mod generate;
pub mod leases;
pub mod normal;
pub mod operation;
pub mod rng;
pub mod run;
pub mod shrink;
pub mod watches;
