//! Reads.

use std::cmp::Ordering;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_proto::mvccpb::KeyValue;

use super::{Model, Refusal, header, in_range, visible};

impl Model {
    /// Reads a range while the store is at `current`, which within a transaction includes what it has
    /// written so far.
    pub(super) fn range(
        &self,
        range: &RangeRequest,
        current: i64,
    ) -> Result<RangeResponse, Refusal> {
        let revision = self.readable(range.revision, current)?;
        let mut found = self.present(&range.key, &range.range_end, revision);
        let mut reply = RangeResponse {
            header: header(current),
            count: i64::try_from(found.len()).expect("a model is small"),
            ..RangeResponse::default()
        };
        if range.count_only {
            return Ok(reply);
        }
        let bounds = |kv: &KeyValue| {
            within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
                && within(kv.create_revision, range.min_create_revision, range.max_create_revision)
        };
        let limit = usize::try_from(range.limit).unwrap_or(0);
        if limit > 0 && !needs_all(range) {
            // One more than asked for shows whether there are more; so a target without an order
            // sorts only the first keys.
            found.truncate(limit + 1);
        }
        found.retain(bounds);
        sort(range, &mut found);
        if limit > 0 && found.len() > limit {
            found.truncate(limit);
            reply.more = true;
        }
        reply.kvs = found.into_iter().map(|kv| shown(kv, range)).collect();
        Ok(reply)
    }

    /// The revision that a read of `asked` sees, if it may.
    pub(super) fn readable(&self, asked: i64, current: i64) -> Result<i64, Refusal> {
        match asked {
            _ if asked > current => Err(Refusal::FutureRevision),
            _ if asked <= 0 => Ok(current),
            _ if asked < self.compact_revision => Err(Refusal::Compacted),
            _ => Ok(asked),
        }
    }

    /// The keys of a range that existed at `revision`, in order.
    pub(super) fn present(&self, start: &[u8], end: &[u8], revision: i64) -> Vec<KeyValue> {
        let inside = self.keys.iter().filter(|(key, _)| in_range(key, start, end));
        inside.filter_map(|(_, versions)| visible(versions, revision)).cloned().collect()
    }
}

fn within(revision: i64, min: i64, max: i64) -> bool {
    (min == 0 || revision >= min) && (max == 0 || revision <= max)
}

/// Whether every key of the range must be looked at, whatever the limit.
fn needs_all(range: &RangeRequest) -> bool {
    range.sort_order() != SortOrder::None
        || range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

/// Sorts as asked; equal keys of a sort stay in the order of the keys themselves.
fn sort(range: &RangeRequest, found: &mut [KeyValue]) {
    let by = |a: &KeyValue, b: &KeyValue| match range.sort_target() {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    let descending = range.sort_order() == SortOrder::Descend;
    found.sort_by(|a, b| match (by(a, b), descending) {
        (Ordering::Less, true) => Ordering::Greater,
        (Ordering::Greater, true) => Ordering::Less,
        (order, _) => order,
    });
}

/// A key as a range shows it. Without values, the lease is not there either, since 3.7, unless the
/// values had to be looked at for their order.
fn shown(mut kv: KeyValue, range: &RangeRequest) -> Bytes {
    if range.keys_only {
        kv.value = Bytes::new();
        if SortTarget::try_from(range.sort_target) != Ok(SortTarget::Value) {
            kv.lease = 0;
        }
    }
    kv.encode_to_vec().into()
}
