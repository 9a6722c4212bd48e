//! Transactions: a command and its indented lines.
//!
//! ```text
//! txn
//!   if version a = 0
//!   if value a..c != x
//!   then put a=1
//!   else txn
//!     then range a
//! ```
//!
//! A compare without a last word has no operand; a target or a result may be a number. `3x put k%=v`
//! stands for three operations.

use anyhow::{Context as _, bail};
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::lens::Lens;
use super::verbs::Leading;
use super::{requests, words};

const RESULTS: [(&str, i32); 4] = [("=", 0), (">", 1), ("<", 2), ("!=", 3)];
/// Name, number, and the field of the operand.
const TARGETS: [(&str, i32, &str); 5] = [
    ("version", 0, "version"),
    ("create", 1, "create_revision"),
    ("mod", 2, "mod_revision"),
    ("value", 3, "value"),
    ("lease", 4, "lease"),
];

/// The request of the lines below a `txn`.
///
/// # Errors
/// When a line is none of a transaction; the text holds it.
pub fn of_lines(lines: &[String], lens: &Lens) -> anyhow::Result<DynamicMessage> {
    let mut txn = DynamicMessage::new(requests::message("etcdserverpb.TxnRequest"));
    let mut rest = lines;
    while let Some((line, below)) = rest.split_first() {
        let indent = indent_of(line);
        let inner = below.iter().take_while(|line| indent_of(line) > indent).count();
        add_line(&mut txn, line, &below[..inner], lens).with_context(|| format!("`{line}`"))?;
        rest = &below[inner..];
    }
    Ok(txn)
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn add_line(
    txn: &mut DynamicMessage,
    line: &str,
    inner: &[String],
    lens: &Lens,
) -> anyhow::Result<()> {
    let words = words::split(line)?;
    let (kind, words) = words.split_first().context("an empty line")?;
    let (count, words) = super::step::repetition(words);
    let field = match kind.as_str() {
        "if" => "compare",
        "then" => "success",
        "else" => "failure",
        _ => bail!("a line of a transaction begins with if, then or else"),
    };
    for number in 1..=count {
        let words = super::step::numbered(words, number);
        let message = match field {
            "compare" => compare(&words, lens)?,
            _ => operation(&words, inner, lens)?,
        };
        let list = txn.get_field_by_name_mut(field).and_then(Value::as_list_mut);
        list.context("a transaction has this list")?.push(Value::Message(message));
    }
    Ok(())
}

fn operation(words: &[String], inner: &[String], lens: &Lens) -> anyhow::Result<DynamicMessage> {
    let mut operation = DynamicMessage::new(requests::message("etcdserverpb.RequestOp"));
    let (verb, rest) = words.split_first().context("an operation is missing")?;
    let (field, leading) = match verb.as_str() {
        "put" => ("request_put", Leading::KeyValue),
        "range" => ("request_range", Leading::KeyRange),
        "delete" => ("request_delete_range", Leading::KeyRange),
        "txn" => {
            let txn = Value::Message(of_lines(inner, lens)?);
            operation.set_field_by_name("request_txn", txn);
            return Ok(operation);
        }
        "nothing" => return Ok(operation),
        _ => bail!("no operation {verb}"),
    };
    let descriptor = operation.descriptor().get_field_by_name(field);
    let descriptor = descriptor.context("an operation has this field")?;
    let mut request = DynamicMessage::new(
        descriptor.kind().as_message().context("an operation is a message")?.clone(),
    );
    requests::fill(&mut request, leading, rest, lens)?;
    operation.set_field(&descriptor, Value::Message(request));
    Ok(operation)
}

fn compare(words: &[String], lens: &Lens) -> anyhow::Result<DynamicMessage> {
    let [target, key, result, operand @ ..] = words else {
        bail!("a compare is TARGET KEY RESULT OPERAND");
    };
    let mut compare = DynamicMessage::new(requests::message("etcdserverpb.Compare"));
    // `mod/value` asks for one target and carries the operand of another.
    let (target, union) = target.split_once('/').unwrap_or((target, target));
    let number = TARGETS.iter().find(|(name, ..)| name == &target).map(|(_, number, _)| *number);
    let number = number.map_or_else(|| target.parse(), Ok).context("an unknown target")?;
    let code = RESULTS.iter().find(|(name, _)| name == result).map(|(_, code)| *code);
    let code = code.map_or_else(|| result.parse(), Ok).context("an unknown result")?;
    compare.set_field_by_name("target", Value::EnumNumber(number));
    compare.set_field_by_name("result", Value::EnumNumber(code));
    requests::key_range(&mut compare, key, lens)?;
    if let Some(operand) = operand.first() {
        let field = TARGETS.iter().find(|(name, ..)| name == &union).map(|(_, _, field)| *field);
        requests::set(&mut compare, field.context("an operand needs a target")?, operand, lens)?;
    }
    Ok(compare)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::etcdserverpb::TxnRequest;
    use quorate_proto::etcdserverpb::request_op::Request;

    use super::*;

    fn txn(text: &str) -> anyhow::Result<TxnRequest> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let message = of_lines(&lines, &Lens::default())?;
        Ok(TxnRequest::decode(&message.encode_to_vec()[..])?)
    }

    #[test]
    fn indented_lines_nest() {
        let text = "  if value a..c != x\n  then txn\n    then put b=2\n  then 2x put k%=v\n  else range a";
        let txn = txn(text).unwrap();
        assert_eq!((txn.compare[0].target, txn.compare[0].result), (3, 3));
        assert_eq!(txn.compare[0].range_end, "c");
        let Some(Request::RequestTxn(inner)) = &txn.success[0].request else { panic!() };
        assert_eq!(inner.success.len(), 1);
        let Some(Request::RequestPut(put)) = &txn.success[2].request else { panic!() };
        assert_eq!(put.key, "k2");
        assert_eq!((txn.success.len(), txn.failure.len()), (3, 1));
    }

    #[test]
    fn a_compare_may_have_no_operand_and_a_line_must_be_one() {
        assert_eq!(txn("  if mod a =").unwrap().compare[0].target_union, None);
        assert!(txn("  when mod a =").is_err());
        assert!(txn("  then fly a").is_err());
    }
}
