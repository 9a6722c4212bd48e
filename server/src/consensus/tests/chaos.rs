//! Random faults, then peace, then everybody must agree.

use quorate_proto::raftpb::ConfChangeType;

use super::cluster::{Cluster, Disk};

const STEPS: usize = 3_000;

/// One random step of the world.
fn step(cluster: &mut Cluster, size: u64) {
    let up = cluster.up();
    let any = 1 + cluster.rng.below(size as usize) as u64;
    let is_up = up.contains(&any);
    match cluster.rng.below(100) {
        0..30 => cluster.deliver(),
        30..50 if is_up => cluster.tick(any),
        50..70 if is_up => {
            let count = cluster.rng.below(4);
            cluster.persist(any, count);
        }
        70..80 if is_up => {
            let count = cluster.rng.below(5);
            cluster.apply(any, count);
        }
        80..86 if is_up => {
            let count = 1 + cluster.rng.below(3) as u64;
            let _ = cluster.propose(any, count);
        }
        86..89 if is_up => cluster.read(any),
        89..91 if is_up => cluster.flush(any),
        91 => lose_or_repeat(cluster),
        92 if is_up && cluster.rng.percent(30) => cluster.crash(any),
        93..96 if !is_up => cluster.start(any),
        96 => cluster.isolated = if cluster.rng.percent(50) { vec![any] } else { vec![] },
        97 if is_up => {
            let heir = 1 + cluster.rng.below(size as usize) as u64;
            let _ = cluster.node(any).transfer_leader(heir);
            cluster.take(any);
        }
        98 if is_up => {
            cluster.node(any).report_unreachable(1);
            cluster.take(any);
        }
        _ => cluster.deliver(),
    }
}

fn lose_or_repeat(cluster: &mut Cluster) {
    if cluster.network.is_empty() {
        return;
    }
    let which = cluster.rng.below(cluster.network.len());
    let message = cluster.network.swap_remove(which);
    if cluster.rng.percent(50) {
        return; // Lost.
    }
    // Proposals are delivered at most once; the rest may come twice, also late.
    let kind = super::super::Message::decode(message.clone()).unwrap().kind();
    if kind != super::super::MessageKind::Propose {
        cluster.network.push(message.clone());
    }
    cluster.deliver_this(message);
}

/// Everybody is back, nothing fails: they must agree on a new command.
fn heal(cluster: &mut Cluster, name: &str) {
    cluster.isolated.clear();
    for id in cluster.members.keys().copied().collect::<Vec<_>>() {
        if !cluster.up().contains(&id) {
            cluster.start(id);
        }
    }
    // A leader that was cut off may still find out about it.
    for _ in 0..30 {
        cluster.tick_all();
        cluster.settle();
    }
    for _ in 0..100 {
        cluster.elect();
        let leader = cluster.leader().unwrap();
        if cluster.propose(leader, 1).is_ok() {
            break;
        }
        cluster.tick_all(); // A transfer is under way.
    }
    for _ in 0..30 {
        cluster.tick_all();
        cluster.settle();
    }
    let last = *cluster.history.keys().last().unwrap();
    let data = &cluster.history[&last].data;
    assert!(data.starts_with(b"command"), "{name}: the last entry is {data:?}");
    for member in cluster.members.values() {
        assert_eq!(member.applied, last, "{name}: member {} is behind", member.id);
    }
}

fn run(size: u64, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(size, seed);
    for _ in 0..STEPS {
        step(&mut cluster, size);
    }
    heal(&mut cluster, &format!("{size} members, seed {seed}"));
    cluster
}

#[test]
fn faults_neither_break_the_history_nor_stop_it() {
    let (mut entries, mut reads) = (0, 0);
    for size in [1, 2, 3, 5] {
        for seed in 0..30 {
            let cluster = run(size, 10_000 * size + seed);
            entries += cluster.history.len();
            reads += cluster.reads_answered;
        }
    }
    assert!(entries > 5_000 && reads > 500, "only {entries} entries and {reads} reads");
}

#[test]
fn a_seed_gives_the_same_trace_every_time() {
    for size in [1, 3, 5] {
        let (one, other) = (run(size, 77), run(size, 77));
        let differs = one.trace.lines().zip(other.trace.lines()).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{size} members differ");
        assert_eq!(one.trace.len(), other.trace.len());
        assert_ne!(one.trace, run(size, 78).trace);
    }
}

#[test]
fn members_come_and_go_under_faults() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 90_000 + seed);
        cluster.fixed = false;
        for id in [4, 5] {
            cluster.add(id, Disk::default());
        }
        for _ in 0..STEPS {
            step(&mut cluster, 5);
            if cluster.rng.percent(3)
                && let Some(leader) = cluster.leader()
            {
                let who = 2 + cluster.rng.below(4) as u64;
                let kind = match cluster.rng.below(4) {
                    0 => ConfChangeType::ConfChangeAddLearnerNode,
                    1 => ConfChangeType::ConfChangeRemoveNode,
                    _ => ConfChangeType::ConfChangeAddNode,
                };
                let _ = cluster.change(leader, kind, who);
            }
        }
        // All are wanted in the end, so all must agree in the end.
        cluster.isolated.clear();
        for id in 1..=5 {
            if !cluster.up().contains(&id) {
                cluster.start(id);
            }
        }
        for id in 1..=5 {
            let voters =
                |cluster: &Cluster, leader: u64| cluster.members[&leader].conf_state.voters.clone();
            for _ in 0..300 {
                cluster.tick_all();
                cluster.settle();
                let Some(leader) = cluster.leader() else { continue };
                if voters(&cluster, leader).contains(&id) {
                    break;
                }
                let _ = cluster.change(leader, ConfChangeType::ConfChangeAddNode, id);
            }
            let leader = cluster.leader().unwrap();
            assert!(voters(&cluster, leader).contains(&id), "seed {seed}: no {id}");
        }
        heal(&mut cluster, &format!("changing members, seed {seed}"));
        for member in cluster.members.values() {
            assert_eq!(member.conf_state.voters, [1, 2, 3, 4, 5]);
        }
    }
}
