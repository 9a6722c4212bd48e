//! The table and its JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::rows::{Group, ROWS, Row};
use super::sample::Sample;
use super::statistics::Spread;
use super::{Measured, Pair, Setup};

const LEVELS: [&str; 3] = ["must", "goal", "stretch"];
/// With fewer ratios of a null run, all of them are too often on one side of 1.0.
const NULL_MIN: usize = 3;
/// P4 also allows this above the disk's own time.
const LONE_PUT_ABOVE_DISK_US: f64 = 150.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The two programs, ours first.
    pub programs: [String; 2],
    /// The rows.
    pub rows: Vec<ReportRow>,
    /// Syncs of whole processes.
    pub syncs: Vec<SyncRow>,
    /// Absolute figures and conditions that are not ratios.
    pub notes: Vec<String>,
}

/// One row of the table.
#[derive(Debug, Serialize)]
pub struct ReportRow {
    /// P1, P2, ...
    pub id: String,
    /// What it is.
    pub what: &'static str,
    /// Of the two absolute figures.
    pub unit: &'static str,
    /// Median of etcd's figures.
    pub etcd: f64,
    /// Median of our figures.
    pub ours: f64,
    /// Ours by etcd's.
    pub ratio: Spread,
    /// etcd's by etcd's; `None` with fewer than two pairs.
    pub null: Option<Spread>,
    /// Highest ratios of must, goal and stretch.
    pub levels: [f64; 3],
    /// The best level that is met.
    pub met: Option<&'static str>,
    /// The highest ratio for this stage of the work.
    pub accept: Option<f64>,
    /// False if the null run does not contain 1.0: then the row says nothing. `None` if the null run has
    /// fewer than three ratios: nothing shows whether the row says anything.
    pub kept: Option<bool>,
}

/// Syncs of a server's whole life.
#[derive(Debug, Serialize)]
pub struct SyncRow {
    /// Requests in flight.
    pub clients: usize,
    /// Acknowledged puts.
    pub puts: u64,
    /// etcd's `fdatasync` and `fsync` calls.
    pub etcd: u64,
    /// Ours.
    pub ours: u64,
}

impl Report {
    pub(super) fn new(setup: &Setup, measured: &[Measured], syncs: Vec<SyncRow>) -> Report {
        let mut report = Report {
            programs: [&setup.ours, &setup.etcd].map(|program| program.path.display().to_string()),
            rows: Vec::new(),
            syncs,
            notes: Vec::new(),
        };
        for measured in measured {
            for row in ROWS.iter().filter(|row| measured.groups.contains(&row.group)) {
                report.rows.extend(ReportRow::new(row, measured));
            }
            report.notes.extend(conditions(measured));
            report.notes.extend(beside(measured));
        }
        report.rows.sort_by_key(|row| ROWS.iter().position(|known| known.what == row.what));
        report
    }
}

impl ReportRow {
    /// `None` when the samples lack the figure.
    fn new(row: &Row, measured: &Measured) -> Option<ReportRow> {
        let pairs = figures(&measured.pairs, row.figure)?;
        let ratio = Spread::of_ratios(&pairs)?;
        let null = figures(&measured.null, row.figure).and_then(|null| Spread::of_ratios(&null));
        let met = LEVELS.into_iter().zip(row.levels).rev();
        let met = met.filter(|(_, level)| ratio.median <= *level).map(|(name, _)| name).next();
        Some(ReportRow {
            id: format!("{:?}", row.group),
            what: row.what,
            unit: row.unit,
            etcd: median(&measured.pairs, row.figure, Side::Etcd)?,
            ours: median(&measured.pairs, row.figure, Side::Ours)?,
            ratio,
            null,
            levels: row.levels,
            met,
            accept: row.accept,
            kept: null.filter(|null| null.count >= NULL_MIN).map(|null| null.contains_one()),
        })
    }

