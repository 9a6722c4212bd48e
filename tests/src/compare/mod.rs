//! Quorate and etcd side by side: the same requests, the same machine, the same durability.
//!
//! A [`sample::Sample`] is what one run of one program on a fresh data directory shows. Samples are
//! taken in pairs, in the order A B B A, and a row of the table is the median of the ratios of its
//! pairs with their spread ([`statistics`]). A null run, etcd against etcd, goes first: a figure is
//! kept only if the spread of the null run's ratios contains 1.0. Where one sample costs a minute
//! or more (P7, P8, P11, P14, P15, P16), the null ratios are those of each etcd sample by the next one
//! of the same run. The two pairs of P11, P15 and P16 give one such ratio, which could reject nothing:
//! their rows are marked `(no null)`.
//!
//! The first figure is CPU per operation, from `/proc`, with what the server does afterwards until
//! it has written everything. Absolute times are notes.

use std::collections::BTreeSet;

use crate::process::Program;

pub mod disk;
pub mod leasing;
pub mod million;
pub mod ranges;
pub mod report;
pub mod rewrites;
pub mod rows;
pub mod sample;
pub mod serving;
pub mod statistics;
pub mod syncs;
pub mod watching;

use self::report::{Report, SyncRow};
use self::rows::Group;
use self::sample::{Sample, Scale};

/// Memory that a member with a million keys takes at rest.
const MEMBER_BYTES: u64 = 800_000_000;
/// What the one member takes that is asked for all of them, and its reply.
const FULL_RANGE_BYTES: u64 = 4_000_000_000;

/// What is compared.
#[derive(Debug)]
pub struct Setup {
    /// The peer.
    pub etcd: Program,
    /// Ours, or etcd again.
    pub ours: Program,
    /// Which rows.
    pub groups: BTreeSet<Group>,
    /// How much of it.
    pub scale: Scale,
}

/// Samples of a pair: ours, then etcd's. In a null run both are etcd's.
pub type Pair = (Sample, Sample);

/// The pairs of some rows.
#[derive(Debug)]
pub struct Measured {
    /// The rows' groups.
    pub groups: Vec<Group>,
    /// etcd against itself.
    pub null: Vec<Pair>,
    /// Ours against etcd.
    pub pairs: Vec<Pair>,
}

type Alone = fn(&Program, &Scale) -> anyhow::Result<Sample>;
type Together = fn(&[Program], &Scale) -> anyhow::Result<Vec<Sample>>;

/// Scenarios whose samples take seconds, with a null run of their own.
const FAST: [(Group, Alone); 6] = [
    (Group::P1, serving::puts),
    (Group::P2, serving::gets),
    (Group::P4, serving::lone_puts),
    (Group::P9, watching::fan_out),
    (Group::P10, watching::idle),
    (Group::P13, ranges::large),
];

/// Measures all rows that were asked for; `say` is told of each sample.
///
/// # Errors
/// When a server cannot start, ends, or refuses a request.
pub fn compare(setup: &Setup, say: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let mut measured = Vec::new();
    for (group, run) in FAST {
        if setup.groups.contains(&group) {
            measured.push(setup.fast(group, run, say)?);
        }
    }
    let slow: [(&[Group], Together); 4] = [
        (&[Group::P11], |programs, scale| {
            programs.iter().map(|program| leasing::leases(program, scale)).collect()
        }),
        (&[Group::P16], |programs, scale| {
            programs.iter().map(|program| serving::written(program, scale)).collect()
        }),
        (&[Group::P7, Group::P8, Group::P14], million::samples),
        (&[Group::P15], rewrites::samples),
    ];
    for (groups, run) in slow {
        let groups: Vec<Group> =
            groups.iter().copied().filter(|group| setup.groups.contains(group)).collect();
        if !groups.is_empty() {
            // A sample of these costs minutes.
            let is_long =
                [Group::P11, Group::P15, Group::P16].iter().any(|long| groups.contains(long));
            let pairs = if is_long { setup.scale.rewrite_pairs } else { setup.scale.pairs };
            measured.push(setup.slow(groups, pairs, run, say)?);
        }
    }
    let syncs = if setup.groups.contains(&Group::Syncs) { setup.syncs(say)? } else { Vec::new() };
    Ok(Report::new(setup, &measured, syncs))
}

