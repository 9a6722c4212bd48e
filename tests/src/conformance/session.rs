//! One server as the cases see it: connected, emptied before each case, restarted on request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use quorate_proto::etcdserverpb::StatusRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::lens::Lens;
use super::script::Case;
use super::streams::Stream;
use super::wire::{self, Answer, Call};
use super::{requests, show, verbs, words};
use crate::process::{Program, START_DEADLINE, Server};

const POLL: Duration = Duration::from_millis(20);

/// A connection to a server, and what is open on it.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub channel: Channel,
    /// What has names.
    pub lens: Lens,
    /// Open streams by name.
    pub streams: BTreeMap<String, Stream>,
    /// Calls that wait, by name.
    pub waiting: BTreeMap<String, JoinHandle<anyhow::Result<Answer>>>,
    server: Option<Server>,
    url: String,
}

impl Session {
    /// Connects to a server that runs.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(url: &str) -> anyhow::Result<Session> {
        let mut session = Session {
            channel: crate::load::connect(url).await?,
            lens: Lens::default(),
            streams: BTreeMap::new(),
            waiting: BTreeMap::new(),
            server: None,
            url: url.to_owned(),
        };
        session.learn().await.with_context(|| format!("cannot learn who answers at {url}"))?;
        Ok(session)
    }

    /// Starts a server on an empty data dir, and connects.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(program: &Program) -> anyhow::Result<Session> {
        let server = Server::start(program)?;
        let mut session = Session::connect(&server.url()).await?;
        session.server = Some(server);
        session.wait_settled().await?;
        Ok(session)
    }

    /// Waits until the server says that its store has its own version: an etcd serves a moment before.
    async fn wait_settled(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let mut client = MaintenanceClient::new(self.channel.clone());
            let status = client.status(StatusRequest {}).await?.into_inner();
            if minor(&status.version) == minor(&status.storage_version) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "its store stays at {}", status.storage_version);
            self.check_running()?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills the server and starts it again; streams and waiting calls are gone.
    ///
    /// # Errors
    /// When the server is somebody else's, or does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.forget();
        let server = self.server.as_mut().context("this server cannot be restarted")?;
        server.kill()?;
        server.respawn()?;
        self.wait_serving().await
    }

    /// Waits until a range is answered: a server with an alarm serves, but is not healthy.
    async fn wait_serving(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(channel) = crate::load::connect(&self.url).await {
                self.channel = channel;
                match self.learn().await {
                    Ok(()) => return Ok(()),
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => {}
                }
            }
            self.check_running()?;
            ensure!(Instant::now() < deadline, "it does not serve after {START_DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Fails with the end of its log if the server has ended.
    ///
    /// # Errors
    /// When it has.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::check_running)
    }

    /// Prepares the store for a case.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn begin(&mut self, case: &Case) -> anyhow::Result<()> {
        self.forget();
        if case.needs_fresh {
            self.lens.begin(0, true);
            return Ok(());
        }
        self.lens.begin(0, false);
        self.disarm().await?;
        for id in self.listed("lease list", "leases").await? {
            self.call(&format!("lease revoke {}", show::number(&id, "ID"))).await?;
        }
        let answer = self.call("delete \\0..\\0").await?;
        if let Some(error) = answer.error {
            bail!("cannot empty the store: {error}");
        }
        let base = self.revision().await?;
        self.lens.begin(base, false);
        Ok(())
    }

    /// The current revision.
    ///
    /// # Errors
    /// When the server does not answer a range.
    pub async fn revision(&mut self) -> anyhow::Result<i64> {
        let header = self.header().await?;
        Ok(show::number(&header, "revision"))
    }

    /// How many keys there are.
    ///
    /// # Errors
    /// When the server does not answer a range.
    pub async fn keys(&mut self) -> anyhow::Result<i64> {
        let answer = self.call("range \\0..\\0 count_only").await?;
        Ok(show::number(&message(&answer)?, "count"))
    }

    fn forget(&mut self) {
        self.streams.clear();
        for (_, call) in std::mem::take(&mut self.waiting) {
            call.abort();
        }
    }

    /// Takes back all alarms: they refuse what the other cases do.
    async fn disarm(&mut self) -> anyhow::Result<()> {
        for alarm in self.listed("alarm get", "alarms").await? {
            let member = show::unsigned(&alarm, "memberID");
            let kind = alarm.get_field_by_name("alarm").and_then(|kind| kind.as_enum_number());
            let kind = kind.unwrap_or(0);
            self.call(&format!("alarm deactivate memberID={member} alarm={kind}")).await?;
        }
        Ok(())
    }

    /// The messages of one list of a reply; none when the server does not know the call.
    async fn listed(&mut self, line: &str, field: &str) -> anyhow::Result<Vec<DynamicMessage>> {
        let answer = self.call(line).await?;
        if answer.error.is_some() {
            return Ok(Vec::new());
        }
        let reply = message(&answer)?;
        let list = reply.get_field_by_name(field);
        let items = list.iter().filter_map(|list| list.as_list()).flatten();
        Ok(items.filter_map(|item| item.as_message().cloned()).collect())
    }

    async fn header(&mut self) -> anyhow::Result<DynamicMessage> {
        let answer = self.call("range \\0").await?;
        if let Some(error) = answer.error {
            bail!("{error}");
        }
        let header =
            message(&answer)?.get_field_by_name("header").map(|header| header.into_owned());
        header.and_then(|header| header.as_message().cloned()).context("a header")
    }

    /// Learns whose replies these are.
    async fn learn(&mut self) -> anyhow::Result<()> {
        let header = self.header().await?;
        self.lens.cluster = show::unsigned(&header, "cluster_id");
        self.lens.member = show::unsigned(&header, "member_id");
        self.lens.term = show::unsigned(&header, "raft_term");
        for member in self.listed("member list", "members").await? {
            if show::unsigned(&member, "ID") != self.lens.member {
                continue;
            }
            for (field, name) in [("peerURLs", "<peer-url>"), ("clientURLs", "<client-url>")] {
                for url in strings(&member, field) {
                    self.lens.urls.insert(url, name);
                }
            }
            self.lens.name = strings(&member, "name").pop().unwrap_or_default();
        }
        Ok(())
    }

    /// A call of one line that names a verb.
    async fn call(&mut self, line: &str) -> anyhow::Result<Answer> {
        let words = words::split(line)?;
        let call = prepared(words, &[], &self.lens)?;
        wire::ask(self.channel.clone(), call).await
    }
}

