//! Replies from what apply did: headers as etcd fills them, and the values that apply did not read.
//!
//! ```text
//! TxnResponse           header: cluster, member, revision, term
//!   ResponsePut         header: revision
//!   ResponseTxn         header: there, and all zero
//!     ResponseRange     header: revision
//! ```

use std::future::Future;
use std::pin::Pin as FuturePin;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb::response_op::Response as WireResponse;
use quorate_proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
};
use tonic::Status;

use super::context::{Context, Rows};
use super::errors::Refusal;
use crate::handle::{Committed, Response};
use crate::mutants::{self, Mutant};
use crate::mvcc::{Applied, Outcome, Revision};
use crate::view::Pin;

/// Why an outcome is of the kind of its request.
const SAME_KIND: &str = "apply answers a request with an outcome of its kind";
/// Why there is a pin.
const PINNED: &str = "a reply that still reads rows comes with a pin";

/// What apply said to a put, deletion or transaction, or its refusal.
pub(crate) fn applied(committed: Committed) -> Result<(Applied, u64, Option<Arc<Pin>>), Refusal> {
    let Committed { term, result, pin } = committed;
    match result? {
        Response::Kv(applied) => Ok((applied, term, pin)),
        other => panic!("{SAME_KIND}, not {other:?}"),
    }
}

/// The reply to a put, with its header as given.
pub(crate) async fn put(
    context: &Context,
    header: ResponseHeader,
    outcome: Outcome,
    pin: Option<Arc<Pin>>,
) -> Result<PutResponse, Status> {
    let Outcome::Put { prev, .. } = outcome else { panic!("{SAME_KIND}") };
    let prev_kv = match prev {
        None => Bytes::new(),
        Some(revision) => {
            let pin = pin.expect(PINNED);
            context.stored(&[revision], &pin).await?.pop().unwrap_or_default()
        }
    };
    Ok(PutResponse { header: Some(header), prev_kv })
}

/// The reply to a deletion, with its header as given.
pub(crate) async fn delete_range(
    context: &Context,
    header: ResponseHeader,
    outcome: Outcome,
    pin: Option<Arc<Pin>>,
) -> Result<DeleteRangeResponse, Status> {
    let Outcome::DeleteRange { deleted, prev, .. } = outcome else { panic!("{SAME_KIND}") };
    let prev_kvs = match prev.as_slice() {
        [] => Vec::new(),
        prev => context.stored(prev, &pin.expect(PINNED)).await?,
    };
    Ok(DeleteRangeResponse { header: Some(header), deleted, prev_kvs })
}

/// The reply to a transaction, with its header as given.
pub(crate) async fn txn(
    context: &Context,
    header: ResponseHeader,
    outcome: Outcome,
    pin: Option<Arc<Pin>>,
) -> Result<TxnResponse, Status> {
    let Outcome::Txn { succeeded, outcomes, .. } = outcome else { panic!("{SAME_KIND}") };
    let mut responses = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let response = operation(context, outcome, pin.clone()).await?;
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: Some(header), succeeded, responses })
}

async fn operation(
    context: &Context,
    outcome: Outcome,
    pin: Option<Arc<Pin>>,
) -> Result<WireResponse, Status> {
    match outcome {
        Outcome::Put { revision, .. } => {
            let header = Context::inner_header(revision);
            put(context, header, outcome, pin).await.map(WireResponse::ResponsePut)
        }
        Outcome::DeleteRange { revision, .. } => {
            let header = Context::inner_header(revision);
            delete_range(context, header, outcome, pin).await.map(WireResponse::ResponseDeleteRange)
        }
        Outcome::Range { revision, at, query } => {
            let rows = context.read(query, at, pin.expect(PINNED)).await?;
            let header = Context::inner_header(revision);
            Ok(WireResponse::ResponseRange(range(header, rows)))
        }
        Outcome::Txn { .. } => nested(context, outcome, pin).await.map(WireResponse::ResponseTxn),
    }
}

/// Ends the recursion of types: a transaction within a transaction is behind a pointer.
fn nested(
    context: &Context,
    outcome: Outcome,
    pin: Option<Arc<Pin>>,
) -> FuturePin<Box<dyn Future<Output = Result<TxnResponse, Status>> + Send + '_>> {
    Box::pin(txn(context, ResponseHeader::default(), outcome, pin))
}

/// The reply to a range, with its header as given.
pub(crate) fn range(header: ResponseHeader, rows: Rows) -> RangeResponse {
    RangeResponse {
        header: Some(header),
        kvs: rows.kvs,
        more: rows.summary.more,
        count: rows.summary.count,
    }
}

/// The moment at which a range outside a transaction reads.
pub(crate) fn end_of(pin: &Pin) -> Revision {
    match mutants::on(Mutant::HalfTransaction) {
        true => Revision::new(pin.revision(), 0),
        false => Revision::end_of(pin.revision()),
    }
}
