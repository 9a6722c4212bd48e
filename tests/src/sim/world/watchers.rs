//! Simulated clients of watches: they do with the hub what the service does when a stream is polled.
//!
//! ```text
//! owner applied -> Watches::changed -> is_due -> advance, step by step -> wakes streams
//! stream awake  -> pull -> responses, or a scan: its steps, then pull again
//! ```
//!
//! Each of these is a turn of its own, at a time that chance decides. Some clients read slowly, some
//! never. After a restart the watchers are created again, each where its client was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Buf;
use prost::Message as _;
use quorate_proto::etcdserverpb::WatchResponse;
use quorate_proto::mvccpb;
use quorate_server::mvcc::{KeyRange, Revision, RowsError, ScanBounds};
use quorate_server::watch::{Filter, Head, Hub, Interest, Pulled, Scan, Sent, StreamId};

use super::member::Life;
use super::woken::Woken;
use crate::sim::coverage::Activity;
use crate::sim::rng::Rng;
use crate::sim::watching::{EVERYBODY, Told, WatcherId, Wish, revision_of};

const STREAMS_MAX: usize = 4;
const WATCHERS_MAX: usize = 12;
/// Pulls and steps after which a stream that still has something to say hangs.
const POLLS_MAX: usize = 20_000;
/// The stream speaks for all its watchers.
const ALL_WATCHERS: i64 = -1;
/// Where the names begin that clients choose.
const CHOSEN_FROM: i64 = 1000;
const HEAD: Head = Head { cluster_id: 1, member_id: 2, raft_term: 3 };

/// Why a turn went wrong.
pub(super) enum Trouble {
    /// The store cannot be read: the member must end.
    Rows(RowsError),
    /// A response makes no sense.
    Odd(String),
}

impl From<RowsError> for Trouble {
    fn from(error: RowsError) -> Self {
        Self::Rows(error)
    }
}

/// Every watch client of a run.
pub(super) struct Watchers {
    rng: Rng,
    keys: usize,
    /// How eagerly the driver runs.
    drive_weight: u64,
    streams: Vec<Stream>,
    /// Watchers of the life before, with the next revision that each wants.
    kept: Vec<Watcher>,
    last_name: WatcherId,
    /// The driver was woken and is not done.
    is_due: bool,
    /// Turns in which the driver does not run.
    late: u64,
    /// Turns in which no client reads.
    dozing: u64,
    /// Everything up to here was seen by the hub, at least.
    driven: i64,
    told: Vec<(WatcherId, Told)>,
    doing: Option<Activity>,
}

struct Stream {
    id: StreamId,
    /// How often its client reads; 0 for never.
    pace: u64,
    scan: Option<Scan>,
    woken: Arc<Woken>,
    watchers: BTreeMap<i64, Watcher>,
    /// Created, and not told its name yet.
    unnamed: VecDeque<Watcher>,
    /// Not wanted any more; what was on its way may still come.
    dropped: BTreeSet<i64>,
    last_chosen: i64,
    /// What it said when it was asked how far it is.
    progressed: Option<i64>,
}

#[derive(Clone)]
struct Watcher {
    name: WatcherId,
    wish: Wish,
    /// As asked for; 0 for what happens from now on.
    start: i64,
    wants_progress: bool,
    is_created: bool,
    /// The next revision that its client wants.
    next: i64,
    parts: Vec<mvccpb::Event>,
}

/// What the member is at.
#[derive(Clone, Copy)]
struct Now {
    current: i64,
    compacted: i64,
}

impl Now {
    fn of(life: &Life) -> Self {
        let (current, compacted) = life.handle.view().revisions();
        Self { current, compacted }
    }
}

fn hub(life: &Life) -> &Hub {
    life.handle.watches().hub()
}

impl Watchers {
    /// No watchers yet, of that many keys.
    pub(super) fn new(keys: usize, mut rng: Rng) -> Self {
        Self {
            keys,
            drive_weight: *rng.pick(&[3, 15, 60]),
            rng,
            streams: Vec::new(),
            kept: Vec::new(),
            last_name: 0,
            is_due: false,
            late: 0,
            dozing: 0,
            driven: 0,
            told: Vec::new(),
            doing: None,
        }
    }

    /// Whether history is being read for somebody.
    pub(super) fn is_catching_up(&self) -> bool {
        self.streams.iter().any(|stream| stream.scan.is_some())
    }

    /// Whether chance has history compacted under somebody who reads it, and goes on only later.
    pub(super) fn has_history_compacted(&mut self) -> bool {
        let compacts = self.is_catching_up() && self.dozing == 0 && self.rng.one_in(60);
        if compacts {
            self.dozing = self.rng.between(50, 500);
        }
        compacts
    }

    /// What the last turn did that may have met the disk.
    pub(super) fn take_doing(&mut self) -> Option<Activity> {
        self.doing.take()
    }