    fn verdict(&self) -> String {
        if self.kept == Some(false) {
            return "not kept: the null run does not contain 1.0".to_owned();
        }
        let unproven = if self.kept.is_none() { "(no null) " } else { "" };
        let met = self.met.map_or("not met".to_owned(), |level| format!("meets {level}"));
        let met = format!("{unproven}{met}");
        match self.accept {
            Some(accept) if self.ratio.median <= accept => format!("{met}, accepted"),
            Some(accept) => format!("{met}, NOT accepted (at most {accept})"),
            None => format!("{met}, measured only"),
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Ours,
    Etcd,
}

fn of(pair: &Pair, side: Side) -> &Sample {
    match side {
        Side::Ours => &pair.0,
        Side::Etcd => &pair.1,
    }
}

fn figures(pairs: &[Pair], figure: &str) -> Option<Vec<(f64, f64)>> {
    pairs.iter().map(|(ours, etcd)| Some((*ours.get(figure)?, *etcd.get(figure)?))).collect()
}

fn median(pairs: &[Pair], figure: &str, side: Side) -> Option<f64> {
    let figures: Option<Vec<f64>> =
        pairs.iter().map(|pair| of(pair, side).get(figure).copied()).collect();
    Spread::of(&figures?).map(|spread| spread.median)
}

/// What is asked for beside the ratios.
fn conditions(measured: &Measured) -> Vec<String> {
    let ours = |figure| median(&measured.pairs, figure, Side::Ours);
    let mut notes = Vec::new();
    let mut add = |text: &str, figure: Option<f64>, most: Option<f64>| {
        if let (Some(figure), Some(most)) = (figure, most) {
            let met = if figure <= most { "met" } else { "not met" };
            notes.push(format!("{text}: {} of at most {}: {met}", short(figure), short(most)));
        }
    };
    let disk = ours("fdatasync_p50_us").map(|disk| disk + LONE_PUT_ABOVE_DISK_US);
    add("P4 put p50 against the disk's fdatasync p50 + 150 us", ours("lone_p50"), disk);
    if measured.groups.contains(&Group::P14) {
        let get = ours("get_us").map(|get| get * 1.2);
        add("P14 stretch: count now against 1.2 gets, us", ours("count_now"), get);
        add("P14 stretch: count 10,000 back against 1.2 gets, us", ours("count_past"), get);
    }
    let live = ours("live_mib").map(|live| live * 1.3);
    add("P15 stretch: state store against 1.3 x live data, MiB", ours("compacted_end"), live);
    notes
}

/// Medians of the figures that are not rows.
fn beside(measured: &Measured) -> Vec<String> {
    let Some((sample, _)) = measured.pairs.first() else { return Vec::new() };
    let is_row = |figure: &str| ROWS.iter().any(|row| row.figure == figure);
    sample
        .keys()
        .filter(|figure| !is_row(figure))
        .filter_map(|figure| {
            let ours = median(&measured.pairs, figure, Side::Ours)?;
            let etcd = median(&measured.pairs, figure, Side::Etcd)?;
            let groups = &measured.groups;
            Some(format!("{groups:?} {figure}: ours {}, etcd {}", short(ours), short(etcd)))
        })
        .collect()
}

/// A figure with about four digits.
pub(super) fn short(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 3,
    };
    format!("{figure:.digits$}")
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nagainst {}; lower is better\n", self.programs[0], self.programs[1])?;
        for row in &self.rows {
            let (etcd, ours) = (short(row.etcd), short(row.ours));
            writeln!(f, "{:<4}{} [{}]", row.id, row.what, row.unit)?;
            let null = row.null.map_or("none".to_owned(), |null| range(&null));
            writeln!(
                f,
                "    ratio {} | null {null} | etcd {etcd} | ours {ours}",
                range(&row.ratio)
            )?;
            let levels = LEVELS.into_iter().zip(row.levels).filter(|(_, level)| *level > 0.0);
            let levels: Vec<_> = levels.map(|(name, level)| format!("{name} {level}")).collect();
            writeln!(f, "    {}: {}", levels.join(", "), row.verdict())?;
        }
        for SyncRow { clients, puts, etcd, ours } in &self.syncs {
            let met = if *clients > 1 || ours >= puts { "" } else { ": NOT one per put" };
            writeln!(f, "syncs of {puts} puts, {clients} clients: etcd {etcd}, ours {ours}{met}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

fn range(spread: &Spread) -> String {
    format!(
        "{:.2} [{:.2} .. {:.2}, {} pairs]",
        spread.median, spread.low, spread.high, spread.count
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, etcd: f64, null: f64) -> ReportRow {
        row_of(ours, etcd, &[null; NULL_MIN])
    }

    fn row_of(ours: f64, etcd: f64, null: &[f64]) -> ReportRow {
        let sample = |figure| Sample::from([("put_cpu", figure)]);
        let measured = Measured {
            groups: vec![Group::P1],
            null: null.iter().map(|&null| (sample(null), sample(1.0))).collect(),
            pairs: vec![(sample(ours), sample(etcd))],
        };
        ReportRow::new(&ROWS[0], &measured).unwrap()
    }

    #[test]
    fn the_best_level_that_is_met_is_named() {
        assert_eq!(row(0.8, 1.0, 1.0).met, None);
        assert_eq!(row(0.7, 1.0, 1.0).met, Some("must"));
        assert_eq!(row(0.3, 1.0, 1.0).met, Some("goal"));
        assert_eq!(row(0.2, 1.0, 1.0).met, Some("stretch"));
    }

    #[test]
    fn a_row_whose_null_run_is_off_is_not_kept() {
        assert_eq!(row(0.5, 1.0, 1.0).kept, Some(true));
        assert_eq!(row(0.5, 1.0, 1.1).kept, Some(false));
        assert!(row(0.5, 1.0, 1.1).verdict().starts_with("not kept"));
    }

    #[test]
    fn a_row_whose_null_run_is_too_short_to_reject_it_says_so() {
        for null in [&[][..], &[1.0], &[1.1; NULL_MIN - 1]] {
            let row = row_of(0.5, 1.0, null);
            assert_eq!(row.kept, None);
            assert_eq!(row.verdict(), "(no null) meets must, accepted");
        }
        assert_eq!(row(0.5, 1.0, 1.0).verdict(), "meets must, accepted");
    }

    #[test]
    fn what_is_not_accepted_stands_out() {
        assert!(row(0.65, 1.0, 1.0).verdict().contains("NOT accepted"));
        assert!(row(0.55, 1.0, 1.0).verdict().ends_with("accepted"));
    }
}
