//! A request happened wholly or not at all.

use super::Invariant;
use crate::sim::history::{Event, History};

/// A failure shows the requests that were sent within so many revisions.
const LATEST: i64 = 4;

/// Every revision that a member holds is the whole effect of exactly one request that a client sent.
///
/// So nothing happens in part, nothing happens twice, and nothing happens that nobody asked for.
pub struct NoHalfTransaction;

impl Invariant for NoHalfTransaction {
    fn name(&self) -> &'static str {
        "no half transaction"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        match (event, history.unexplained()) {
            (Event::Inspected { state }, Some(revision)) => {
                let rows = state.at(revision);
                let newest = history.ops().filter(|(_, op)| op.known_before + LATEST >= revision);
                let asked: Vec<_> = newest.map(|(id, op)| (id, &op.request, &op.fate)).collect();
                Err(format!("no request explains revision {revision}: {rows:?}\n  of {asked:#?}"))
            }
            _ => Ok(()),
        }
    }
}
