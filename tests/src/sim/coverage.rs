//! What the faults met: a table of faults by what the member was doing.
//!
//! A simulation that never crashed during a rotation has shown nothing about rotations. So each run
//! counts, for every fault, the activity that it hit; the runner adds the tables of all seeds and
//! fails on a zero in a cell that is possible.

use std::fmt;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Power is lost: what was not synced is gone or not, sector by sector.
    Crash,
    /// The process is killed; the page cache survives.
    Kill,
    /// Power is lost in the middle of a write.
    TornWrite,
    /// The disk is full.
    NoSpace,
    /// A read fails.
    ReadError,
    /// A write fails.
    WriteError,
    /// A file cannot be opened.
    OpenError,
    /// A sync fails, and what it should have written may be lost.
    SyncError,
    /// A disk operation takes long.
    SlowDisk,
    /// The member does not run for a while.
    Pause,
}

/// What the member was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Nothing in particular.
    Idle,
    /// Appending to the log.
    Append,
    /// Applying committed entries.
    Apply,
    /// Reading a range in steps.
    Read,
    /// Reading history for watchers that are behind.
    CatchUp,
    /// Writing a flush batch.
    Flush,
    /// Starting a new segment of the log.
    Rotation,
    /// Removing what a compaction left.
    Compaction,
    /// Writing a checkpoint of the index.
    Checkpoint,
    /// Giving space back.
    Rewrite,
    /// Starting.
    Recovery,
}

impl Fault {
    /// Every fault, in the order of the rows.
    pub const ALL: [Self; 10] = [
        Self::Crash,
        Self::Kill,
        Self::TornWrite,
        Self::NoSpace,
        Self::ReadError,
        Self::WriteError,
        Self::OpenError,
        Self::SyncError,
        Self::SlowDisk,
        Self::Pause,
    ];

    /// The name of the row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Kill => "kill",
            Self::TornWrite => "torn write",
            Self::NoSpace => "ENOSPC",
            Self::ReadError => "EIO on read",
            Self::WriteError => "EIO on write",
            Self::OpenError => "EMFILE on open",
            Self::SyncError => "failing fsync",
            Self::SlowDisk => "slow disk",
            Self::Pause => "pause",
        }
    }
}

impl Activity {
    /// Every activity, in the order of the columns.
    pub const ALL: [Self; 11] = [
        Self::Idle,
        Self::Append,
        Self::Apply,
        Self::Read,
        Self::CatchUp,
        Self::Flush,
        Self::Rotation,
        Self::Compaction,
        Self::Checkpoint,
        Self::Rewrite,
        Self::Recovery,
    ];

    /// The name of the column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Append => "append",
            Self::Apply => "apply",
            Self::Read => "read",
            Self::CatchUp => "catch-up",
            Self::Flush => "flush",
            Self::Rotation => "rotation",
            Self::Compaction => "compaction",
            Self::Checkpoint => "checkpoint",
            Self::Rewrite => "rewrite",
            Self::Recovery => "recovery",
        }
    }
}

/// Counts of faults by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: [[u64; Activity::ALL.len()]; Fault::ALL.len()],
}

/// Which cells a scenario can reach at all.
pub type Possible = fn(Fault, Activity) -> bool;

impl Coverage {
    /// Counts one meeting.
    pub fn hit(&mut self, fault: Fault, activity: Activity) {
        self.counts[fault as usize][activity as usize] += 1;
    }

    /// How often `fault` met `activity`.
    pub fn count(&self, fault: Fault, activity: Activity) -> u64 {
        self.counts[fault as usize][activity as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, more) in row.iter_mut().zip(others) {
                *count += more;
            }
        }
    }

    /// The possible cells that nothing hit.
    pub fn zeros(&self, possible: Possible) -> Vec<(Fault, Activity)> {
        Fault::ALL
            .into_iter()
            .flat_map(|fault| Activity::ALL.into_iter().map(move |activity| (fault, activity)))
            .filter(|&(fault, activity)| {
                possible(fault, activity) && self.count(fault, activity) == 0
            })
            .collect()
    }

    /// The table as text: a dot where a cell is impossible, rows and columns without a possible cell
    /// left out.
    pub fn table(&self, possible: Possible) -> String {
        Table { coverage: self, possible }.to_string()
    }
}

struct Table<'a> {
    coverage: &'a Coverage,
    possible: Possible,
}

impl Table<'_> {
    fn rows(&self) -> Vec<Fault> {
        let any = |fault: &Fault| Activity::ALL.iter().any(|&a| (self.possible)(*fault, a));
        Fault::ALL.into_iter().filter(any).collect()
    }

    fn columns(&self) -> Vec<Activity> {
        let any = |activity: &Activity| Fault::ALL.iter().any(|&f| (self.possible)(f, *activity));
        Activity::ALL.into_iter().filter(any).collect()
    }

    fn cell(&self, fault: Fault, activity: Activity) -> String {
        match ((self.possible)(fault, activity), self.coverage.count(fault, activity)) {
            (false, 0) => ".".to_owned(),
            (_, count) => count.to_string(),
        }
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        write!(f, "{:<14}", "fault")?;
        columns.iter().try_for_each(|column| write!(f, "{:>11}", column.name()))?;
        for fault in self.rows() {
            write!(f, "\n{:<14}", fault.name())?;
            for &activity in &columns {
                write!(f, "{:>11}", self.cell(fault, activity))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_only(fault: Fault, activity: Activity) -> bool {
        matches!(fault, Fault::Crash | Fault::SyncError)
            && matches!(activity, Activity::Idle | Activity::Flush)
            && !(fault == Fault::SyncError && activity == Activity::Idle)
    }

    #[test]
    fn constants_list_their_variants_in_order() {
        assert!(Fault::ALL.iter().enumerate().all(|(at, &fault)| fault as usize == at));
        assert!(Activity::ALL.iter().enumerate().all(|(at, &state)| state as usize == at));
    }

    #[test]
    fn zeros_are_the_possible_cells_that_nothing_hit() {
        let mut one = Coverage::default();
        one.hit(Fault::Crash, Activity::Idle);
        let mut all = Coverage::default();
        all.hit(Fault::Crash, Activity::Idle);
        all.add(&one);
        assert_eq!(all.count(Fault::Crash, Activity::Idle), 2);
        assert_eq!(
            all.zeros(disk_only),
            [(Fault::Crash, Activity::Flush), (Fault::SyncError, Activity::Flush)]
        );
        let expected = "fault                idle      flush\n\
                        crash                   2          0\n\
                        failing fsync           .          0";
        assert_eq!(all.table(disk_only), expected);
    }
}
