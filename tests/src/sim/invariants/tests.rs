//! Each invariant lets a right history pass and finds the mistake that it is for.

mod watches;

use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use quorate_server::mvcc::Sizes;
use quorate_server::runtime::Report;
use quorate_server::storage::data_dir::exit;

use super::*;
use crate::model::{Model, Refusal, Reply, Request};
use crate::sim::fs::{DiskFault, Fired, OpKind, Operation};
use crate::sim::history::{Fate, StoredRow, StoredState};
use crate::sim::leases::{Asked, Promises, SeenLease, SeenLeases};
use crate::sim::rng::Rng;
use crate::sim::workload::{Shape, Workload};

fn put(key: &str, value: &str) -> Request {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Request::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn txn(puts: &[(&str, &str)]) -> Request {
    let op = |(key, value): &(&str, &str)| match put(key, value) {
        Request::Put(put) => RequestOp { request: Some(Op::RequestPut(put)) },
        _ => unreachable!("a put is a put"),
    };
    Request::Txn(TxnRequest { success: puts.iter().map(op).collect(), ..TxnRequest::default() })
}

/// What a correct member holds that has applied `requests`.
fn state_after(requests: &[&Request]) -> StoredState {
    let mut model = Model::new();
    requests.iter().for_each(|request| {
        model.call(request).unwrap();
    });
    state_of(&model)
}

fn state_of(model: &Model) -> StoredState {
    let row = |(key, version): (&bytes::Bytes, &crate::model::Version)| StoredRow {
        key: key.clone(),
        version: version.clone(),
    };
    let mut rows: Vec<StoredRow> = model.rows().map(row).collect();
    rows.sort_by_key(|row| (row.version.main, row.version.sub));
    StoredState {
        current_revision: model.revision(),
        compact_revision: model.compact_revision(),
        rows,
    }
}

/// A referee that has seen each request begin and be answered as a correct member answers.
fn referee_after(requests: &[&Request]) -> Referee {
    let mut referee = Referee::new();
    let mut model = Model::new();
    for (op, request) in (0..).zip(requests) {
        referee.observe(&Event::Begun { op, request }).unwrap();
        let reply = model.call(request).unwrap();
        referee.observe(&Event::Replied { op, reply: &reply }).unwrap();
    }
    referee
}

fn broken(referee: &mut Referee, event: Event<'_>) -> &'static str {
    referee.observe(&event).expect_err("the invariants should have found it").invariant
}

#[test]
fn a_correct_member_passes_whatever_is_asked_and_whenever_it_stops() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut workload = Workload::new(Shape::default(), rng.fork("workload"));
        let mut referee = Referee::new();
        let mut model = Model::new();
        for op in 0..400 {
            let request = workload.next_request(model.revision());
            referee.observe(&Event::Begun { op, request: &request }).unwrap();
            let stops = rng.one_in(25);
            let happened = !stops || rng.percent(50);
            let reply = if happened { model.call(&request) } else { Err(Refusal::EmptyKey) };
            let observed = match (stops, &reply) {
                (true, _) => referee.observe(&Event::Stopped),
                (false, Ok(reply)) => referee.observe(&Event::Replied { op, reply }),
                (false, Err(refusal)) => referee.observe(&Event::Refused { op, refusal: *refusal }),
            };
            observed.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
            if stops || rng.one_in(50) {
                let state = state_of(&model);
                let inspected = referee.observe(&Event::Inspected { state: &state });
                inspected.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
            }
        }
        assert_eq!(referee.history().model().revision(), model.revision());
    }
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    let (a, b) = (put("a", "1"), put("b", "1"));
    let mut referee = referee_after(&[&a, &b]);
    let state = state_after(&[&a]);
    assert_eq!(
        broken(&mut referee, Event::Inspected { state: &state }),
        "acknowledged is recovered"
    );
    let mut referee = referee_after(&[&a, &b]);
    let state = state_after(&[&a, &put("b", "2")]);
    assert_eq!(
        broken(&mut referee, Event::Inspected { state: &state }),
        "acknowledged is recovered"
    );
}

