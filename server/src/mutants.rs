//! Seeded mistakes and shrunken bounds, for the simulator alone.
//!
//! A check that never fails shows nothing. So the places where a mistake would lose data each have a
//! hook that makes it, and the simulator must find every one. The feature `mutants`, which only the
//! crate of tests asks for, compiles the switch; without it `on` is a constant. Nothing but code can
//! turn it: no flag, no variable. It holds for one thread, because each simulated server runs on one.
//!
//! ```text
//! if !mutants::on(Mutant::AcknowledgeBeforeSync) { log.sync()? }
//! ```

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Writes are reported as persisted without a sync.
    AcknowledgeBeforeSync,
    /// Compaction deletes the newest rows first, tombstones before the puts that they end.
    TombstoneBeforePuts,
    /// The window gives rows up when a flush takes them.
    EvictedBeforeFlush,
    /// A new segment begins without the hard state, and the batch that began it has none either.
    HardStateLost,
    /// The applied index that is stored with a flush is one too low.
    DoubleApply,
    /// Compaction does not wait for pinned reads.
    PinIgnored,
    /// A checkpoint older than the compaction is used.
    OutdatedCheckpoint,
    /// Readers see the first change of the newest transaction only.
    HalfTransaction,
    /// A flush leaves the last row of the newest transaction out.
    HalfFlush,
    /// A new segment gets its name, and the folder is not synced.
    RenameNotSynced,
    /// A watcher that is behind goes on past a compaction of what it wants.
    WatchPastCompaction,
    /// A watcher is told how far it has come while events of that time are still to come.
    ProgressAheadOfEvents,
    /// A watcher that has caught up with the store is sent the last revision again.
    HandOverTwice,
    /// The renewal of a lease is answered although what was left of it is still written down.
    CheckpointKept,
    /// A put cannot name a lease of which what is left is written down.
    CheckpointedUnknown,
    /// The end of a lease leaves its last key.
    RevokeLeavesKey,
    /// A key that gets another lease, or none, stays attached to the one before.
    DetachForgotten,
    /// What the log of events drops is dropped for whoever has yet to be sent it, too.
    LiveEventLost,
    /// The end of a lease whose time is over is not proposed.
    ExpiryForgotten,
    /// A tick after a pause stands for all of it.
    PauseCountsWhole,
    /// A disk without room for a checkpoint ends the process.
    CheckpointNeedsRoom,
    /// A checkpoint gets its name, and its content is not synced.
    CheckpointNotSynced,
    /// A slice of a checkpoint takes the beginning of its first key from the slice before.
    SliceNeedsTheOneBefore,
    /// A disk that refuses a copy of the state store ends the process.
    RewriteNeedsDisk,
}

#[cfg(feature = "mutants")]
thread_local! {
    static SELECTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
    static BOUND: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// Makes a mistake from now on, on this thread; `None` makes none.
#[cfg(feature = "mutants")]
pub fn select(mutant: Option<Mutant>) {
    SELECTED.set(mutant);
}

/// Lets no step of this thread do more than `bound` keys or rows, so that small data takes many.
#[cfg(feature = "mutants")]
pub fn shrink_steps(bound: usize) {
    BOUND.set(bound.max(1));
}

/// Whether this mistake is to be made.
#[cfg(feature = "mutants")]
pub(crate) fn on(mutant: Mutant) -> bool {
    SELECTED.get() == Some(mutant)
}

/// Whether this mistake is to be made.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}

/// What a step may do instead of `shipped` keys or rows.
#[cfg(feature = "mutants")]
pub(crate) fn step(shipped: usize) -> usize {
    shipped.min(BOUND.get())
}

/// What a step may do.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn step(shipped: usize) -> usize {
    shipped
}
