//! A time in which nobody asks for anything.
//!
//! Faults end most lives before the time of any lease is over, so whether leases end at all shows only in
//! a life that goes on.

use super::{End, Life, Run, Turn, Violation};
use crate::sim::world::leasing::QUIET_MS;

impl Run {
    /// Lets time pass until every lease must have ended.
    pub(super) fn outlast(&mut self, life: &mut Life) -> Result<End, Violation> {
        let until_ms = self.leasing.served_ms() + QUIET_MS;
        while self.leasing.served_ms() < until_ms {
            for turn in [Turn::Tick, Turn::Worker, Turn::Segment, Turn::Owner] {
                let turned = self.turn(life, turn)?;
                if let Some(end) = self.after(life, turned)? {
                    return Ok(end);
                }
            }
            self.look_at_leases(life)?;
        }
        Ok(End::Done)
    }
}