#[test]
fn half_a_transaction_and_a_write_that_happened_twice_are_found() {
    let (a, both) = (put("a", "1"), txn(&[("b", "1"), ("c", "1")]));
    for wrong in [state_after(&[&a, &put("b", "1")]), state_after(&[&a, &a])] {
        let mut referee = referee_after(&[&a]);
        referee.observe(&Event::Begun { op: 9, request: &both }).unwrap();
        referee.observe(&Event::Stopped).unwrap();
        assert_eq!(broken(&mut referee, Event::Inspected { state: &wrong }), "no half transaction");
    }
    for right in [state_after(&[&a, &both]), state_after(&[&a])] {
        let mut referee = referee_after(&[&a]);
        referee.observe(&Event::Begun { op: 9, request: &both }).unwrap();
        referee.observe(&Event::Stopped).unwrap();
        referee.observe(&Event::Inspected { state: &right }).unwrap();
    }
}

#[test]
fn gaps_and_shared_revisions_are_found() {
    let a = put("a", "1");
    let mut referee = referee_after(&[&a]);
    referee.observe(&Event::Begun { op: 5, request: &a }).unwrap();
    let reply = Model::new().call(&a).unwrap();
    assert_eq!(
        broken(&mut referee, Event::Replied { op: 5, reply: &reply }),
        "revisions without gaps"
    );

    let full = state_after(&[&a, &txn(&[("b", "1"), ("c", "1")]), &a]);
    for missing in 0..full.rows.len() {
        let mut state = full.clone();
        state.rows.remove(missing);
        let found = broken(&mut Referee::new(), Event::Inspected { state: &state });
        // The last row of a transaction is not missed by counting, but by what nobody asked for.
        let expected = if missing == 2 { "no half transaction" } else { "revisions without gaps" };
        assert_eq!(found, expected, "without row {missing}");
    }
}

#[test]
fn stale_reads_and_wrong_contents_are_found() {
    let (first, second) = (put("a", "1"), put("a", "2"));
    let range = Request::Range(RangeRequest { key: "a".into(), ..RangeRequest::default() });
    let mut old = Model::new();
    old.call(&first).unwrap();
    let stale = old.call(&range).unwrap();
    let mut referee = referee_after(&[&first, &second]);
    referee.observe(&Event::Begun { op: 5, request: &range }).unwrap();
    assert_eq!(broken(&mut referee, Event::Replied { op: 5, reply: &stale }), "linearizable reads");

    let mut other = Model::new();
    other.call(&first).unwrap();
    other.call(&put("a", "3")).unwrap();
    let wrong = other.call(&range).unwrap();
    let mut referee = referee_after(&[&first, &second]);
    referee.observe(&Event::Begun { op: 5, request: &range }).unwrap();
    assert_eq!(
        broken(&mut referee, Event::Replied { op: 5, reply: &wrong }),
        "replies equal the model"
    );
}

#[test]
fn a_wrong_hash_and_a_wrong_refusal_are_found() {
    let a = put("a", "1");
    let hash = Request::HashKv(HashKvRequest::default());
    let mut referee = referee_after(&[&a]);
    referee.observe(&Event::Begun { op: 5, request: &hash }).unwrap();
    let mut model = Model::new();
    model.call(&a).unwrap();
    let Reply::HashKv(mut reply) = model.call(&hash).unwrap() else { panic!("not a hash") };
    reply.hash ^= 1;
    let reply = Reply::HashKv(reply);
    assert_eq!(
        broken(&mut referee, Event::Replied { op: 5, reply: &reply }),
        "hash equals the model"
    );

    let mut referee = referee_after(&[&a]);
    referee.observe(&Event::Begun { op: 5, request: &a }).unwrap();
    let refused = Event::Refused { op: 5, refusal: Refusal::KeyNotFound };
    assert_eq!(broken(&mut referee, refused), "replies equal the model");
}

#[test]
fn a_compaction_that_takes_too_much_is_found() {
    let requests = [put("a", "1"), put("b", "1"), put("b", "2"), put("a", "2")];
    let compaction = Request::Compact(CompactionRequest { revision: 3, physical: false });
    let mut all: Vec<&Request> = requests.iter().collect();
    all.push(&compaction);
    let full = state_after(&all);
    referee_after(&all).observe(&Event::Inspected { state: &full }).unwrap();
    for taken in [0, 1] {
        let mut state = full.clone();
        state.rows.remove(taken);
        let found = broken(&mut referee_after(&all), Event::Inspected { state: &state });
        assert_eq!(found, "compaction spares the readable");
    }
    let mut forgotten = full.clone();
    forgotten.compact_revision = -1;
    let found = broken(&mut referee_after(&all), Event::Inspected { state: &forgotten });
    assert_eq!(found, "acknowledged is recovered");
    let mut invented = full;
    invented.compact_revision = 4;
    let found = broken(&mut referee_after(&all), Event::Inspected { state: &invented });
    assert_eq!(found, "compaction spares the readable");
}

