//! Our own random election timeouts, so that a run can be repeated from its seed.

/// A `SplitMix64` generator: 64 bits of state, every seed good.
///
/// Raft draws its timeouts from the generator of the process. Each draw is replaced by one from here.
#[derive(Clone, Debug)]
pub(super) struct Jitter {
    state: u64,
}

impl Jitter {
    /// Members that were given the same seed still draw differently.
    pub(super) fn new(seed: u64, id: u64) -> Self {
        let mut member = Self { state: id };
        Self { state: seed ^ member.next() }
    }

    /// The next election timeout: at least `ticks`, less than twice that.
    pub(super) fn election_timeout(&mut self, ticks: usize) -> usize {
        let draw = (u128::from(self.next()) * ticks as u128) >> 64;
        ticks + usize::try_from(draw).expect("the product's upper half is less than `ticks`")
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Jitter;

    #[test]
    fn every_timeout_of_the_range_is_drawn_and_no_other() {
        let mut jitter = Jitter::new(1, 2);
        let mut seen = [0_u32; 30];
        for _ in 0..2_000 {
            seen[jitter.election_timeout(10)] += 1;
        }
        assert!(seen[..10].iter().chain(&seen[20..]).all(|&count| count == 0), "{seen:?}");
        assert!(seen[10..20].iter().all(|&count| count > 100), "{seen:?}");
    }

    #[test]
    fn members_with_one_seed_draw_differently_and_the_same_member_the_same() {
        let draws = |id| {
            let mut jitter = Jitter::new(9, id);
            (0..20).map(|_| jitter.election_timeout(10)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
