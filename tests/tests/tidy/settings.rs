//! Settings that are accepted do something.

use super::Finding;
use super::source::Tree;

/// Where the checked settings are.
const CONFIG: &str = "server/src/config/mod.rs";

/// Fields of the configuration that nothing outside its room reads.
pub(super) fn unread(tree: &Tree) -> Vec<Finding> {
    let readers: Vec<&str> = tree
        .rooms()
        .filter(|(room, _)| *room != "config")
        .map(|(_, file)| file.text.as_str())
        .collect();
    let is_read = |field: &str| {
        let name = format!(".{field}");
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        readers
            .iter()
            .any(|text| text.match_indices(&name).any(|(at, _)| ends(&text[at + name.len()..])))
    };
    let Some(config) = tree.files.iter().find(|file| file.path == CONFIG) else {
        return Vec::new();
    };
    let field = |line: &str| -> Option<String> {
        let (name, _) = line.strip_prefix("    pub ")?.split_once(": ")?;
        (!name.contains(' ')).then(|| name.to_owned())
    };
    config
        .text
        .lines()
        .enumerate()
        .filter_map(|(at, line)| Some((at, field(line)?)))
        .filter(|(_, field)| !is_read(field))
        .map(|(at, field)| {
            Finding::new(
                CONFIG,
                at + 1,
                format!("nothing reads `{field}`"),
                "let the setting do what its help says, or mark it `idle` or `later` in flags.txt",
            )
        })
        .collect()
}
