//! Watches against a naive history: whatever happens between two pulls, each watcher is sent each event
//! of its keys once, in order, in whole revisions, or is told that its history is gone.

mod memory;
mod moments;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use bytes::{Buf, Bytes};
use proptest::prelude::*;
use prost::Message as _;
use quorate_proto::{etcdserverpb, mvccpb};

use super::{CreateError, Filter, Head, Hub, Interest, News, Pulled, Scan, Sent, StreamId};
use crate::mvcc::tests::store::Store;
use crate::mvcc::{DeleteRange, KeyRange, KeySpace, Limits, Op, Put, RangeEnd, Txn};
use crate::view::View;

const HEAD: Head = Head { cluster_id: 7, member_id: 8, raft_term: 9 };
const FRAGMENT_BYTES: usize = 60;

/// One change, as a client must see it.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    main: i64,
    event: mvccpb::Event,
    /// Of all revisions before this one, whether it was compacted is asked when it is sent.
    prev: Option<mvccpb::KeyValue>,
}

struct Client {
    stream: StreamId,
    woken: Arc<Flag>,
    scan: Option<Scan>,
    /// Cancelled watchers whose end has not been heard of, by name: until then others are meant.
    ending: BTreeMap<i64, u32>,
    watchers: BTreeMap<i64, Seen>,
}

/// What one watcher has been sent.
#[derive(Debug)]
struct Seen {
    range: KeyRange,
    filter: Filter,
    fragment: bool,
    start: i64,
    events: Vec<(i64, mvccpb::Event)>,
    created: bool,
    /// The compact revision with which it ended.
    compacted: Option<i64>,
    in_parts: bool,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    view: Arc<View>,
    store: Store,
    hub: Hub,
    history: Vec<Change>,
    live: BTreeMap<Bytes, mvccpb::KeyValue>,
    current: i64,
    /// What a driver has read and not taken yet.
    news: Option<News>,
    clients: Vec<Client>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, bool)>),
    Advance,
    /// Half an advance: others come between reading and taking.
    ReadNews,
    TakeNews,
    Flush,
    Evict(u8),
    Compact(u8),
    Open,
    Create {
        client: usize,
        range: (u8, u8),
        back: i64,
        filter: Filter,
        fragment: bool,
    },
    Cancel {
        client: usize,
        watch_id: i64,
    },
    AskProgress(usize),
    TellProgress(usize),
    Pull(usize),
    Close(usize),
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("k{}", n % 8))
}

fn range((a, b): (u8, u8)) -> KeyRange {
    let end = match b % 4 {
        0 => RangeEnd::Single,
        1 => RangeEnd::Unbounded,
        _ => RangeEnd::Before(key((a % 8).saturating_add(1 + b % 3).min(7))),
    };
    KeyRange { start: key(a), end }
}

