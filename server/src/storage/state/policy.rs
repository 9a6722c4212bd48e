//! When to flush. Pure.

/// The bounds of what may wait in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Unflushed bytes that are worth a flush.
    pub bytes_max: u64,
    /// Ticks after which anything unflushed is flushed.
    pub ticks_max: u64,
}

impl FlushPolicy {
    /// Flushes that fit into a quarter of the store's cache: beyond, redb runs out of room for dirty
    /// pages and writes most of them twice.
    pub fn for_cache(cache_bytes: usize, ticks_max: u64) -> Self {
        Self { bytes_max: (cache_bytes / 4) as u64, ticks_max }
    }

    /// Whether to flush now: `dirty` says whether anything changed since the last flush began,
    /// `ticks` how long ago that was.
    pub fn is_due(&self, unflushed_bytes: u64, dirty: bool, ticks: u64) -> bool {
        dirty && (unflushed_bytes >= self.bytes_max || ticks >= self.ticks_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_due_by_size_or_by_time_and_never_when_nothing_changed() {
        let policy = FlushPolicy::for_cache(64 << 20, 30);
        assert!(!policy.is_due(0, true, 29));
        assert!(policy.is_due(0, true, 30));
        assert!(policy.is_due(16 << 20, true, 0));
        assert!(!policy.is_due((16 << 20) - 1, true, 0));
        assert!(!policy.is_due(0, false, 1000));
    }
}
