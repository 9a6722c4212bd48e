//! Looks for a shorter history that shows a difference too.
//!
//! A part of a history is played on fresh servers that were first brought to the revision and the
//! compaction which that part began with. First ends of the history are tried, from the last
//! operation alone to the last 3,000; then, from the shortest that shows a difference, ever smaller
//! parts are left out, at last parts of the transaction that shows it. Each try costs a start of both
//! servers, so the search ends at a deadline with the best that it has.

use std::time::{Duration, Instant};

use super::run::{Difference, Match, Step};
use crate::process::Program;

mod smaller;

use self::smaller::smaller;

const TIME_MAX: Duration = Duration::from_secs(120);
const ENDS: [usize; 6] = [1, 10, 50, 200, 1001, 3000];

/// A short history and the difference that its last operation shows.
#[derive(Debug)]
pub struct Shrunk {
    /// The history.
    pub steps: Vec<Step>,
    /// What its last operation shows.
    pub difference: Difference,
    /// The revision that the stores were brought to first.
    pub revision: i64,
    /// The revision that was compacted first; 0 for none.
    pub compacted: i64,
}

/// Searches for at most two minutes; `None` if no end of the history shows a difference again.
///
/// # Errors
/// When a server cannot start or ends.
pub async fn shrink(programs: &[Program; 2], steps: &[Step]) -> anyhow::Result<Option<Shrunk>> {
    let deadline = Instant::now() + TIME_MAX;
    let Some(mut best) = shortest_end(programs, steps, deadline).await? else { return Ok(None) };
    let mut parts = 2;
    while best.steps.len() > 1 && parts <= best.steps.len() && Instant::now() < deadline {
        match without_one_part(programs, &best, parts, deadline).await? {
            Some(better) => best = better,
            None => parts *= 2,
        }
        parts = parts.max(2);
    }
    while let Some(better) = with_smaller_last_step(programs, &best, deadline).await? {
        best = better;
    }
    Ok(Some(best))
}

async fn with_smaller_last_step(
    programs: &[Program; 2],
    best: &Shrunk,
    deadline: Instant,
) -> anyhow::Result<Option<Shrunk>> {
    let Some((last, before)) = best.steps.split_last() else { return Ok(None) };
    for operation in smaller(&last.operation) {
        if Instant::now() > deadline {
            break;
        }
        let steps = [before, &[Step { operation, ..last.clone() }]].concat();
        let found = replay(programs, &steps, best.revision, best.compacted).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn shortest_end(
    programs: &[Program; 2],
    steps: &[Step],
    deadline: Instant,
) -> anyhow::Result<Option<Shrunk>> {
    for length in ENDS {
        let end = &steps[steps.len().saturating_sub(length)..];
        let found = replay(programs, end, end[0].revision, end[0].compacted).await?;
        if found.is_some() || end.len() == steps.len() || Instant::now() > deadline {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Leaves out each of `parts` parts in turn, until what is left shows a difference.
async fn without_one_part(
    programs: &[Program; 2],
    best: &Shrunk,
    parts: usize,
    deadline: Instant,
) -> anyhow::Result<Option<Shrunk>> {
    let size = best.steps.len().div_ceil(parts);
    // The last step is the one that shows it.
    let removable = best.steps.len() - 1;
    for start in (0..removable).step_by(size) {
        if Instant::now() > deadline {
            break;
        }
        let end = (start + size).min(removable);
        let left: Vec<Step> = [&best.steps[..start], &best.steps[end..]].concat();
        let found = replay(programs, &left, best.revision, best.compacted).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn replay(
    programs: &[Program; 2],
    steps: &[Step],
    revision: i64,
    compacted: i64,
) -> anyhow::Result<Option<Shrunk>> {
    let mut pair = Match::start(programs).await?;
    pair.fill(revision, compacted).await?;
    for (number, step) in steps.iter().enumerate() {
        if let Some(difference) = pair.play(&step.operation).await? {
            let difference = Difference { number, ..difference };
            let steps = steps[..=number].to_vec();
            return Ok(Some(Shrunk { steps, difference, revision, compacted }));
        }
    }
    Ok(None)
}
