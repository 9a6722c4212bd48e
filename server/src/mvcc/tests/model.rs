//! The naive history: a list of everything that ever happened. It shares no code with what it checks.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb;

use crate::mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, MvccError, Op, Put, RangeEnd,
    RangeQuery, SortTarget, Txn,
};

/// One change: a put with what the key is then, or a deletion.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) key: Vec<u8>,
    pub(crate) at: (i64, i64),
    pub(crate) put: Option<mvccpb::KeyValue>,
}

impl Event {
    /// The stored form, as etcd defines it.
    pub(crate) fn stored(&self) -> Vec<u8> {
        match &self.put {
            Some(kv) => kv.encode_to_vec(),
            None => {
                let key = Bytes::copy_from_slice(&self.key);
                mvccpb::KeyValue { key, ..Default::default() }.encode_to_vec()
            }
        }
    }

    pub(crate) fn row_key(&self) -> Vec<u8> {
        let mut key = self.at.0.to_be_bytes().to_vec();
        key.push(b'_');
        key.extend(self.at.1.to_be_bytes());
        if self.put.is_none() {
            key.push(b't');
        }
        key
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        (self.row_key().len() + self.stored().len() + 16) as u64
    }
}

/// What an operation answers, with everything that has to be read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Put { revision: i64, prev: Option<Vec<u8>> },
    Delete { revision: i64, deleted: i64, prev: Vec<Vec<u8>> },
    Range { revision: i64, read: Read },
    Txn { succeeded: bool, answers: Vec<Answer> },
}

/// The reply of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) kvs: Vec<Vec<u8>>,
    pub(crate) count: i64,
    pub(crate) more: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) events: Vec<Event>,
    pub(crate) current: i64,
    pub(crate) compacted: i64,
}

const NOW: (i64, i64) = (i64::MAX, i64::MAX);

impl Model {
    pub(crate) fn new() -> Self {
        Self { events: Vec::new(), current: 1, compacted: -1 }
    }

