//! A file of cases: read, and written back with other replies.
//!
//! A file is kept as its blocks in order, prose and steps, so that writing it back changes nothing
//! but the replies.

use std::fmt::Write as _;
use std::ops::Range;

use anyhow::{Context as _, bail};

/// What a case may need that Quorate does not do yet.
pub const LATER: [&str; 2] = ["several members", "an older version"];

/// Between commands and replies.
const DASHES: &str = "----";

/// A file of cases.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The name of the file, without folder and extension.
    pub name: String,
    /// Flags that its server is started with; none means that any server will do.
    pub flags: Vec<String>,
    /// The cases, in order.
    pub cases: Vec<Case>,
    /// Prose and steps, in order.
    pub blocks: Vec<Block>,
}

/// One lesson.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub title: String,
    /// The claims that it shows.
    pub ids: Vec<String>,
    /// Where it begins, counted from 1.
    pub line: usize,
    /// A store that nobody has written.
    pub needs_fresh: bool,
    /// A server that can be killed.
    pub needs_restart: bool,
    /// What Quorate has to learn before the case can run on it.
    pub later: Option<&'static str>,
    /// Its blocks.
    pub blocks: Range<usize>,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub enum Block {
    /// Comments and blank lines.
    Prose(Vec<String>),
    /// Commands and their replies.
    Step(Step),
}

/// Commands, and what an etcd answered.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// The lines of the commands.
    pub input: Vec<String>,
    /// The lines of the replies.
    pub expected: Vec<String>,
}

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// When a step has no dashes, or stands before the first case; the text names the line.
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Script> {
        let mut script = Script { name: name.to_owned(), ..Script::default() };
        let mut lines = text.lines().enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            let number = at + 1;
            if is_prose(line) {
                script.prose(number, line)?;
                continue;
            }
            let mut input = vec![line.to_owned()];
            loop {
                let (_, line) = lines
                    .next()
                    .filter(|(_, line)| !line.trim().is_empty())
                    .with_context(|| format!("{name}.txt:{number}: a step without {DASHES}"))?;
                if line == DASHES {
                    break;
                }
                input.push(line.to_owned());
            }
            let mut expected = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
                expected.push(line.to_owned());
            }
            script.step(Step { line: number, input, expected })?;
        }
        Ok(script)
    }

    fn prose(&mut self, number: usize, line: &str) -> anyhow::Result<()> {
        let place = format!("{}.txt:{number}", self.name);
        if let Some(flags) = line.strip_prefix("# server: ") {
            self.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if let Some(title) = line.strip_prefix("# case: ") {
            let (title, ids) = title
                .strip_suffix(']')
                .and_then(|rest| rest.rsplit_once(" ["))
                .with_context(|| format!("{place}: a case ends with its ids in brackets"))?;
            let at = self.blocks.len();
            self.cases.push(Case {
                title: title.to_owned(),
                ids: ids.split_whitespace().map(str::to_owned).collect(),
                line: number,
                needs_fresh: false,
                needs_restart: false,
                later: None,
                blocks: at..at,
            });
            self.blocks.push(Block::Prose(vec![line.to_owned()]));
            self.extend_case();
            return Ok(());
        } else if let Some(need) = line.strip_prefix("# needs: ") {
            let case = self.cases.last_mut().with_context(|| format!("{place}: before a case"))?;
            match need {
                "fresh" => case.needs_fresh = true,
                "restart" => case.needs_restart = true,
                _ => {
                    let known = LATER.into_iter().find(|known| *known == need);
                    case.later = Some(known.with_context(|| {
                        format!("{place}: a case needs `fresh`, `restart` or one of {LATER:?}")
                    })?);
                }
            }
        }
        match self.blocks.last_mut() {
            Some(Block::Prose(lines)) => lines.push(line.to_owned()),
            _ => self.blocks.push(Block::Prose(vec![line.to_owned()])),
        }
        self.extend_case();
        Ok(())
    }

    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        if self.cases.is_empty() {
            bail!("{}.txt:{}: a step before the first case", self.name, step.line);
        }
        self.blocks.push(Block::Step(step));
        self.extend_case();
        Ok(())
    }

    fn extend_case(&mut self) {
        let end = self.blocks.len();
        if let Some(case) = self.cases.last_mut() {
            case.blocks.end = end;
        }
    }

    /// The steps of a case.
    pub fn steps(&self, case: &Case) -> impl Iterator<Item = &Step> {
        self.blocks[case.blocks.clone()].iter().filter_map(|block| match block {
            Block::Step(step) => Some(step),
            Block::Prose(_) => None,
        })
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            match block {
                Block::Prose(lines) => {
                    lines.iter().for_each(|line| writeln!(text, "{line}").expect(TO_A_STRING));
                }
                Block::Step(step) => {
                    for line in step.input.iter().map(String::as_str).chain([DASHES]) {
                        writeln!(text, "{line}").expect(TO_A_STRING);
                    }
                    for line in &step.expected {
                        writeln!(text, "{line}").expect(TO_A_STRING);
                    }
                }
            }
        }
        text
    }
}

const TO_A_STRING: &str = "writing to a string does not fail";

fn is_prose(line: &str) -> bool {
    line.starts_with('#') || line.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# What.\n\n# case: One [3.1.1 3.1.2a]\n# needs: fresh\nput a=1\n----\nrev=+1\n\n\
                        # case: Two [3.1.1]\n# needs: several members\nrange a\ntxn\n  then range a\n----\nx\ny\n";

    #[test]
    fn a_file_is_written_back_as_it_was_read() {
        let script = Script::parse("x", TEXT).unwrap();
        assert_eq!(script.text(), TEXT);
        assert_eq!(script.cases.len(), 2);
        assert_eq!(script.cases[0].ids, ["3.1.1", "3.1.2a"]);
        assert!(script.cases[0].needs_fresh && !script.cases[1].needs_fresh);
        assert_eq!((script.cases[0].later, script.cases[1].later), (None, Some(LATER[0])));
        let steps: Vec<_> = script.steps(&script.cases[1]).collect();
        assert_eq!((steps.len(), steps[0].line, steps[0].expected.len()), (1, 11, 2));
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_line() {
        for (text, place) in [
            ("put a\n----\n", "x.txt:1"),
            ("# case: One [3.1.1]\nput a\n\n----\n", "x.txt:2"),
            ("# case: One\n", "x.txt:1"),
            ("# case: One [3.1.1]\n# needs: luck\n", "x.txt:2"),
        ] {
            let error = Script::parse("x", text).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
