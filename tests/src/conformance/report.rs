//! What a person reads: differences, and the table.

use std::fmt::Write as _;

use super::run::{Counts, Outcome};
use super::script::{Case, Script, Step};

/// A step whose replies are not those of the transcript: `-` was expected, `+` came.
pub fn difference(script: &Script, case: &Case, step: &Step, replies: &[String]) -> String {
    let mut text = format!("{}\n", headline(script, case, step.line));
    for line in &step.input {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str("    ----\n");
    for (mark, line) in aligned(&step.expected, replies) {
        text.push_str(&format!("  {mark} {line}\n"));
    }
    text
}

/// A case that could not be run to its end.
pub fn broken(script: &Script, case: &Case, error: &anyhow::Error) -> String {
    format!("{}\n  ! {error:#}\n", headline(script, case, case.line))
}

fn headline(script: &Script, case: &Case, line: usize) -> String {
    format!("{}.txt:{line}: {} [{}]", script.name, case.title, case.ids.join(" "))
}

/// The lines of both, common ones once, by their longest common subsequence.
fn aligned<'a>(expected: &'a [String], given: &'a [String]) -> Vec<(char, &'a str)> {
    let (rows, columns) = (expected.len(), given.len());
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = match expected[row] == given[column] {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == given[column] {
            lines.push((' ', expected[row].as_str()));
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || row < rows && common[row + 1][column] >= common[row][column + 1]
        {
            lines.push(('-', expected[row].as_str()));
            row += 1;
        } else {
            lines.push(('+', given[column].as_str()));
            column += 1;
        }
    }
    lines
}

/// A line for each file, and one for all.
pub fn table(outcomes: &[Outcome], claims: usize, later: usize) -> String {
    let mut text = "file             cases  passed  failed  skipped   later\n".to_owned();
    let mut all = Counts::default();
    for outcome in outcomes {
        let counts = outcome.counts();
        all.passed += counts.passed;
        all.failed += counts.failed;
        all.skipped += counts.skipped;
        all.later += counts.later;
        row(&mut text, &outcome.name, counts);
    }
    row(&mut text, "all", all);
    text.push_str(&format!("{claims} claims, {later} of them later\n"));
    text
}

fn row(text: &mut String, name: &str, counts: Counts) {
    let Counts { passed, failed, skipped, later } = counts;
    let cases = passed + failed + skipped + later;
    writeln!(text, "{name:<15}{cases:>7}{passed:>8}{failed:>8}{skipped:>9}{later:>8}")
        .expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_lines_are_shown_once() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (expected, given) = (lines("a b c"), lines("a x c d"));
        let shown: String =
            aligned(&expected, &given).iter().map(|(mark, line)| format!("{mark}{line}")).collect();
        assert_eq!(shown, " a-b+x c+d");
    }
}
