//! How large things may be.

use std::collections::BTreeSet;

use proc_macro2::Delimiter;

use super::source::{Token, Tree, each_level};
use super::{
    DISPATCH, DISPATCH_LINES_MAX, FIELDS_MAX, FILE_LINES_MAX, FN_LINES_MAX, Finding, GENERATED,
    PARAMETERS_MAX,
};

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

/// Types with too many fields.
pub(super) fn fields(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test() && !GENERATED.contains(&&*file.path)) {
        let everything: Vec<&Token> = file.code.iter().collect();
        each_level(&everything, &mut |level| {
            for (at, pair) in level.windows(2).enumerate() {
                let Some(name) = pair[1].name().filter(|_| pair[0].name() == Some("struct")) else {
                    continue;
                };
                let ends =
                    |token: &&&Token| token.is(';') || token.group(Delimiter::Brace).is_some();
                let body = level[at + 2..].iter().find(ends);
                let fields = body.and_then(|body| body.group(Delimiter::Brace)).map_or(0, named_in);
                if fields > FIELDS_MAX {
                    findings.push(Finding::new(
                        &file.path,
                        pair[0].line(),
                        format!("`{name}` has {fields} fields, at most {FIELDS_MAX}"),
                        "it is two types: give those that belong together a name",
                    ));
                }
            }
        });
    }
    findings
}

/// Each field has one colon that is neither half of a path's nor inside of its type.
fn named_in(inside: &[Token]) -> usize {
    let mut fields = 0;
    let mut depth = 0_usize;
    for (at, token) in inside.iter().enumerate() {
        let is_beside = |at: Option<usize>, character: char| {
            at.and_then(|at| inside.get(at)).is_some_and(|token| token.is(character))
        };
        match token {
            _ if token.is('<') => depth += 1,
            _ if token.is('>') && !is_beside(at.checked_sub(1), '-') => {
                depth = depth.saturating_sub(1);
            }
            _ if token.is(':') && depth == 0 => {
                let is_path = is_beside(at.checked_sub(1), ':') || is_beside(Some(at + 1), ':');
                fields += usize::from(!is_path);
            }
            _ => {}
        }
    }
    fields
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
