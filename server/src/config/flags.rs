//! The table of flags: what can be set, what each setting does here, and the help text.
//!
//! The table is `flags.txt`, one line per flag. Everything that depends on a flag's name reads from
//! it: the command line, the environment, the help text, suggestions for a mistyped name.

use std::fmt::Write as _;
use std::sync::OnceLock;

use super::value;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) fate: Fate,
    pub(crate) help: &'static str,
}

/// What a value must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Duration,
    /// A comma-separated list of URLs.
    Urls,
    Choice(Vec<&'static str>),
}

/// What a setting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The member acts on it.
    Used,
    /// Accepted without effect, for this reason.
    Idle(&'static str),
    /// Refused unless it is the default, for this reason; a later version may change that.
    Later(&'static str),
    /// Refused unless it is the default, for this reason, which will stay.
    Never(&'static str),
    /// Ignored by etcd as well.
    Legacy,
}

/// The width of the help text, in characters.
const COLUMNS: usize = 80;

const TABLE: &str = include_str!("flags.txt");

/// Every flag, in the order of the help text.
pub(crate) fn flags() -> &'static [Flag] {
    static FLAGS: OnceLock<Vec<Flag>> = OnceLock::new();
    FLAGS.get_or_init(|| parse_table(TABLE))
}

/// The flag of this name, without dashes.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    flags().iter().find(|flag| flag.name == name)
}

fn parse_table(table: &'static str) -> Vec<Flag> {
    let mut flags = Vec::new();
    let mut group = "";
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = name;
            continue;
        }
        let columns: Vec<&'static str> = line.splitn(5, '|').map(str::trim).collect();
        let [name, kind, default, fate, help] = columns[..] else {
            panic!("flags.txt has five columns in each line, but not in: {line}");
        };
        let (kind, fate) = (Kind::parse(kind), Fate::parse(fate));
        flags.push(Flag { name, group, kind, default, fate, help });
    }
    flags
}

impl Kind {
    fn parse(column: &'static str) -> Self {
        match column {
            "bool" => Self::Bool,
            "text" => Self::Text,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "duration" => Self::Duration,
            "urls" => Self::Urls,
            choices => Self::Choice(choices.split(',').collect()),
        }
    }

    /// Whether `text` is such a value. URLs are looked at later, where they are needed.
    pub(crate) fn admits(&self, text: &str) -> bool {
        match self {
            Self::Bool => value::boolean(text).is_some(),
            Self::Text | Self::Urls => true,
            Self::Int => value::integer(text).is_some_and(|value| i64::try_from(value).is_ok()),
            Self::Uint => value::integer(text).is_some_and(|value| u64::try_from(value).is_ok()),
            Self::Duration => value::duration(text).is_some(),
            Self::Choice(choices) => choices.contains(&text),
        }
    }

    /// What would be right, for a refusal.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Text => "any text".to_owned(),
            Self::Urls => "URLs, separated by commas".to_owned(),
            Self::Int => "a whole number from -2^63 to 2^63 - 1".to_owned(),
            Self::Uint => "a whole number from 0 to 2^64 - 1".to_owned(),
            Self::Duration => "a duration like 500ms, 5s or 1m30s".to_owned(),
            Self::Choice(choices) => match choices.split_last() {
                Some((last, [])) => (*last).to_owned(),
                Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                None => String::new(),
            },
        }
    }
}

impl Fate {
    fn parse(column: &'static str) -> Self {
        match column.split_once(": ") {
            Some(("idle", why)) => Self::Idle(why),
            Some(("later", why)) => Self::Later(why),
            Some(("never", why)) => Self::Never(why),
            _ if column == "used" => Self::Used,
            _ if column == "legacy" => Self::Legacy,
            _ => panic!("flags.txt knows no fate {column:?}"),
        }
    }
}

