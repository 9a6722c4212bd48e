//! No reply is older than what its client could know.

use super::Invariant;
use crate::model::Request;
use crate::sim::history::{Event, History};

/// A reply's revision is at least every revision that any client knew of when the request was sent,
/// unless it asked for a serializable read; and it is one that may exist already.
///
/// That the content is the one at that revision is
/// [`RepliesEqualModel`](super::RepliesEqualModel)'s business; together they are linearizability.
pub struct LinearizableReads;

impl Invariant for LinearizableReads {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        let Event::Replied { op, reply } = event else { return Ok(()) };
        let Some(recorded) = history.op(*op) else { return Ok(()) };
        let may_be_old = match &recorded.request {
            Request::Range(range) => range.serializable,
            Request::HashKv(_) => true,
            _ => false,
        };
        let revision = reply.revision();
        if revision < recorded.known_before && !may_be_old {
            return Err(format!(
                "{op} was sent when revision {} was known, and answered at {revision}",
                recorded.known_before
            ));
        }
        let newest = history.newest_possible();
        if revision > newest {
            return Err(format!("{op} was answered at {revision}, and at most {newest} can exist"));
        }
        Ok(())
    }
}
