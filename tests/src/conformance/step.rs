//! The commands of a step, one after the other, and the lines that they print.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use sha1::{Digest as _, Sha1};
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;

use super::session::{Session, prepared};
use super::streams::{MESSAGE_DEADLINE, Received, SILENCE, Stream};
use super::verbs::Leading;
use super::wire::{self, Answer};
use super::{requests, show, tally, words};

const WATCH: &str = "etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "etcdserverpb.Lease/LeaseKeepAlive";
/// The most that a command may be repeated.
const REPEAT_MAX: usize = 20_000;

/// Runs the lines of a step; what they print.
///
/// # Errors
/// When a line is no command, or the server is gone.
pub async fn run(session: &mut Session, input: &[String]) -> anyhow::Result<Vec<String>> {
    let mut output = Vec::new();
    let mut rest = input;
    while let Some((line, after)) = rest.split_first() {
        let below = after.iter().take_while(|line| line.starts_with(' ')).count();
        let words = words::split(line)?;
        let printed = command(session, words, &after[..below]).await;
        output.extend(printed.with_context(|| format!("`{line}`"))?);
        rest = &after[below..];
    }
    Ok(output)
}

/// The count of `5x`, and the words behind it; 1 without.
pub fn repetition(words: &[String]) -> (usize, &[String]) {
    let count = words.first().and_then(|word| word.strip_suffix('x')?.parse().ok());
    match count {
        Some(count) => (std::cmp::min(count, REPEAT_MAX), &words[1..]),
        None => (1, words),
    }
}

/// The words with the number instead of `%`.
pub fn numbered(words: &[String], number: usize) -> Vec<String> {
    words.iter().map(|word| word.replace('%', &number.to_string())).collect()
}

async fn command(
    session: &mut Session,
    words: Vec<String>,
    below: &[String],
) -> anyhow::Result<Vec<String>> {
    let (name, rest) = words.split_first().context("an empty line")?;
    match name.as_str() {
        "watch" => watch(session, rest).await,
        "keepalive" => keep_alive(session, rest).await,
        "observe" => observe(session, rest),
        "expect" => expect(session, rest).await,
        "tally" => tally(session, rest).await,
        "until" => until(session, rest).await,
        "close" => close(session, rest),
        "finish" => finish(session, rest),
        "bg" => background(session, rest, below),
        "pending" => pending(session, rest).await,
        "join" => join(session, rest).await,
        "together" => together(session, rest).await,
        "fill" => fill(session, rest).await,
        "restart" => session.restart().await.map(|()| vec!["(restarted)".to_owned()]),
        "identity" => identity(session).await,
        _ if repetition(&words).1.len() < words.len() => repeat(session, &words, below).await,
        _ => call(session, words, below).await,
    }
}

async fn call(
    session: &mut Session,
    words: Vec<String>,
    below: &[String],
) -> anyhow::Result<Vec<String>> {
    let call = prepared(words, below, &session.lens)?;
    let answer = wire::ask(session.channel.clone(), call).await?;
    shown(session, &answer)
}

/// The lines of an answer.
fn shown(session: &mut Session, answer: &Answer) -> anyhow::Result<Vec<String>> {
    let lens = &mut session.lens;
    let mut lines = Vec::new();
    if let Some(method) = &answer.method {
        match method.name() {
            "Snapshot" => lines = tally::snapshot(&answer.messages),
            "RangeStream" => {
                let merged = tally::merged(&answer.messages);
                lines.extend(merged.iter().flat_map(|merged| show::reply(merged, lens)));
            }
            _ => {
                for message in &answer.messages {
                    let message = DynamicMessage::decode(method.output(), message.clone())?;
                    lines.extend(show::reply(&message, lens));
                }
            }
        }
    }
    lines.extend(answer.error.iter().map(|status| show::error(status, lens)));
    Ok(lines)
}

/// Runs a command several times; the last reply.
async fn repeat(
    session: &mut Session,
    words: &[String],
    below: &[String],
) -> anyhow::Result<Vec<String>> {
    let (count, words) = repetition(words);
    let mut last = Vec::new();
    for number in 1..=count {
        let words = numbered(words, number);
        last = match words[0].as_str() {
            "watch" => watch(session, &words[1..]).await?,
            "keepalive" => keep_alive(session, &words[1..]).await?,
            _ => call(session, words, below).await?,
        };
    }
    Ok(last)
}

/// Runs a command until it is refused. How often that takes differs from server to server, so
/// revisions count anew from here.
async fn fill(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let (count, words) = repetition(words);
    for number in 1..=count {
        let lines = call(session, numbered(words, number), &[]).await?;
        if lines.iter().any(|line| line.starts_with("error")) {
            session.lens.base = session.revision().await?;
            return Ok(lines);
        }
    }
    Ok(vec![format!("(taken {count} times)")])
}