impl Flag {
    /// The name of the environment variable: `ETCD_` and the name, or `QUORATE_` for a flag of ours.
    pub(crate) fn env(&self) -> String {
        let ours = self.name == "quota-auto-disarm" || self.name.starts_with("quorate-");
        let bare = self.name.strip_prefix("quorate-").unwrap_or(self.name);
        let prefix = if ours { "QUORATE_" } else { "ETCD_" };
        format!("{prefix}{}", bare.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether an environment variable may set it.
    pub(crate) fn has_env(&self) -> bool {
        self.group != "Ignored" && !matches!(self.name, "version" | "help" | "h")
    }
}

/// The known flag that `name` is most likely meant to be.
pub(crate) fn suggestion(name: &str) -> Option<&'static str> {
    let bare = name.strip_prefix("experimental-").unwrap_or(name);
    let candidates = flags().iter().filter(|flag| flag.fate != Fate::Legacy && flag.name != "h");
    candidates
        .map(|flag| (distance(bare, flag.name), flag.name))
        .min()
        .filter(|(distance, found)| *distance <= 2.max(found.len() / 4))
        .map(|(_, found)| found)
}

/// The number of characters to insert, remove or replace.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Usage:\n\n  quorate [flags]\n    Start a member.\n\n  quorate --version\n    Print the version.\n\n\
         Every flag can be given as an environment variable: --max-wals as ETCD_MAX_WALS;\n\
         those of Quorate itself, like --quorate-cache-bytes, as QUORATE_CACHE_BYTES.\n",
    );
    let mut group = "";
    for flag in flags().iter().filter(|flag| flag.fate == Fate::Used && flag.name != "h") {
        if flag.group != group {
            group = flag.group;
            let _ = write!(text, "\n{group}:\n");
        }
        wrap(&mut text, "  ", &format!("--{} '{}'", flag.name, flag.default));
        wrap(&mut text, "    ", flag.help);
        if matches!(flag.kind, Kind::Choice(_)) {
            wrap(&mut text, "    ", &format!("Must be {}.", flag.kind.expected()));
        }
    }
    text.push_str("\nFlags of etcd that have no effect here:\n");
    by_reason(&mut text, |fate| if let Fate::Idle(why) = fate { Some(why) } else { None });
    text.push_str("\nFlags of etcd that are refused, unless they keep etcd's default:\n");
    by_reason(&mut text, |fate| match fate {
        Fate::Later(why) | Fate::Never(why) => Some(why),
        Fate::Used | Fate::Idle(_) | Fate::Legacy => None,
    });
    text
}

/// Appends each reason that `reason` finds in a flag's fate, and below it the flags that have it.
fn by_reason(text: &mut String, reason: impl Fn(Fate) -> Option<&'static str>) {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for flag in flags() {
        let Some(why) = reason(flag.fate) else { continue };
        let name = format!("--{}", flag.name);
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    for (why, names) in reasons {
        wrap(text, "  ", &format!("{why}:"));
        wrap(text, "    ", &names.join(" "));
    }
}

/// Appends `sentence` in lines of at most [`COLUMNS`], the first behind `indent`, the others further in.
fn wrap(text: &mut String, indent: &str, sentence: &str) {
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in sentence.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = format!("{indent}  ");
            is_empty = true;
        }
        if !std::mem::replace(&mut is_empty, false) {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_flag_once_with_a_default_of_its_kind() {
        let mut names: Vec<&str> = flags().iter().map(|flag| flag.name).collect();
        assert!(names.len() > 120, "{}", names.len());
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for flag in flags() {
            // The format depends on where the log goes; it has no fixed default.
            assert!(flag.kind.admits(flag.default) || flag.name == "log-format", "{flag:?}");
            assert!(flag.help.ends_with('.'), "{flag:?}");
            assert!(!flag.group.is_empty());
        }
    }

    #[test]
    fn a_mistyped_flag_gets_the_nearest_name_and_nonsense_gets_none() {
        let cases = [
            ("datadir", Some("data-dir")),
            ("listen-client-url", Some("listen-client-urls")),
            ("experimental-warning-apply-duration", Some("warning-apply-duration")),
            ("hearbeat-interval", Some("heartbeat-interval")),
            ("frobnicate", None),
        ];
        for (typed, expected) in cases {
            assert_eq!(suggestion(typed), expected, "{typed}");
        }
    }

    #[test]
    fn environment_names_follow_the_flag() {
        let cases = [
            ("max-wals", "ETCD_MAX_WALS"),
            ("quorate-cache-bytes", "QUORATE_CACHE_BYTES"),
            ("quota-auto-disarm", "QUORATE_QUOTA_AUTO_DISARM"),
        ];
        for (name, env) in cases {
            assert_eq!(find(name).map(Flag::env).as_deref(), Some(env));
        }
    }

    #[test]
    fn help_has_a_heading_per_group_and_a_default_per_flag() {
        let text = help();
        for heading in ["\nMember:\n", "\nClustering:\n", "\nStorage:\n", "\nLogging:\n"] {
            assert!(text.contains(heading), "{heading}");
        }
        assert!(text.contains("  --max-wals '5'\n    Log segments"));
        assert!(!text.contains("--vv"));
        let long = text.lines().find(|line| line.len() > 80);
        assert_eq!(long, None, "a line of more than 80 columns");
        assert!(text.contains("    Must be periodic or revision.\n"), "{text}");
        let refused = "  locking memory is not available yet:\n    --memory-mlock\n";
        assert!(text.contains(refused), "{text}");
        for flag in flags().iter().filter(|flag| flag.fate != Fate::Legacy && flag.name != "h") {
            let is_named = |word: &str| word.strip_prefix("--") == Some(flag.name);
            let named = text.split_whitespace().filter(|word| is_named(word)).count();
            assert!(named >= 1, "--{} is nowhere in the help", flag.name);
        }
    }
}
