//! Who imports whom.

use proc_macro2::Delimiter;

use super::source::{File, Token, Tree, each_level};
use super::{ALL, ANYWHERE, CONFINED, Finding, IMPORTS, IMPURE_PATHS, IMPURE_WORDS, PURE};

/// Rooms that name a room which is not theirs to know.
pub(super) fn imports(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (room, file) in tree.rooms() {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == room) else {
            findings.push(Finding::new(
                &file.path,
                1,
                format!("`{room}` is no room of the design"),
                "move the code into the room that it belongs to, or add the room to the design and here",
            ));
            continue;
        };
        for path in paths(file) {
            let Some(named) = room_named(file, &path.names) else { continue };
            let known = IMPORTS.iter().any(|(name, _)| *name == named);
            let anywhere = *allowed == ALL || named == ANYWHERE;
            let allowed = anywhere || named == room || allowed.contains(&named.as_str());
            if known && !allowed {
                findings.push(Finding::new(
                    &file.path,
                    path.line,
                    format!("`{room}` imports `{named}`"),
                    "the arrows between rooms are few so that each can be read and simulated alone: \
                     pass what is needed in, or move the type down to the room that both may see",
                ));
            }
        }
    }
    findings
}

/// Pure rooms that name what makes two runs differ.
pub(super) fn purity(tree: &Tree) -> Vec<Finding> {
    const ADVICE: &str = "a pure room gets time as ticks, chance as a seed and data as events, so that \
                          a seed replays a whole server: let the caller do it and pass the result in";
    let mut findings = Vec::new();
    for (room, file) in tree.rooms().filter(|(room, _)| PURE.contains(room)) {
        for path in paths(file) {
            let named = path.names.join("::");
            if IMPURE_PATHS.iter().any(|banned| matches_path(banned, &named)) {
                let rule = format!("`{room}` is pure and names `{named}`");
                findings.push(Finding::new(&file.path, path.line, rule, ADVICE));
            }
        }
        let (ships, _) = file.split();
        each_level(&ships, &mut |level| {
            for token in level {
                let Some(word) = token.name().filter(|name| IMPURE_WORDS.contains(name)) else {
                    continue;
                };
                let rule = format!("`{room}` is pure and says `{word}`");
                findings.push(Finding::new(&file.path, token.line(), rule, ADVICE));
            }
        });
    }
    findings
}

/// Crates that are named outside of the rooms that hide them.
pub(super) fn confinement(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (room, file) in tree.rooms() {
        for path in paths(file) {
            let first = path.names[0].as_str();
            let Some((name, rooms)) = CONFINED.iter().find(|(name, _)| *name == first) else {
                continue;
            };
            if !rooms.contains(&room) {
                findings.push(Finding::new(
                    &file.path,
                    path.line,
                    format!("`{name}` is named in `{room}`, and belongs behind {}", rooms.join(", ")),
                    "use the types of our own rooms, so that the library can be replaced in one place",
                ));
            }
        }
    }
    findings
}

/// `a::b::` bans `a::b` and all below it, `a::b` only itself (that is, the module as a whole).
fn matches_path(banned: &str, named: &str) -> bool {
    match banned.strip_suffix("::") {
        Some(module) => named == module || named.starts_with(banned),
        None => named == banned || named == format!("{banned}::*"),
    }
}

struct Named {
    names: Vec<String>,
    line: usize,
}

/// Every path of two names or more in the code that ships, groups of `use` expanded.
fn paths(file: &File) -> Vec<Named> {
    let mut found = Vec::new();
    let (ships, _) = file.split();
    each_level(&ships, &mut |level| {
        let mut at = 0;
        while at < level.len() {
            let starts = level[at].name().is_some() && is_double_colon(level, at + 1);
            let continues = at >= 2 && is_double_colon(level, at - 2);
            if starts && !continues {
                expand(level, at, Vec::new(), &mut found);
            }
            at += 1;
        }
    });
    found
}

fn is_double_colon(level: &[&Token], at: usize) -> bool {
    level.get(at).is_some_and(|token| token.is(':'))
        && level.get(at + 1).is_some_and(|token| token.is(':'))
}

/// Follows one path from the name at `at`, and each branch of a group at its end.
fn expand(level: &[&Token], mut at: usize, mut names: Vec<String>, found: &mut Vec<Named>) {
    let line = level[at].line();
    loop {
        match level.get(at) {
            Some(Token::Ident { name, .. }) if name != "self" || names.is_empty() => {
                names.push(name.clone());
            }
            Some(token) if token.is('*') => names.push("*".to_owned()),
            Some(Token::Group { delimiter: Delimiter::Brace, inside, .. }) => {
                let inside: Vec<&Token> = inside.iter().collect();
                for branch in inside.split(|token| token.is(',')).filter(|b| !b.is_empty()) {
                    expand(branch, 0, names.clone(), found);
                }
                return;
            }
            _ => break,
        }
        if !is_double_colon(level, at + 1) {
            break;
        }
        at += 3;
    }
    found.push(Named { names, line });
}

/// The room that a path leads to: behind `crate`, or behind enough `super`s to leave the file's own.
fn room_named(file: &File, names: &[String]) -> Option<String> {
    if names[0] == "crate" {
        return names.get(1).cloned();
    }
    let supers = names.iter().take_while(|name| *name == "super").count();
    let inside = file.path.strip_prefix("server/src/")?.trim_end_matches(".rs");
    let depth = inside.split('/').filter(|part| *part != "mod").count();
    (supers > 0 && supers >= depth).then(|| names.get(supers).cloned()).flatten()
}
