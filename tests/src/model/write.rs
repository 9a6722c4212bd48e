//! Writes: puts, deletions, transactions.

use std::cmp::Ordering;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseRevokeResponse, PutRequest, PutResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op::Request as Op,
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::{Model, Refusal, Version, header};

/// The branches that a transaction takes, outermost first, in the order in which it meets them.
type Path = Vec<bool>;

/// A write that is under way: what it writes gets `main`, from position `sub` on.
struct Write {
    main: i64,
    sub: i64,
}

impl Write {
    fn after(revision: i64) -> Self {
        Self { main: revision + 1, sub: 0 }
    }

    /// The revision of the store, with what was written so far.
    fn revision(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }
}

impl Model {
    pub(super) fn put(&mut self, put: &PutRequest) -> Result<PutResponse, Refusal> {
        self.lease_known(put)?;
        self.key_known(put)?;
        let mut write = Write::after(self.revision);
        let reply = self.do_put(put, &mut write)?;
        self.revision = write.revision();
        Ok(reply)
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut write = Write::after(self.revision);
        let reply = self.do_delete(delete, &mut write);
        self.revision = write.revision();
        reply
    }

    /// The end of a lease: every key whose newest version has it is deleted, in one revision.
    pub(super) fn revoke(&mut self, lease: i64) -> Result<LeaseRevokeResponse, Refusal> {
        if !self.leases.contains(&lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut write = Write::after(self.revision);
        for kv in self.present(b"\0", b"\0", i64::MAX) {
            if kv.lease == lease {
                self.push(kv.key, None, &mut write);
            }
        }
        self.revision = write.revision();
        Ok(LeaseRevokeResponse { header: header(self.revision) })
    }

    pub(super) fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let mut path = Path::new();
        self.decide(txn, &mut path);
        self.admit(txn, &mut path.iter())?;
        let mut write = Write::after(self.revision);
        let done = self.do_txn(txn, &mut path.iter(), &mut write);
        let mut reply = done.inspect_err(|_| self.undo(write.main))?;
        self.revision = write.revision();
        reply.header = header(self.revision);
        Ok(reply)
    }

