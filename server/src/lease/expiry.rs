//! The leader's deadlines.
//!
//! A renewal moves the deadline of its lease and nothing else. The queue in which leases wait for their
//! deadlines learns of it when it comes to the old place: a lease that lives longer is queued again.
//!
//! ```text
//! now 0    grant 1 (2 s), grant 2 (3 s)     queue: 1 at 2 s, 2 at 3 s
//! now 1 s  renew 1                          queue: 1 at 2 s, 2 at 3 s     1 ends at 3 s
//! now 2 s  1 comes up and lives on          queue: 2 at 3 s, 1 at 3 s
//! now 3 s  both are to be revoked           revoking: 1, 2
//! ```
//!
//! A lease that is to be revoked stays so: its revocation may be under way and take effect at any time,
//! so it is never renewed again, and is proposed again when it does not come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Lease;
use crate::mutants::{self, Mutant};

const MS_PER_S: u64 = 1000;

/// Leases that one step looks at, about a millisecond of work: most of those that come up live on.
const LOOKS_MAX: usize = 4000;

/// Spans of time that a leader goes by.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often what is left of a lease is written down, in milliseconds; `None` for never.
    pub checkpoint_ms: Option<u64>,
    /// A revocation that did not come back is proposed again after this, in milliseconds.
    pub retry_ms: u64,
    /// The most revocations under way.
    pub revoking_max: usize,
}

/// What becomes of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// There is no such lease.
    Unknown,
    /// It has its full time again.
    Renewed,
    /// Its time is over: the answer is that it is gone, once it is.
    Expired,
    /// It has its full time again here, but the records say otherwise, or will: before the answer a
    /// checkpoint of 0 must be committed. [`Expiry::clearing`] is told that one will be proposed, and
    /// [`Expiry::cleared`] that it took effect.
    Checkpointed,
}

/// What a checkpoint of 0 did that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// The records grant the lease its full time.
    All,
    /// Another one is under way, and what was written down before it may be too.
    Part,
    /// Nothing: the lease is gone, or is being revoked.
    Nothing,
}

/// Deadlines of all leases while this member leads; none otherwise.
#[derive(Debug)]
pub struct Expiry {
    timing: Timing,
    /// Elapsed time of this member, in milliseconds.
    now_ms: u64,
    deadlines: BTreeMap<i64, Deadline>,
    /// Each lease that is not being revoked, by a time at or before its deadline.
    queue: BTreeSet<(u64, i64)>,
    /// Leases whose remaining time is to be written down, by when.
    checkpoints: BTreeSet<(u64, i64)>,
    /// Leases that were granted or renewed since the last tick.
    fresh: Vec<i64>,
    revoking: usize,
    /// Revocations under way by when they are proposed again, and some that came back.
    retries: VecDeque<(u64, i64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Deadline {
    ends_ms: u64,
    ttl_ms: u64,
    /// Its place in `queue`.
    queued_ms: u64,
    /// Its place in `checkpoints`, if it has one.
    checkpoint_ms: Option<u64>,
    is_fresh: bool,
    is_revoking: bool,
    /// The records may hold a remaining time.
    is_recorded: bool,
    /// The remaining time that was last to be written down, in seconds, until it is.
    writing_s: Option<i64>,
    /// Checkpoints of 0 that have not taken effect. Nothing else is written down meanwhile: it would
    /// undo what a renewal is answered by. One that raft does not take is proposed again, so all of them
    /// take effect while this member leads.
    clearing: u32,
}

impl Deadline {
    /// The records may hold a remaining time, now or once what is under way is applied.
    fn is_checkpointed(&self) -> bool {
        self.is_recorded || self.writing_s.is_some()
    }

    /// Its full time, counted from now.
    fn extend_from(&mut self, now_ms: u64) {
        self.ends_ms = self.ends_ms.max(now_ms.saturating_add(self.ttl_ms));
    }
}

impl Expiry {
    /// No deadlines.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            now_ms: 0,
            deadlines: BTreeMap::new(),
            queue: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            fresh: Vec::new(),
            revoking: 0,
            retries: VecDeque::new(),
        }
    }

    /// Lets time pass. What was granted or renewed since the last call counts from now on: when exactly
    /// it was, nobody knows, and no lease may end early.
    pub fn pass(&mut self, elapsed_ms: u64) {
        self.now_ms = self.now_ms.saturating_add(elapsed_ms);
        for id in std::mem::take(&mut self.fresh) {
            if let Some(deadline) = self.deadlines.get_mut(&id).filter(|lease| lease.is_fresh) {
                deadline.is_fresh = false;
                deadline.extend_from(self.now_ms);
            }
        }
    }

