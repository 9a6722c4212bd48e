//! The services beside keys: what `quorate` answers is what a real `etcd` answers, call by call.
//!
//! Each test makes one list of calls on a server and writes down every reply or refusal as text. The list
//! is made on both servers, and the texts have to be equal; what is known to differ is listed with both
//! replies where it is asked for. Without `etcd` on the PATH the texts are only checked where a test says
//! what it expects.

use std::fmt::Debug;

use anyhow::Context as _;
use quorate_proto::authpb::{Permission, UserAddOptions};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_tests::load::connect;
use quorate_tests::process::{Program, Server, locate};
use tonic::transport::Channel;
use tonic::{Response, Status};

type Outcome = anyhow::Result<()>;

/// Replies as text, with the IDs of the server and its term by name.
struct Transcript {
    lines: Vec<String>,
    names: Vec<(String, &'static str)>,
}

impl Transcript {
    fn new(lone: &pb::MemberListResponse, server: &Server) -> Self {
        let header = lone.header.unwrap_or_default();
        let names = vec![
            (header.cluster_id.to_string(), "CLUSTER"),
            (header.member_id.to_string(), "MEMBER"),
            (format!("raft_term: {}", header.raft_term), "TERM"),
            (server.url(), "CLIENT-URL"),
            (lone.members.first().map_or_else(String::new, |m| m.peer_ur_ls.concat()), "PEER-URL"),
        ];
        Self { lines: Vec::new(), names }
    }

    fn note<T: Debug>(&mut self, call: impl Debug, reply: Result<Response<T>, Status>) {
        let reply = match reply {
            Ok(reply) => format!("{:?}", reply.into_inner()),
            Err(status) => format!("{:?} {:?}", status.code(), status.message()),
        };
        let mut line = format!("{call:?} -> {reply}");
        for (text, name) in &self.names {
            line = line.replace(text, name);
        }
        self.lines.push(line);
    }
}

/// Notes what a call is answered: `ask!(transcript, client.method(request))`.
macro_rules! ask {
    ($transcript:ident, $client:ident . $method:ident ( $request:expr )) => {{
        let request = $request;
        let reply = $client.$method(request.clone()).await;
        $transcript.note(request, reply);
    }};
}

async fn list(channel: &Channel) -> anyhow::Result<pb::MemberListResponse> {
    let request = pb::MemberListRequest { linearizable: true };
    Ok(ClusterClient::new(channel.clone()).member_list(request).await?.into_inner())
}

fn quorate() -> anyhow::Result<Server> {
    Server::start(&Program::quorate(locate::built_quorate()?))
}

fn etcd(test: &str) -> anyhow::Result<Option<Server>> {
    locate::tool("etcd", test).map(|path| Server::start(&Program::etcd(path))).transpose()
}

/// Runs the same calls on both servers and compares what they answer.
fn assert_same<F>(test: &str, calls: impl Fn(Channel, Transcript) -> F) -> Outcome
where
    F: Future<Output = anyhow::Result<Transcript>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = |server: Server| {
        runtime.block_on(async {
            let channel = connect(&server.url()).await?;
            let transcript = Transcript::new(&list(&channel).await?, &server);
            calls(channel, transcript).await.map(|transcript| transcript.lines)
        })
    };
    let ours = run(quorate()?).context("quorate")?;
    assert!(!ours.is_empty());
    let Some(etcd) = etcd(test)? else { return Ok(()) };
    let theirs = run(etcd).context("etcd")?;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    Ok(())
}

async fn ask_auth(channel: Channel, mut t: Transcript) -> anyhow::Result<Transcript> {
    let mut c = AuthClient::new(channel);
    let name = || "x".to_owned();
    let long = || "p".repeat(73);
    ask!(t, c.auth_status(pb::AuthStatusRequest {}));
    ask!(t, c.auth_enable(pb::AuthEnableRequest {}));
    ask!(t, c.auth_disable(pb::AuthDisableRequest {}));
    ask!(t, c.authenticate(pb::AuthenticateRequest::default()));
    ask!(t, c.authenticate(pb::AuthenticateRequest { name: "root".into(), password: "p".into() }));
    ask!(t, c.user_add(pb::AuthUserAddRequest::default()));
    ask!(t, c.user_add(pb::AuthUserAddRequest { password: long(), ..Default::default() }));
    let options = Some(UserAddOptions { no_password: true });
    ask!(t, c.user_add(pb::AuthUserAddRequest { password: long(), options, ..Default::default() }));
    ask!(t, c.user_get(pb::AuthUserGetRequest { name: name() }));
    ask!(t, c.user_list(pb::AuthUserListRequest {}));
    ask!(t, c.user_delete(pb::AuthUserDeleteRequest { name: "root".into() }));
    for password in [String::new(), "p".into(), long()] {
        let request =
            pb::AuthUserChangePasswordRequest { name: name(), password, ..Default::default() };
        ask!(t, c.user_change_password(request));
    }
    for name in ["", "x", "root"] {
        let name = || name.to_owned();
        ask!(t, c.user_grant_role(pb::AuthUserGrantRoleRequest { user: name(), role: name() }));
        ask!(t, c.user_revoke_role(pb::AuthUserRevokeRoleRequest { name: name(), role: name() }));
        ask!(t, c.role_get(pb::AuthRoleGetRequest { role: name() }));
        ask!(t, c.role_delete(pb::AuthRoleDeleteRequest { role: name() }));
    }
    ask!(t, c.role_add(pb::AuthRoleAddRequest::default()));
    ask!(t, c.role_list(pb::AuthRoleListRequest {}));
    ask!(t, c.role_grant_permission(pb::AuthRoleGrantPermissionRequest::default()));
    for (key, end) in [("a", ""), ("a", "a"), ("b", "\0"), ("", "\0"), ("b", "a"), ("a", "b")] {
        let perm = Permission { perm_type: 0, key: key.into(), range_end: end.into() };
        let request = pb::AuthRoleGrantPermissionRequest { name: name(), perm: Some(perm) };
        ask!(t, c.role_grant_permission(request));
    }
    let request = pb::AuthRoleRevokePermissionRequest { role: name(), ..Default::default() };
    ask!(t, c.role_revoke_permission(request));
    Ok(t)
}

