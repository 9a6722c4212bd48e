//! What no code, or no test, does.

use proc_macro2::Delimiter;

use super::source::{File, Token, Tree, each_level};
use super::{Finding, POLLING, PRINTING, PRINTS, UNFINISHED};

/// Panics on what should be handled, prints, and things left unfinished.
pub(super) fn code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let (ships, tests) = file.split();
        let in_server = file.path.starts_with("server/") || file.path.starts_with("operator/");
        let may_print = !in_server
            || file.path.ends_with("/build.rs")
            || PRINTING.iter().any(|place| file.path.starts_with(place));
        each_level(&ships, &mut |level| {
            findings.extend(unwraps(file, level));
            findings.extend(macros(file, level, UNFINISHED, "finish it, or leave it out"));
            if !may_print {
                let advice = "a server logs: use `tracing`, with data in fields";
                findings.extend(macros(file, level, PRINTS, advice));
            }
        });
        each_level(&tests, &mut |level| {
            findings.extend(macros(file, level, UNFINISHED, "finish it, or leave it out"));
        });
    }
    findings
}

/// Tests that sleep for a fixed time or are skipped.
pub(super) fn tests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let (_, tests) = file.split();
        let mut polling = Vec::new();
        each_level(&tests, &mut |level| {
            polling.extend(polling_lines(file, level));
        });
        each_level(&tests, &mut |level| {
            for (at, token) in level.iter().enumerate() {
                let calls = level.get(at + 1).and_then(|next| next.group(Delimiter::Parenthesis));
                let defines = at > 0 && level[at - 1].name() == Some("fn");
                let excused = polling.iter().any(|lines| lines.contains(&token.line()));
                if token.name() == Some("sleep") && calls.is_some() && !defines && !excused {
                    findings.push(Finding::new(
                        &file.path,
                        token.line(),
                        "a test sleeps",
                        "wait for the condition itself, under a deadline; a helper that looks again and \
                         again is listed in `POLLING`",
                    ));
                }
                let attribute = token.is('#').then(|| level.get(at + 1)).flatten();
                let inside = attribute.and_then(|group| group.group(Delimiter::Bracket));
                if inside.and_then(|inside| inside.first()?.name()) == Some("ignore") {
                    findings.push(Finding::new(
                        &file.path,
                        token.line(),
                        "a test is ignored",
                        "make it run everywhere, or print one line `skipped: …` where a tool is missing",
                    ));
                }
            }
        });
    }
    findings
}

fn unwraps(file: &File, level: &[&Token]) -> Vec<Finding> {
    let is_unwrap = |window: &&[&Token]| {
        window[0].is('.')
            && window[1].name() == Some("unwrap")
            && window[2].group(Delimiter::Parenthesis).is_some_and(<[Token]>::is_empty)
    };
    let finding = |window: &[&Token]| {
        Finding::new(
            &file.path,
            window[1].line(),
            "`unwrap()` outside of tests",
            "handle the error, or say why it cannot happen: `expect(\"why it cannot fail\")`",
        )
    };
    level.windows(3).filter(is_unwrap).map(finding).collect()
}

fn macros(file: &File, level: &[&Token], banned: &[&str], advice: &'static str) -> Vec<Finding> {
    let named = |window: &[&Token]| {
        let name = window[0].name().filter(|name| banned.contains(name))?;
        let called = window[1].is('!') && matches!(window[2], Token::Group { .. });
        let rule = format!("`{name}!`");
        called.then(|| Finding::new(&file.path, window[0].line(), rule, advice))
    };
    level.windows(3).filter_map(named).collect()
}

/// The lines of functions that may sleep between two looks at a condition.
fn polling_lines(file: &File, level: &[&Token]) -> Vec<std::ops::RangeInclusive<usize>> {
    let excused = |name: &str| POLLING.contains(&(file.path.as_str(), name));
    super::sizes::functions(level)
        .into_iter()
        .filter(|function| excused(function.name))
        .map(|function| function.first..=function.last)
        .collect()
}
