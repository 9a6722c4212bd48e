//! Several members in peace: elections, catching up, changes of the configuration, handing over.

use quorate_proto::raftpb::ConfChangeType;

use super::super::*;
use super::cluster::{Cluster, Disk};

#[test]
fn members_elect_one_of_them_and_commit_what_any_of_them_proposes() {
    for size in [3, 5] {
        let mut cluster = Cluster::new(size, 5);
        let leader = cluster.elect();
        for id in 1..=size {
            cluster.propose(id, 10).unwrap();
            cluster.read(id);
        }
        cluster.settle();
        // The changes of the bootstrap, the leader's empty entry, and the commands.
        let total = size + 1 + 10 * size;
        assert_eq!(cluster.history.len() as u64, total);
        assert!(cluster.members.values().all(|member| member.applied == total));
        assert_eq!(cluster.reads_answered as u64, size);
        assert!(cluster.node(leader).is_leader());
    }
}

#[test]
fn messages_of_a_leader_do_not_wait_for_its_own_disk_but_answers_do() {
    let mut cluster = Cluster::new(3, 5);
    let leader = cluster.elect();
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.node(leader).propose(vec!["a".into()]).unwrap();
    let ready = cluster.node(leader).take_ready().unwrap();
    assert!(ready.sync.is_some());
    let appends = ready.messages;
    assert_eq!(appends.iter().map(Message::kind).collect::<Vec<_>>(), [MessageKind::Append; 2]);

    let append = appends.into_iter().find(|message| message.to() == follower).unwrap();
    let node = cluster.node(follower);
    node.step(append).unwrap();
    let ready = node.take_ready().unwrap();
    assert_eq!((ready.messages.len(), ready.entries.len()), (0, 1));
    // A heartbeat's answer would overtake the entries' one: it waits, too.
    node.persisted(ready.sync.unwrap());
    let answers = node.take_ready().unwrap().messages;
    assert_eq!(
        answers.iter().map(Message::kind).collect::<Vec<_>>(),
        [MessageKind::AppendResponse]
    );

    // A quorum has it, but the leader's own disk does not: the leader does not hand it out.
    let node = cluster.node(leader);
    node.step(answers.into_iter().next().unwrap()).unwrap();
    assert!(node.take_ready().is_none_or(|ready| ready.committed.is_empty()));
}

#[test]
fn a_member_that_was_away_catches_up() {
    let mut cluster = Cluster::new(3, 8);
    let leader = cluster.elect();
    let away = if leader == 1 { 2 } else { 1 };
    cluster.crash(away);
    cluster.propose(leader, 3_000).unwrap();
    cluster.settle();
    assert_eq!(cluster.history.len(), 3_004);
    let matched = |cluster: &mut Cluster, id| {
        let progress = cluster.node(id).status().progress;
        progress.iter().map(|member| member.matched_index).collect::<Vec<_>>()
    };
    let mut expected = [3_004; 3];
    expected[away as usize - 1] = 4;
    assert_eq!(matched(&mut cluster, leader), expected);
    cluster.start(away);
    cluster.elect();
    cluster.settle();
    assert_eq!(cluster.members[&away].applied, 3_004);
    assert_eq!(matched(&mut cluster, leader), [3_004; 3]);
    assert_eq!(matched(&mut cluster, away), [0; 0]);
}

#[test]
fn a_leader_without_its_quorum_stops_leading() {
    let mut cluster = Cluster::new(3, 8);
    let leader = cluster.elect();
    cluster.isolated = vec![leader];
    for _ in 0..25 {
        cluster.tick(leader);
        cluster.settle();
    }
    assert!(!cluster.node(leader).is_leader());
    // Its pre-votes reach nobody, so its term stays and it disturbs nobody when it is back.
    let term = cluster.node(leader).soft_state().term;
    for _ in 0..200 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!(cluster.node(leader).soft_state().term, term);
}

#[test]
fn leadership_moves_to_the_voter_that_is_named() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let heir = if leader == 1 { 2 } else { 1 };
    assert_eq!(cluster.node(heir).transfer_leader(leader), Err(TransferError::NotLeader));
    assert_eq!(cluster.node(leader).transfer_leader(9), Err(TransferError::NotVoter(9)));
    assert_eq!(cluster.node(leader).transfer_leader(leader), Ok(()));
    cluster.node(leader).transfer_leader(heir).unwrap();
    assert_eq!(cluster.propose(leader, 1), Err(ProposeError::Transferring));
    cluster.settle();
    assert!(cluster.node(heir).is_leader() && !cluster.node(leader).is_leader());
    cluster.propose(leader, 1).unwrap();
    cluster.settle();
    assert_eq!(cluster.history.len(), 3 + 2 + 1);
}