/// The call of a command.
///
/// # Errors
/// When no verb is named so, or a word fits no field.
pub fn prepared(mut words: Vec<String>, below: &[String], lens: &Lens) -> anyhow::Result<Call> {
    let metadata = wire::take_metadata(&mut words)?;
    if words.first().is_some_and(|word| word == "call") {
        let [_, path, body @ ..] = &words[..] else { bail!("call METHOD BYTES") };
        let body = body.first().map_or_else(|| Ok(Vec::new()), |body| words::bytes(body))?;
        let method = requests::method(path);
        return Ok(Call { path: path.clone(), method, body: body.into(), metadata });
    }
    let (verb, rest) =
        verbs::find(&words).with_context(|| format!("no command `{}`", words.join(" ")))?;
    let message = match verb.name {
        "txn" => super::txn::of_lines(below, lens)?,
        _ => requests::of_verb(verb, rest, lens)?,
    };
    Ok(Call {
        path: verb.method.to_owned(),
        method: requests::method(verb.method),
        body: message.encode_to_vec().into(),
        metadata,
    })
}

/// The one message of a reply.
fn message(answer: &Answer) -> anyhow::Result<DynamicMessage> {
    let method = answer.method.as_ref().context("a method of the protocol")?;
    let bytes = answer.messages.first().with_context(|| format!("no reply: {:?}", answer.error))?;
    Ok(DynamicMessage::decode(method.output(), bytes.clone())?)
}

fn strings(message: &DynamicMessage, field: &str) -> Vec<String> {
    let value = message.get_field_by_name(field).map(|value| value.into_owned());
    match value {
        Some(prost_reflect::Value::String(text)) => vec![text],
        Some(prost_reflect::Value::List(list)) => {
            list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// A version without its last part.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}
