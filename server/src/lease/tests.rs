//! Transcripts of leases, and every sequence of a few steps against a model that keeps it simple.

use proptest::prelude::*;

use super::*;

const NONE: [i64; 0] = [];
const NOTHING: [(i64, i64); 0] = [];
const TIMING: Timing = Timing { checkpoint_ms: Some(300_000), retry_ms: 7000, revoking_max: 3 };

fn lease(id: i64, ttl_s: i64) -> Lease {
    Lease { id, ttl_s, remaining_ttl_s: 0, granted_by: 9 }
}

fn by_request(id: i64) -> Grant {
    Grant { id, request: 9 }
}

fn leading(leases: &[Lease]) -> Expiry {
    let mut expiry = Expiry::new(TIMING);
    expiry.promote(leases.iter().copied(), 0);
    expiry
}

fn keys_of(lessor: &Lessor, id: i64) -> Vec<&[u8]> {
    lessor.keys(id, b"").map(AsRef::as_ref).collect()
}

#[test]
fn a_lease_is_granted_once_and_not_for_ever_and_not_as_none() {
    let mut lessor = Lessor::default();
    assert_eq!(lessor.grant(by_request(7), 60), Ok(lease(7, 60)));
    assert_eq!(lessor.grant(by_request(7), TTL_S_MAX), Err(LeaseError::Exists));
    assert_eq!(lessor.grant(by_request(7), TTL_S_MAX + 1), Err(LeaseError::TtlTooLarge));
    assert_eq!(lessor.grant(by_request(0), 60), Err(LeaseError::NotFound));
    assert_eq!(lessor.grant(by_request(-7), TTL_S_MAX), Ok(lease(-7, TTL_S_MAX)));
    assert_eq!(lessor.revoke(8), Err(LeaseError::NotFound));
    assert_eq!(lessor.size_bytes(), 128);
    let counts = LeaseCounts { granted: 2, ..LeaseCounts::default() };
    assert_eq!(lessor.counts(), counts);
}

#[test]
fn a_key_is_attached_to_the_lease_of_its_newest_version_alone() {
    let mut lessor = Lessor::default();
    for id in [1, 2] {
        lessor.grant(by_request(id), 60).unwrap();
    }
    for key in ["b", "a", "c"] {
        lessor.reattach(key.into(), 0, 1);
    }
    lessor.reattach("b".into(), 1, 2);
    lessor.reattach("c".into(), 1, 0);
    assert_eq!(keys_of(&lessor, 1), [&b"a"[..]]);
    assert_eq!(keys_of(&lessor, 2), [&b"b"[..]]);
    lessor.reattach("x".into(), 0, 9);
    assert!(keys_of(&lessor, 9).is_empty(), "a lease that is not known takes no key");
    lessor.reattach("a".into(), 0, 2);
    assert_eq!(lessor.revoke(2).unwrap(), ["a", "b"], "in order");
    assert!(keys_of(&lessor, 2).is_empty());
}

#[test]
fn what_changed_is_taken_once_and_a_lease_that_came_and_went_is_removed() {
    let mut lessor = Lessor::default();
    lessor.grant(by_request(1), 60).unwrap();
    lessor.grant(by_request(2), 60).unwrap();
    lessor.checkpoint(by_request(2), 7);
    lessor.checkpoint(by_request(3), 7);
    lessor.revoke(1).unwrap();
    let left = Lease { remaining_ttl_s: 7, ..lease(2, 60) };
    assert_eq!(lessor.dirty_count(), 2);
    assert_eq!(lessor.take_dirty().collect::<Vec<_>>(), [(1, None), (2, Some(left))]);
    assert_eq!(lessor.dirty_count(), 0);
    let expected = [
        Changed::Granted(lease(1, 60)),
        Changed::Granted(lease(2, 60)),
        Changed::Checkpointed(left),
        Changed::Revoked(1),
    ];
    assert_eq!(lessor.take_changed(), expected);
    assert!(lessor.take_changed().is_empty());
}

#[test]
fn pages_of_keys_go_on_behind_the_last_one() {
    let mut lessor = Lessor::default();
    lessor.grant(by_request(1), 60).unwrap();
    for n in 0..10 {
        lessor.attach(format!("k{n}").into(), 1);
    }
    let mut last = bytes::Bytes::new();
    for n in 0..10 {
        let next = lessor.keys(1, &last).next().cloned().unwrap();
        assert_eq!(next, format!("k{n}"));
        last = next;
    }
    assert_eq!(lessor.keys(1, &last).count(), 0);
}

#[test]
fn a_lease_ends_when_its_time_since_the_next_tick_is_over() {
    let mut expiry = leading(&[]);
    expiry.granted(lease(1, 2));
    expiry.pass(1000);
    assert_eq!(expiry.remaining_ms(1), Some(2000), "the time before this tick does not count");
    expiry.pass(1999);
    assert_eq!(expiry.take_expired(), NONE);
    assert_eq!(expiry.renew(1), Renewal::Renewed);
    expiry.pass(500);
    expiry.pass(1999);
    assert_eq!(expiry.take_expired(), NONE);
    expiry.pass(1);
    assert_eq!(expiry.renew(1), Renewal::Expired);
    assert_eq!(expiry.take_expired(), [1]);
    assert_eq!(expiry.renew(1), Renewal::Expired, "its revocation may take effect at any time");
    assert!(expiry.revoked(1));
    assert_eq!(expiry.renew(1), Renewal::Unknown);
}