#[test]
fn a_learner_is_added_promoted_and_removed() {
    let mut cluster = Cluster::new(3, 4);
    cluster.fixed = false;
    let leader = cluster.elect();
    cluster.add(4, Disk::default());
    let conf_state = |cluster: &Cluster| {
        let states: Vec<_> = cluster.members.values().map(|m| m.conf_state.clone()).collect();
        assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
        (states[0].voters.clone(), states[0].learners.clone())
    };
    for (kind, voters, learners) in [
        (ConfChangeType::ConfChangeAddLearnerNode, vec![1, 2, 3], vec![4]),
        (ConfChangeType::ConfChangeUpdateNode, vec![1, 2, 3], vec![4]),
        (ConfChangeType::ConfChangeAddNode, vec![1, 2, 3, 4], vec![]),
    ] {
        cluster.change(leader, kind, 4).unwrap();
        cluster.settle();
        assert_eq!(conf_state(&cluster), (voters, learners));
    }
    cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, 4).unwrap();
    cluster.settle();
    assert_eq!(cluster.members[&leader].conf_state.voters, [1, 2, 3]);
}

#[test]
fn only_one_change_of_the_configuration_is_under_way() {
    let mut cluster = Cluster::new(3, 4);
    cluster.fixed = false;
    let leader = cluster.elect();
    let follower = if leader == 1 { 2 } else { 1 };
    let kind = ConfChangeType::ConfChangeAddLearnerNode;
    cluster.change(leader, kind, 4).unwrap();
    assert_eq!(cluster.change(leader, kind, 5), Err(ProposeError::ConfChangePending));
    // A follower cannot know. Its proposal becomes an empty entry.
    cluster.change(follower, kind, 6).unwrap();
    cluster.settle();
    let last = cluster.history.values().last().unwrap();
    assert_eq!((last.kind, last.data.len()), (EntryKind::Normal, 0));
    assert_eq!(cluster.members[&leader].conf_state.learners, [4]);
}

#[test]
fn a_leader_that_removes_itself_steps_down_for_good() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(3, seed);
        cluster.fixed = false;
        let leader = cluster.elect();
        cluster.propose(leader, 5).unwrap();
        cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, leader).unwrap();
        cluster.settle();
        assert!(!cluster.node(leader).is_leader());
        for _ in 0..100 {
            cluster.tick(leader); // It may never campaign again.
            cluster.settle();
        }
        assert_eq!(cluster.leader(), None);
        cluster.crash(leader);
        let heir = cluster.elect();
        cluster.propose(heir, 1).unwrap();
        cluster.settle();
        assert_eq!(cluster.members[&heir].conf_state.voters.len(), 2);
        assert_eq!(cluster.members[&heir].applied, 3 + 1 + 5 + 1 + 1 + 1);
    }
}

#[test]
fn a_change_that_would_leave_no_voter_is_an_error() {
    let mut cluster = Cluster::new(1, 1);
    cluster.settle();
    let change = Entry {
        index: 2,
        term: 2,
        kind: EntryKind::ConfChange,
        data: b"\x10\x01\x18\x01"[..].into(), // Remove member 1.
    };
    assert_eq!(cluster.node(1).apply_conf_change(&change), Err(ConfChangeError::Refused));
}

#[test]
fn a_follower_below_the_leaders_memory_waits_and_harms_nobody() {
    let mut cluster = Cluster::new(3, 8);
    cluster.log_bytes_max = 0;
    (1..=3).for_each(|id| cluster.start(id));
    let leader = cluster.elect();
    let away = if leader == 1 { 2 } else { 1 };
    cluster.crash(away);
    cluster.propose(leader, 100).unwrap();
    cluster.settle();
    cluster.node(leader).trim(u64::MAX);
    assert_eq!(cluster.node(leader).log_bytes(), 0);
    cluster.start(away);
    for _ in 0..50 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!(cluster.members[&away].applied, 4);
    cluster.propose(leader, 1).unwrap();
    cluster.settle();
    assert_eq!(cluster.members[&leader].applied, 105);
}
