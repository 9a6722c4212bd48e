//! Replies as lines: every field that is set, by the descriptors of the protocol.

use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

use super::lens::Lens;
use super::words::escaped;

/// How much of a lease's time may have passed between a grant and a question, in seconds.
const PASSED_S_MAX: i64 = 5;

/// The lines of a reply.
pub fn reply(message: &DynamicMessage, lens: &mut Lens) -> Vec<String> {
    let mut lines = Vec::new();
    show(message, "", 0, lens, &mut lines);
    folded(&lines)
}

/// Equal lines one after the other as one with their count.
fn folded(lines: &[String]) -> Vec<String> {
    const EQUAL_MIN: usize = 5;
    let mut shown = Vec::new();
    for equal in lines.chunk_by(|one, next| one == next) {
        match equal.len() {
            ..EQUAL_MIN => shown.extend_from_slice(equal),
            count => shown.push(format!("{} ({count} times)", equal[0])),
        }
    }
    shown
}

/// The line of an error.
pub fn error(status: &tonic::Status, lens: &Lens) -> String {
    format!("error {:?}: {}", status.code(), lens.text(status.message()))
}

/// A message: its plain fields on one line behind `prefix`, inner messages on lines below.
fn show(
    message: &DynamicMessage,
    prefix: &str,
    indent: usize,
    lens: &mut Lens,
    lines: &mut Vec<String>,
) {
    let mut words: Vec<String> = Vec::new();
    let mut children: Vec<(String, DynamicMessage)> = Vec::new();
    if !prefix.is_empty() {
        words.push(prefix.to_owned());
    }
    match message.descriptor().name() {
        "KeyValue" => words.extend(key_value(message, lens)),
        "Event" => event(message, lens, &mut words, &mut children),
        _ => {
            words.extend(header(message, lens));
            plain_fields(message, lens, &mut words, &mut children);
        }
    }
    lines.push(format!("{:indent$}{}", "", words.join(" ")));
    let at = lines.len();
    for (name, child) in children {
        show(&child, &name, indent + 2, lens, lines);
    }
    if message.descriptor().name().starts_with("Member") {
        // The order is that of random ids.
        lines[at..].sort();
    }
}

fn plain_fields(
    message: &DynamicMessage,
    lens: &mut Lens,
    words: &mut Vec<String>,
    children: &mut Vec<(String, DynamicMessage)>,
) {
    if message.descriptor().name() == "WatchResponse" {
        words.insert(0, format!("watch={}", number(message, "watch_id")));
    }
    for (field, value) in message.fields() {
        match value {
            _ if field.name() == "header" || field.name() == "watch_id" => {}
            Value::Message(child) => children.push((field.name().to_owned(), child.clone())),
            Value::List(list) if field.kind().as_message().is_some() => {
                let messages = list.iter().filter_map(Value::as_message);
                children.extend(messages.map(|child| named_child(&field, child)));
            }
            Value::List(list) => {
                let mut shown: Vec<String> =
                    list.iter().map(|value| scalar(message, &field, value, lens)).collect();
                if field.name() == "keys" {
                    // The keys of a lease are those of a map in an etcd.
                    shown.sort();
                }
                words.push(format!("{}=[{}]", field.name(), shown.join(" ")));
            }
            Value::Bool(_) => words.push(field.name().to_owned()),
            value => {
                let shown = scalar(message, &field, value, lens);
                words.push(format!("{}={shown}", field.name()));
            }
        }
    }
    let unknown = message.unknown_fields().map(|field| format!("unknown={}", field.number()));
    words.extend(unknown);
}

