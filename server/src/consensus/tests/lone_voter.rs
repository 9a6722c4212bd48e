//! A cluster of one: the fewest turns, and none too early.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb::ConfChangeType;
use raft::eraftpb;

use super::super::*;
use super::cluster::{Cluster, Disk};

fn lone() -> Cluster {
    let mut cluster = Cluster::new(1, 1);
    cluster.settle();
    cluster.node(1).campaign();
    cluster.take(1);
    cluster.settle();
    cluster
}

#[test]
fn a_lone_voter_leads_without_waiting() {
    let mut cluster = lone();
    assert!(cluster.node(1).is_leader());
    let status = cluster.node(1).status();
    assert_eq!(status.soft_state, SoftState { term: 2, leader_id: 1, is_leader: true });
    assert_eq!((status.commit_index, status.applied_index, status.last_index), (2, 2, 2));
    assert_eq!(status.conf_state, ConfState { voters: vec![1], learners: vec![] });
}

#[test]
fn a_lone_voters_entry_is_committed_only_when_its_own_disk_has_it() {
    let mut cluster = lone();
    let node = cluster.node(1);
    let mut syncs = Vec::new();
    for command in ["a", "b", "c"] {
        node.propose(vec![command.into()]).unwrap();
        let ready = node.take_ready().unwrap();
        assert_eq!(ready.entries.len(), 1);
        assert_eq!((ready.committed, ready.hard_state), (vec![], None), "nothing but a write");
        assert_eq!(node.take_ready(), None);
        syncs.push(ready.sync.unwrap());
        for _ in 0..50 {
            node.tick(); // Waiting does not make it durable.
        }
        assert!(node.take_ready().is_none_or(|ready| ready.committed.is_empty()));
    }
    let data = |ready: Ready| ready.committed.into_iter().map(|e| e.data).collect::<Vec<_>>();
    node.persisted(syncs[1]);
    let ready = node.take_ready().unwrap();
    assert_eq!((ready.sync, ready.hard_state.unwrap().commit), (None, 4), "no sync for a commit");
    assert_eq!(data(ready), ["a", "b"]);
    node.persisted(syncs[1]); // Again, and late: no matter.
    node.persisted(syncs[0]);
    assert_eq!(node.take_ready(), None);
    node.persisted(syncs[2]);
    assert_eq!(data(node.take_ready().unwrap()), ["c"]);
    assert_eq!(node.take_ready(), None);
}

#[test]
fn a_batch_takes_two_turns_and_shares_the_second_with_the_next_batch() {
    let mut cluster = lone();
    let node = cluster.node(1);
    node.propose(vec!["a".into(); 100]).unwrap();
    let first = node.take_ready().unwrap();
    assert_eq!(first.entries.len(), 100);
    node.propose(vec!["b".into(); 50]).unwrap();
    node.persisted(first.sync.unwrap());
    let second = node.take_ready().unwrap();
    assert_eq!((second.committed.len(), second.entries.len()), (100, 50));
    assert!(second.sync.is_some());
}

#[test]
fn a_read_on_a_lone_voter_is_answered_at_once() {
    let mut cluster = lone();
    let node = cluster.node(1);
    node.read_index(b"r").unwrap();
    let context = Bytes::from_static(b"r");
    assert_eq!(node.take_ready().unwrap().read_states, [ReadState { context, index: 2 }]);
    assert_eq!(node.read_index(b""), Err(ReadIndexError::EmptyContext));
}

#[test]
fn before_it_leads_nothing_can_be_asked_and_before_it_committed_nothing_read() {
    let mut cluster = Cluster::new(1, 1);
    assert_eq!(cluster.propose(1, 1), Err(ProposeError::NoLeader));
    assert_eq!(cluster.node(1).read_index(b"r"), Err(ReadIndexError::NoLeader));
    cluster.node(1).campaign();
    assert!(!cluster.node(1).is_leader(), "its configuration is not applied yet");
    cluster.settle();
    cluster.node(1).campaign();
    assert!(cluster.node(1).is_leader());
    assert_eq!(cluster.node(1).read_index(b"r"), Err(ReadIndexError::NotYet));
}

#[test]
fn a_lone_voter_tells_learners_of_its_term_only_when_it_cannot_forget_it() {
    let mut cluster = lone();
    cluster.fixed = false;
    cluster.add(2, Disk::default());
    cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, 2).unwrap();
    cluster.settle();
    cluster.flush(1);
    cluster.crash(1);
    cluster.start(1);
    cluster.settle();

    let node = cluster.node(1);
    node.campaign();
    let ready = node.take_ready().unwrap();
    assert!(node.is_leader() && ready.hard_state.unwrap().term == 3);
    node.propose(vec!["a".into()]).unwrap();
    let next = node.take_ready().unwrap();
    assert_eq!((ready.messages.len(), next.messages.len()), (0, 0));
    node.persisted(ready.sync.unwrap());
    assert!(!node.take_ready().unwrap().messages.is_empty());
    // From then on they leave at once.
    node.tick();
    assert!(!node.take_ready().unwrap().messages.is_empty());
}