    /// Evaluates every compare against the state before the transaction.
    fn decide(&self, txn: &TxnRequest, path: &mut Path) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                self.decide(nested, path);
            }
        }
    }

    /// Refuses the whole transaction if any operation that it would do must be refused.
    fn admit<'a>(
        &self,
        txn: &TxnRequest,
        path: &mut impl Iterator<Item = &'a bool>,
    ) -> Result<(), Refusal> {
        let succeeded = *path.next().expect("decide visits what admit visits");
        for op in branch(txn, succeeded) {
            match &op.request {
                Some(Op::RequestRange(range)) => {
                    self.readable_in_txn(range.revision)?;
                }
                Some(Op::RequestPut(put)) => {
                    self.lease_known(put)?;
                    self.key_known(put)?;
                }
                Some(Op::RequestTxn(nested)) => self.admit(nested, path)?,
                Some(Op::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn do_txn<'a>(
        &mut self,
        txn: &TxnRequest,
        path: &mut impl Iterator<Item = &'a bool>,
        write: &mut Write,
    ) -> Result<TxnResponse, Refusal> {
        let succeeded = *path.next().expect("decide visits what do_txn visits");
        let mut responses = Vec::new();
        for op in branch(txn, succeeded) {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => {
                    let reply = self.range(range, write.revision());
                    Response::ResponseRange(reply.expect("admit checked its revision"))
                }
                Some(Op::RequestPut(put)) => Response::ResponsePut(self.do_put(put, write)?),
                Some(Op::RequestDeleteRange(delete)) => {
                    Response::ResponseDeleteRange(self.do_delete(delete, write))
                }
                Some(Op::RequestTxn(nested)) => {
                    Response::ResponseTxn(self.do_txn(nested, path, write)?)
                }
                None => continue,
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }

    fn do_put(&mut self, put: &PutRequest, write: &mut Write) -> Result<PutResponse, Refusal> {
        let previous = self.at(&put.key, i64::MAX).cloned();
        if previous.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Refusal::KeyDeletedBefore);
        }
        let kept = previous.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if previous.is_some() { kept.create_revision } else { write.main },
            mod_revision: write.main,
            version: kept.version + 1,
            value: if put.ignore_value { kept.value } else { put.value.clone() },
            lease: if put.ignore_lease { kept.lease } else { put.lease },
        };
        self.push(put.key.clone(), Some(kv), write);
        let shown = previous.filter(|_| put.prev_kv);
        let prev_kv = shown.map(|kv| encode(&kv)).unwrap_or_default();
        Ok(PutResponse { header: header(write.main), prev_kv })
    }

    /// Takes back what a write of `main` did before it was refused.
    pub(super) fn undo(&mut self, main: i64) {
        for key in self.changed.remove(&main).unwrap_or_default() {
            if let Some(versions) = self.keys.get_mut(&key) {
                versions.retain(|version| version.main != main);
            }
        }
    }

    fn do_delete(&mut self, delete: &DeleteRangeRequest, write: &mut Write) -> DeleteRangeResponse {
        let deleted = self.present(&delete.key, &delete.range_end, i64::MAX);
        for kv in &deleted {
            self.push(kv.key.clone(), None, write);
        }
        DeleteRangeResponse {
            header: header(write.revision()),
            deleted: i64::try_from(deleted.len()).expect("a model is small"),
            prev_kvs: deleted.iter().filter(|_| delete.prev_kv).map(encode).collect(),
        }
    }

    fn push(&mut self, key: Bytes, kv: Option<KeyValue>, write: &mut Write) {
        let version = Version { main: write.main, sub: write.sub, kv };
        self.add(key, version);
        write.sub += 1;
    }

    /// Unlike a read on its own, one in a transaction may not ask for a negative revision once there
    /// was a compaction.
    fn readable_in_txn(&self, asked: i64) -> Result<(), Refusal> {
        match asked {
            0 => Ok(()),
            _ if asked > self.revision => Err(Refusal::FutureRevision),
            _ if asked < self.compact_revision => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    fn key_known(&self, put: &PutRequest) -> Result<(), Refusal> {
        let needed = put.ignore_value || put.ignore_lease;
        if needed && self.at(&put.key, i64::MAX).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn lease_known(&self, put: &PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    /// Whether a compare holds for every key that it names; where there is none, for a key of zeros.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.present(&compare.key, &compare.range_end, i64::MAX);
        if found.is_empty() {
            let of_value = compare.target == CompareTarget::Value as i32;
            return !of_value && relation_holds(compare, &KeyValue::default());
        }
        found.iter().all(|kv| relation_holds(compare, kv))
    }
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// Compares what is there with what was given; a given value of another target counts as not given.
fn relation_holds(compare: &Compare, kv: &KeyValue) -> bool {
    use TargetUnion as Given;
    let given = &compare.target_union;
    let order =
        match CompareTarget::try_from(compare.target) {
            Ok(CompareTarget::Version) => {
                kv.version.cmp(&if let Some(Given::Version(given)) = given { *given } else { 0 })
            }
            Ok(CompareTarget::Create) => {
                kv.create_revision.cmp(&if let Some(Given::CreateRevision(given)) = given {
                    *given
                } else {
                    0
                })
            }
            Ok(CompareTarget::Mod) => kv
                .mod_revision
                .cmp(&if let Some(Given::ModRevision(given)) = given { *given } else { 0 }),
            Ok(CompareTarget::Lease) => {
                kv.lease.cmp(&if let Some(Given::Lease(given)) = given { *given } else { 0 })
            }
            Ok(CompareTarget::Value) => match given {
                Some(Given::Value(given)) => kv.value.cmp(given),
                _ => kv.value.as_ref().cmp(b""),
            },
            Err(_) => Ordering::Equal,
        };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}

fn encode(kv: &KeyValue) -> Bytes {
    kv.encode_to_vec().into()
}