/// The header: short when it is this server's, spelled out when it is not, named when it is missing.
fn header(message: &DynamicMessage, lens: &mut Lens) -> Option<String> {
    let field = message.descriptor().get_field_by_name("header")?;
    if !message.has_field(&field) {
        return Some("header=none".to_owned());
    }
    let header = message.get_field(&field).as_message()?.clone();
    let (cluster, member) = (unsigned(&header, "cluster_id"), unsigned(&header, "member_id"));
    let (revision, term) = (number(&header, "revision"), unsigned(&header, "raft_term"));
    if (cluster, member, term) == (lens.cluster, lens.member, lens.term) && revision != 0 {
        return Some(format!("rev={}", lens.revision(revision)));
    }
    let mut words = Vec::new();
    for (name, id) in [("cluster", cluster), ("member", member)] {
        if id != 0 {
            words.push(format!("{name}={}", lens.member_id(id)));
        }
    }
    if revision != 0 {
        words.push(format!("rev={}", lens.revision(revision)));
    }
    match term {
        0 => {}
        _ if term == lens.term => words.push("term=<term>".to_owned()),
        _ => words.push(format!("term={term}")),
    }
    Some(format!("header{{{}}}", words.join(" ")))
}

fn key_value(message: &DynamicMessage, lens: &mut Lens) -> Vec<String> {
    let bytes = |name: &str| {
        let value = message.get_field_by_name(name);
        value.and_then(|value| value.as_bytes().cloned()).unwrap_or_default()
    };
    let mut words = vec![format!("{}={}", lens.key(&bytes("key")), escaped(&bytes("value")))];
    for (name, shown) in [("create_revision", "create"), ("mod_revision", "mod")] {
        match number(message, name) {
            0 => {}
            revision => words.push(format!("{shown}={}", lens.revision(revision))),
        }
    }
    match number(message, "version") {
        0 => {}
        version => words.push(format!("version={version}")),
    }
    match number(message, "lease") {
        0 => {}
        lease => words.push(format!("lease={}", lens.id(lease))),
    }
    words
}

fn event(
    message: &DynamicMessage,
    lens: &mut Lens,
    words: &mut Vec<String>,
    children: &mut Vec<(String, DynamicMessage)>,
) {
    let kind = message.get_field_by_name("type").and_then(|kind| kind.as_enum_number());
    words.push(if kind == Some(0) { "PUT" } else { "DELETE" }.to_owned());
    for (field, value) in message.fields() {
        match (field.name(), value.as_message()) {
            ("kv", Some(kv)) => words.extend(key_value(kv, lens)),
            ("prev_kv", Some(kv)) => children.push(("prev_kv".to_owned(), kv.clone())),
            _ => {}
        }
    }
}

/// A message of a list, and the name of one of them.
fn named_child(field: &FieldDescriptor, child: &DynamicMessage) -> (String, DynamicMessage) {
    if child.descriptor().name() == "ResponseOp" {
        return match child.fields().next() {
            Some((field, Value::Message(inner))) => {
                (field.name().trim_start_matches("response_").to_owned(), inner.clone())
            }
            _ => ("nothing".to_owned(), child.clone()),
        };
    }
    let name = match field.name() {
        "events" => String::new(),
        "leases" => "lease".to_owned(),
        name => name.strip_suffix('s').unwrap_or(name).to_owned(),
    };
    (name, child.clone())
}