impl Setup {
    fn fast(
        &self,
        group: Group,
        run: Alone,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Measured> {
        let mut pairs_of = |first: &Program, name: &str| -> anyhow::Result<Vec<Pair>> {
            let mut samples = Vec::new();
            for program in order(first, &self.etcd, self.scale.pairs) {
                let sample = run(&program, &self.scale)?;
                say(&format!("{group:?} {name} {}: {}", program.name(), text(&sample)));
                samples.push(sample);
            }
            Ok(paired(samples))
        };
        let null = pairs_of(&self.etcd, "null")?;
        let pairs = pairs_of(&self.ours, "pair")?;
        Ok(Measured { groups: vec![group], null, pairs })
    }

    fn slow(
        &self,
        groups: Vec<Group>,
        pairs: usize,
        run: Together,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Measured> {
        let programs = order(&self.ours, &self.etcd, pairs);
        let mut samples = Vec::new();
        let at_once = members_at_once(programs.len(), self.scale.keys, available_bytes());
        for programs in programs.chunks(at_once) {
            for (program, sample) in programs.iter().zip(run(programs, &self.scale)?) {
                say(&format!("{groups:?} {}: {}", program.name(), text(&sample)));
                samples.push(sample);
            }
        }
        let pairs = paired(samples);
        let null = pairs.windows(2).map(|two| (two[0].1.clone(), two[1].1.clone())).collect();
        Ok(Measured { groups, null, pairs })
    }

    fn syncs(&self, say: &mut dyn FnMut(&str)) -> anyhow::Result<Vec<SyncRow>> {
        let mut rows = Vec::new();
        for (clients, puts) in syncs::LOADS {
            let etcd = syncs::count(&self.etcd, clients, puts)?;
            let ours = syncs::count(&self.ours, clients, puts)?;
            match (etcd, ours) {
                (Some(etcd), Some(ours)) => rows.push(SyncRow { clients, puts, etcd, ours }),
                _ => say("syncs are not counted: there is no strace on the PATH"),
            }
        }
        Ok(rows)
    }
}

/// A B B A ..., where A is `first`: the programs of so many pairs.
fn order(first: &Program, second: &Program, pairs: usize) -> Vec<Program> {
    let pair = |number: usize| {
        if number.is_multiple_of(2) { [first, second] } else { [second, first] }
    };
    (0..pairs).flat_map(pair).cloned().collect()
}

/// Puts samples that were taken in [`order`] together, A before B.
fn paired(samples: Vec<Sample>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut samples = samples.into_iter();
    while let (Some(one), Some(other)) = (samples.next(), samples.next()) {
        pairs.push(if pairs.len() % 2 == 0 { (one, other) } else { (other, one) });
    }
    pairs
}

/// Into how large groups of whole pairs `members` are divided, so that a group fits into two thirds
/// of the available memory.
fn members_at_once(members: usize, keys: u64, available_bytes: u64) -> usize {
    let scaled = |bytes: u64| bytes * keys / Scale::WHOLE.keys + 1;
    let usable = (available_bytes / 3 * 2).saturating_sub(scaled(FULL_RANGE_BYTES));
    let fit = usize::try_from(usable / scaled(MEMBER_BYTES)).unwrap_or(usize::MAX) / 2 * 2;
    let groups = members.div_ceil(fit.clamp(2, members.max(2)));
    members.div_ceil(groups.max(1)).next_multiple_of(2)
}

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: Option<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}

fn text(sample: &Sample) -> String {
    let figures = sample.iter().map(|(name, figure)| format!("{name}={}", report::short(*figure)));
    figures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_alternate_and_are_put_in_order() {
        let (ours, etcd) = (Program::quorate("q".into()), Program::etcd("e".into()));
        let order = order(&ours, &etcd, 3);
        let names: Vec<_> = order.iter().map(Program::name).collect();
        assert_eq!(names, ["quorate", "etcd", "etcd", "quorate", "quorate", "etcd"]);
        let samples = order.iter().map(|program| Sample::from([(program.name(), 1.0)])).collect();
        for (first, second) in paired(samples) {
            assert!(first.contains_key("quorate") && second.contains_key("etcd"));
        }
    }

    #[test]
    fn groups_hold_whole_pairs_and_fit_the_memory() {
        let at_once = |gib: u64| members_at_once(10, 1_000_000, gib << 30);
        assert_eq!([0, 8, 12, 16, 20, 64].map(at_once), [2, 2, 4, 6, 10, 10]);
        assert!(available_bytes() > 0);
    }
}