/// Its only fellow removes itself, and another entry is still on the way to the disk.
#[test]
fn a_voter_that_becomes_lone_does_not_lead_before_its_disk_has_its_log() {
    type Input = fn(&mut Consensus);
    let inputs: [Input; 3] = [Consensus::tick, Consensus::campaign, |node| {
        let mut message = eraftpb::Message { from: 2, to: 1, term: 2, ..Default::default() };
        message.set_msg_type(eraftpb::MessageType::MsgTimeoutNow);
        node.step(Message::decode(message.encode_to_vec().into()).unwrap()).unwrap();
    }];
    for input in inputs {
        let mut cluster = Cluster::new(2, 1);
        cluster.fixed = false;
        cluster.settle();
        cluster.node(2).campaign();
        cluster.elect();
        assert!(cluster.node(2).is_leader());
        cluster.change(2, ConfChangeType::ConfChangeRemoveNode, 2).unwrap();
        cluster.propose(2, 1).unwrap();
        while cluster.members[&1].conf_state.voters != [1] {
            cluster.persist(2, 9);
            cluster.apply(2, 9);
            for message in std::mem::take(&mut cluster.network) {
                cluster.deliver_this(message);
            }
            // The first entry only: with it the change is committed.
            if cluster.node(1).status().persisted_index == 3 {
                cluster.persist(1, 1);
            }
            cluster.apply(1, 9);
        }
        let Status { persisted_index, last_index, .. } = cluster.node(1).status();
        assert_eq!((persisted_index, last_index), (4, 5));
        for _ in 0..100 {
            input(cluster.node(1));
            cluster.take(1);
            assert!(!cluster.node(1).is_leader());
        }
        cluster.persist(1, 9);
        for _ in 0..100 {
            input(cluster.node(1));
            cluster.take(1);
        }
        assert!(cluster.node(1).is_leader());
    }
}

#[test]
fn who_is_no_voter_never_campaigns() {
    let mut node = Consensus::new(Config::new(9, 1), Recovered::default()).unwrap();
    for _ in 0..100 {
        node.campaign();
        node.tick();
        assert_eq!(node.take_ready(), None);
    }
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    for seed in 0..50 {
        let mut cluster = Cluster::new(1, seed);
        for _ in 0..20 {
            cluster.settle();
            cluster.node(1).campaign();
            for _ in 0..10 {
                let _ = cluster.propose(1, 3);
                let count = cluster.rng.below(3);
                cluster.persist(1, count);
                cluster.apply(1, count);
            }
            cluster.flush(1);
            cluster.crash(1); // The history checks the rest.
            cluster.start(1);
        }
        assert!(cluster.history.len() > 100);
    }
}

#[test]
fn too_much_waiting_for_the_disk_is_refused() {
    let mut config = Config::new(1, 1);
    config.uncommitted_bytes_max = 1 << 20;
    let mut disk = Disk::new(&[1]);
    disk.applied = 1;
    disk.conf_state.voters = vec![1];
    let mut node = Consensus::new(config, disk.recovered()).unwrap();
    node.campaign();
    let large = Bytes::from(vec![0; 600 << 10]);
    assert_eq!(node.propose(vec![large.clone()]), Ok(()));
    assert_eq!(node.propose(vec![large.clone()]), Err(ProposeError::TooMuchUncommitted));
    let sync = node.take_ready().unwrap().sync.unwrap();
    node.persisted(sync);
    let committed = node.take_ready().unwrap().committed;
    assert_eq!(committed.len(), 2);
    assert_eq!(node.propose(vec![large]), Ok(()));
}

#[test]
fn what_is_not_applied_is_never_trimmed() {
    let mut cluster = Cluster::new(1, 1);
    cluster.log_bytes_max = 0;
    cluster.start(1);
    cluster.settle();
    cluster.node(1).campaign();
    cluster.take(1);
    cluster.settle();
    cluster.propose(1, 5).unwrap();
    cluster.persist(1, 9);
    cluster.propose(1, 5).unwrap();
    for applied in 2..7 {
        cluster.node(1).trim(u64::MAX);
        let status = cluster.node(1).status();
        assert_eq!(
            (status.applied_index, status.commit_index, status.last_index),
            (applied, 7, 12)
        );
        // Had it been forgotten, what follows could not be handed out.
        assert!(cluster.node(1).log_bytes() as u64 >= (12 - applied) * 88);
        cluster.apply(1, 1);
    }
}

#[test]
fn the_owner_is_told_of_a_full_log_and_trims_it() {
    let mut disk = Disk::new(&[1]);
    disk.applied = 1;
    disk.conf_state.voters = vec![1];
    let mut config = Config::new(1, 1);
    config.log.bytes_max = 1 << 20;
    let mut node = Consensus::new(config, disk.recovered()).unwrap();
    node.campaign();
    for _ in 0..100 {
        node.propose(vec![Bytes::from(vec![0; 100 << 10])]).unwrap();
        while let Some(ready) = node.take_ready() {
            if let Some(entry) = ready.committed.last() {
                node.applied(entry.index);
            }
            if let Some(sync) = ready.sync {
                node.persisted(sync);
            }
        }
        let index = node.status().applied_index;
        node.trim(index);
        assert!(node.log_bytes() <= 1 << 20);
    }
    assert!(node.log_bytes() > 900 << 10, "what fits is kept");
    assert_eq!(node.status().applied_index, 102);
}
