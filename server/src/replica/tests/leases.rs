//! Leases of a lone voter: what is proposed when, and who waits for what.

use super::*;
use crate::lease::Grant;
use crate::replica::LEASES_MAX;
use crate::replica::event::TimeToLive;
use crate::state_machine::{ConfChange, ConfChangeKind};

const LEASE_ID: i64 = 7;
/// By the first request of [`with_lease`].
const GRANTED: Grant = Grant { id: LEASE_ID, request: 1 };

fn propose(id: u64, request: &pb::InternalRaftRequest) -> Event {
    Event::Propose { id: RequestId(id), command: with_id(encode(request), id) }
}

fn grant(id: u64, lease: i64, ttl: i64) -> Event {
    let lease_grant = Some(pb::LeaseGrantRequest { ttl, id: lease });
    propose(id, &pb::InternalRaftRequest { lease_grant, ..Default::default() })
}

fn put(id: u64, key: &'static str, lease: i64) -> Event {
    let put = Some(pb::PutRequest { key: key.into(), lease, ..Default::default() });
    propose(id, &pb::InternalRaftRequest { put, ..Default::default() })
}

fn renew(id: u64) -> Event {
    Event::Renew { id: RequestId(id), lease: LEASE_ID }
}

fn pass(elapsed_ms: u64) -> Event {
    Event::Tick { elapsed_ms }
}

/// A leader with one lease.
fn with_lease(ttl_s: i64) -> Lone {
    let mut lone = Lone::leading();
    lone.run([grant(1, LEASE_ID, ttl_s), put(2, "b", LEASE_ID), put(3, "a", LEASE_ID)]);
    let replies = lone.sync();
    assert!(replies.iter().all(|(_, reply)| is_done(reply)), "{replies:?}");
    // The first tick is the moment from which the lease counts.
    lone.run([TICK]);
    lone.commands.clear();
    lone
}

fn is_done(reply: &Reply) -> bool {
    matches!(reply, Reply::Committed(Committed { result: Ok(_), .. }))
}

fn renewed(replies: &[(RequestId, Reply)]) -> Vec<(u64, i64)> {
    let ttl = |(id, reply): &(RequestId, Reply)| match reply {
        Reply::Renewed { ttl_s } => (id.0, *ttl_s),
        reply => panic!("{id:?} was answered with {reply:?}"),
    };
    replies.iter().map(ttl).collect()
}

