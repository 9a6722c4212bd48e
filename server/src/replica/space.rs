//! Want of room, and the writes that are refused for it.
//!
//! Whoever is refused for want of room finds the alarm that says so, as in etcd: so a write that found
//! the quota used up waits until the alarm is applied. They come by thousands before it is, and it is
//! proposed once for all of them.

use bytes::Bytes;

use super::event::{Effect, Reply, RequestError, RequestId};
use crate::state_machine::{Alarm, AlarmKind, StateMachine, own};

/// Refused writes that wait for the alarm; more are refused at once. As many as wait for the owner.
const REFUSED_MAX: usize = 10_000;

/// How often it is looked at whether the alarm can be taken back.
const DISARM_INTERVAL_MS: u64 = 5_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Space {
    /// The alarm of this member for want of room.
    alarm: Alarm,
    /// Below this size in use it is taken back; `None` leaves that to people.
    disarm_below_bytes: Option<u64>,
    /// How long ago that was last looked at.
    since_look_ms: u64,
    /// The file system is almost full.
    pub(super) disk_is_low: bool,
    /// So little is left that the log keeps nothing that is not needed.
    pub(super) disk_is_tight: bool,
    /// The alarm is under way until this tick; then its proposal counts as lost.
    raise_tick: u64,
    /// Refused writes, each with the tick at which it waits no longer; ascending.
    refused: Vec<(RequestId, u64)>,
}

impl Space {
    /// The room of the member `member_id`, which takes its alarm back below `disarm_below_bytes`.
    pub(super) fn new(member_id: u64, disarm_below_bytes: Option<u64>) -> Self {
        Self {
            alarm: Alarm { member_id, kind: AlarmKind::NoSpace },
            disarm_below_bytes,
            since_look_ms: 0,
            disk_is_low: false,
            disk_is_tight: false,
            raise_tick: 0,
            refused: Vec::new(),
        }
    }

    /// Whether this member's alarm is up.
    pub(super) fn is_out(&self, machine: &StateMachine) -> bool {
        machine.has_alarm(self.alarm)
    }

    /// The command that raises the alarm, unless it is up or under way; `again_ticks` later it may be
    /// proposed again.
    pub(super) fn raise(
        &mut self,
        now_tick: u64,
        again_ticks: u64,
        machine: &StateMachine,
    ) -> Option<Bytes> {
        if now_tick < self.raise_tick || self.is_out(machine) {
            return None;
        }
        self.raise_tick = now_tick + again_ticks;
        Some(own::raise(self.alarm))
    }

    /// Lets time pass; whether it is time to look if the alarm can be taken back by itself.
    pub(super) fn pass(&mut self, elapsed_ms: u64) -> bool {
        self.since_look_ms += elapsed_ms;
        let is_due = self.since_look_ms >= DISARM_INTERVAL_MS;
        if is_due {
            self.since_look_ms = 0;
        }
        is_due && self.disarm_below_bytes.is_some()
    }

    /// The command that takes the alarm back, if there is room again.
    pub(super) fn disarm(&self, in_use_bytes: u64, machine: &StateMachine) -> Option<Bytes> {
        let below_bytes = self.disarm_below_bytes?;
        let has_room = in_use_bytes < below_bytes && !self.disk_is_low;
        (has_room && self.is_out(machine)).then(|| own::disarm(self.alarm))
    }

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
        let (mut space, mut effects) = (Space::new(1, None), Vec::new());
        for id in 0..REFUSED_MAX as u64 + 3 {
            space.refuse((RequestId(id), 5), &mut effects);
        }
        assert_eq!(effects.len(), 3, "they are refused at once");
        space.expire(5, &mut effects);
        assert_eq!(effects.len(), REFUSED_MAX + 3);
        assert!(!space.is_awaited());
    }
}
