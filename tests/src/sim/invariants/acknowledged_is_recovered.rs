//! What was acknowledged is there.

use super::Invariant;
use crate::sim::history::{Event, History, StoredState, explains};

/// A member holds every acknowledged write at the revision of its reply, with its content, whatever
/// happened since; a compaction that was acknowledged is still in force.
pub struct AcknowledgedIsRecovered;

impl Invariant for AcknowledgedIsRecovered {
    fn name(&self) -> &'static str {
        "acknowledged is recovered"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        let Event::Inspected { state } = event else { return Ok(()) };
        if state.compact_revision < history.compacted_revision() {
            return Err(format!(
                "the compaction at {} was acknowledged, and the compact revision is {}",
                history.compacted_revision(),
                state.compact_revision
            ));
        }
        history.writes().try_for_each(|(revision, op)| is_there(history, state, revision, op))
    }
}

fn is_there(history: &History, state: &StoredState, revision: i64, op: u64) -> Result<(), String> {
    if revision > state.current_revision {
        return Err(format!(
            "{op} was acknowledged at revision {revision}, and the member is at {}",
            state.current_revision
        ));
    }
    let changes = history.model().changes_at(revision);
    if revision > state.compact_revision && !explains(&changes, state.at(revision), false) {
        let rows = state.at(revision);
        return Err(format!("{op} wrote {changes:?} at {revision}, and the member holds {rows:?}"));
    }
    Ok(())
}