    /// What clients were told since this was asked last.
    pub(super) fn take_told(&mut self) -> Vec<(WatcherId, Told)> {
        std::mem::take(&mut self.told)
    }

    /// A member serves: whoever watched the last one goes on.
    pub(super) fn resume(&mut self, life: &Life) {
        (self.is_due, self.driven) = (false, Now::of(life).current);
        (self.late, self.dozing) = (0, 0);
        for _ in 0..self.rng.between(1, 3) {
            self.open(life);
        }
        for watcher in std::mem::take(&mut self.kept) {
            if self.rng.one_in(6) {
                self.told.push((watcher.name, Told::Ended));
            } else {
                self.create(life, Watcher { start: watcher.next, ..watcher });
            }
        }
    }

    /// The member is gone.
    pub(super) fn lost(&mut self) {
        for stream in self.streams.drain(..) {
            let watchers = stream.watchers.into_values().filter(|watcher| watcher.is_created);
            self.kept.extend(watchers.map(|watcher| Watcher {
                is_created: false,
                parts: Vec::new(),
                ..watcher
            }));
        }
    }

    /// One turn of somebody, or of nobody.
    pub(super) fn turn(&mut self, life: &Life) -> Result<(), Trouble> {
        self.is_due |= life.handle.watches().take_changed();
        self.late = self.late.saturating_sub(1);
        let drive = if self.is_due && self.late == 0 { self.drive_weight } else { 0 };
        self.dozing = self.dozing.saturating_sub(1);
        let paces: Vec<u64> = self.streams.iter().map(Stream::urge).collect();
        let pull = if self.dozing == 0 && paces.iter().sum::<u64>() > 0 { 25 } else { 0 };
        match self.rng.weighted(&[30, drive, pull, 4]) {
            0 => Ok(()),
            1 => self.drive(life),
            2 => {
                let at = self.rng.weighted(&paces);
                self.poll(at, life)
            }
            _ => {
                self.change(life);
                Ok(())
            }
        }
    }

    /// Lets the driver do all that it was woken for, then each client that reads read until its stream
    /// sleeps.
    pub(super) fn rest(&mut self, life: &Life) -> Result<(), Trouble> {
        self.is_due |= life.handle.watches().take_changed();
        while self.is_due {
            self.drive(life)?;
        }
        let Now { current, .. } = Now::of(life);
        for at in 0..self.streams.len() {
            if self.streams[at].pace == 0 {
                continue;
            }
            self.drain(at, life)?;
            let is_near =
                |watcher: &Watcher| watcher.next <= current + 1 && watcher.start <= current;
            let stream = &mut self.streams[at];
            let answers = !stream.watchers.is_empty() && stream.watchers.values().all(is_near);
            if answers {
                stream.progressed = None;
                hub(life).request_progress(stream.id, life.handle.view());
                stream.woken.rouse();
                self.drain(at, life)?;
            }
            let stream = &self.streams[at];
            let answered = answers.then_some(stream.progressed);
            for watcher in stream.watchers.values() {
                self.told.push((watcher.name, Told::Rest { revision: current, answered }));
            }
        }
        Ok(())
    }

    fn drain(&mut self, at: usize, life: &Life) -> Result<(), Trouble> {
        for _ in 0..POLLS_MAX {
            if !self.streams[at].can_go_on() {
                return Ok(());
            }
            self.poll(at, life)?;
        }
        Err(Trouble::Odd("a stream has no end of what it has to say".to_owned()))
    }

    /// One step of the driver.
    fn drive(&mut self, life: &Life) -> Result<(), Trouble> {
        let view = life.handle.view();
        let next = Revision::new(self.driven + 1, 0);
        let nothing = ScanBounds { rows_max: 0, bytes_max: 0 };
        let is_overtaken = !view.recent_rows(next, nothing, &mut Vec::new()).is_held;
        self.doing = Some(Activity::Read);
        let more = hub(life).advance(view, life.handle.rows().as_ref())?;
        if is_overtaken {
            self.told.push((EVERYBODY, Told::Overtaken { revision: view.current_revision() }));
        }
        if !more {
            self.driven = view.current_revision();
        }
        self.is_due = more;
        Ok(())
    }