#[test]
fn without_users_auth_answers_as_an_etcd_without_users() -> Outcome {
    assert_same("without_users_auth_answers_as_an_etcd_without_users", ask_auth)
}

async fn ask_members(channel: Channel, mut t: Transcript) -> anyhow::Result<Transcript> {
    let lone = list(&channel).await?.members.pop().context("a member")?;
    let mut c = ClusterClient::new(channel);
    let (mine, own) = (lone.peer_ur_ls[0].clone(), lone.id);
    let adds = [vec![], vec!["x"], vec!["http://127.0.0.1"], vec!["http://a:1/"], vec![&*mine]];
    for urls in adds.into_iter().chain([vec!["unix:x", &mine], vec!["http://u@:9?q", &mine]]) {
        let peer_ur_ls: Vec<String> = urls.into_iter().map(str::to_owned).collect();
        for is_learner in [false, true] {
            let peer_ur_ls = peer_ur_ls.clone();
            ask!(t, c.member_add(pb::MemberAddRequest { peer_ur_ls, is_learner }));
        }
    }
    for id in [0, 5, own] {
        ask!(t, c.member_remove(pb::MemberRemoveRequest { id }));
        ask!(t, c.member_promote(pb::MemberPromoteRequest { id }));
    }
    for id in [0, 5, own] {
        let lists = [vec![], vec!["x"], vec!["http://a:1", "http://b:1"], vec![&*mine]];
        for urls in lists {
            let peer_ur_ls = urls.into_iter().map(str::to_owned).collect();
            ask!(t, c.member_update(pb::MemberUpdateRequest { id, peer_ur_ls }));
            ask!(t, c.member_list(pb::MemberListRequest { linearizable: true }));
        }
    }
    Ok(t)
}

#[test]
fn a_lone_member_answers_who_would_change_it_as_etcd_does() -> Outcome {
    assert_same("a_lone_member_answers_who_would_change_it_as_etcd_does", ask_members)
}

async fn ask_maintenance(channel: Channel, mut t: Transcript) -> anyhow::Result<Transcript> {
    use pb::downgrade_request::DowngradeAction::{Cancel, Enable, Validate};
    let own = list(&channel).await?.members[0].id;
    let mut c = MaintenanceClient::new(channel);
    for target_id in [0, 5, own] {
        ask!(t, c.move_leader(pb::MoveLeaderRequest { target_id }));
    }
    let wrong = ["", "3", "v3.6", "3.6.0.0", "3.6.0-a..b"];
    for version in wrong.into_iter().chain(["3.5", "3.7.0", "3.8", "4.0"]) {
        for action in [Validate as i32, Enable as i32, Cancel as i32, 7] {
            let version = version.to_owned();
            ask!(t, c.downgrade(pb::DowngradeRequest { action, version }));
        }
    }
    Ok(t)
}

#[test]
fn leadership_stays_and_no_version_but_the_one_before_is_a_target() -> Outcome {
    assert_same("leadership_stays_and_no_version_but_the_one_before_is_a_target", ask_maintenance)
}

/// etcd does each of these: it stores users and roles, adds the member, and prepares its files for the
/// version before. Here each is refused.
#[test]
fn what_cannot_be_done_yet_is_refused_in_words() -> Outcome {
    let server = quorate()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lines = runtime.block_on(async {
        let channel = connect(&server.url()).await?;
        let mut t = Transcript::new(&list(&channel).await?, &server);
        let mut c = AuthClient::new(channel.clone());
        ask!(t, c.user_add(pb::AuthUserAddRequest { name: "x".into(), ..Default::default() }));
        ask!(t, c.role_add(pb::AuthRoleAddRequest { name: "x".into() }));
        let mut c = ClusterClient::new(channel.clone());
        let peer_ur_ls = vec!["http://127.0.0.1:1".to_owned()];
        ask!(t, c.member_add(pb::MemberAddRequest { peer_ur_ls, is_learner: false }));
        let mut c = MaintenanceClient::new(channel);
        for action in [0, 1] {
            ask!(t, c.downgrade(pb::DowngradeRequest { action, version: "3.6".into() }));
        }
        anyhow::Ok(t.lines)
    })?;
    assert_eq!(lines.len(), 5);
    for line in lines {
        assert!(line.contains("-> Unimplemented"), "{line}");
        assert!(line.contains("not available in this version"), "{line}");
    }
    Ok(())
}

#[test]
fn new_peer_urls_are_there_after_a_kill() -> Outcome {
    let mut server = quorate()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let urls = vec!["http://127.0.0.1:1".to_owned(), "http://127.0.0.2:1".to_owned()];
    runtime.block_on(async {
        let channel = connect(&server.url()).await?;
        let id = list(&channel).await?.members[0].id;
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: urls.clone() };
        ClusterClient::new(channel).member_update(request).await?;
        anyhow::Ok(())
    })?;
    server.kill()?;
    server.restart()?;
    let listed = runtime.block_on(async { list(&connect(&server.url()).await?).await })?;
    assert_eq!(listed.members[0].peer_ur_ls, urls);
    Ok(())
}
