//! Requests from words, by the descriptors of the protocol.
//!
//! A field is named as in the protocol or with small letters only, an enum by its value's name or
//! number. The request is a dynamic message: a field that the generated types hold in another form
//! is here what it is on the wire.

use std::sync::LazyLock;

use anyhow::{Context as _, bail};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

use super::lens::Lens;
use super::verbs::{Leading, Verb};
use super::words;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_proto::DESCRIPTORS).expect("the build wrote these descriptors")
});

/// The descriptor of `package.Service/Method`, if the protocol has it.
pub fn method(name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.split_once('/')?;
    POOL.get_service_by_name(service)?.methods().find(|candidate| candidate.name() == method)
}

/// The descriptor of a message that the protocol has.
pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("the protocol has this message")
}

/// The request of a verb.
///
/// # Errors
/// When a word fits no field.
pub fn of_verb(verb: &Verb, words: &[String], lens: &Lens) -> anyhow::Result<DynamicMessage> {
    let method = method(verb.method).context("the protocol has every verb's method")?;
    let mut message = DynamicMessage::new(method.input());
    fill(&mut message, verb.leading, words, lens)?;
    Ok(message)
}

/// Sets the fields that the words name.
///
/// # Errors
/// When a word fits no field.
pub fn fill(
    message: &mut DynamicMessage,
    leading: Leading,
    words: &[String],
    lens: &Lens,
) -> anyhow::Result<()> {
    let mut words = words.iter();
    match leading {
        Leading::Fields => {}
        Leading::KeyValue => {
            let word = words.next().context("KEY=VALUE is missing")?;
            let (key, value) = words::split_at(word, "=").unwrap_or((word, ""));
            set(message, "key", key, lens)?;
            set(message, "value", value, lens)?;
        }
        Leading::KeyRange => {
            let word = words.next().context("KEY..END is missing")?;
            key_range(message, word, lens)?;
        }
        Leading::One(field) => {
            if let Some(word) = words.next() {
                set(message, field, word, lens)?;
            }
        }
    }
    for word in words {
        let (name, value) = words::split_at(word, "=").unwrap_or((word, "true"));
        set(message, name, value, lens)?;
    }
    Ok(())
}

/// Sets `key`, and `range_end` of `KEY..END`.
///
/// # Errors
/// When an escape is none.
pub fn key_range(message: &mut DynamicMessage, word: &str, lens: &Lens) -> anyhow::Result<()> {
    match words::split_at(word, "..") {
        Some((key, end)) => {
            set(message, "key", key, lens)?;
            set(message, "range_end", end, lens)
        }
        None => set(message, "key", word, lens),
    }
}

/// Sets one field, or one in an inner message (`a.b`).
///
/// # Errors
/// When there is no such field, or the value is not of its type.
pub fn set(
    message: &mut DynamicMessage,
    name: &str,
    value: &str,
    lens: &Lens,
) -> anyhow::Result<()> {
    if let Some((outer, inner)) = name.split_once('.') {
        let field = field(&message.descriptor(), outer)?;
        if !message.has_field(&field) {
            message.set_field(&field, Value::default_value_for_field(&field));
        }
        let child = message.get_field_mut(&field).as_message_mut();
        return set(child.context("not a message")?, inner, value, lens);
    }
    let field = field(&message.descriptor(), name)?;
    let value = scalar(&field, value, lens).with_context(|| format!("the value of {name}"))?;
    if field.is_list() {
        let list = message.get_field_mut(&field).as_list_mut();
        list.context("a list field holds a list")?.push(value);
    } else {
        message.set_field(&field, value);
    }
    Ok(())
}

fn field(message: &MessageDescriptor, name: &str) -> anyhow::Result<FieldDescriptor> {
    let plain = |name: &str| name.to_lowercase().replace('_', "");
    let wanted = if name == "rev" && message.get_field_by_name("rev").is_none() {
        if message.name() == "WatchCreateRequest" {
            "startrevision".into()
        } else {
            "revision".into()
        }
    } else {
        plain(name)
    };
    message
        .fields()
        .find(|field| plain(field.name()) == wanted)
        .with_context(|| format!("{} has no field {name}", message.name()))
}

