//! The tree polices itself: who may import whom, what is banned where, how large things may be.
//!
//! Each rule is data at the top of this file, with its reason; the checks are under `tidy/`. A finding
//! names file and line, the rule, why it is there and what to do. Code is read as tokens, so neither
//! comments nor strings count, and the rules reach into macros.

#[path = "tidy/bans.rs"]
mod bans;
#[path = "tidy/layout.rs"]
mod layout;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/settings.rs"]
mod settings;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/source.rs"]
mod source;

use source::Tree;

/// What each room of the server may import, beside itself (design, section 2). `ALL` is everything.
const IMPORTS: &[(&str, &[&str])] = &[
    ("mvcc", &[]),
    ("view", &["mvcc"]),
    // What was done to leases is published as it is counted.
    ("handle", &["mvcc", "lease", "state_machine", "view", "replica", "watch"]),
    ("watch", &["mvcc", "view"]),
    ("lease", &["mvcc"]),
    ("auth", &[]),
    ("consensus", &[]),
    // The configuration that entries made is flushed with the state that they made.
    ("state_machine", &["mvcc", "lease", "auth", "consensus"]),
    ("replica", &["consensus", "state_machine", "lease", "view", "mvcc"]),
    ("storage", &["mvcc", "consensus", "state_machine", "view"]),
    ("peer", &["handle"]),
    // A snapshot for a client is an image, which is made while it is sent.
    (
        "api",
        &[
            "handle",
            "view",
            "watch",
            "mvcc",
            "lease",
            "state_machine",
            "telemetry",
            "config",
            "storage",
        ],
    ),
    // Health names alarms.
    ("http", &["handle", "view", "telemetry", "mvcc", "config", "state_machine"]),
    (
        "runtime",
        &[
            "mvcc",
            "view",
            "handle",
            "watch",
            "lease",
            "auth",
            "consensus",
            "state_machine",
            "replica",
            "storage",
            "peer",
            "telemetry",
            "config",
        ],
    ),
    ("telemetry", &[]),
    ("mutants", &[]),
    ("config", ALL),
    ("server", ALL),
    ("listen", ALL),
    ("main", ALL),
    ("lib", ALL),
];
const ALL: &[&str] = &["*"];

/// The switch for seeded mistakes: every room has places where one would lose data.
const ANYWHERE: &str = "mutants";

/// Rooms without I/O, clock, entropy and environment: the same events give the same bytes.
const PURE: &[&str] =
    &["mvcc", "view", "watch", "lease", "auth", "consensus", "state_machine", "replica"];

/// Paths that no pure room names. One that ends in `::` bans everything below it as well.
const IMPURE_PATHS: &[&str] = &[
    "tokio::",
    "std::fs::",
    "std::net::",
    "std::env::",
    "std::process::",
    "std::thread::",
    "std::time",
    "std::time::Instant::",
    "std::time::SystemTime::",
    "rand::",
    "getrandom::",
    "rustix::",
    "prometheus_client::",
];
/// Words that no pure room says, whatever they come from.
const IMPURE_WORDS: &[&str] = &["HashMap", "HashSet", "Instant", "SystemTime"];

/// Crates that only some rooms of the server may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("raft", &["consensus"]),
    ("redb", &["storage"]),
    // A change of the configuration is data of an entry, which consensus itself has to read.
    ("quorate_proto", &["api", "state_machine", "storage", "peer", "http", "consensus"]),
];

/// Where the server may print: what a person asked for on the command line.
const PRINTING: &[&str] = &["server/src/main.rs", "server/src/config/"];
/// Macros that print.
const PRINTS: &[&str] = &["println", "print", "eprintln", "eprint"];
/// Macros that nothing committed contains.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Functions that sleep between two looks at a condition, under a deadline; and two of a benchmark, where
/// the method of measuring asks for a rest of a minute.
const POLLING: &[(&str, &str)] = &[
    ("tests/tests/connections.rs", "wait_listening"),
    ("tests/tests/lease.rs", "keep_for"),
    ("tests/tests/lease.rs", "wait_for_keys"),
    ("tests/tests/model.rs", "connect"),
    ("tests/tests/process.rs", "wait_for"),
    ("tests/tests/starting.rs", "connect"),
    ("tests/src/process.rs", "wait_healthy"),
    ("tests/src/process.rs", "wait_until"),
    ("tests/src/conformance/session.rs", "wait_serving"),
    ("tests/src/conformance/session.rs", "wait_settled"),
    ("tests/src/bin/soak.rs", "compact"),
    ("tests/src/bin/soak.rs", "soak"),
    ("tests/src/compare/leasing.rs", "expire"),
    ("tests/src/compare/million.rs", "kill_and_start"),
    ("tests/src/compare/million.rs", "begin"),
    ("tests/src/compare/ranges.rs", "watch"),
    ("tests/src/compare/rewrites.rs", "samples"),
    ("tests/src/compare/sample.rs", "settle"),
    ("tests/src/compare/syncs.rs", "read_summary"),
];

