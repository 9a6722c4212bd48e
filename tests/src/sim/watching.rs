//! What watchers were told, in the words of their clients, until it can be compared with the history.
//!
//! A client may see an event before the reply to the write is delivered, so what was told waits until
//! the model has come to its revision. A watcher lives over restarts: its client creates it again
//! where it was.
//!
//! ```text
//! created, from 5           upto 4
//! events 5, 7; header 7     waits for revision 7; then: are 5 and 7 all changes in (4, 7]?   upto 7
//! progress 9                are there none in (7, 9]?                                        upto 9
//! crash; created, from 10   upto 9
//! ```

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_proto::mvccpb::{self, KeyValue, event::EventType};

use crate::model::{Model, in_range};

/// Names a watcher of a run, whatever stream it is on.
pub type WatcherId = u64;

/// Stands for all watchers there are.
pub const EVERYBODY: WatcherId = 0;

/// What a watcher is to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The first key.
    pub key: Bytes,
    /// As in a request: empty for one key, `\0` for no end.
    pub range_end: Bytes,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
    /// Send the previous version along.
    pub prev_kv: bool,
    /// Responses may come in parts.
    pub fragment: bool,
}

/// What a client was told about one watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It exists, for the first time or again.
    Created {
        /// What it is told of.
        wish: Wish,
        /// From which revision on.
        from: i64,
        /// The header's revision.
        revision: i64,
    },
    /// Something happened: one response, its parts put together.
    Events {
        /// The header's revision.
        revision: i64,
        /// What.
        events: Vec<mvccpb::Event>,
        /// The member's compact revision when it came.
        compacted: i64,
    },
    /// It has been told everything up to a revision.
    Progress {
        /// Which.
        revision: i64,
    },
    /// It ended, because what it wanted is compacted.
    Compacted {
        /// The compact revision.
        compacted: i64,
    },
    /// The stream has nothing more to send and sleeps; everything that was woken has done its work.
    Rest {
        /// The member's current revision.
        revision: i64,
        /// What the stream answered to the question how far it is, if it had to answer.
        answered: Option<Option<i64>>,
    },
    /// The window gave rows up to this revision up before the hub saw them: it does not know whom they
    /// concern. For [`EVERYBODY`].
    Overtaken {
        /// Which.
        revision: i64,
    },
    /// Its client does not want it any more.
    Ended,
}

/// Something that was told, now that the model has come to it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// By which watcher.
    pub watcher: WatcherId,
    /// What it wants.
    pub wish: Wish,
    /// It has been told everything up to here before.
    pub upto: i64,
    /// The revision at which it had everything that there was, if it has not been told of anything since, and
    /// the hub has seen all that happened. One that waits for the future has had everything before it.
    pub had_all_at: Option<i64>,
    /// What.
    pub told: Told,
}

/// All watchers of a run.
#[derive(Debug, Default)]
pub struct Watched {
    records: BTreeMap<WatcherId, Record>,
    heard: Vec<Heard>,
    newest: i64,
    overtaken: i64,
}

#[derive(Debug)]
struct Record {
    wish: Wish,
    upto: i64,
    /// A revision at which it had everything, and behind which it was told of nothing.
    had_all_at: Option<i64>,
    waiting: VecDeque<Told>,
}

impl Watched {
    /// The newest revision in anything that was told.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// What the last event of the run allowed to compare.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// Takes note of what a watcher was told.
    pub(super) fn hear(&mut self, watcher: WatcherId, told: &Told) {
        self.newest = self.newest.max(told.revision());
        if let Told::Overtaken { revision } = told {
            self.overtaken = self.overtaken.max(*revision);
        }
        if let Told::Created { wish, .. } = told {
            self.records.entry(watcher).or_insert_with(|| Record {
                wish: wish.clone(),
                upto: 0,
                had_all_at: None,
                waiting: VecDeque::new(),
            });
        }
        if let Some(record) = self.records.get_mut(&watcher) {
            record.waiting.push_back(told.clone());
        }
    }

    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }

    /// Looks for what the model has come to.
    pub(super) fn settle(&mut self, model: &Model) {
        let heard = &mut self.heard;
        self.records.retain(|&watcher, record| {
            let is_known = |told: &mut Told| told.revision() <= model.revision();
            while let Some(told) = record.waiting.pop_front_if(is_known) {
                let is_over = matches!(told, Told::Ended | Told::Compacted { .. });
                heard.push(record.hear((watcher, told), self.overtaken));
                if is_over {
                    return false;
                }
            }
            true
        });
    }
}

impl Record {
    fn hear(&mut self, (watcher, told): (WatcherId, Told), overtaken: i64) -> Heard {
        // A client may hear late of what was true before the hub was overtaken.
        let (upto, had_all_at) = (self.upto, self.had_all_at.filter(|at| *at >= overtaken));
        match &told {
            Told::Created { from, revision, .. } => {
                self.upto = from - 1;
                self.had_all_at = (from > revision).then_some(revision - 1);
            }
            Told::Events { revision, .. } => {
                self.upto = self.upto.max(*revision);
                self.had_all_at = None;
            }
            Told::Progress { revision } | Told::Rest { revision, .. } => {
                self.upto = self.upto.max(*revision);
                self.had_all_at = Some(*revision);
            }
            Told::Compacted { .. } | Told::Overtaken { .. } | Told::Ended => {}
        }
        Heard { watcher, wish: self.wish.clone(), upto, had_all_at, told }
    }
}

impl Told {
    /// The newest revision that it says anything about.
    fn revision(&self) -> i64 {
        match self {
            Self::Created { revision, .. }
            | Self::Progress { revision }
            | Self::Rest { revision, .. } => *revision,
            Self::Events { revision, events, .. } => {
                events.last().map_or(0, revision_of).max(*revision)
            }
            Self::Compacted { compacted } => *compacted,
            Self::Overtaken { .. } | Self::Ended => 0,
        }
    }
}

impl Wish {
    /// Whether it concerns a key.
    pub fn concerns(&self, key: &[u8]) -> bool {
        in_range(key, &self.key, &self.range_end)
    }

    /// What a watcher is to be told of the revisions behind `after`, up to `upto`; previous versions
    /// left out.
    pub fn due(&self, model: &Model, after: i64, upto: i64) -> Vec<mvccpb::Event> {
        let admits = |event: &mvccpb::Event| {
            if event.r#type() == EventType::Delete { !self.no_delete } else { !self.no_put }
        };
        self.changes(model, after, upto).filter(admits).collect()
    }

    /// What happened to its keys in the revisions behind `after`, up to `upto`.
    pub fn changes<'a>(
        &'a self,
        model: &'a Model,
        after: i64,
        upto: i64,
    ) -> impl Iterator<Item = mvccpb::Event> + 'a {
        let event = |(key, version): (Bytes, crate::model::Version)| {
            let is_delete = version.kv.is_none();
            let tombstone = || KeyValue { key, mod_revision: version.main, ..KeyValue::default() };
            mvccpb::Event {
                r#type: i32::from(is_delete),
                kv: Some(version.kv.unwrap_or_else(tombstone)),
                prev_kv: None,
            }
        };
        (after + 1..=upto)
            .flat_map(|revision| model.changes_at(revision))
            .filter(|(key, _)| self.concerns(key))
            .map(event)
    }
}

/// The main revision of an event.
pub fn revision_of(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