/// Sends a command several times at once; how many ended how.
async fn together(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let (count, words) = repetition(words);
    let mut calls = JoinSet::new();
    for number in 1..=count {
        let call = prepared(numbered(words, number), &[], &session.lens)?;
        calls.spawn(wire::ask(session.channel.clone(), call));
    }
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(answer) = calls.join_next().await {
        let error = answer??.error.map(|status| show::error(&status, &session.lens));
        *outcomes.entry(error.unwrap_or_else(|| "ok".to_owned())).or_default() += 1;
    }
    Ok(outcomes.iter().map(|(outcome, count)| format!("{count} times {outcome}")).collect())
}

fn background(
    session: &mut Session,
    words: &[String],
    below: &[String],
) -> anyhow::Result<Vec<String>> {
    let (name, words) = words.split_first().context("bg NAME COMMAND")?;
    let call = prepared(words.to_vec(), below, &session.lens)?;
    let task = tokio::spawn(wire::ask(session.channel.clone(), call));
    session.waiting.insert(name.clone(), task);
    Ok(Vec::new())
}

async fn pending(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let name = words.first().context("pending NAME")?;
    let task = session.waiting.get_mut(name).with_context(|| format!("no call {name}"))?;
    match tokio::time::timeout(SILENCE, &mut *task).await {
        Err(_) => Ok(vec!["(waits)".to_owned()]),
        Ok(answer) => {
            session.waiting.remove(name);
            let mut lines = vec!["(does not wait)".to_owned()];
            lines.extend(shown(session, &answer??)?);
            Ok(lines)
        }
    }
}

async fn join(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let name = words.first().context("join NAME")?;
    let task = session.waiting.remove(name).with_context(|| format!("no call {name}"))?;
    let answer = task.await??;
    shown(session, &answer)
}

async fn watch(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let (name, words) = words.split_first().context("watch W ...")?;
    let mut words = words.to_vec();
    let metadata = wire::take_metadata(&mut words)?;
    let is_silent = words.iter().position(|word| word == "silently").map(|at| words.remove(at));
    let mut request = DynamicMessage::new(requests::message("etcdserverpb.WatchRequest"));
    let (field, leading) = match words.first().map(String::as_str) {
        Some("cancel") => ("cancel_request", Leading::One("watch_id")),
        Some("progress") => ("progress_request", Leading::Fields),
        Some("nothing") => ("", Leading::Fields),
        _ => ("create_request", Leading::KeyRange),
    };
    if !field.is_empty() {
        let type_name = match field {
            "cancel_request" => "etcdserverpb.WatchCancelRequest",
            "progress_request" => "etcdserverpb.WatchProgressRequest",
            _ => "etcdserverpb.WatchCreateRequest",
        };
        let skipped = usize::from(field != "create_request");
        let mut inner = DynamicMessage::new(requests::message(type_name));
        requests::fill(&mut inner, leading, &words[skipped..], &session.lens)?;
        request.set_field_by_name(field, Value::Message(inner));
    }
    send(session, (name, WATCH), &request, metadata).await?;
    match is_silent {
        Some(_) => Ok(Vec::new()),
        None => next(session, name).await.map(|(lines, _)| lines),
    }
}