#[test]
fn an_answer_from_before_a_compaction_is_found() {
    let (a, b) = (put("a", "1"), put("a", "2"));
    let compaction = |revision| Request::Compact(CompactionRequest { revision, physical: false });
    let range = |revision| {
        Op::RequestRange(RangeRequest { key: "a".into(), revision, ..RangeRequest::default() })
    };
    // Without a compare a transaction succeeds.
    let branches = |success, failure| TxnRequest {
        success: vec![RequestOp { request: Some(success) }],
        failure: vec![RequestOp { request: Some(failure) }],
        ..TxnRequest::default()
    };
    let whole = |revision| match range(revision) {
        Op::RequestRange(range) => Request::Range(range),
        _ => unreachable!("a range is a range"),
    };
    for (request, holds) in [
        (whole(2), false),
        (whole(3), true),
        (Request::HashKv(HashKvRequest { revision: 2 }), false),
        (Request::HashKv(HashKvRequest { revision: 3 }), true),
        (Request::Txn(branches(range(2), range(3))), false),
        (Request::Txn(branches(range(3), range(2))), true),
        (Request::Txn(branches(Op::RequestTxn(branches(range(2), range(0))), range(0))), false),
        (Request::Txn(branches(Op::RequestTxn(branches(range(0), range(2))), range(2))), true),
        (compaction(3), false),
    ] {
        let mut referee = referee_after(&[&a, &b, &compaction(3)]);
        referee.observe(&Event::Begun { op: 5, request: &request }).unwrap();
        // It has not compacted.
        let mut model = Model::new();
        model.call(&a).unwrap();
        model.call(&b).unwrap();
        let reply = model.call(&request).unwrap();
        let observed = referee.observe(&Event::Replied { op: 5, reply: &reply });
        let found = observed.map_err(|violation| violation.invariant);
        let expected = if holds { Ok(()) } else { Err("compaction spares the readable") };
        assert_eq!(found, expected, "{request:?}");
    }
}

/// A compaction excuses a refusal if it may have happened before: it was not refused or sent away itself.
#[test]
fn a_refusal_because_of_a_compaction_that_did_not_happen_is_found() {
    let (a, b) = (put("a", "1"), put("a", "2"));
    let compaction = Request::Compact(CompactionRequest { revision: 3, physical: false });
    let past =
        Request::Range(RangeRequest { key: "a".into(), revision: 2, ..RangeRequest::default() });
    let refused = Event::Refused { op: 9, refusal: Refusal::Compacted };
    for (before, holds) in [
        (vec![], true),
        (vec![Event::Unknown { op: 5 }], true),
        (vec![Event::Shed { op: 5 }], false),
    ] {
        let mut referee = referee_after(&[&a, &b]);
        referee.observe(&Event::Begun { op: 9, request: &past }).unwrap();
        referee.observe(&Event::Begun { op: 5, request: &compaction }).unwrap();
        before.iter().for_each(|event| referee.observe(event).unwrap());
        assert_eq!(referee.observe(&refused).is_ok(), holds, "{before:?}");
    }
    let mut referee = referee_after(&[&a, &b]);
    referee.observe(&Event::Begun { op: 9, request: &past }).unwrap();
    assert_eq!(broken(&mut referee, refused), "replies equal the model");
    let mut referee = referee_after(&[&a, &b]);
    referee.observe(&Event::Begun { op: 9, request: &compaction }).unwrap();
    assert_eq!(broken(&mut referee, refused), "replies equal the model");
}

/// Seed 4726: of a compacted transaction one row was left, which a put fitted that did not happen; so
/// the transaction, still to be explained, fitted nothing.
#[test]
fn a_compacted_revision_is_explained_by_the_request_that_fits_as_a_whole() {
    let (both, a, b) = (txn(&[("a", "1"), ("b", "1")]), put("a", "1"), put("b", "1"));
    let mut referee = Referee::new();
    // In the order of their names the transaction comes first, and all that is left fits it as well.
    let compaction = CompactionRequest { revision: 2, physical: false };
    let compaction = Request::Compact(compaction);
    for (op, request) in [(1, &both), (2, &a), (3, &b), (4, &compaction)] {
        referee.observe(&Event::Begun { op, request }).unwrap();
    }
    referee.observe(&Event::Stopped).unwrap();
    let mut state = state_after(&[&a, &both]);
    state.compact_revision = 2;
    referee.observe(&Event::Inspected { state: &state }).unwrap();
    assert_eq!(referee.history().op(1).unwrap().fate, Fate::Found(3));
    assert_eq!(referee.history().op(2).unwrap().fate, Fate::Found(2));
    assert_eq!(referee.history().op(3).unwrap().fate, Fate::Unknown);
}

