//! Requests in a readable form: a name and the fields that are set.

use std::fmt::{self, Display, Formatter};

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

use super::operation::Operation;

/// Longer values are shown by their length.
const BYTES_SHOWN_MAX: usize = 60;

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Range(request) => write!(f, "range {}", range(request)),
            Operation::RangeStream(request) => write!(f, "range-stream {}", range(request)),
            Operation::Put(request) => write!(f, "put {}", put(request)),
            Operation::Delete(request) => write!(f, "delete {}", delete(request)),
            Operation::Txn(request) => write!(f, "txn {}", txn(request, 1)),
            Operation::Compact(request) => {
                write!(f, "compact revision={} physical={}", request.revision, request.physical)
            }
            Operation::MemberList(request) => {
                write!(f, "member-list linearizable={}", request.linearizable)
            }
            Operation::Status(_) => write!(f, "status"),
            Operation::Alarm(_) => write!(f, "alarm list"),
            Operation::HashKv(request) => write!(f, "hashkv revision={}", request.revision),
            Operation::Lease(operation) => write!(f, "{operation}"),
            Operation::Watch(stream, request) => {
                write!(f, "watch on stream {stream} {}", watch(request))
            }
            Operation::CancelWatch(stream, watch_id) => {
                write!(f, "cancel watch {watch_id} on stream {stream}")
            }
            Operation::WatchProgress(stream) => write!(f, "progress of watch stream {stream}"),
            Operation::CompareWatches => write!(f, "compare what watchers were sent"),
            Operation::Check { compact } => {
                write!(f, "compact revision={compact} physical=true, hashkv at each revision left")
            }
        }
    }
}

/// Name and value of each field that is not its default.
#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn bytes(mut self, name: &str, value: &Bytes) -> Fields {
        if value.len() > BYTES_SHOWN_MAX {
            self.0.push(format!("{name}=({} bytes)", value.len()));
        } else if !value.is_empty() {
            self.0.push(format!("{name}=\"{}\"", value.escape_ascii()));
        }
        self
    }

    fn number(mut self, name: &str, value: i64) -> Fields {
        if value != 0 {
            self.0.push(format!("{name}={value}"));
        }
        self
    }

    fn flag(mut self, name: &str, value: bool) -> Fields {
        if value {
            self.0.push(name.to_owned());
        }
        self
    }

    fn text(self) -> String {
        self.0.join(" ")
    }
}

fn range(request: &RangeRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .number("limit", request.limit)
        .number("revision", request.revision)
        .number("sort_order", request.sort_order.into())
        .number("sort_target", request.sort_target.into())
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
        .number("min_mod_revision", request.min_mod_revision)
        .number("max_mod_revision", request.max_mod_revision)
        .number("min_create_revision", request.min_create_revision)
        .number("max_create_revision", request.max_create_revision)
        .text()
}

fn put(request: &PutRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .bytes("value", &request.value)
        .number("lease", request.lease)
        .flag("prev_kv", request.prev_kv)
        .flag("ignore_value", request.ignore_value)
        .flag("ignore_lease", request.ignore_lease)
        .text()
}

fn delete(request: &DeleteRangeRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .flag("prev_kv", request.prev_kv)
        .text()
}

fn watch(request: &WatchCreateRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .number("start_revision", request.start_revision)
        .number("watch_id", request.watch_id)
        .flag("prev_kv", request.prev_kv)
        .flag("fragment", request.fragment)
        .flag("no_put", request.filters.contains(&0))
        .flag("no_delete", request.filters.contains(&1))
        .text()
}

fn txn(request: &TxnRequest, depth: usize) -> String {
    let mut text = String::new();
    let indent = "  ".repeat(depth);
    for one in &request.compare {
        text.push_str(&format!("\n{indent}if {}", compare(one)));
    }
    for (name, branch) in [("then", &request.success), ("else", &request.failure)] {
        for one in branch {
            text.push_str(&format!("\n{indent}{name} {}", op(one, depth + 1)));
        }
    }
    text
}

fn op(op: &RequestOp, depth: usize) -> String {
    match &op.request {
        None => "(nothing)".to_owned(),
        Some(Request::RequestRange(request)) => format!("range {}", range(request)),
        Some(Request::RequestPut(request)) => format!("put {}", put(request)),
        Some(Request::RequestDeleteRange(request)) => format!("delete {}", delete(request)),
        Some(Request::RequestTxn(request)) => format!("txn {}", txn(request, depth)),
    }
}

fn compare(compare: &Compare) -> String {
    let against = match &compare.target_union {
        None => "(nothing)".to_owned(),
        Some(TargetUnion::Version(number)) => format!("version {number}"),
        Some(TargetUnion::CreateRevision(number)) => format!("create_revision {number}"),
        Some(TargetUnion::ModRevision(number)) => format!("mod_revision {number}"),
        Some(TargetUnion::Lease(number)) => format!("lease {number}"),
        Some(TargetUnion::Value(value)) if value.is_empty() => "value \"\"".to_owned(),
        Some(TargetUnion::Value(value)) => Fields::default().bytes("value", value).text(),
    };
    Fields::default()
        .bytes("key", &compare.key)
        .bytes("range_end", &compare.range_end)
        .number("target", compare.target.into())
        .number("result", compare.result.into())
        .text()
        + " against "
        + &against
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_set_fields_are_shown() {
        let request = RangeRequest { key: "a\0".into(), limit: -1, ..Default::default() };
        assert_eq!(Operation::Range(request).to_string(), "range key=\"a\\x00\" limit=-1");
    }

    #[test]
    fn a_nested_txn_is_indented() {
        let op = |request| RequestOp { request: Some(request) };
        let inner = TxnRequest {
            failure: vec![op(Request::RequestPut(PutRequest {
                key: "k".into(),
                ..Default::default()
            }))],
            ..Default::default()
        };
        let outer = TxnRequest {
            compare: vec![Compare { key: "c".into(), ..Default::default() }],
            success: vec![op(Request::RequestTxn(inner))],
            ..Default::default()
        };
        assert_eq!(
            Operation::Txn(outer).to_string(),
            "txn \n  if key=\"c\" against (nothing)\n  then txn \n    else put key=\"k\""
        );
    }
}