#[test]
fn revocations_are_bounded_and_what_does_not_come_back_is_proposed_again() {
    let all: Vec<Lease> = (1..=5).map(|id| lease(id, id)).collect();
    let mut expiry = leading(&all);
    expiry.pass(10_000);
    assert_eq!(expiry.take_expired(), [1, 2, 3]);
    assert!(!expiry.has_expired(), "three are under way");
    assert!(expiry.revoked(2));
    assert!(expiry.has_expired());
    assert_eq!(expiry.take_expired(), [4]);
    expiry.pass(6999);
    assert_eq!(expiry.take_expired(), NONE);
    expiry.pass(1);
    assert_eq!(expiry.take_expired(), [1, 3, 4]);
    for id in [1, 3, 4] {
        assert!(expiry.revoked(id));
    }
    assert_eq!(expiry.take_expired(), [5]);
}

#[test]
fn a_new_leader_gives_each_lease_what_was_written_down_and_an_extension() {
    let mut expiry = Expiry::new(TIMING);
    expiry.pass(50_000);
    let left = Lease { remaining_ttl_s: 3, ..lease(2, 60) };
    expiry.promote([lease(1, 60), left].into_iter(), 1000);
    assert_eq!((expiry.remaining_ms(1), expiry.remaining_ms(2)), (Some(61_000), Some(4000)));
    expiry.demote();
    expiry.pass(100_000);
    assert_eq!(expiry.take_expired(), NONE, "only a leader ends leases");
    assert_eq!(expiry.renew(1), Renewal::Unknown);
}

#[test]
fn what_is_left_of_long_leases_is_written_down_and_cleared_before_a_renewal_is_answered() {
    let mut expiry = leading(&[lease(1, 1000), lease(2, 300), lease(3, 700)]);
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(10), [(1, 700), (3, 400)], "the short one is not worth it");
    expiry.checkpointed(1, 700);
    expiry.checkpointed(3, 400);
    clear(&mut expiry, 3);
    expiry.pass(1);
    assert_eq!(expiry.cleared(3), Cleared::All);
    assert_eq!(expiry.renew(3), Renewal::Renewed);
    expiry.pass(300_000);
    // One was renewed since: it has all of its time again.
    assert_eq!(expiry.take_checkpoints(9), [(1, 400)], "a second that has begun counts");
    // Between a renewal and its checkpoint of 0 nothing else is written down.
    clear(&mut expiry, 1);
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(9), [(3, 400)]);
    // However long that takes: what is written down behind it would undo it.
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(9), [(3, 100)]);
    assert_eq!(expiry.cleared(1), Cleared::All);
    expiry.pass(300_000);
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(9), [(1, 700)]);
    // What the records hold counts, whatever this member thought.
    clear(&mut expiry, 1);
    assert_eq!(expiry.cleared(1), Cleared::All);
    expiry.checkpointed(1, 500);
    assert_eq!(expiry.renew(1), Renewal::Checkpointed);
    expiry.revoked(1);
    assert_eq!(expiry.renew(1), Renewal::Unknown);
}

#[test]
fn leases_that_live_on_are_looked_at_in_bounded_steps() {
    const COUNT: usize = 10_000;
    let all: Vec<Lease> = (1..=10_000).map(|id| lease(id, 1000)).collect();
    let mut expiry = Expiry::new(Timing { revoking_max: 100, ..TIMING });
    expiry.promote(all.into_iter(), 0);
    for id in 1..10_000 {
        assert_eq!(expiry.renew(id), Renewal::Renewed);
    }
    expiry.pass(300_000);
    let looked = (0..COUNT / 500).map(|_| expiry.take_checkpoints(500).len()).collect::<Vec<_>>();
    assert_eq!(looked[..COUNT / 500 - 1], [0; COUNT / 500 - 1], "they were renewed");
    assert_eq!(looked[COUNT / 500 - 1], 1);
    expiry.pass(700_000);
    let mut steps = 0;
    while expiry.has_expired() {
        let expired = expiry.take_expired();
        assert!(expired.is_empty() || expired == [10_000]);
        steps += 1;
    }
    assert_eq!(steps, 3, "4000 each");
}

#[test]
fn without_checkpoints_nothing_is_written_down() {
    let mut expiry = Expiry::new(Timing { checkpoint_ms: None, ..TIMING });
    expiry.promote([lease(1, 1000)].into_iter(), 0);
    expiry.granted(lease(2, 1000));
    expiry.pass(900_000);
    assert_eq!(expiry.take_checkpoints(10), NOTHING);
}