    /// What the service does when a stream is polled: a step of its scan, or a pull.
    fn poll(&mut self, at: usize, life: &Life) -> Result<(), Trouble> {
        let (hub, view) = (hub(life), life.handle.view());
        let stream = &mut self.streams[at];
        if let Some(mut scan) = stream.scan.take() {
            self.doing = Some(Activity::CatchUp);
            if !scan.step(hub, view, life.handle.rows().as_ref())? {
                stream.scan = Some(scan);
            }
            return Ok(());
        }
        stream.woken.fall_asleep();
        let mut sent = Sent::new(HEAD);
        let pulled = hub.pull(stream.id, &mut sent, &stream.woken.waker());
        let is_idle = matches!(pulled, Pulled::Idle) && sent.is_empty();
        match pulled {
            Pulled::Behind(scan) => stream.scan = Some(scan),
            Pulled::Closed => return Err(Trouble::Odd("an open stream is closed".to_owned())),
            Pulled::Idle | Pulled::More => {}
        }
        if !is_idle {
            stream.woken.rouse();
        }
        let mut bytes = sent.into_bytes();
        while bytes.has_remaining() {
            bytes.advance(1);
            let len = bytes.get_u32() as usize;
            let response = WatchResponse::decode(bytes.split_to(len))
                .map_err(|error| Trouble::Odd(error.to_string()))?;
            let text = format!("{response:?}");
            let taken = self.streams[at].take(response, Now::of(life), &mut self.told);
            taken.map_err(|why| Trouble::Odd(format!("{why}: {text}")))?;
        }
        Ok(())
    }

    /// Somebody wants something else.
    fn change(&mut self, life: &Life) {
        match self.rng.weighted(&[2, 8, 2, 3, 4, 1, 1, 1]) {
            0 if self.streams.len() < STREAMS_MAX => self.open(life),
            1 => {
                let watcher = self.draw(life);
                self.create(life, watcher);
            }
            2 => self.cancel(life),
            3 => {
                if let Some(stream) = self.any_stream(life) {
                    hub(life).request_progress(stream.id, life.handle.view());
                    stream.woken.rouse();
                }
            }
            4 => {
                if let Some(stream) = self.any_stream(life) {
                    hub(life).tell_progress(stream.id);
                    stream.woken.rouse();
                }
            }
            5 => self.close(life),
            6 => self.late = self.rng.between(50, 400),
            7 => self.dozing = self.rng.between(50, 400),
            _ => {}
        }
    }

    fn open(&mut self, life: &Life) {
        self.streams.push(Stream {
            id: hub(life).open(),
            pace: *self.rng.pick(&[0, 1, 5, 20, 20]),
            scan: None,
            woken: Woken::new(),
            watchers: BTreeMap::new(),
            unnamed: VecDeque::new(),
            dropped: BTreeSet::new(),
            last_chosen: CHOSEN_FROM,
            progressed: None,
        });
    }

    fn close(&mut self, life: &Life) {
        if self.streams.is_empty() {
            return;
        }
        let stream = self.streams.remove(self.rng.index(self.streams.len()));
        hub(life).close(stream.id);
        let names = stream.watchers.values().map(|watcher| watcher.name);
        self.told.extend(names.map(|name| (name, Told::Ended)));
    }

    /// A stream that takes requests.
    fn any_stream(&mut self, life: &Life) -> Option<&mut Stream> {
        if self.streams.is_empty() {
            return None;
        }
        let at = self.rng.index(self.streams.len());
        let stream = &mut self.streams[at];
        hub(life).takes_requests(stream.id).then_some(stream)
    }

    fn draw(&mut self, life: &Life) -> Watcher {
        let current = Now::of(life).current;
        let first = self.rng.index(self.keys);
        let range_end = match self.rng.below(6) {
            0..3 => String::new(),
            3 => "\0".to_owned(),
            4 => "l".to_owned(),
            _ => format!("k{:02}", first + 1 + self.rng.index(self.keys)),
        };
        let back = i64::try_from(self.rng.below(40)).expect("below 40");
        let start = match self.rng.below(10) {
            0..4 => 0,
            4..8 => (current - back).max(1),
            _ => current + 1 + back / 10,
        };
        self.last_name += 1;
        let wish = Wish {
            key: format!("k{first:02}").into(),
            range_end: range_end.into(),
            no_put: self.rng.one_in(8),
            no_delete: self.rng.one_in(8),
            prev_kv: self.rng.percent(40),
            fragment: self.rng.percent(30),
        };
        Watcher {
            name: self.last_name,
            wish,
            start,
            wants_progress: self.rng.percent(60),
            is_created: false,
            next: start,
            parts: Vec::new(),
        }
    }

    fn create(&mut self, life: &Life, watcher: Watcher) {
        let chooses = self.rng.percent(50);
        let watchers = self.streams.iter().map(|stream| stream.watchers.len()).sum::<usize>();
        let Some(stream) = self.any_stream(life).filter(|_| watchers < WATCHERS_MAX) else {
            self.told.push((watcher.name, Told::Ended));
            return;
        };
        stream.last_chosen += 1;
        let watch_id = if chooses { stream.last_chosen } else { 0 };
        let Wish { key, range_end, no_put, no_delete, prev_kv, fragment } = watcher.wish.clone();
        let interest = Interest {
            range: KeyRange::from_wire(key, range_end),
            start_revision: watcher.start,
            watch_id,
            filter: Filter { no_put, no_delete, prev_kv },
            progress_notify: watcher.wants_progress,
            fragment,
        };
        let created = hub(life).create(stream.id, interest, life.handle.view());
        created.expect("the stream is open, and each name is used once");
        stream.woken.rouse();
        match watch_id {
            0 => stream.unnamed.push_back(watcher),
            _ => drop(stream.watchers.insert(watch_id, watcher)),
        }
    }

