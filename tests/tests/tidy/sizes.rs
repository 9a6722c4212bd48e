//! How large things may be.

use std::collections::BTreeSet;

use proc_macro2::Delimiter;

use super::source::{Token, Tree, each_level};
use super::{DISPATCH, DISPATCH_LINES_MAX, FILE_LINES_MAX, FN_LINES_MAX, Finding, PARAMETERS_MAX};

/// Files and functions with too much code, and functions with too many parameters.
pub(super) fn sizes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        let (ships, tests) = file.split();
        // The tests' own crate ships nothing, and is read all the same.
        let code = if file.path.starts_with("tests/") { tests } else { ships };
        let lines = lines_of(&code);
        if lines.len() > FILE_LINES_MAX {
            findings.push(Finding::new(
                &file.path,
                1,
                format!("{} lines of code, at most {FILE_LINES_MAX}", lines.len()),
                "a file holds one idea: find the second one and give it a file of its own",
            ));
        }
        each_level(&code, &mut |level| {
            for function in functions(level) {
                let lines = lines.range(function.first..=function.last).count();
                let dispatches = DISPATCH.contains(&(file.path.as_str(), function.name));
                let max = if dispatches { DISPATCH_LINES_MAX } else { FN_LINES_MAX };
                if lines > max {
                    findings.push(Finding::new(
                        &file.path,
                        function.first,
                        format!("`{}` has {lines} lines of code, at most {max}", function.name),
                        "name its steps as functions; the one dispatch of a layer is listed in `DISPATCH`",
                    ));
                }
                if function.parameters > PARAMETERS_MAX {
                    findings.push(Finding::new(
                        &file.path,
                        function.first,
                        format!("`{}` takes {} parameters", function.name, function.parameters),
                        "those that travel together are a type: give it a name",
                    ));
                }
            }
        });
    }
    findings
}

/// A function with a body.
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) first: usize,
    pub(super) last: usize,
    parameters: usize,
}

/// The functions written directly in `level`.
pub(super) fn functions<'a>(level: &[&'a Token]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    for (at, pair) in level.windows(2).enumerate() {
        let Some(name) = pair[1].name().filter(|_| pair[0].name() == Some("fn")) else { continue };
        let rest = &level[at + 2..];
        let ends = |token: &&&Token| token.is(';') || token.group(Delimiter::Brace).is_some();
        let parameters = parameters_of(rest);
        if let Some(Token::Group { last, .. }) = rest.iter().find(ends) {
            let parameters = parameters.map_or(0, count_parameters);
            found.push(Function { name, first: pair[0].line(), last: *last, parameters });
        }
    }
    found
}

/// What is in the first parentheses behind the generics.
fn parameters_of<'a>(rest: &[&'a Token]) -> Option<&'a [Token]> {
    let mut depth = 0_usize;
    for (at, token) in rest.iter().enumerate() {
        let is_arrow = at > 0 && rest[at - 1].is('-');
        match token {
            _ if token.is('<') => depth += 1,
            _ if token.is('>') && !is_arrow => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.group(Delimiter::Parenthesis).is_some() => {
                return token.group(Delimiter::Parenthesis);
            }
            _ => {}
        }
    }
    None
}

fn count_parameters(inside: &[Token]) -> usize {
    let (mut depth, mut count, mut filled, mut dash) = (0_usize, 0, false, false);
    for token in inside {
        match token {
            _ if token.is('<') => depth += 1,
            _ if token.is('>') && !dash => depth = depth.saturating_sub(1),
            _ if token.is(',') && depth == 0 => {
                count += usize::from(filled);
                filled = false;
                continue;
            }
            _ => {}
        }
        dash = token.is('-');
        filled = true;
    }
    let first = inside.split(|token| token.is(',')).next().unwrap_or_default();
    let takes_self = first.iter().any(|token| token.name() == Some("self"));
    count + usize::from(filled) - usize::from(takes_self)
}

/// The lines that hold code: neither blank nor comment only.
fn lines_of(level: &[&Token]) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    each_level(level, &mut |level| {
        for token in level {
            match token {
                Token::Ident { line, .. } | Token::Punct { line, .. } => {
                    lines.insert(*line);
                }
                Token::Literal { first, last } => lines.extend(*first..=*last),
                Token::Group { first, last, .. } => lines.extend([*first, *last]),
            }
        }
    });
    lines
}