fn scalar(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    value: &Value,
    lens: &mut Lens,
) -> String {
    let name = field.name();
    match value {
        Value::I64(left) if name == "TTL" && has(message, "grantedTTL") => {
            let granted = number(message, "grantedTTL");
            match granted - left {
                0..=PASSED_S_MAX => format!("~{granted}"),
                _ => left.to_string(),
            }
        }
        Value::I64(_) if name.starts_with("dbSize") && name != "dbSizeQuota" => "<bytes>".into(),
        Value::I64(revision) if name.ends_with("revision") || name == "rev" => {
            lens.revision(*revision)
        }
        Value::I64(id) if matches!(name, "ID" | "lease") => lens.id(*id),
        Value::I64(number) => number.to_string(),
        Value::U64(_) if name.ends_with("Index") => "<index>".to_owned(),
        Value::U64(term) if name == "raftTerm" && *term == lens.term => "<term>".to_owned(),
        Value::U64(id) if matches!(name, "ID" | "memberID" | "leader") => lens.member_id(*id),
        Value::U64(number) => number.to_string(),
        Value::U32(hash) if name == "hash" => lens.hash(*hash),
        Value::String(text) if name == "name" && *text == lens.name => "<name>".to_owned(),
        Value::String(text) if name == "version" || name == "storageVersion" => patch(text),
        // How many spaces stand between the words of an error differs from build to build.
        Value::String(text) if name == "errors" => {
            lens.text(&text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Value::String(text) => lens.text(text),
        Value::Bytes(bytes) => lens.key(bytes),
        Value::EnumNumber(number) => {
            let named = field.kind().as_enum().and_then(|values| values.get_value(*number));
            named.map_or_else(|| number.to_string(), |value| value.name().to_owned())
        }
        other => format!("{other:?}"),
    }
}

/// A version without its patch: that differs from release to release.
fn patch(version: &str) -> String {
    match version.rsplit_once('.') {
        Some((minor, patch)) if patch != "0" && minor.contains('.') => format!("{minor}.<patch>"),
        _ => version.to_owned(),
    }
}

fn has(message: &DynamicMessage, name: &str) -> bool {
    message.descriptor().get_field_by_name(name).is_some()
}

/// A signed field, 0 when it is missing.
pub fn number(message: &DynamicMessage, name: &str) -> i64 {
    message.get_field_by_name(name).and_then(|value| value.as_i64()).unwrap_or(0)
}

/// An unsigned field, 0 when it is missing.
pub fn unsigned(message: &DynamicMessage, name: &str) -> u64 {
    message.get_field_by_name(name).and_then(|value| value.as_u64()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_proto::etcdserverpb::{ResponseHeader, StatusResponse, TxnResponse, WatchResponse};
    use quorate_proto::mvccpb::{Event, KeyValue};

    use super::*;
    use crate::conformance::requests;

    fn shown(name: &str, message: &impl Message) -> Vec<String> {
        let mut lens = Lens::of(1 << 50, 2 << 50, 2);
        lens.begin(10, false);
        let bytes = message.encode_to_vec();
        let message = DynamicMessage::decode(requests::message(name), &bytes[..]).unwrap();
        reply(&message, &mut lens)
    }

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 1 << 50, member_id: 2 << 50, revision, raft_term: 2 })
    }

    #[test]
    fn every_field_that_is_set_is_shown() {
        let kv = KeyValue { key: "a".into(), value: "1".into(), ..Default::default() };
        let event = |kind, mod_revision| Event {
            r#type: kind,
            kv: Some(KeyValue { mod_revision, ..kv.clone() }),
            prev_kv: (kind == 1).then(|| kv.clone()),
        };
        let reply = WatchResponse {
            header: header(12),
            events: vec![event(0, 11), event(1, 12)],
            ..Default::default()
        };
        let expected =
            ["watch=0 rev=+2", "  PUT a=1 mod=+1", "  DELETE a=1 mod=+2", "    prev_kv a=1"];
        assert_eq!(shown("etcdserverpb.WatchResponse", &reply), expected);
    }

    #[test]
    fn a_header_is_short_only_if_it_is_this_servers() {
        for (header, expected) in [
            (header(11), "rev=+1"),
            (header(0), "header{cluster=<cluster> member=<member> term=<term>}"),
            (Some(ResponseHeader { revision: 11, ..Default::default() }), "header{rev=+1}"),
            (
                Some(ResponseHeader { raft_term: 3, ..header(11).unwrap() }),
                "header{cluster=<cluster> member=<member> rev=+1 term=3}",
            ),
            (Some(ResponseHeader::default()), "header{}"),
            (None, "header=none"),
        ] {
            let reply = TxnResponse { header, ..Default::default() };
            assert_eq!(shown("etcdserverpb.TxnResponse", &reply), [expected]);
        }
    }

    #[test]
    fn what_cannot_be_equal_has_a_name() {
        let reply = StatusResponse {
            header: header(10),
            version: "3.7.3".into(),
            db_size: 4096,
            leader: 2 << 50,
            raft_index: 7,
            storage_version: "3.7.0".into(),
            ..Default::default()
        };
        let line = "rev=+0 version=3.7.<patch> dbSize=<bytes> leader=<member> raftIndex=<index> \
                    storageVersion=3.7.0";
        assert_eq!(shown("etcdserverpb.StatusResponse", &reply), [line]);
    }
}