/// A lease of the model: when it was promised to end, and whether its end was decided.
#[derive(Clone, Copy)]
struct Promised {
    ttl_ms: u64,
    since_ms: Option<u64>,
    is_revoking: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Grant(i64, i64),
    Renew(i64),
    Revoked(i64),
    Pass(u64),
    Expired,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..5_i64, 1..6_i64).prop_map(|(id, ttl_s)| Step::Grant(id, ttl_s)),
        (1..6_i64).prop_map(Step::Renew),
        (1..6_i64).prop_map(Step::Revoked),
        (1..4000_u64).prop_map(Step::Pass),
        Just(Step::Expired),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Exactly those leases end whose time is over since the tick after their last renewal.
    #[test]
    fn deadlines_are_those_of_the_model(steps in steps()) {
        let mut expiry = Expiry::new(Timing { revoking_max: 1000, ..TIMING });
        expiry.promote(std::iter::empty(), 0);
        let mut model = std::collections::BTreeMap::<i64, Promised>::new();
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Grant(id, ttl_s) => {
                    expiry.granted(lease(id, ttl_s));
                    let ttl_ms = ttl_s.unsigned_abs() * 1000;
                    model.insert(id, Promised { ttl_ms, since_ms: None, is_revoking: false });
                }
                Step::Renew(id) => {
                    let over = |promised: &Promised| {
                        let is_over =
                            promised.since_ms.is_some_and(|since| since + promised.ttl_ms <= now_ms);
                        promised.is_revoking || is_over
                    };
                    let expected = match model.get_mut(&id) {
                        None => Renewal::Unknown,
                        Some(promised) if over(promised) => Renewal::Expired,
                        Some(promised) => {
                            promised.since_ms = None;
                            Renewal::Renewed
                        }
                    };
                    prop_assert_eq!(expiry.renew(id), expected);
                }
                Step::Revoked(id) => {
                    let expected = model.remove(&id).is_some_and(|promised| promised.is_revoking);
                    prop_assert_eq!(expiry.revoked(id), expected);
                }
                Step::Pass(elapsed_ms) => {
                    now_ms += elapsed_ms;
                    expiry.pass(elapsed_ms);
                    for promised in model.values_mut() {
                        promised.since_ms.get_or_insert(now_ms);
                    }
                }
                Step::Expired => {
                    let mut found: std::collections::BTreeSet<i64> =
                        expiry.take_expired().into_iter().collect();
                    for (id, promised) in &mut model {
                        let ends_ms = promised.since_ms.map(|since| since + promised.ttl_ms);
                        let is_over = ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms);
                        // One that was proposed before may be proposed again.
                        prop_assert!(found.remove(id) <= is_over, "{id} ends early");
                        prop_assert!(!is_over || promised.is_revoking || expiry.renew(*id) == Renewal::Expired);
                        promised.is_revoking |= is_over;
                    }
                    prop_assert!(found.is_empty());
                    prop_assert!(!expiry.has_expired());
                }
            }
        }
    }
}

/// Renews a lease whose answer needs a checkpoint of 0, which is proposed.
fn clear(expiry: &mut Expiry, id: i64) {
    assert_eq!(expiry.renew(id), Renewal::Checkpointed);
    expiry.clearing(id);
}

/// The first checkpoint of 0 came back after its requests had given up, and a renewal has asked for
/// another one. If anything were written down behind that, it would undo what the next renewal, which
/// waits too, is answered by.
#[test]
fn nothing_is_written_down_and_no_renewal_answered_before_the_last_of_several_clears() {
    let mut expiry = Expiry::new(TIMING);
    expiry.promote([Lease { remaining_ttl_s: 500, ..lease(1, 600) }].into_iter(), 0);
    expiry.pass(290_000);
    clear(&mut expiry, 1);
    expiry.pass(8_000);
    clear(&mut expiry, 1);
    assert_eq!(expiry.cleared(1), Cleared::Part, "the first");
    expiry.pass(500);
    expiry.pass(2_500);
    assert_eq!(expiry.take_checkpoints(10), [], "the second is under way");
    assert_eq!(expiry.cleared(1), Cleared::All, "the second");
    assert_eq!(expiry.renew(1), Renewal::Renewed);
    expiry.pass(300_000);
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(10).len(), 1);
    clear(&mut expiry, 1);
    assert_eq!(expiry.cleared(1), Cleared::All, "the third");
}

/// What is being written down takes effect behind the checkpoint of 0 that was proposed before it.
#[test]
fn a_renewal_waits_while_a_checkpoint_is_under_way() {
    let mut expiry = Expiry::new(TIMING);
    expiry.promote([lease(1, 1000)].into_iter(), 0);
    expiry.pass(300_000);
    assert_eq!(expiry.take_checkpoints(10), [(1, 700)]);
    clear(&mut expiry, 1);
    expiry.checkpointed(1, 700);
    assert_eq!(expiry.renew(1), Renewal::Checkpointed, "the clear has yet to come");
    assert_eq!(expiry.cleared(1), Cleared::All);
    assert_eq!(expiry.renew(1), Renewal::Renewed);
}
