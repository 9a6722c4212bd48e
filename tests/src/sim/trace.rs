//! The event log of a run: a running hash over every line, and the last lines for a person.
//!
//! Two runs of one seed are the same run exactly if their hashes are equal, so the hash covers every
//! line ever written while memory holds only the newest [`LINES_KEPT_MAX`].

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

/// How many lines a trace keeps to be printed on a failure.
pub const LINES_KEPT_MAX: usize = 400;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The event log of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines_total: u64,
    kept: VecDeque<String>,
    echo: bool,
}

impl Trace {
    /// An empty log. With `echo`, each line also goes to standard error as it happens.
    pub fn new(echo: bool) -> Self {
        Self { hash: FNV_OFFSET, lines_total: 0, kept: VecDeque::new(), echo }
    }

    /// Adds a line: `trace.line(format_args!("crash at {op}"))`. It must name nothing that differs
    /// between two runs of a seed: no address, no time of the machine.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        let mut text = if self.kept.len() == LINES_KEPT_MAX {
            self.kept.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        text.clear();
        text.write_fmt(line).expect("a String takes everything");
        for byte in text.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.echo {
            // A person asked for it on the command line; nothing is lost if nobody reads it.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
        }
        self.lines_total += 1;
        self.kept.push_back(text);
    }

    /// FNV-1a (64 bits) over every line so far, each with its line feed.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines were written.
    pub fn lines_total(&self) -> u64 {
        self.lines_total
    }
}

impl fmt::Display for Trace {
    /// The lines that are kept, oldest first, after one that says how many are not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = self.lines_total - self.kept.len() as u64;
        if dropped > 0 {
            writeln!(f, "({dropped} earlier lines are not kept)")?;
        }
        self.kept.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_of_all_lines_even_of_those_not_kept() {
        let mut trace = Trace::new(false);
        assert_eq!(trace.hash(), FNV_OFFSET);
        trace.line(format_args!("a"));
        // FNV-1a of "a\n".
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        assert_eq!(trace.hash(), step(step(FNV_OFFSET, b'a'), b'\n'));

        let run = |first: u64| {
            let mut trace = Trace::new(false);
            trace.line(format_args!("{first}"));
            (0..LINES_KEPT_MAX * 2).for_each(|n| trace.line(format_args!("line {n}")));
            trace
        };
        assert_eq!(run(1).hash(), run(1).hash());
        assert_ne!(run(1).hash(), run(2).hash());
        let shown = run(1).to_string();
        assert_eq!(shown.lines().count(), LINES_KEPT_MAX + 1);
        assert!(shown.starts_with("(401 earlier lines"));
        assert!(shown.ends_with("line 799\n"));
    }
}
