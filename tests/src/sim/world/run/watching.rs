//! Watch clients in a run: they get a turn after each turn of anything else.

use quorate_proto::etcdserverpb::CompactionRequest;

use super::Run;
use crate::model::Request;
use crate::sim::history::Event;
use crate::sim::invariants::{Violation, WatchResponsesFit, named};
use crate::sim::watching::{Told, revision_of};
use crate::sim::world::member::Life;
use crate::sim::world::watchers::Trouble;

impl Run {
    /// The member serves: whoever watched goes on.
    pub(super) fn resume_watches(&mut self, life: &Life) -> Result<(), Violation> {
        self.watchers.resume(life);
        self.tell()
    }

    /// One turn of the watch clients, or of whoever tells them.
    pub(super) fn watch(&mut self, life: &Life) -> Result<(), Violation> {
        if self.faults.on && self.watchers.has_history_compacted() {
            let revision = self.referee.history().known_revision();
            self.asking
                .urgent
                .push(Request::Compact(CompactionRequest { revision, physical: true }));
        }
        let turned = self.watchers.turn(life);
        self.watched(life, turned)
    }

    /// All that was begun is over: whoever reads must have been told of everything.
    pub(super) fn rest_watches(&mut self, life: &Life) -> Result<(), Violation> {
        let rested = self.watchers.rest(life);
        self.watched(life, rested)
    }

    fn watched(&mut self, life: &Life, turned: Result<(), Trouble>) -> Result<(), Violation> {
        if let Some(doing) = self.watchers.take_doing() {
            self.doing = doing;
            self.met_faults();
        }
        self.tell()?;
        match turned {
            Ok(()) => Ok(()),
            Err(Trouble::Rows(error)) => {
                self.record.trace.line(format_args!("a watch cannot read: {error}"));
                life.handle.fail(&error);
                Ok(())
            }
            Err(Trouble::Odd(text)) => named(WatchResponsesFit::NAME, Err(text)),
        }
    }

    fn tell(&mut self) -> Result<(), Violation> {
        for (watcher, told) in self.watchers.take_told() {
            match &told {
                Told::Events { revision, events, .. } => {
                    let first = events.first().map_or(0, revision_of);
                    let (last, many) = (events.last().map_or(0, revision_of), events.len());
                    self.record.trace.line(format_args!(
                        "watcher {watcher}: {many} events, {first} to {last}, header {revision}"
                    ));
                }
                told => self.record.trace.line(format_args!("watcher {watcher}: {told:?}")),
            }
            self.referee.observe(&Event::Watched { watcher, told: &told })?;
        }
        Ok(())
    }
}