fn left(lone: &mut Lone) -> Option<TimeToLive> {
    let id = RequestId(99);
    let keys_after = Some(Bytes::new());
    match lone.run([Event::TimeToLive { id, lease: LEASE_ID, keys_after }]).pop() {
        Some((_, Reply::TimeToLive(left))) => left,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_renewal_of_a_living_lease_is_answered_at_once_and_proposes_nothing() {
    let mut lone = with_lease(60);
    lone.run([pass(50_000)]);
    assert_eq!(left(&mut lone).unwrap().remaining_ms, 10_000);
    assert_eq!(renewed(&lone.run([renew(4)])), [(4, 60)]);
    lone.run([pass(100)]);
    let expected =
        TimeToLive { ttl_s: 60, remaining_ms: 60_000, keys: vec!["a".into(), "b".into()] };
    assert_eq!(left(&mut lone), Some(expected));
    let unknown = Event::Renew { id: RequestId(5), lease: 8 };
    assert_eq!(renewed(&lone.run([unknown])), [(5, 0)]);
    assert!(lone.commands.is_empty());
}

#[test]
fn a_lease_whose_time_is_over_takes_its_keys_in_one_revision_and_those_who_renew_it_wait() {
    let mut lone = with_lease(60);
    let revision = lone.replica.view.current_revision();
    assert!(lone.run([pass(60_000)]).is_empty());
    assert_eq!(lone.commands, [own::end(GRANTED)]);
    assert!(lone.run([renew(4)]).is_empty(), "it waits until the lease is gone");
    assert_eq!(renewed(&lone.sync()), [(4, 0)]);
    assert_eq!(lone.replica.view.current_revision(), revision + 1);
    assert_eq!(lone.replica.view.key_count(), 0);
    assert_eq!(left(&mut lone), None);
    let counts = lone.replica.published().leases;
    assert_eq!((counts.granted, counts.revoked, counts.expired), (1, 1, 1));
}

#[test]
fn a_lease_without_keys_goes_without_a_revision() {
    let mut lone = Lone::leading();
    lone.run([grant(1, LEASE_ID, 2)]);
    lone.sync();
    let sizes = lone.replica.published().sizes;
    assert_eq!(sizes.in_use_bytes, 64);
    let revision = lone.replica.view.current_revision();
    lone.run([TICK]);
    lone.run([pass(2000)]);
    lone.sync();
    assert_eq!(lone.replica.lessor().len(), 0);
    assert_eq!(lone.replica.view.current_revision(), revision);
    assert_eq!(lone.replica.published().sizes.in_use_bytes, 0);
}

#[test]
fn a_renewal_that_waits_for_a_silent_disk_times_out() {
    let mut lone = with_lease(60);
    lone.run([pass(60_000)]);
    lone.run([renew(4)]);
    let replies: Vec<_> = (0..=REQUEST_TICKS).flat_map(|_| lone.run([TICK])).collect();
    assert!(matches!(replies[..], [(RequestId(4), Reply::Failed(RequestError::Timeout))]));
}

#[test]
fn what_is_left_is_written_down_and_a_renewal_waits_until_that_is_taken_back() {
    let mut lone = with_lease(1000);
    lone.run([pass(300_000)]);
    assert_eq!(lone.commands, [own::checkpoint([(GRANTED, 700)].into_iter())]);
    // Not applied yet, but a new leader may find it in the log.
    lone.commands.clear();
    assert!(lone.run([renew(4), renew(5)]).is_empty());
    assert_eq!(lone.commands, [own::checkpoint([(GRANTED, 0)].into_iter())], "one for both");
    assert_eq!(renewed(&lone.sync()), [(4, 1000), (5, 1000)]);
    assert_eq!(lone.replica.lessor().get(LEASE_ID).unwrap().remaining_ttl_s, 0);
    lone.run([TICK]);
    assert_eq!(left(&mut lone).unwrap().remaining_ms, 1_000_000);
    assert_eq!(renewed(&lone.run([renew(6)])), [(6, 1000)]);
}

/// A change of the configuration that is not committed, and more than raft lets wait beside it: it takes
/// nothing of the batch in which that is.
fn crowd(id: u64) -> [Event; 2] {
    let member = Member { id: MEMBER_ID, ..Member::default() };
    let change = ConfChange { id, kind: ConfChangeKind::Update, member }.encode();
    [Event::ProposeConfChange { id: RequestId(id), change }, put_of(id + 1, 64 << 20)]
}

fn is_crowded_out(replies: &[(RequestId, Reply)]) -> bool {
    matches!(replies, [(_, Reply::Failed(RequestError::TooManyRequests))])
}

#[test]
fn a_renewal_is_answered_although_raft_did_not_take_its_checkpoint_at_first() {
    let mut lone = with_lease(1000);
    lone.run([pass(300_000)]);
    lone.sync();
    lone.commands.clear();
    let replies = lone.run(crowd(4).into_iter().chain([renew(6)]));
    assert!(is_crowded_out(&replies), "{replies:?}");
    assert_eq!(lone.commands.len(), 1, "the change");
    let replies: Vec<_> = (0..3).flat_map(|_| lone.sync()).collect();
    assert_eq!(lone.commands[1..], [own::checkpoint([(GRANTED, 0)].into_iter())]);
    let [(RequestId(4), change), renewal] = &replies[..] else { panic!("{replies:?}") };
    assert!(is_done(change));
    assert_eq!(renewed(std::slice::from_ref(renewal)), [(6, 1000)]);
    assert_eq!(renewed(&lone.run([renew(7)])), [(7, 1000)], "nothing is under way any more");
}

#[test]
fn what_raft_did_not_take_of_what_is_left_is_forgotten_with_the_next_checkpoint_of_0() {
    let mut lone = with_lease(1000);
    let replies = lone.run(crowd(4).into_iter().chain([pass(300_000)]));
    assert!(is_crowded_out(&replies), "{replies:?}");
    assert_eq!(lone.commands.len(), 1, "the change");
    lone.sync();
    assert!(lone.run([renew(6)]).is_empty(), "nobody knows that it was lost");
    assert_eq!(renewed(&lone.sync()), [(6, 1000)]);
    assert_eq!(renewed(&lone.run([renew(7)])), [(7, 1000)]);
}

/// One that follows a checkpoint of 0 in the log, whoever proposed it.
#[test]
fn what_the_records_hold_is_taken_back_before_a_renewal_is_answered() {
    let mut lone = with_lease(1000);
    let left = own::checkpoint([(GRANTED, 700)].into_iter());
    lone.run([Event::Propose { id: RequestId(4), command: with_id(left, 4) }]);
    lone.sync();
    lone.commands.clear();
    assert!(lone.run([renew(5)]).is_empty());
    assert_eq!(lone.commands, [own::checkpoint([(GRANTED, 0)].into_iter())]);
    assert_eq!(renewed(&lone.sync()), [(5, 1000)]);
}

#[test]
fn leases_are_listed_in_pages_by_id() {
    let mut lone = Lone::leading();
    let count = LEASES_MAX as u64 + 1;
    lone.run((1..=count).map(|id| grant(id, i64::try_from(id).unwrap() - 5, 60)));
    let granted = lone.sync().len();
    assert_eq!(granted, 10_000, "a turn ends, whatever is left");
    assert!(lone.replica.has_work());
    assert_eq!(granted + lone.run([]).len(), LEASES_MAX + 1);
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = match lone.run([Event::ListLeases { id: RequestId(99), after }]).pop() {
            Some((_, Reply::Leases(page))) => page,
            reply => panic!("{reply:?}"),
        };
        assert!(page.len() <= LEASES_MAX);
        let Some(&(_, last)) = page.last() else { break };
        after = Some(last);
        listed.extend(page.into_iter().map(|(_, lease)| lease));
    }
    assert!(listed.is_sorted());
    assert_eq!(listed.len() as u64, count - 1, "none has the ID 0");
}

#[test]
fn nobody_renews_or_ends_a_lease_without_leading() {
    let mut lone = Lone::new();
    let mut effects = Vec::new();
    lone.replica.handle(renew(1), &mut effects).unwrap();
    assert!(matches!(
        effects[..],
        [Effect::Reply { reply: Reply::Failed(RequestError::NoLeader), .. }]
    ));
    lone.run([pass(u64::from(u32::MAX))]);
    assert!(!lone.replica.has_work());
}

#[test]
fn thousands_of_leases_end_in_bounded_batches_without_a_tick_in_between() {
    let mut lone = Lone::leading();
    let grants = (1..=5000_u64).map(|id| grant(id, i64::try_from(id).unwrap(), 2));
    lone.run(grants);
    lone.sync();
    lone.run([TICK]);
    lone.commands.clear();
    lone.run([pass(2000)]);
    let mut rounds = 0;
    while !lone.replica.lessor().is_empty() {
        assert!(lone.commands.len() <= 2000, "{}", lone.commands.len());
        lone.commands.clear();
        lone.sync();
        assert!(lone.replica.has_work() || lone.replica.lessor().is_empty());
        lone.run([]);
        rounds += 1;
    }
    assert_eq!(rounds, 3);
}

#[test]
fn a_lease_that_was_granted_anew_is_not_ended_for_the_old_one() {
    let mut lone = with_lease(2);
    for _ in 0..19 {
        lone.run([pass(100)]);
        lone.sync();
    }
    let lease_revoke = Some(pb::LeaseRevokeRequest { id: LEASE_ID });
    let revoke = propose(10, &pb::InternalRaftRequest { lease_revoke, ..Default::default() });
    lone.commands.clear();
    // The owner takes what arrived, then the tick, then settles.
    let mut replies = lone.run([revoke, grant(11, LEASE_ID, 600), pass(100)]);
    assert_eq!(lone.commands.last(), Some(&own::end(GRANTED)), "behind both");
    replies.extend((0..3).flat_map(|_| lone.sync()));
    assert!(replies.iter().all(|(_, reply)| is_done(reply)), "{replies:?}");
    assert_eq!(replies.len(), 2);
    assert_eq!(left(&mut lone).unwrap().ttl_s, 600);
    // Nor does it get what was left of the old one.
    lone.run([Event::Propose {
        id: RequestId(12),
        command: with_id(own::checkpoint([(GRANTED, 1)].into_iter()), 12),
    }]);
    lone.sync();
    assert_eq!(lone.replica.lessor().get(LEASE_ID).unwrap().remaining_ttl_s, 0);
}