/// Lines of code in a file, without comments, blank lines and test modules.
const FILE_LINES_MAX: usize = 600;
/// Lines of code in a function.
const FN_LINES_MAX: usize = 70;
/// Lines of code in the one dispatch `match` of a layer.
const DISPATCH_LINES_MAX: usize = 100;
/// The dispatch functions: at most one per layer.
const DISPATCH: &[(&str, &str)] = &[];
/// Parameters of a function, `self` not counted.
const PARAMETERS_MAX: usize = 5;
/// Fields of a type, those of its tests counted.
const FIELDS_MAX: usize = 13;
/// Types that a schema made.
const GENERATED: &[&str] = &["proto/facades/raft-proto/src/eraftpb.rs"];

/// What may be at the top, beside names that start with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    "Dockerfile",
    "Containerfile",
    "server",
    "operator",
    "proto",
    "crds",
    "charts",
    "tests",
];
/// Crates that say nothing about what they hold.
const CRATES_BANNED: &[&str] = &["common", "utils", "util", "types", "helpers"];

/// One broken rule.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: String,
    advice: &'static str,
}

impl Finding {
    fn new(path: &str, line: usize, rule: impl Into<String>, advice: &'static str) -> Self {
        Self { path: path.to_owned(), line, rule: rule.into(), advice }
    }
}

fn assert_none(mut findings: Vec<Finding>) {
    findings.sort();
    let shown: Vec<String> = findings
        .iter()
        .map(|Finding { path, line, rule, advice }| format!("{path}:{line}: {rule}\n    {advice}"))
        .collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), shown.join("\n"));
}

#[test]
fn rooms_import_only_what_the_design_lets_them() {
    assert_none(rooms::imports(&Tree::of_the_project()));
}

#[test]
fn pure_rooms_touch_no_file_socket_clock_entropy_or_environment() {
    assert_none(rooms::purity(&Tree::of_the_project()));
}

#[test]
fn raft_redb_and_the_protocol_stay_behind_their_doors() {
    assert_none(rooms::confinement(&Tree::of_the_project()));
}

#[test]
fn nothing_unwraps_prints_or_is_left_unfinished() {
    assert_none(bans::code(&Tree::of_the_project()));
}

#[test]
fn tests_wait_for_conditions_and_are_never_ignored() {
    assert_none(bans::tests(&Tree::of_the_project()));
}

#[test]
fn files_and_functions_are_small() {
    assert_none(sizes::sizes(&Tree::of_the_project()));
}

#[test]
fn types_have_about_a_dozen_fields() {
    assert_none(sizes::fields(&Tree::of_the_project()));
}

#[test]
fn settings_that_are_accepted_do_something() {
    assert_none(settings::unread(&Tree::of_the_project()));
}

#[test]
fn each_file_opens_with_what_it_is() {
    assert_none(layout::openings(&Tree::of_the_project()));
}

#[test]
fn the_top_level_is_what_the_design_says() {
    assert_none(layout::top_level(&Tree::of_the_project()));
}

/// Each rule finds what it is for, at the right line, and nothing else.
mod the_rules_themselves {
    use super::*;

    #[test]
    fn a_setting_that_nothing_reads_is_seen() {
        let config = "//! C.\npub struct Config {\n    pub read: u64,\n    pub rea: u64,\n}\n";
        let tree = Tree::of([
            ("server/src/config/mod.rs", config),
            ("server/src/config/build.rs", "//! B.\nfn f(c: Config) -> u64 { c.rea }\n"),
            ("server/src/server.rs", "//! S.\nfn f(c: Config) -> u64 { c.read }\n"),
        ]);
        assert_eq!(places(settings::unread(&tree)), ["server/src/config/mod.rs:4"]);
    }

    fn places(mut findings: Vec<Finding>) -> Vec<String> {
        findings.sort();
        findings.into_iter().map(|Finding { path, line, .. }| format!("{path}:{line}")).collect()
    }

    #[test]
    fn imports_are_seen_in_groups_in_macros_and_behind_super() {
        let text = "//! A room.\n\
                    use crate::{mvcc::Row, api::Kv};\n\
                    use super::super::runtime;\n\
                    fn f() { assert!(crate::http::ok(), \"crate::peer::x\") } // crate::storage::y\n\
                    #[cfg(test)]\n\
                    mod tests { use crate::api::Fake; }\n";
        let tree = Tree::of([("server/src/view/read.rs", text)]);
        let path = "server/src/view/read.rs";
        let expected: Vec<String> = [2, 3, 4].map(|line| format!("{path}:{line}")).into();
        assert_eq!(places(rooms::imports(&tree)), expected);
        let unknown = Tree::of([("server/src/misc/mod.rs", "//! What?\n")]);
        assert_eq!(places(rooms::imports(&unknown)), ["server/src/misc/mod.rs:1"]);
    }

