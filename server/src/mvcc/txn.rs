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

use bytes::Bytes;

use super::index::Version;
use super::key_space::Change;
use super::writes::Writes;
use super::{
    Applied, Compare, KeySpace, MvccError, Op, Outcome, Put, Revision, Rows, RowsError, Txn, stored,
};
use crate::mutants;

/// Keys whose values a compare of a range looks at with one read of the store.
const COMPARE_KEYS: usize = if cfg!(test) { 7 } else { 256 };
/// Bytes of rows at which such a read ends: a compare must not need the memory of all that it looks at.
/// One row may be more.
const COMPARE_BYTES: usize = if cfg!(test) { 100 } else { 1 << 20 };

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
        let mut compares = 0;
        let path = self.decide(txn, &mut compares, rows)?;
        if let Err(refusal) = self.check(&path, lease_known, &mut Writes::default()) {
            return Ok(Err(refusal));
        }
        self.count_compares(compares);
        let mut change = self.begin();
        let outcome = change.execute(&path, rows)?;
        Ok(Ok(Applied { revision: change.finish(), outcome }))
    }

    /// Decides every compare along the path that will be taken, on the state before; counts them.
    fn decide<'a>(
        &mut self,
        txn: &'a Txn,
        compares: &mut u64,
        rows: &dyn Rows,
    ) -> Result<Path<'a>, RowsError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            *compares += 1;
            if !self.holds(compare, rows)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut steps = Vec::with_capacity(ops.len());
        for op in ops {
            steps.push(match op {
                Op::Txn(txn) => Step::Txn(self.decide(txn, compares, rows)?),
                op => Step::Op(op),
            });
        }
        Ok(Path { succeeded, steps })
    }

    fn holds(&mut self, compare: &Compare, rows: &dyn Rows) -> Result<bool, RowsError> {
        if compare.needs_values() {
            return self.values_hold(compare, rows);
        }
        let now = Revision::end_of(self.current);
        let (mut any, mut holds) = (false, true);
        self.index.walk(&compare.keys, None, now, usize::MAX, &mut |_, version| {
            any = true;
            holds = compare.holds_for(Some(version));
            holds
        });
        Ok(if any { holds } else { compare.holds_for(None) })
    }

    fn values_hold(&mut self, compare: &Compare, rows: &dyn Rows) -> Result<bool, RowsError> {
        let now = Revision::end_of(self.current);
        let (mut any, mut after) = (false, None::<Bytes>);
        loop {
            let (mut revisions, mut bytes) = (Vec::new(), 0);
            let visit = &mut |_: &[u8], version: &Version| {
                revisions.push(version.revision);
                bytes += version.stored_bytes as usize;
                bytes < COMPARE_BYTES
            };
            let keys_max = mutants::step(COMPARE_KEYS);
            after = self.index.walk(&compare.keys, after.as_deref(), now, keys_max, visit);
            any |= !revisions.is_empty();
            if !self.all_hold(compare, &revisions, rows)? {
                return Ok(false);
            }
            if after.is_none() {
                return Ok(any || compare.holds_for(None));
            }
        }
    }

    /// Whether the values at all of `revisions` hold: first those of the window, then the others, with
    /// one read of the store.
    fn all_hold(
        &mut self,
        compare: &Compare,
        revisions: &[Revision],
        rows: &dyn Rows,
    ) -> Result<bool, RowsError> {
        let holds = |revision: Revision, stored: &Bytes| {
            let kv = stored::decode(stored).ok_or(RowsError::Damaged(revision))?;
            Ok(compare.holds_for_value(&kv.value))
        };
        let mut flushed = Vec::new();
        for &revision in revisions {
            match self.recent(revision) {
                None => flushed.push(revision),
                Some(stored) if holds(revision, stored)? => {}
                Some(_) => return Ok(false),
            }
        }
        if flushed.is_empty() {
            return Ok(true);
        }
        let mut read = Vec::with_capacity(flushed.len());
        rows.get_many(&flushed, &mut read)?;
        self.count_value_reads(read.len());
        if let Some(missing) = flushed.get(read.len()) {
            return Err(RowsError::Missing(*missing));
        }
        for (revision, stored) in flushed.into_iter().zip(&read) {
            if !holds(revision, stored)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything that could refuse an operation along the path. `before` collects the writes in
    /// front of an operation.
    fn check<'a>(
        &self,
        path: &Path<'a>,
        lease_known: &dyn Fn(i64) -> bool,
        before: &mut Writes<'a>,
    ) -> Result<(), MvccError> {
        for step in &path.steps {
            match step {
                Step::Txn(path) => self.check(path, lease_known, before)?,
                Step::Op(Op::Range { revision, .. }) => self.check_range(*revision)?,
                Step::Op(Op::Put(put)) => {
                    self.check_put(put, lease_known, before)?;
                    before.put(&put.key);
                }
                Step::Op(Op::DeleteRange(delete)) => before.delete(&delete.keys),
                Step::Op(Op::Txn(_)) => {}
            }
        }
        Ok(())
    }

    /// Unlike a range of its own, one within a transaction takes a negative revision for what it is:
    /// as in etcd, it is compacted if it is below the compact revision, which begins at -1.
    fn check_range(&self, revision: i64) -> Result<(), MvccError> {
        if revision < 0 && revision < self.compact_revision() {
            return Err(MvccError::Compacted);
        }
        self.check_readable(revision).map(|_| ())
    }

    /// A put that keeps value or lease needs its key, as in etcd before the transaction, and when its
    /// turn comes. The API admits no transaction that deletes a key before it puts it; if the log has
    /// one, every member refuses it here.
    fn check_put(
        &self,
        put: &Put,
        lease_known: &dyn Fn(i64) -> bool,
        before: &Writes<'_>,
    ) -> Result<(), MvccError> {
        if put.lease.is_some_and(|lease| lease != 0 && !lease_known(lease)) {
            return Err(MvccError::LeaseNotFound);
        }
        if put.value.is_some() && put.lease.is_some() {
            return Ok(());
        }
        if before.is_deleted(&put.key) || self.index.latest(&put.key).is_none() {
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
                    self.read_range();
                    let at = if *revision > 0 { Revision::end_of(*revision) } else { self.now() };
                    Outcome::Range { revision: self.revision(), at, query: query.clone() }
                }
                Step::Op(Op::Txn(_)) => unreachable!("nested transactions are steps of their own"),
            });
        }
        Ok(Outcome::Txn { revision: self.revision(), succeeded: path.succeeded, outcomes })
    }
}
