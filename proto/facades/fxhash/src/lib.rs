//! The one name that the `raft` crate takes from `fxhash`.
//!
//! `raft` 0.7 keys its maps of members with `fxhash::FxHasher`. That crate is unmaintained; its
//! successor `rustc-hash` is the same idea, kept. This facade takes the place of the former by
//! `[patch.crates-io]`, so that the published `raft` builds unchanged.
//!
//! The hasher has no random seed: `raft` iterates these maps when it sends, and the same history must
//! give the same messages in the same order in every run.

pub use rustc_hash::FxHasher;

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::FxHasher;

    #[test]
    fn two_hashers_agree_and_tell_members_apart() {
        let hash = |id: u64| {
            let mut hasher = FxHasher::default();
            hasher.write_u64(id);
            hasher.finish()
        };
        assert_eq!(hash(0x8e9e_05c5_2164_694d), hash(0x8e9e_05c5_2164_694d));
        assert_ne!(hash(1), hash(2));
    }
}