    /// This member leads: every lease has what the records say is left of it, and `extend_ms` on top.
    /// `leases` come by ID, so that the sets are built from sorted lists at once.
    pub fn promote(&mut self, leases: impl Iterator<Item = Lease>, extend_ms: u64) {
        self.demote();
        let (now_ms, every_ms) = (self.now_ms, self.timing.checkpoint_ms);
        let deadline = |lease: Lease| {
            let left_s =
                if lease.remaining_ttl_s > 0 { lease.remaining_ttl_s } else { lease.ttl_s };
            let ends_ms = now_ms.saturating_add(to_ms(left_s)).saturating_add(extend_ms);
            let is_long = |every_ms: &u64| to_ms(left_s) > *every_ms;
            let deadline = Deadline {
                ends_ms,
                ttl_ms: to_ms(lease.ttl_s),
                queued_ms: ends_ms,
                checkpoint_ms: every_ms
                    .filter(is_long)
                    .map(|every_ms| now_ms.saturating_add(every_ms)),
                is_recorded: lease.remaining_ttl_s > 0,
                ..Deadline::default()
            };
            (lease.id, deadline)
        };
        self.deadlines = leases.map(deadline).collect();
        let all = || self.deadlines.iter();
        self.queue = all().map(|(&id, deadline)| (deadline.queued_ms, id)).collect();
        self.checkpoints =
            all().filter_map(|(&id, deadline)| Some((deadline.checkpoint_ms?, id))).collect();
    }

    /// This member does not lead any more: it has no say about the end of any lease.
    pub fn demote(&mut self) {
        *self = Self { now_ms: self.now_ms, ..Self::new(self.timing) };
    }

    /// There is a new lease.
    pub fn granted(&mut self, lease: Lease) {
        self.revoked(lease.id);
        let ttl_ms = to_ms(lease.ttl_s);
        let ends_ms = self.now_ms.saturating_add(ttl_ms);
        let deadline = Deadline { ttl_ms, ends_ms, queued_ms: ends_ms, ..Deadline::default() };
        self.deadlines.insert(lease.id, deadline);
        self.queue.insert((ends_ms, lease.id));
        self.refresh(lease.id);
    }

    /// A lease is gone. Whether it was this member who ended it.
    pub fn revoked(&mut self, id: i64) -> bool {
        let Some(deadline) = self.deadlines.remove(&id) else { return false };
        if let Some(due_ms) = deadline.checkpoint_ms {
            self.checkpoints.remove(&(due_ms, id));
        }
        if deadline.is_revoking {
            self.revoking -= 1;
        } else {
            self.queue.remove(&(deadline.queued_ms, id));
        }
        deadline.is_revoking
    }

    /// Gives a lease its full time again, if it may have it.
    pub fn renew(&mut self, id: i64) -> Renewal {
        let Some(deadline) = self.deadlines.get_mut(&id) else { return Renewal::Unknown };
        if deadline.is_revoking || (deadline.ends_ms <= self.now_ms && !deadline.is_fresh) {
            return Renewal::Expired;
        }
        let must_clear = deadline.is_checkpointed() && !mutants::on(Mutant::CheckpointKept);
        self.refresh(id);
        if must_clear { Renewal::Checkpointed } else { Renewal::Renewed }
    }

    /// A checkpoint of 0 is proposed for a lease, before anything else is written down.
    pub fn clearing(&mut self, id: i64) {
        if let Some(deadline) = self.deadlines.get_mut(&id) {
            deadline.clearing += 1;
        }
    }

    /// A checkpoint of 0 took effect.
    pub fn cleared(&mut self, id: i64) -> Cleared {
        let Some(deadline) = self.deadlines.get_mut(&id) else { return Cleared::Nothing };
        deadline.is_recorded = false;
        let is_own = deadline.clearing > 0;
        deadline.clearing = deadline.clearing.saturating_sub(1);
        if deadline.is_revoking {
            return Cleared::Nothing;
        }
        if deadline.clearing > 0 {
            return Cleared::Part;
        }
        if is_own {
            // What was to be written down before it was, or was lost; nothing was since.
            deadline.writing_s = None;
        }
        self.refresh(id);
        Cleared::All
    }

    /// The records hold a remaining time, whatever was thought before.
    pub fn checkpointed(&mut self, id: i64, left_s: i64) {
        if let Some(deadline) = self.deadlines.get_mut(&id) {
            deadline.is_recorded = true;
            deadline.writing_s.take_if(|writing_s| *writing_s == left_s);
        }
    }

