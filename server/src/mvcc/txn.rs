//! Transactions: checks, compares on the state before, then all of one branch.
//!
//! ```text
//! if mod(a) = 0 then { put a 1; get a; txn{ put b 2 } } else { get a }
//!
//! 1. compares, those of nested transactions included, on the state before: which path is taken
//! 2. checks along the path: readable revisions, known leases, keys for ignore_*
//! 3. operations along the path, in order, each at the next sub of one main revision
//! ```
//!
//! A refusal in step 2 leaves everything as it was; step 3 cannot fail.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::key_space::Change;
use super::{
    Applied, Compare, CompareResult, CompareTarget, KeySpace, MvccError, Op, Outcome, Put,
    Revision, Rows, RowsError, Txn,
};

/// A transaction with its compares decided.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(&'a Op),
    Txn(Path<'a>),
}

impl KeySpace {
    /// Applies a transaction: checks first, then compares, then all of one branch, or nothing.
    /// `lease_known` decides [`MvccError::LeaseNotFound`] for puts, before anything is changed.
    ///
    /// # Errors
    /// As [`KeySpace::put`].
    pub fn txn(
        &mut self,
        txn: &Txn,
        lease_known: &dyn Fn(i64) -> bool,
        rows: &dyn Rows,
    ) -> Result<Result<Applied, MvccError>, RowsError> {
        let path = self.decide(txn, rows)?;
        let mut written = BTreeSet::new();
        if let Err(refusal) = self.check(&path, lease_known, &mut written) {
            return Ok(Err(refusal));
        }
        let mut change = self.begin();
        let outcome = change.execute(&path, rows)?;
        Ok(Ok(Applied { revision: change.finish(), outcome }))
    }

    /// Decides every compare along the path that will be taken, on the state before.
    fn decide<'a>(&mut self, txn: &'a Txn, rows: &dyn Rows) -> Result<Path<'a>, RowsError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            if !self.holds(compare, rows)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut steps = Vec::with_capacity(ops.len());
        for op in ops {
            steps.push(match op {
                Op::Txn(txn) => Step::Txn(self.decide(txn, rows)?),
                op => Step::Op(op),
            });
        }
        Ok(Path { succeeded, steps })
    }

    fn holds(&mut self, compare: &Compare, rows: &dyn Rows) -> Result<bool, RowsError> {
        let mut versions = Vec::new();
        let now = Revision::end_of(self.current);
        self.index.walk(&compare.keys, None, now, usize::MAX, &mut |_, version| {
            versions.push(*version);
            true
        });
        let relate = |present: i64, given: i64| related(compare.result, present.cmp(&given));
        if versions.is_empty() {
            // A missing key counts as zeros, and has no value that could be compared.
            return Ok(match compare.target {
                CompareTarget::Version(given)
                | CompareTarget::Create(given)
                | CompareTarget::Mod(given)
                | CompareTarget::Lease(given) => relate(0, given),
                CompareTarget::Value(_) => false,
                CompareTarget::Unknown => relate(0, 0),
            });
        }
        for version in versions {
            let holds = match &compare.target {
                CompareTarget::Version(given) => relate(version.version, *given),
                CompareTarget::Create(given) => relate(version.create_revision, *given),
                CompareTarget::Mod(given) => relate(version.revision.main, *given),
                CompareTarget::Lease(given) => relate(version.lease, *given),
                CompareTarget::Unknown => relate(0, 0),
                CompareTarget::Value(given) => {
                    let value = self.value(version.revision, rows)?;
                    related(compare.result, value.cmp(given))
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything that could refuse an operation along the path. `written` collects keys that exist
    /// by then because the transaction itself put them.
    fn check(
        &self,
        path: &Path<'_>,
        lease_known: &dyn Fn(i64) -> bool,
        written: &mut BTreeSet<Bytes>,
    ) -> Result<(), MvccError> {
        for step in &path.steps {
            match step {
                Step::Txn(path) => self.check(path, lease_known, written)?,
                Step::Op(Op::Range { revision: 0, .. }) => {}
                // A negative revision stands for the latest, but counts as old once anything is
                // compacted; as in etcd.
                Step::Op(Op::Range { revision, .. }) if *revision < self.compact_revision() => {
                    return Err(MvccError::Compacted);
                }
                Step::Op(Op::Range { revision, .. }) => {
                    self.check_readable(*revision)?;
                }
                Step::Op(Op::Put(put)) => {
                    self.check_put(put, lease_known, written)?;
                    written.insert(put.key.clone());
                }
                Step::Op(Op::DeleteRange(_) | Op::Txn(_)) => {}
            }
        }
        Ok(())
    }

    fn check_put(
        &self,
        put: &Put,
        lease_known: &dyn Fn(i64) -> bool,
        written: &BTreeSet<Bytes>,
    ) -> Result<(), MvccError> {
        if put.lease.is_some_and(|lease| lease != 0 && !lease_known(lease)) {
            return Err(MvccError::LeaseNotFound);
        }
        let keeps = put.value.is_none() || put.lease.is_none();
        if keeps && !written.contains(&put.key) && self.index.latest(&put.key).is_none() {
            return Err(MvccError::KeyNotFound);
        }
        Ok(())
    }
}

impl Change<'_> {
    fn execute(&mut self, path: &Path<'_>, rows: &dyn Rows) -> Result<Outcome, RowsError> {
        let mut outcomes = Vec::with_capacity(path.steps.len());
        for step in &path.steps {
            outcomes.push(match step {
                Step::Txn(path) => self.execute(path, rows)?,
                Step::Op(Op::Put(put)) => {
                    self.put(put, rows)?.expect("the check before admitted every put of the path")
                }
                Step::Op(Op::DeleteRange(delete)) => self.delete_range(delete),
                Step::Op(Op::Range { query, revision }) => {
                    let at = if *revision > 0 { Revision::end_of(*revision) } else { self.now() };
                    Outcome::Range { revision: self.revision(), at, query: query.clone() }
                }
                Step::Op(Op::Txn(_)) => unreachable!("nested transactions are steps of their own"),
            });
        }
        Ok(Outcome::Txn { revision: self.revision(), succeeded: path.succeeded, outcomes })
    }
}

fn related(result: CompareResult, present: std::cmp::Ordering) -> bool {
    match result {
        CompareResult::Equal => present.is_eq(),
        CompareResult::NotEqual => present.is_ne(),
        CompareResult::Greater => present.is_gt(),
        CompareResult::Less => present.is_lt(),
        CompareResult::Unknown => true,
    }
}