/// Sends on a stream, which is opened if it is not there.
async fn send(
    session: &mut Session,
    (name, method): (&str, &'static str),
    request: &DynamicMessage,
    metadata: MetadataMap,
) -> anyhow::Result<()> {
    let channel = session.channel.clone();
    let stream = session
        .streams
        .entry(name.to_owned())
        .or_insert_with(|| Stream::open(&channel, method, metadata));
    stream.send(request.encode_to_vec().into()).await;
    Ok(())
}

/// One keep-alive of each id, on one stream.
async fn keep_alive(session: &mut Session, ids: &[String]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut ids = ids.to_vec();
    let metadata = wire::take_metadata(&mut ids)?;
    for id in &ids {
        let mut request =
            DynamicMessage::new(requests::message("etcdserverpb.LeaseKeepAliveRequest"));
        requests::set(&mut request, "ID", id, &session.lens)?;
        send(session, ("keepalive", KEEP_ALIVE), &request, metadata.clone()).await?;
        let (printed, ends) = next_of(session, "keepalive", KEEP_ALIVE).await?;
        lines.extend(printed);
        if ends {
            break;
        }
    }
    session.streams.remove("keepalive");
    Ok(lines)
}

fn observe(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let (name, words) = words.split_first().context("observe W NAME")?;
    let mut request = DynamicMessage::new(requests::message("v3electionpb.LeaderRequest"));
    requests::fill(&mut request, Leading::One("name"), words, &session.lens)?;
    let path = "v3electionpb.Election/Observe";
    let call = wire::Call {
        path: path.to_owned(),
        method: requests::method(path),
        body: request.encode_to_vec().into(),
        metadata: MetadataMap::new(),
    };
    let stream = Stream::of_call(&session.channel, call);
    session.streams.insert(name.clone(), stream);
    Ok(Vec::new())
}

/// What comes next on a stream, and whether that is its end.
async fn next(session: &mut Session, name: &str) -> anyhow::Result<(Vec<String>, bool)> {
    next_of(session, name, WATCH).await
}

async fn next_of(
    session: &mut Session,
    name: &str,
    method: &str,
) -> anyhow::Result<(Vec<String>, bool)> {
    let stream = session.streams.get_mut(name).with_context(|| format!("no stream {name}"))?;
    let method = if stream.is_of_call() { "v3electionpb.Election/Observe" } else { method };
    match stream.next(MESSAGE_DEADLINE).await {
        Received::Message(bytes) => Ok((message_lines(session, method, bytes)?, false)),
        Received::End(end) => Ok((vec![ended(session, end.as_ref())], true)),
        Received::Nothing => bail!("nothing came within {MESSAGE_DEADLINE:?}"),
    }
}

fn ended(session: &Session, end: Option<&tonic::Status>) -> String {
    match end {
        Some(status) => show::error(status, &session.lens),
        None => "(end)".to_owned(),
    }
}

fn message_lines(session: &mut Session, method: &str, bytes: Bytes) -> anyhow::Result<Vec<String>> {
    let method = requests::method(method).context("a method of the protocol")?;
    let message = DynamicMessage::decode(method.output(), bytes)?;
    Ok(show::reply(&message, &mut session.lens))
}

/// Reads so many responses; `sorted` when the order between watchers is open.
async fn expect(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let [name, count, options @ ..] = words else { bail!("expect W COUNT") };
    if count == "none" {
        let stream = session.streams.get_mut(name).with_context(|| format!("no stream {name}"))?;
        return Ok(match stream.next(SILENCE).await {
            Received::Nothing => vec!["(nothing)".to_owned()],
            Received::Message(bytes) => message_lines(session, WATCH, bytes)?,
            Received::End(end) => vec![ended(session, end.as_ref())],
        });
    }
    let mut responses = Vec::new();
    for _ in 0..count.parse::<usize>()? {
        let (lines, ends) = next(session, name).await?;
        responses.push(lines);
        if ends {
            break;
        }
    }
    if options.iter().any(|option| option == "sorted") {
        responses.sort();
    }
    Ok(responses.concat())
}

/// Reads until a response has a revision; shows it and those before it that hold events. How often
/// a server tells its progress meanwhile is a matter of time.
async fn until(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let [name, revision] = words else { bail!("until W rev=REV") };
    let mut output = Vec::new();
    loop {
        let (lines, ends) = next(session, name).await?;
        let reached = lines[0].split(' ').any(|word| word == revision);
        if lines.len() > 1 || reached || ends {
            output.extend(lines);
        }
        if ends || reached {
            return Ok(output);
        }
    }
}

/// Reads until so many events came; says what is true of them.
async fn tally(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let [name, count] = words else { bail!("tally W COUNT") };
    let count: usize = count.parse()?;
    let mut events = tally::Events::default();
    let descriptor = requests::message("etcdserverpb.WatchResponse");
    while events.count < count {
        let stream = session.streams.get_mut(name).with_context(|| format!("no stream {name}"))?;
        match stream.next(MESSAGE_DEADLINE).await {
            Received::Message(bytes) => {
                events.add(&DynamicMessage::decode(descriptor.clone(), bytes)?);
            }
            Received::End(end) => bail!("{} after {}", ended(session, end.as_ref()), events.count),
            Received::Nothing => bail!("only {} events came", events.count),
        }
    }
    Ok(events.lines(&session.lens))
}

/// Says that no request follows on a stream.
fn finish(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let name = words.first().context("finish W")?;
    session.streams.get_mut(name).with_context(|| format!("no stream {name}"))?.finish();
    Ok(Vec::new())
}

/// Resets a stream.
fn close(session: &mut Session, words: &[String]) -> anyhow::Result<Vec<String>> {
    let name = words.first().context("close W")?;
    session.streams.remove(name).with_context(|| format!("no stream {name}"))?;
    Ok(Vec::new())
}

/// Computes the ids from the peer URLs, as an etcd does at its first start.
async fn identity(session: &mut Session) -> anyhow::Result<Vec<String>> {
    const TOKEN: &str = "etcd-cluster";
    let first = |hash: &[u8]| hash[..8].try_into().map(u64::from_be_bytes);
    let peers: Vec<&str> = session
        .lens
        .urls
        .iter()
        .filter(|(_, name)| **name == "<peer-url>")
        .map(|(url, _)| url.as_str())
        .collect();
    let member = first(&Sha1::digest(format!("{}{TOKEN}", peers.concat())))?;
    let cluster = first(&Sha1::digest(member.to_be_bytes()))?;
    let yes = |holds: bool| if holds { "yes" } else { "NO" };
    Ok(vec![
        format!("member is sha1(peer URLs, token): {}", yes(member == session.lens.member)),
        format!("cluster is sha1(members): {}", yes(cluster == session.lens.cluster)),
    ])
}