fn scalar(field: &FieldDescriptor, word: &str, lens: &Lens) -> anyhow::Result<Value> {
    let variable = word.starts_with('$').then(|| lens.variable(word)).flatten();
    let word = variable.as_deref().unwrap_or(word);
    Ok(match field.kind() {
        Kind::Bool => Value::Bool(word.parse()?),
        Kind::Int64 => Value::I64(number(word, lens)?),
        Kind::Uint64 => Value::U64(word.parse()?),
        Kind::String => Value::String(lens_url(&String::from_utf8(words::bytes(word)?)?, lens)),
        Kind::Bytes => Value::Bytes(words::bytes(word)?.into()),
        Kind::Enum(values) => {
            let named = values.values().find(|value| value.name().eq_ignore_ascii_case(word));
            Value::EnumNumber(match named {
                Some(value) => value.number(),
                None => word.parse()?,
            })
        }
        other => bail!("a field of type {other:?} cannot be set"),
    })
}

/// Addresses are asked for by the names that replies show them with.
fn lens_url(text: &str, lens: &Lens) -> String {
    let known = lens.urls.iter().find(|(_, name)| **name == text);
    known.map_or_else(|| text.to_owned(), |(url, _)| url.clone())
}

/// A number: relative to the start of the case (`+3`), hexadecimal (`0x10`) or plain.
///
/// # Errors
/// When it is none of these.
pub fn number(word: &str, lens: &Lens) -> anyhow::Result<i64> {
    if let Some(relative) = word.strip_prefix('+') {
        return Ok(lens.base + relative.parse::<i64>()?);
    }
    match word.strip_prefix("0x") {
        Some(digits) => Ok(i64::from_str_radix(digits, 16)?),
        None => word.parse().with_context(|| format!("`{word}` is no number")),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::etcdserverpb::{
        AuthRoleGrantPermissionRequest, RangeRequest, WatchCreateRequest,
    };

    use super::*;
    use crate::conformance::verbs;

    fn request(line: &str, base: i64) -> anyhow::Result<Vec<u8>> {
        let mut lens = Lens::default();
        lens.begin(base, false);
        let words = words::split(line)?;
        let (verb, rest) = verbs::find(&words).context("no verb")?;
        Ok(of_verb(verb, rest, &lens)?.encode_to_vec())
    }

    #[test]
    fn words_set_the_fields_that_they_name() {
        let bytes = request("range a..c limit=1 rev=+2 sort_order=descend keys_only", 40).unwrap();
        let expected = RangeRequest {
            key: "a".into(),
            range_end: "c".into(),
            limit: 1,
            revision: 42,
            sort_order: 2,
            keys_only: true,
            ..Default::default()
        };
        assert_eq!(RangeRequest::decode(&bytes[..]).unwrap(), expected);
        let bytes = request("role grant r perm.permtype=readwrite perm.key=k", 0).unwrap();
        let grant = AuthRoleGrantPermissionRequest::decode(&bytes[..]).unwrap();
        assert_eq!(grant.perm.unwrap().perm_type, 2);
        assert!(request("range a colour=blue", 0).is_err());
        assert!(request("range a limit=many", 0).is_err());
    }

    #[test]
    fn every_verb_names_a_method() {
        for verb in verbs::VERBS {
            assert!(method(verb.method).is_some(), "{}", verb.method);
        }
    }

    #[test]
    fn a_watch_starts_at_a_revision_of_the_case() {
        let mut lens = Lens::default();
        lens.begin(10, false);
        let mut create = DynamicMessage::new(message("etcdserverpb.WatchCreateRequest"));
        let words = ["a".to_owned(), "rev=+1".to_owned(), "filters=noput".to_owned()];
        fill(&mut create, Leading::KeyRange, &words, &lens).unwrap();
        let create = WatchCreateRequest::decode(&create.encode_to_vec()[..]).unwrap();
        assert_eq!((create.start_revision, create.filters), (11, vec![0]));
    }
}