    /// Whether [`Expiry::take_expired`] has something to look at.
    pub fn has_expired(&self) -> bool {
        let has_room = self.revoking < self.timing.revoking_max;
        let is_due =
            |due: Option<&(u64, i64)>| due.is_some_and(|(due_ms, _)| *due_ms <= self.now_ms);
        is_due(self.retries.front()) || (has_room && is_due(self.queue.first()))
    }

    /// Leases to be revoked: those whose time is over, as many as may be under way, and those whose
    /// revocation did not come back. It looks at some thousands; [`Expiry::has_expired`] says whether there
    /// are more.
    pub fn take_expired(&mut self) -> Vec<i64> {
        let mut expired = Vec::new();
        let again_ms = self.now_ms.saturating_add(self.timing.retry_ms);
        for _ in 0..mutants::step(LOOKS_MAX) {
            if let Some((_, id)) = self.retries.pop_front_if(|(due_ms, _)| *due_ms <= self.now_ms) {
                if self.deadlines.get(&id).is_some_and(|deadline| deadline.is_revoking) {
                    expired.push(id);
                }
            } else if self.revoking < self.timing.revoking_max
                && let Some(&(due_ms, id)) = self.queue.first()
                && due_ms <= self.now_ms
            {
                expired.extend(self.end_if_over(id));
            } else {
                break;
            }
        }
        self.retries.extend(expired.iter().map(|&id| (again_ms, id)));
        expired
    }

    /// Looks at the first lease of the queue: it ends, or is queued again.
    fn end_if_over(&mut self, id: i64) -> Option<i64> {
        self.queue.pop_first();
        let deadline = self.deadlines.get_mut(&id).expect("what is queued has a deadline");
        if deadline.is_fresh || deadline.ends_ms > self.now_ms {
            deadline.queued_ms = deadline.ends_ms.max(self.now_ms.saturating_add(1));
            self.queue.insert((deadline.queued_ms, id));
            return None;
        }
        deadline.is_revoking = true;
        self.revoking += 1;
        Some(id)
    }

    /// Looks at no more than `looks_max` leases whose time has come, and returns those of which to write
    /// down what is left, in seconds.
    pub fn take_checkpoints(&mut self, looks_max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        let Some(every_ms) = self.timing.checkpoint_ms else { return due };
        for _ in 0..looks_max {
            let Some(&(due_ms, id)) =
                self.checkpoints.first().filter(|(due_ms, _)| *due_ms <= self.now_ms)
            else {
                break;
            };
            self.checkpoints.remove(&(due_ms, id));
            let deadline = self.deadlines.get_mut(&id).expect("what is queued has a deadline");
            let left_ms = deadline.ends_ms.saturating_sub(self.now_ms);
            let left_s = to_s(left_ms);
            // One that was just renewed has all of it, whatever was thought a moment ago.
            let is_full =
                deadline.is_fresh || deadline.clearing > 0 || to_ms(left_s) >= deadline.ttl_ms;
            deadline.checkpoint_ms = None;
            if left_ms > 0 && !deadline.is_revoking && !is_full {
                deadline.writing_s = Some(left_s);
                due.push((id, left_s));
            }
            if is_full || left_ms > every_ms {
                let next_ms = self.now_ms.saturating_add(every_ms);
                deadline.checkpoint_ms = Some(next_ms);
                self.checkpoints.insert((next_ms, id));
            }
        }
        due
    }

    /// What is left of a lease, in milliseconds.
    pub fn remaining_ms(&self, id: i64) -> Option<u64> {
        let deadline = self.deadlines.get(&id)?;
        Some(deadline.ends_ms.saturating_sub(self.now_ms))
    }

    /// Starts the time of a lease anew.
    fn refresh(&mut self, id: i64) {
        let Some(deadline) = self.deadlines.get_mut(&id) else { return };
        deadline.extend_from(self.now_ms);
        if !std::mem::replace(&mut deadline.is_fresh, true) {
            self.fresh.push(id);
        }
        if let Some(every_ms) = self.timing.checkpoint_ms
            && deadline.checkpoint_ms.is_none()
            && deadline.ttl_ms > every_ms
        {
            let next_ms = self.now_ms.saturating_add(every_ms);
            deadline.checkpoint_ms = Some(next_ms);
            self.checkpoints.insert((next_ms, id));
        }
    }
}

/// A time to live in milliseconds; what is below zero has passed.
fn to_ms(ttl_s: i64) -> u64 {
    u64::try_from(ttl_s).unwrap_or(0).saturating_mul(MS_PER_S)
}

/// Seconds, a part of one counted as one.
fn to_s(left_ms: u64) -> i64 {
    i64::try_from(left_ms.div_ceil(MS_PER_S)).unwrap_or(i64::MAX)
}
