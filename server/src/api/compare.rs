//! Compares of read-only transactions, which are evaluated here and not by the owner. Pure.

use std::cmp::Ordering;

use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::{Compare, RangeRequest};
use quorate_proto::mvccpb::KeyValue;

/// The range that a compare looks at.
pub(crate) fn range(compare: &Compare) -> RangeRequest {
    RangeRequest {
        key: compare.key.clone(),
        range_end: compare.range_end.clone(),
        ..RangeRequest::default()
    }
}

/// Whether a compare holds for all the keys in its range; none are like one that was never written.
pub(crate) fn holds(compare: &Compare, found: &[KeyValue]) -> bool {
    if !found.is_empty() {
        return found.iter().all(|kv| holds_for(compare, kv));
    }
    // What is not there has no value, not even an empty one.
    let is_value = CompareTarget::try_from(compare.target) == Ok(CompareTarget::Value);
    !is_value && holds_for(compare, &KeyValue::default())
}

/// Numbers that mean nothing are etcd's to interpret: an unknown target is equal to whatever was given,
/// and an unknown relation holds.
fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    // A side that is not given, or of another kind than the target, is 0 or empty.
    let given = compare.target_union.as_ref();
    let Ok(target) = CompareTarget::try_from(compare.target) else {
        return related(compare, Ordering::Equal);
    };
    related(
        compare,
        match (target, given) {
            (CompareTarget::Version, Some(TargetUnion::Version(given))) => kv.version.cmp(given),
            (CompareTarget::Version, _) => kv.version.cmp(&0),
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(given))) => {
                kv.create_revision.cmp(given)
            }
            (CompareTarget::Create, _) => kv.create_revision.cmp(&0),
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(given))) => {
                kv.mod_revision.cmp(given)
            }
            (CompareTarget::Mod, _) => kv.mod_revision.cmp(&0),
            (CompareTarget::Value, Some(TargetUnion::Value(given))) => kv.value.cmp(given),
            (CompareTarget::Value, _) => kv.value.as_ref().cmp(&[][..]),
            (CompareTarget::Lease, Some(TargetUnion::Lease(given))) => kv.lease.cmp(given),
            (CompareTarget::Lease, _) => kv.lease.cmp(&0),
        },
    )
}

fn related(compare: &Compare, ordering: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(
        target: CompareTarget,
        result: CompareResult,
        given: Option<TargetUnion>,
    ) -> Compare {
        Compare {
            target: target.into(),
            result: result.into(),
            target_union: given,
            ..Compare::default()
        }
    }

    #[test]
    fn a_missing_key_is_all_zeros_and_has_no_value() {
        use {CompareResult as R, CompareTarget as T, TargetUnion as U};
        let cases = [
            (compare(T::Version, R::Equal, Some(U::Version(0))), true),
            (compare(T::Create, R::Equal, None), true),
            (compare(T::Mod, R::Greater, Some(U::ModRevision(-1))), true),
            (compare(T::Lease, R::NotEqual, Some(U::Lease(0))), false),
            (compare(T::Value, R::Equal, Some(U::Value("".into()))), false),
            (compare(T::Value, R::NotEqual, Some(U::Value("x".into()))), false),
        ];
        for (compare, expected) in cases {
            assert_eq!(holds(&compare, &[]), expected, "{compare:?}");
        }
    }

    #[test]
    fn unknown_targets_are_equal_and_unknown_relations_hold() {
        let odd = |target, result| Compare { target, result, ..Compare::default() };
        assert!(holds(&odd(9, CompareResult::Equal.into()), &[]));
        assert!(!holds(&odd(9, CompareResult::Less.into()), &[]));
        assert!(holds(&odd(CompareTarget::Mod.into(), 9), &[]));
        assert!(!holds(&odd(CompareTarget::Value.into(), 9), &[]));
    }

    #[test]
    fn every_key_of_a_range_must_hold() {
        let kv = |mod_revision| KeyValue { mod_revision, value: "v".into(), ..KeyValue::default() };
        let below =
            |n| compare(CompareTarget::Mod, CompareResult::Less, Some(TargetUnion::ModRevision(n)));
        assert!(holds(&below(6), &[kv(3), kv(5)]));
        assert!(!holds(&below(5), &[kv(3), kv(5)]));
        let value = compare(
            CompareTarget::Value,
            CompareResult::Equal,
            Some(TargetUnion::Value("v".into())),
        );
        assert!(holds(&value, &[kv(1)]));
        let unset = compare(CompareTarget::Value, CompareResult::Greater, None);
        assert!(holds(&unset, &[kv(1)]), "a value that is not given is empty");
    }
}