#[test]
fn a_member_that_ends_for_no_reason_or_lies_about_its_size_is_found() {
    let ending = Ending { exit_code: exit::DISK, text: "it failed".to_owned() };
    let failed = Err("it failed".to_owned());
    assert_eq!(EndsOnlyWhenTheDiskFails::failed(&ending, &Blame::default()), failed);
    assert_eq!(StartsAgainByItself::failed(&ending, &Blame::default()), failed);
    assert!(StartsAgainByItself::hangs().is_err());
    assert!(EveryRequestIsAnswered::turns_ended(1).is_err());
    let sizes = Sizes { in_use_bytes: 10, total_bytes: 20 };
    for (bytes, is_right) in [(9, false), (10, true), (20, true), (21, false)] {
        assert_eq!(SizesAreThoseOfTheRows::says(sizes, bytes, true).is_ok(), is_right, "{bytes}");
    }
    for (quota, in_use, holds) in
        [(None, u64::MAX, true), (Some(100), 20_100, true), (Some(100), 20_101, false)]
    {
        assert_eq!(QuotaHolds::uses(quota, in_use).is_ok(), holds, "{quota:?} {in_use}");
    }
    let status = tonic::Status::internal("a text of our own");
    assert!(ErrorsAreThoseOfTheApi::read::<()>(&status, None).is_err());
    assert_eq!(ErrorsAreThoseOfTheApi::read(&status, Some(7)), Ok(7));
}

#[test]
fn a_start_that_passes_over_a_checkpoint_for_no_fault_of_the_disk_is_found() {
    let point = "d/index/4-1.idx";
    let operation =
        Operation { number: 1, kind: OpKind::Read, path: point.into(), offset: 0, len: 1 };
    let mut hit = Blame::default();
    hit.met(&Fired { fault: DiskFault::Error, operation }, During::Start);
    let works = Blame::default();
    let failed = "cannot read it: Input/output error (os error 5)";
    let torn = "the checksum at byte 44 does not match";
    for (is_there, checkpoint_revision, rejected, blame, holds) in [
        (true, 0, vec![], &works, false),
        (true, 4, vec![], &works, true),
        (false, 0, vec![], &works, true),
        (true, 0, vec![(point, failed)], &hit, true),
        (true, 0, vec![(point, failed)], &works, false),
        (true, 3, vec![("d/index/5-1.idx", failed)], &hit, false),
        (true, 3, vec![(point, torn)], &hit, false),
        (false, 0, vec![(point, torn)], &works, false),
    ] {
        let said = |(path, reason): (&str, &str)| format!("{path}: {reason}");
        let rejected_checkpoints = rejected.into_iter().map(said).collect();
        let report = Report { checkpoint_revision, rejected_checkpoints, ..Report::default() };
        let read = AStartUsesTheCheckpoint::read(is_there, &report, blame);
        assert_eq!(read.is_ok(), holds, "{report:?}");
    }
}

/// One lease of 10 seconds, granted at 0, with a key.
fn promised() -> (Promises, SeenLeases) {
    let mut promises = Promises::default();
    promises.begin_life();
    promises.grant_asked(1, 10);
    promises.promised(1, Asked::default());
    let lease = SeenLease { ttl_s: 10, remaining_ttl_s: 0, keys: ["k".into()].into() };
    let seen = SeenLeases { leases: [(1, lease)].into(), of_keys: [("k".into(), 1)].into() };
    (promises, seen)
}

#[test]
fn a_lease_that_ends_early_or_never_is_found() {
    let (mut promises, seen) = promised();
    promises.pass(9999, 9999);
    let gone = SeenLeases::default();
    assert!(LeasesLiveTheirTime::check(&promises, &gone).is_err());
    let mut revoked = promises.clone();
    revoked.revoke_asked(1);
    LeasesLiveTheirTime::check(&revoked, &gone).unwrap();
    promises.pass(1, 1);
    LeasesLiveTheirTime::check(&promises, &gone).unwrap();
    promises.renew_asked(1);
    promises.promised(1, Asked { at_ms: 10_000, at_served_ms: 10_000 });
    promises.pass(9999, 0);
    assert!(LeasesLiveTheirTime::check(&promises, &gone).is_err(), "it was renewed");
    promises.pass(60_000, 1000);
    assert!(LeasesLiveTheirTime::check(&promises, &gone).is_err(), "it was paused");
    let mut again = promises.clone();
    again.begin_life();
    LeasesLiveTheirTime::check(&again, &gone).unwrap();
    promises.pass(9000, 9000);
    LeasesLiveTheirTime::check(&promises, &gone).unwrap();
    promises.pass(19_000, 19_000);
    LeasesEndInTime::check(&promises, &seen).unwrap();
    promises.pass(2000, 2000);
    assert!(LeasesEndInTime::check(&promises, &seen).is_err());
    promises.renew_asked(1);
    LeasesEndInTime::check(&promises, &seen).unwrap();
}

