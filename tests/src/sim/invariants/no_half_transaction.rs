//! A request happened wholly or not at all.

use super::Invariant;
use crate::sim::history::{Event, History};

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
                Err(format!("no request explains revision {revision}: {:?}", state.at(revision)))
            }
            _ => Ok(()),
        }
    }
}