    #[test]
    fn purity_is_about_clocks_and_not_about_durations() {
        let text = "//! A room.\n\
                    use std::time::Duration;\n\
                    use std::{collections::{BTreeMap, HashMap}, fs};\n\
                    fn f() { let _ = std::time::SystemTime::now(); }\n\
                    fn g() { tokio::spawn(x); instant(); }\n\
                    use std::time::{self};\n";
        let tree = Tree::of([("server/src/mvcc/a.rs", text), ("server/src/storage/b.rs", text)]);
        let mut found = places(rooms::purity(&tree));
        found.dedup();
        let expected: Vec<String> =
            [3, 4, 5, 6].map(|line| format!("server/src/mvcc/a.rs:{line}")).into();
        assert_eq!(found, expected);
    }

    #[test]
    fn confinement_and_bans_name_the_line() {
        let text = "//! A room.\n\
                    use redb::Database;\n\
                    fn f() -> u8 { g().unwrap() }\n\
                    fn g() { println!(\"{}\", \"todo!()\"); todo!() }\n\
                    #[cfg(test)]\n\
                    mod tests { fn f() { g().unwrap(); std::thread::sleep(d); } }\n\
                    #[cfg(test)] #[ignore = \"slow\"] fn h() {}\n";
        let tree = Tree::of([("server/src/runtime/a.rs", text)]);
        let at = |lines: &[usize]| -> Vec<String> {
            lines.iter().map(|line| format!("server/src/runtime/a.rs:{line}")).collect()
        };
        assert_eq!(places(rooms::confinement(&tree)), at(&[2]));
        assert_eq!(places(bans::code(&tree)), at(&[3, 4, 4]));
        assert_eq!(places(bans::tests(&tree)), at(&[6, 7]));
    }

    #[test]
    fn sizes_count_code_only() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "x();\n// no\n\n".repeat(lines));
        let file = |code: usize| {
            format!(
                "//! What.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
                "/// A doc.\nconst A: u8 = 1;\n".repeat(code),
                "fn t() {}\n".repeat(900)
            )
        };
        let wide = "fn w<F: Fn(u8)>(&self, a: A<B, C>, b: fn(A) -> B, c: (A, B), d: D, e: E) {}\n";
        let tree = Tree::of([
            ("server/src/a.rs", function(FN_LINES_MAX - 2).as_str()),
            ("server/src/b.rs", function(FN_LINES_MAX - 1).as_str()),
            ("server/src/c.rs", file(FILE_LINES_MAX).as_str()),
            ("server/src/d.rs", file(FILE_LINES_MAX + 1).as_str()),
            ("server/src/e.rs", wide),
            ("server/src/f.rs", wide.replace("&self", "mut z: u8").as_str()),
        ]);
        let expected = ["server/src/b.rs:1", "server/src/d.rs:1", "server/src/f.rs:1"];
        assert_eq!(places(sizes::sizes(&tree)), expected);
    }

    #[test]
    fn a_type_of_too_many_fields_is_found() {
        let of = |name: &str, fields: usize| {
            let fields: String = (0..fields)
                .map(|at| {
                    format!(
                        "/// A: b.\npub f{at}: std::io::Result<Box<dyn Fn(u8) -> Vec<a::B>>>,\n"
                    )
                })
                .collect();
            format!("struct {name}<T: Copy> {{\n{fields}}}\n")
        };
        let text = format!("{}mod inner {{\n{}}}\nstruct Unit(a::B);\n", of("A", 13), of("B", 14));
        let tree = Tree::of([("server/src/view/a.rs", &*text)]);
        assert_eq!(places(sizes::fields(&tree)), ["server/src/view/a.rs:30"]);
    }

    #[test]
    fn layout_knows_strangers() {
        let tree = Tree::of([
            ("server/src/a.rs", "// no\nfn f() {}\n"),
            ("server/src/b.rs", "\n//! Yes.\n"),
            ("notes/x.txt", ""),
            (".ci/run", ""),
            ("proto/Cargo.toml", "[package]\nname = \"quorate-common\"\n"),
        ]);
        assert_eq!(places(layout::openings(&tree)), ["server/src/a.rs:1"]);
        assert_eq!(places(layout::top_level(&tree)), ["notes:1", "proto/Cargo.toml:2"]);
    }
}