    fn cancel(&mut self, life: &Life) {
        let draw = self.rng.next_u64();
        let Some(stream) = self.any_stream(life) else { return };
        let names: Vec<i64> = stream.watchers.keys().copied().collect();
        if names.is_empty() {
            return;
        }
        let watch_id = *Rng::new(draw).pick(&names);
        hub(life).cancel(stream.id, watch_id, life.handle.view());
        stream.woken.rouse();
        stream.dropped.insert(watch_id);
        let name = stream.watchers.remove(&watch_id).map(|watcher| watcher.name);
        self.told.extend(name.map(|name| (name, Told::Ended)));
    }
}

impl Stream {
    fn can_go_on(&self) -> bool {
        self.scan.is_some() || self.woken.is_awake()
    }

    fn urge(&self) -> u64 {
        if self.can_go_on() { self.pace } else { 0 }
    }

    /// Takes a response as a client does.
    ///
    /// # Errors
    /// What makes no sense.
    fn take(
        &mut self,
        response: WatchResponse,
        now: Now,
        told: &mut Vec<(WatcherId, Told)>,
    ) -> Result<(), &'static str> {
        let header = response.header.ok_or("no header")?;
        let revision = header.revision;
        let head = (header.cluster_id, header.member_id, header.raft_term);
        if head != (HEAD.cluster_id, HEAD.member_id, HEAD.raft_term) || revision > now.current {
            return Err("the header is not the member's");
        }
        let watch_id = response.watch_id;
        if watch_id == ALL_WATCHERS {
            self.progressed = Some(revision);
            for watcher in self.watchers.values_mut().filter(|watcher| watcher.is_created) {
                watcher.progress(revision, told);
            }
            return Ok(());
        }
        if response.created {
            return self.created(watch_id, revision, told);
        }
        let Some(watcher) = self.watchers.get_mut(&watch_id) else {
            let is_dropped = self.dropped.contains(&watch_id);
            return if is_dropped { Ok(()) } else { Err("nobody knows the watcher") };
        };
        if !watcher.is_created {
            return Err("the watcher is not created");
        }
        if response.canceled {
            if response.compact_revision <= 0 || response.compact_revision > now.compacted {
                return Err("nobody cancelled it, and nothing is compacted there");
            }
            told.push((watcher.name, Told::Compacted { compacted: response.compact_revision }));
            self.watchers.remove(&watch_id);
            return Ok(());
        }
        watcher.events(response, now, told)
    }

    fn created(
        &mut self,
        watch_id: i64,
        revision: i64,
        told: &mut Vec<(WatcherId, Told)>,
    ) -> Result<(), &'static str> {
        if watch_id < CHOSEN_FROM
            && let Some(watcher) = self.unnamed.pop_front()
            && self.watchers.insert(watch_id, watcher).is_some()
        {
            return Err("the name is taken");
        }
        let Some(watcher) = self.watchers.get_mut(&watch_id) else {
            return if self.dropped.contains(&watch_id) { Ok(()) } else { Err("nobody asked") };
        };
        if std::mem::replace(&mut watcher.is_created, true) {
            return Err("created twice");
        }
        watcher.next = if watcher.start == 0 { revision + 1 } else { watcher.start };
        let (wish, from) = (watcher.wish.clone(), watcher.next);
        told.push((watcher.name, Told::Created { wish, from, revision }));
        Ok(())
    }
}

impl Watcher {
    fn progress(&mut self, revision: i64, told: &mut Vec<(WatcherId, Told)>) {
        self.next = self.next.max(revision + 1);
        told.push((self.name, Told::Progress { revision }));
    }

    fn events(
        &mut self,
        response: WatchResponse,
        now: Now,
        told: &mut Vec<(WatcherId, Told)>,
    ) -> Result<(), &'static str> {
        let revision = response.header.map_or(0, |header| header.revision);
        if response.events.is_empty() {
            if !self.wants_progress {
                return Err("it did not ask for progress");
            }
            self.progress(revision, told);
            return Ok(());
        }
        self.parts.extend(response.events);
        if response.fragment {
            return if self.wish.fragment { Ok(()) } else { Err("it did not allow parts") };
        }
        let events = std::mem::take(&mut self.parts);
        self.next = self.next.max(events.last().map_or(0, revision_of) + 1);
        let compacted = now.compacted;
        told.push((self.name, Told::Events { revision, events, compacted }));
        Ok(())
    }
}