impl World {
    fn new() -> Self {
        Self {
            view: View::new(KeySpace::new(Limits { window_bytes_max: 300 })),
            store: Store::default(),
            hub: Hub::new(1, FRAGMENT_BYTES, 600, 1),
            history: Vec::new(),
            live: BTreeMap::new(),
            current: 1,
            news: None,
            clients: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let many = self.clients.len().max(1);
        match step {
            Step::Write(changes) => self.write(&changes),
            Step::Advance => drop(self.hub.advance(&self.view, &self.store).unwrap()),
            Step::ReadNews => {
                self.news = Some(self.hub.read_news(&self.view, &self.store).unwrap());
            }
            Step::TakeNews => {
                if let Some(news) = self.news.take() {
                    let mut wakers = Vec::new();
                    self.hub.take_news(news, &mut wakers);
                    wakers.into_iter().for_each(Waker::wake);
                }
            }
            Step::Flush => self.flush(),
            Step::Evict(rows) => drop(self.view.write().evict(usize::from(rows))),
            Step::Compact(back) => self.compact(self.current - i64::from(back % 6)),
            Step::Open => self.clients.push(Client {
                stream: self.hub.open(),
                woken: Arc::new(Flag(AtomicBool::new(true))),
                scan: None,
                ending: BTreeMap::new(),
                watchers: BTreeMap::new(),
            }),
            Step::Create { client, range: keys, back, filter, fragment } => {
                let start = if back == 0 { 0 } else { (self.current + 3 - back).max(1) };
                self.create(client % many, (range(keys), start), filter, fragment);
            }
            Step::Cancel { client, watch_id } => {
                if let Some(client) = self.clients.get_mut(client % many) {
                    self.hub.cancel(client.stream, watch_id, &self.view);
                    let cancelled = client.watchers.remove(&watch_id);
                    // Of one that has heard of its end nothing more is said.
                    if cancelled.is_some_and(|seen| seen.compacted.is_none()) {
                        *client.ending.entry(watch_id).or_default() += 1;
                    }
                    client.woken.0.store(true, Ordering::Relaxed);
                }
            }
            Step::AskProgress(client) => {
                if let Some(client) = self.clients.get(client % many) {
                    self.hub.request_progress(client.stream, &self.view);
                    client.woken.0.store(true, Ordering::Relaxed);
                }
            }
            Step::TellProgress(client) => {
                if let Some(client) = self.clients.get(client % many) {
                    self.hub.tell_progress(client.stream);
                    client.woken.0.store(true, Ordering::Relaxed);
                }
            }
            Step::Pull(client) => drop(self.pull(client % many)),
            Step::Close(client) => {
                if !self.clients.is_empty() {
                    let closed = self.clients.remove(client % many);
                    self.hub.close(closed.stream);
                }
            }
        }
    }

    fn write(&mut self, changes: &[(u8, bool)]) {
        let mut ops = Vec::new();
        let mut done = Vec::new();
        let main = self.current + 1;
        for &(n, deletes) in changes {
            let key = key(n);
            if done.contains(&key) {
                continue;
            }
            done.push(key.clone());
            let prev = self.live.get(&key).cloned();
            let event = if deletes {
                ops.push(Op::DeleteRange(DeleteRange {
                    keys: KeyRange::single(key.clone()),
                    prev_kv: false,
                }));
                if self.live.remove(&key).is_none() {
                    continue;
                }
                let kv = mvccpb::KeyValue { key, mod_revision: main, ..Default::default() };
                mvccpb::Event { r#type: 1, kv: Some(kv), prev_kv: None }
            } else {
                let value = Bytes::from(format!("{main}"));
                ops.push(Op::Put(Put {
                    key: key.clone(),
                    value: Some(value.clone()),
                    lease: Some(0),
                    prev_kv: false,
                }));
                let kv = mvccpb::KeyValue {
                    key: key.clone(),
                    create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
                    mod_revision: main,
                    version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                    value,
                    lease: 0,
                };
                self.live.insert(key, kv.clone());
                mvccpb::Event { r#type: 0, kv: Some(kv), prev_kv: None }
            };
            self.history.push(Change { main, event, prev });
        }
        let txn = Txn { compares: Vec::new(), success: ops, failure: Vec::new() };
        let applied = self.view.write().txn(&txn, &|_| true, &self.store).unwrap().unwrap();
        self.current = applied.revision;
    }

    fn flush(&mut self) {
        let mut space = self.view.write();
        let unflushed = space.take_unflushed(100);
        let revision = space.current_revision();
        self.store.insert(&unflushed.rows);
        self.store.delete(&unflushed.deletions);
        space.flushed(revision, &unflushed.deletions);
    }

    /// Compacts to the end: schedule, index, deletion.
    fn compact(&mut self, revision: i64) {
        if self.view.write().compact(revision).is_err() {
            return;
        }
        self.flush();
        while self.view.compaction_runnable() {
            let oldest = self.view.oldest_pin();
            self.view.write().compact_step(3, oldest);
        }
        self.flush();
    }

    fn create(
        &mut self,
        client: usize,
        (range, start): (KeyRange, i64),
        filter: Filter,
        fragment: bool,
    ) {
        let Some(client) = self.clients.get_mut(client) else { return };
        // A name is free again as soon as its watcher was cancelled.
        let watch_id = (100..).find(|id| !client.watchers.contains_key(id)).unwrap();
        let interest = Interest {
            range: range.clone(),
            start_revision: start,
            watch_id,
            filter,
            progress_notify: true,
            fragment,
        };
        client.woken.0.store(true, Ordering::Relaxed);
        let again = Interest { start_revision: 0, ..interest.clone() };
        self.hub.create(client.stream, interest, &self.view).unwrap();
        if start == 0 {
            let again = self.hub.create(client.stream, again, &self.view);
            assert_eq!(again, Err(CreateError::Duplicate));
        }
        let start = if start == 0 { self.current + 1 } else { start };
        client.watchers.insert(
            watch_id,
            Seen {
                range,
                filter,
                fragment,
                start,
                events: Vec::new(),
                created: false,
                compacted: None,
                in_parts: false,
            },
        );
    }

    /// Does what a stream does when it is polled; false if it has nothing to do.
    fn pull(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        if let Some(mut scan) = client.scan.take() {
            if !scan.step(&self.hub, &self.view, &self.store).unwrap() {
                client.scan = Some(scan);
            }
            return true;
        }
        if !client.woken.0.swap(false, Ordering::Relaxed) {
            return false;
        }
        let waker = Waker::from(client.woken.clone());
        let mut sent = Sent::new(HEAD);
        let pulled = self.hub.pull(client.stream, &mut sent, &waker);
        match pulled {
            Pulled::Idle => {}
            Pulled::More => client.woken.0.store(true, Ordering::Relaxed),
            Pulled::Behind(scan) => {
                client.scan = Some(scan);
                client.woken.0.store(true, Ordering::Relaxed);
            }
            Pulled::Closed => panic!("the stream is open"),
        }
        let mut bytes = sent.into_bytes();
        while bytes.has_remaining() {
            assert_eq!(bytes.get_u8(), 0);
            let len = bytes.get_u32() as usize;
            let response = etcdserverpb::WatchResponse::decode(bytes.split_to(len)).unwrap();
            self.take(index, response);
        }
        true
    }

    fn take(&mut self, index: usize, response: etcdserverpb::WatchResponse) {
        let header = response.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (7, 8, 9));
        assert!(header.revision <= self.current);
        if response.watch_id == -1 {
            for watch_id in self.clients[index].watchers.keys().copied().collect::<Vec<_>>() {
                self.check_upto(index, watch_id, header.revision);
            }
            return;
        }
        let client = &mut self.clients[index];
        if let Some(ending) =
            client.ending.get_mut(&response.watch_id).filter(|ending| **ending > 0)
        {
            *ending -= u32::from(response.canceled);
            return;
        }
        let Some(seen) = client.watchers.get_mut(&response.watch_id) else { return };
        if response.created {
            seen.created = true;
            return;
        }
        if response.canceled {
            if response.compact_revision > 0 {
                assert!(seen.created, "nothing is said before it was created");
                seen.compacted = Some(response.compact_revision);
            }
            return;
        }
        assert!(seen.created, "nothing is sent before it was created");
        if response.events.is_empty() {
            return self.check_upto(index, response.watch_id, header.revision);
        }
        let last_before = seen.events.last().map_or(0, |(main, _)| *main);
        for (place, event) in response.events.into_iter().enumerate() {
            let main = event.kv.as_ref().unwrap().mod_revision;
            let new_revision = main > last_before;
            assert!(new_revision || seen.in_parts, "a revision in two responses");
            assert!(header.revision >= main, "{place}");
            seen.events.push((main, event));
        }
        seen.in_parts = response.fragment;
        assert!(!response.fragment || seen.fragment);
    }

    /// What a watcher must have been sent of everything up to `upto`.
    fn expected(
        &self,
        seen: &Seen,
        upto: i64,
    ) -> Vec<(i64, mvccpb::Event, Option<mvccpb::KeyValue>)> {
        self.history
            .iter()
            .filter(|change| change.main >= seen.start && change.main <= upto)
            .filter(|change| seen.range.contains(&change.event.kv.as_ref().unwrap().key))
            .filter(|change| {
                let deletes = change.event.r#type == 1;
                if deletes { !seen.filter.no_delete } else { !seen.filter.no_put }
            })
            .map(|change| (change.main, change.event.clone(), change.prev.clone()))
            .collect()
    }

    fn check_upto(&self, index: usize, watch_id: i64, upto: i64) {
        let seen = &self.clients[index].watchers[&watch_id];
        if seen.compacted.is_some() || !seen.created {
            return;
        }
        let expected = self.expected(seen, upto);
        let found: Vec<_> = seen.events.iter().filter(|(main, _)| *main <= upto).collect();
        assert_eq!(found.len(), expected.len(), "watcher {watch_id} up to {upto}: {seen:?}");
        for ((main, event), (at, wanted, prev)) in found.into_iter().zip(expected) {
            assert_eq!((*main, event.r#type, &event.kv), (at, wanted.r#type, &wanted.kv));
            if let Some(sent) = &event.prev_kv {
                assert!(seen.filter.prev_kv);
                assert_eq!(Some(sent), prev.as_ref());
            } else if seen.filter.prev_kv && prev.is_some() {
                assert!(self.view.compact_revision() >= at, "a previous version is missing");
            }
        }
    }

    /// Everything that can be sent is sent, and every watcher has seen what it must.
    fn finish(mut self) {
        while self.hub.advance(&self.view, &self.store).unwrap() {}
        for index in 0..self.clients.len() {
            let mut rounds = 0;
            while self.pull(index) {
                rounds += 1;
                assert!(rounds < 10_000, "a stream has no end");
            }
        }
        let compacted = self.view.compact_revision();
        for index in 0..self.clients.len() {
            for (&watch_id, seen) in &self.clients[index].watchers {
                assert!(seen.created, "watcher {watch_id} was not created");
                match seen.compacted {
                    None => self.check_upto(index, watch_id, self.current),
                    Some(at) => {
                        assert!(at <= compacted);
                        let upto = seen.events.last().map_or(0, |(main, _)| *main);
                        let expected = self.expected(seen, upto);
                        assert_eq!(seen.events.len(), expected.len());
                        // The next one that it wanted was gone.
                        let next = seen.events.last().map_or(seen.start, |(main, _)| main + 1);
                        assert!(next < at, "cancelled at {at}, but wanted {next}");
                    }
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let filter = (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(prev_kv, no_put, no_delete)| Filter { no_put, no_delete, prev_kv });
    let create = (0..4usize, any::<(u8, u8)>(), 0..12i64, filter, prop::bool::weighted(0.2));
    prop_oneof![
        8 => prop::collection::vec((any::<u8>(), prop::bool::weighted(0.3)), 1..4)
            .prop_map(Step::Write),
        5 => Just(Step::Advance),
        2 => Just(Step::ReadNews),
        2 => Just(Step::TakeNews),
        3 => Just(Step::Flush),
        3 => (1..12u8).prop_map(Step::Evict),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Open),
        3 => create.prop_map(|(client, range, back, filter, fragment)| Step::Create {
            client, range, back, filter, fragment
        }),
        1 => (0..4usize, 100..104i64)
            .prop_map(|(client, watch_id)| Step::Cancel { client, watch_id }),
        1 => (0..4usize).prop_map(Step::AskProgress),
        1 => (0..4usize).prop_map(Step::TellProgress),
        8 => (0..4usize).prop_map(Step::Pull),
        1 => prop_oneof![9 => Just(Step::Advance), 1 => (0..4usize).prop_map(Step::Close)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    #[test]
    fn every_watcher_sees_its_history_once_in_order_and_whole(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        world.step(Step::Open);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
