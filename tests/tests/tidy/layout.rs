//! Where things are.

use std::collections::BTreeSet;

use super::source::Tree;
use super::{CRATES_BANNED, Finding, TOP_LEVEL};

/// Files that do not open with what they are.
pub(super) fn openings(tree: &Tree) -> Vec<Finding> {
    let opens = |text: &str| text.trim_start().starts_with("//!");
    tree.rust()
        .filter(|file| !opens(&file.text))
        .map(|file| {
            Finding::new(
                &file.path,
                1,
                "the file does not open with `//!`",
                "say in a sentence what it is, then the mental model and a small example",
            )
        })
        .collect()
}

/// Strangers at the top, and crates whose name says nothing.
pub(super) fn top_level(tree: &Tree) -> Vec<Finding> {
    let names: BTreeSet<&str> =
        tree.files.iter().filter_map(|file| file.path.split('/').next()).collect();
    let strange = |name: &&str| !name.starts_with('.') && !TOP_LEVEL.contains(name);
    let mut findings: Vec<Finding> = names
        .into_iter()
        .filter(strange)
        .map(|name| {
            Finding::new(
                name,
                1,
                "this is not at the top of the design",
                "it belongs below one of the crates, or under `.ci/`",
            )
        })
        .collect();
    for manifest in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        for (at, line) in manifest.text.lines().enumerate() {
            let Some(name) = line.strip_prefix("name = \"") else { continue };
            let name = name.trim_end_matches('"');
            if CRATES_BANNED.iter().any(|word| name == *word || name.ends_with(&format!("-{word}")))
            {
                findings.push(Finding::new(
                    &manifest.path,
                    at + 1,
                    format!("a crate `{name}`"),
                    "such a crate attracts what has no place: put the code where it is used",
                ));
            }
        }
    }
    findings
}
