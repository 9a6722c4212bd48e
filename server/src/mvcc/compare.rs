//! Whether a compare holds: the one place that decides it, for the owner and for readers.
//!
//! ```text
//! mod(a) > 3       a is at revision 5: holds       a is missing: its revision is 0, does not hold
//! value(a) != x    a is y: holds                   a is missing: does not hold, it has no value
//! ```

use std::cmp::Ordering;

use super::index::Version;
use super::{Compare, CompareResult, CompareTarget};

impl Compare {
    /// Whether it looks at values, which are not in the index.
    pub(crate) fn needs_values(&self) -> bool {
        matches!(self.target, CompareTarget::Value(_))
    }

    /// Whether it holds for a version of a key, as far as the index tells; `None` is a missing key, which
    /// counts as zeros. A missing key has no value that could be compared, not even for "is another".
    pub(crate) fn holds_for(&self, version: Option<&Version>) -> bool {
        let (present, given) = match self.target {
            CompareTarget::Version(given) => (version.map(|version| version.version), given),
            CompareTarget::Create(given) => (version.map(|version| version.create_revision), given),
            CompareTarget::Mod(given) => (version.map(|version| version.revision.main), given),
            CompareTarget::Lease(given) => (version.map(|version| version.lease), given),
            CompareTarget::Value(_) => return false,
            CompareTarget::Unknown => (None, 0),
        };
        self.related(present.unwrap_or(0).cmp(&given))
    }

    /// Whether it holds for a value; false if it does not look at values.
    pub(crate) fn holds_for_value(&self, value: &[u8]) -> bool {
        match &self.target {
            CompareTarget::Value(given) => self.related(value.cmp(given.as_ref())),
            _ => false,
        }
    }

    fn related(&self, present: Ordering) -> bool {
        match self.result {
            CompareResult::Equal => present.is_eq(),
            CompareResult::NotEqual => present.is_ne(),
            CompareResult::Greater => present.is_gt(),
            CompareResult::Less => present.is_lt(),
            CompareResult::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::KeyRange;

    fn compare(target: CompareTarget, result: CompareResult) -> Compare {
        let keys = KeyRange::from_wire("a".into(), "".into());
        Compare { keys, result, target }
    }

    #[test]
    fn a_missing_key_is_all_zeros_and_has_no_value() {
        use {CompareResult as R, CompareTarget as T};
        let cases = [
            (compare(T::Version(0), R::Equal), true),
            (compare(T::Create(0), R::Equal), true),
            (compare(T::Mod(-1), R::Greater), true),
            (compare(T::Lease(0), R::NotEqual), false),
            (compare(T::Value("".into()), R::Equal), false),
            (compare(T::Value("x".into()), R::NotEqual), false),
        ];
        for (compare, expected) in cases {
            assert_eq!(compare.holds_for(None), expected, "{compare:?}");
        }
    }

    #[test]
    fn unknown_targets_are_equal_and_unknown_relations_hold() {
        use {CompareResult as R, CompareTarget as T};
        assert!(compare(T::Unknown, R::Equal).holds_for(None));
        assert!(!compare(T::Unknown, R::Less).holds_for(None));
        assert!(compare(T::Mod(3), R::Unknown).holds_for(None));
        assert!(!compare(T::Value("".into()), R::Unknown).holds_for(None));
        assert!(compare(T::Value("b".into()), R::Unknown).holds_for_value(b"a"));
    }
}
