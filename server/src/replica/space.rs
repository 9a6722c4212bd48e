//! Want of room, and the writes that are refused for it.
//!
//! Whoever is refused for want of room finds the alarm that says so, as in etcd: so a write that found
//! the quota used up waits until the alarm is applied. They come by thousands before it is, and it is
//! proposed once for all of them.

use super::event::{Effect, Reply, RequestError, RequestId};

/// Refused writes that wait for the alarm; more are refused at once. As many as wait for the owner.
const REFUSED_MAX: usize = 10_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// The file system is almost full.
    pub(super) disk_is_low: bool,
    /// The alarm is under way until this tick; then its proposal counts as lost.
    raise_tick: u64,
    /// Refused writes, each with the tick at which it waits no longer; ascending.
    refused: Vec<(RequestId, u64)>,
}

impl Space {
    /// Takes a write that is refused once the alarm is up.
    pub(super) fn refuse(&mut self, refused: (RequestId, u64), effects: &mut Vec<Effect>) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(refused);
        } else {
            reply(refused.0, effects);
        }
    }

    /// Whether refused writes wait for the alarm.
    pub(super) fn is_awaited(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether to propose the alarm now; `again_ticks` later it may be proposed again.
    pub(super) fn may_raise(&mut self, now_tick: u64, again_ticks: u64) -> bool {
        let may = now_tick >= self.raise_tick;
        if may {
            self.raise_tick = now_tick + again_ticks;
        }
        may
    }

    /// The alarm is up: whoever waited for it is refused, and none is under way.
    pub(super) fn raised(&mut self, effects: &mut Vec<Effect>) {
        self.raise_tick = 0;
        self.refused.drain(..).for_each(|(id, _)| reply(id, effects));
    }

    /// Refuses those who waited too long.
    pub(super) fn expire(&mut self, now_tick: u64, effects: &mut Vec<Effect>) {
        let late = self.refused.partition_point(|&(_, deadline_tick)| deadline_tick <= now_tick);
        self.refused.drain(..late).for_each(|(id, _)| reply(id, effects));
    }
}

fn reply(id: RequestId, effects: &mut Vec<Effect>) {
    effects.push(Effect::Reply { id, reply: Reply::Failed(RequestError::NoSpace) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_are_bounded() {
        let (mut space, mut effects) = (Space::default(), Vec::new());
        for id in 0..REFUSED_MAX as u64 + 3 {
            space.refuse((RequestId(id), 5), &mut effects);
        }
        assert_eq!(effects.len(), 3, "they are refused at once");
        space.expire(5, &mut effects);
        assert_eq!(effects.len(), REFUSED_MAX + 3);
        assert!(!space.is_awaited());
    }
}