    /// The leases that tests know: all below 100.
    pub(crate) fn lease_known(lease: i64) -> bool {
        lease < 100
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<Answer, MvccError> {
        let mut after = self.clone();
        let answer = after.run(txn, self, &mut 0)?;
        if after.events.len() > self.events.len() {
            after.current += 1;
        }
        *self = after;
        Ok(answer)
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), MvccError> {
        if revision <= self.compacted {
            return Err(MvccError::Compacted);
        }
        if revision > self.current {
            return Err(MvccError::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    pub(crate) fn at(&self, key: &[u8], at: (i64, i64)) -> Option<&mvccpb::KeyValue> {
        let of_key = self.events.iter().filter(|event| event.key == key && event.at <= at);
        of_key.last()?.put.as_ref()
    }

    /// All keys of `range` at a moment, in key order.
    pub(crate) fn all(&self, range: &KeyRange, at: (i64, i64)) -> Vec<mvccpb::KeyValue> {
        let mut keys: Vec<&Vec<u8>> = self.events.iter().map(|event| &event.key).collect();
        keys.sort();
        keys.dedup();
        let keys = keys.into_iter().filter(|key| within(range, key));
        keys.filter_map(|key| self.at(key, at).cloned()).collect()
    }

    pub(crate) fn read(&self, query: &RangeQuery, at: (i64, i64)) -> Read {
        let mut kvs = self.all(&query.keys, at);
        let count = kvs.len() as i64;
        if query.count_only {
            return Read { kvs: Vec::new(), count, more: false };
        }
        let bounds = query.bounds;
        kvs.retain(|kv| {
            !(bounds.min_mod != 0 && kv.mod_revision < bounds.min_mod
                || bounds.max_mod != 0 && kv.mod_revision > bounds.max_mod
                || bounds.min_create != 0 && kv.create_revision < bounds.min_create
                || bounds.max_create != 0 && kv.create_revision > bounds.max_create)
        });
        let mut by_value = false;
        if let Some(sort) = query.sort {
            by_value = sort.target == SortTarget::Value;
            kvs.sort_by(|left, right| {
                let order = match sort.target {
                    SortTarget::Key => left.key.cmp(&right.key),
                    SortTarget::Version => left.version.cmp(&right.version),
                    SortTarget::Create => left.create_revision.cmp(&right.create_revision),
                    SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
                    SortTarget::Value => left.value.cmp(&right.value),
                };
                if sort.descending { order.reverse() } else { order }
            });
        }
        let more = query.limit > 0 && kvs.len() as i64 > query.limit;
        if more {
            kvs.truncate(query.limit as usize);
        }
        if query.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                kv.lease = if by_value { kv.lease } else { 0 };
            }
        }
        Read { kvs: kvs.iter().map(|kv| kv.encode_to_vec()).collect(), count, more }
    }

    /// What is left of all rows when everything up to `compacted` has been deleted that may be.
    pub(crate) fn left_by(&self, compacted: i64) -> Vec<&Event> {
        let stays = |event: &&Event| {
            let superseded = self.events.iter().any(|later| {
                later.key == event.key && later.at > event.at && later.at.0 <= compacted
            });
            let (main, _) = event.at;
            main > compacted || !superseded && (event.put.is_some() || main == compacted)
        };
        self.events.iter().filter(stays).collect()
    }

    pub(crate) fn hash(&self, revision: i64) -> u32 {
        let moment = (revision, i64::MAX);
        let kept = self.all(&everything(), moment);
        let mut bytes = b"key".to_vec();
        for event in self.left_by(self.compacted) {
            let main = event.at.0;
            let below = main <= self.compacted;
            let is_kept = self.at(&event.key, moment).is_some_and(|kv| kv.mod_revision == main)
                && event.put.is_some()
                && self.last_at(&event.key, main) == Some(event.at);
            if main > revision
                || below && !kept.is_empty() && !is_kept
                || main == self.compacted && event.put.is_none()
            {
                continue;
            }
            bytes.extend(event.row_key());
            bytes.extend(event.stored());
        }
        crc32c::crc32c(&bytes)
    }

    fn last_at(&self, key: &[u8], main: i64) -> Option<(i64, i64)> {
        let of_key = self.events.iter().filter(|event| event.key == key && event.at.0 == main);
        of_key.last().map(|event| event.at)
    }

    fn run(&mut self, txn: &Txn, before: &Self, sub: &mut i64) -> Result<Answer, MvccError> {
        let succeeded = txn.compares.iter().all(|compare| before.holds(compare));
        let mut answers = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            answers.push(match op {
                Op::Put(put) => self.put(put, before, sub)?,
                Op::DeleteRange(delete) => self.delete(delete, before, sub),
                Op::Txn(txn) => self.run(txn, before, sub)?,
                Op::Range { query, revision } => {
                    if *revision > before.current {
                        return Err(MvccError::FutureRevision);
                    }
                    if *revision != 0 && *revision < before.compacted {
                        return Err(MvccError::Compacted);
                    }
                    let at = if *revision > 0 { (*revision, i64::MAX) } else { NOW };
                    let revision = before.current + i64::from(*sub > 0);
                    Answer::Range { revision, read: self.read(query, at) }
                }
            });
        }
        Ok(Answer::Txn { succeeded, answers })
    }

    fn put(&mut self, put: &Put, before: &Self, sub: &mut i64) -> Result<Answer, MvccError> {
        let present = self.at(&put.key, NOW).cloned();
        if put.lease.is_some_and(|lease| lease != 0 && !Self::lease_known(lease)) {
            return Err(MvccError::LeaseNotFound);
        }
        let keeps = put.value.is_none() || put.lease.is_none();
        if keeps && (present.is_none() || before.at(&put.key, NOW).is_none()) {
            return Err(MvccError::KeyNotFound);
        }
        let main = before.current + 1;
        let old = present.clone().unwrap_or_default();
        let kv = mvccpb::KeyValue {
            key: put.key.clone(),
            create_revision: if present.is_some() { old.create_revision } else { main },
            mod_revision: main,
            version: old.version + 1,
            value: put.value.clone().unwrap_or(old.value),
            lease: put.lease.unwrap_or(old.lease),
        };
        self.events.push(Event { key: put.key.to_vec(), at: (main, *sub), put: Some(kv) });
        *sub += 1;
        let prev = present.filter(|_| put.prev_kv).map(|kv| kv.encode_to_vec());
        Ok(Answer::Put { revision: main, prev })
    }

    fn delete(&mut self, delete: &DeleteRange, before: &Self, sub: &mut i64) -> Answer {
        let gone = self.all(&delete.keys, NOW);
        for kv in &gone {
            let at = (before.current + 1, *sub);
            self.events.push(Event { key: kv.key.to_vec(), at, put: None });
            *sub += 1;
        }
        let revision = before.current + i64::from(*sub > 0);
        let prev = gone.iter().filter(|_| delete.prev_kv).map(|kv| kv.encode_to_vec()).collect();
        Answer::Delete { revision, deleted: gone.len() as i64, prev }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs = self.all(&compare.keys, NOW);
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(mvccpb::KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let order = match &compare.target {
                CompareTarget::Version(given) => kv.version.cmp(given),
                CompareTarget::Create(given) => kv.create_revision.cmp(given),
                CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
                CompareTarget::Lease(given) => kv.lease.cmp(given),
                CompareTarget::Value(given) => kv.value.cmp(given),
                CompareTarget::Unknown => std::cmp::Ordering::Equal,
            };
            match compare.result {
                CompareResult::Equal => order == std::cmp::Ordering::Equal,
                CompareResult::NotEqual => order != std::cmp::Ordering::Equal,
                CompareResult::Greater => order == std::cmp::Ordering::Greater,
                CompareResult::Less => order == std::cmp::Ordering::Less,
                CompareResult::Unknown => true,
            }
        })
    }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded }
}

fn within(range: &KeyRange, key: &[u8]) -> bool {
    let start: &[u8] = &range.start;
    match &range.end {
        RangeEnd::Single => key == start,
        RangeEnd::Unbounded => start <= key,
        RangeEnd::Before(end) => start <= key && key < &end[..],
    }
}