#[test]
fn a_refusal_for_want_of_a_lease_that_must_be_there_is_found() {
    let (mut promises, _) = promised();
    promises.pass(9999, 9999);
    assert!(LeasesLiveTheirTime::refused(&promises, &[1], 0).is_err());
    LeasesLiveTheirTime::refused(&promises, &[1, 2], 0).unwrap();
    promises.revoke_asked(1);
    assert!(LeasesLiveTheirTime::refused(&promises, &[1], 1).is_err(), "it asks to revoke it");
    LeasesLiveTheirTime::refused(&promises, &[1], 0).unwrap();
    let mut twice = promises.clone();
    twice.revoke_asked(1);
    LeasesLiveTheirTime::refused(&twice, &[1], 1).unwrap();
    promises.pass(1, 1);
    LeasesLiveTheirTime::refused(&promises, &[1], 1).unwrap();
}

#[test]
fn leases_that_nobody_granted_or_that_come_back_are_found() {
    let (promises, seen) = promised();
    LeasesEqualTheHistory::check(&mut promises.clone(), &seen).unwrap();
    assert!(LeasesEqualTheHistory::check(&mut Promises::default(), &seen).is_err());
    let mut back = promises.clone();
    LeasesEqualTheHistory::check(&mut back, &SeenLeases::default()).unwrap();
    assert!(LeasesEqualTheHistory::check(&mut back, &seen).is_err());
    let mut other = seen;
    other.leases.get_mut(&1).unwrap().ttl_s = 11;
    assert!(LeasesEqualTheHistory::check(&mut promises.clone(), &other).is_err());
}

#[test]
fn keys_without_their_lease_and_leases_with_foreign_keys_are_found() {
    let (_, seen) = promised();
    KeysFollowTheirLease::check(&seen).unwrap();
    let mut left = seen.clone();
    left.leases.clear();
    assert!(KeysFollowTheirLease::check(&left).is_err());
    let mut forgotten = seen.clone();
    forgotten.leases.get_mut(&1).unwrap().keys.clear();
    assert!(KeysFollowTheirLease::check(&forgotten).is_err());
    let mut foreign = seen;
    foreign.of_keys.clear();
    assert!(KeysFollowTheirLease::check(&foreign).is_err());
}

/// Two keys of one lease that go in two revisions: the end of a lease explains neither.
#[test]
fn a_lease_whose_keys_go_one_by_one_is_found() {
    let attached = |key: &str| match put(key, "1") {
        Request::Put(put) => Request::Put(PutRequest { lease: 1, ..put }),
        _ => unreachable!("a put is a put"),
    };
    let (a, b) = (attached("a"), attached("b"));
    let revoke = Request::LeaseRevoke(LeaseRevokeRequest { id: 1 });
    for (apart, found) in [(false, true), (true, false)] {
        let mut model = Model::new();
        model.grant_lease(1);
        let mut referee = Referee::new();
        for (op, request) in [(1, &a), (2, &b)] {
            referee.observe(&Event::Begun { op, request }).unwrap();
            let reply = model.call(request).unwrap();
            referee.observe(&Event::Replied { op, reply: &reply }).unwrap();
        }
        referee.observe(&Event::Begun { op: 3, request: &revoke }).unwrap();
        referee.observe(&Event::Unknown { op: 3 }).unwrap();
        let delete = |key: &str| {
            let key = key.to_owned().into();
            Request::DeleteRange(DeleteRangeRequest { key, ..Default::default() })
        };
        let ends = if apart { vec![delete("a"), delete("b")] } else { vec![revoke.clone()] };
        for end in &ends {
            model.call(end).unwrap();
        }
        let state = state_of(&model);
        let observed = referee.observe(&Event::Inspected { state: &state });
        assert_eq!(observed.is_ok(), found, "{observed:?}");
    }
}
