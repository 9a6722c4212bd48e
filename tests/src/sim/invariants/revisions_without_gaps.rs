//! Every change has a revision of its own, one after the other.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::{Event, History, OpId, StoredState};

/// Revisions are given once, grow in real time, and leave no gap.
///
/// A write that began after another was acknowledged has the greater revision. What a member holds
/// above its compact revision are all revisions, each with its changes numbered from 0.
#[derive(Default)]
pub struct RevisionsWithoutGaps {
    given: BTreeMap<i64, OpId>,
}

impl Invariant for RevisionsWithoutGaps {
    fn name(&self) -> &'static str {
        "revisions without gaps"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        match event {
            Event::Replied { op, reply } if reply.has_changed() => {
                let revision = reply.revision();
                if let Some(other) = self.given.insert(revision, *op) {
                    return Err(format!("{other} and {op} were both given revision {revision}"));
                }
                let before = history.op(*op).map_or(0, |recorded| recorded.known_before);
                if revision <= before {
                    return Err(format!("{op} began after revision {before} and got {revision}"));
                }
                Ok(())
            }
            Event::Inspected { state } => held(state),
            _ => Ok(()),
        }
    }
}

fn held(state: &StoredState) -> Result<(), String> {
    // An empty store stands at revision 1, of which there are no rows.
    let mut last = (state.compact_revision.max(1), -1);
    for row in state.rows.iter().filter(|row| row.version.main > state.compact_revision) {
        let at = (row.version.main, row.version.sub);
        if at != (last.0, last.1 + 1) && at != (last.0 + 1, 0) {
            return Err(format!("after the row of {last:?} comes {at:?}"));
        }
        last = at;
    }
    if last.0 != state.current_revision {
        return Err(format!(
            "the last row is of revision {}, and the current one is {}",
            last.0, state.current_revision
        ));
    }
    Ok(())
}
