//! A compaction takes what it may take, and nothing else.

use std::collections::BTreeSet;

use super::Invariant;
use crate::model::{Request, Version};
use crate::sim::history::{Event, Fate, History, StoredState, revisions_named};

/// What a member holds at and below its compact revision are rows of the history, among them every
/// one that a read at the compact revision needs; and a read below an acknowledged compaction is refused.
pub struct CompactionSparesTheReadable;

impl Invariant for CompactionSparesTheReadable {
    fn name(&self) -> &'static str {
        "compaction spares the readable"
    }

    fn on_event(&mut self, event: &Event<'_>, history: &History) -> Result<(), String> {
        match event {
            Event::Inspected { state } => {
                asked_for(state, history)?;
                rows(state, history)
            }
            Event::Replied { op, .. } => refused(*op, history),
            _ => Ok(()),
        }
    }
}

/// The compact revision is one that somebody asked for.
fn asked_for(state: &StoredState, history: &History) -> Result<(), String> {
    let asks = |request: &Request| matches!(request, Request::Compact(compaction) if compaction.revision == state.compact_revision);
    let mut asked =
        history.ops().filter(|(_, op)| !matches!(op.fate, Fate::Refused(_) | Fate::Shed));
    if state.compact_revision == -1 || asked.any(|(_, op)| asks(&op.request)) {
        return Ok(());
    }
    Err(format!("the compact revision is {}, which nobody asked for", state.compact_revision))
}

fn rows(state: &StoredState, history: &History) -> Result<(), String> {
    let compacted = state.compact_revision;
    let name = |key: &[u8], version: &Version| (key.to_vec(), version.main, version.sub);
    let below = |version: &Version| version.main <= compacted;
    let held: BTreeSet<_> = state
        .rows
        .iter()
        .filter(|row| below(&row.version))
        .map(|row| name(&row.key, &row.version))
        .collect();
    let model = history.model();
    let mut written = BTreeSet::new();
    for (key, version) in model.rows().filter(|(_, version)| below(version)) {
        written.insert(name(key, version));
        let shown = version.kv.is_some() && model.at(key, compacted) == version.kv.as_ref();
        if shown && !held.contains(&name(key, version)) {
            return Err(format!("compacted at {compacted}, and {key:?} of {version:?} is missing"));
        }
    }
    match held.difference(&written).next() {
        Some(stranger) => Err(format!("nobody wrote the row {stranger:?}")),
        None => Ok(()),
    }
}

/// A reply to a read below a compaction that was acknowledged before it was sent.
fn refused(op: u64, history: &History) -> Result<(), String> {
    let Some(recorded) = history.op(op) else { return Ok(()) };
    let Request::Range(range) = &recorded.request else { return Ok(()) };
    let named = revisions_named(&recorded.request);
    match named.iter().find(|revision| **revision < recorded.compacted_before) {
        Some(revision) => Err(format!(
            "{op} read revision {revision} after the compaction at {}: {range:?}",
            recorded.compacted_before
        )),
        None => Ok(()),
    }
}
