//! The files of the project, and Rust code as trees of tokens without comments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every file that is, or would be, committed.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

/// One file, its path relative to the top with `/` between names.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
    /// The tokens, if it is Rust.
    pub(super) code: Vec<Token>,
}

/// One token; `line` counts from 1.
pub(super) enum Token {
    Ident { name: String, line: usize },
    Punct { character: char, line: usize },
    Literal { first: usize, last: usize },
    Group { delimiter: Delimiter, inside: Vec<Token>, first: usize, last: usize },
}

impl Tree {
    /// What git knows of; without git, what is there.
    pub(super) fn of_the_project() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names = listed_by_git(&top).unwrap_or_else(|| walked(&top));
        let read = |path: String| {
            // Data files need not be text; no rule looks into them.
            let text = std::fs::read_to_string(top.join(&path)).unwrap_or_default();
            File::new(path, text)
        };
        Self { files: names.into_iter().map(read).collect() }
    }

    /// The files given, for tests of the rules.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let file = |(path, text): (&str, &str)| File::new(path.to_owned(), text.to_owned());
        Self { files: files.into_iter().map(file).collect() }
    }

    /// The files of Rust code.
    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The files of the server that ship, each with the room that it belongs to.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (&str, &File)> {
        self.rust().filter(|file| !file.is_test()).filter_map(|file| {
            let inside = file.path.strip_prefix("server/src/")?;
            let first = inside.split('/').next()?;
            Some((first.trim_end_matches(".rs"), file))
        })
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") {
            let tokens = TokenStream::from_str(&text)
                .unwrap_or_else(|error| panic!("{path} is not Rust: {error}"));
            without_docs(tokens)
        } else {
            Vec::new()
        };
        Self { path, text, code }
    }

    /// Whether the whole file is test code of a crate that ships.
    pub(super) fn is_test(&self) -> bool {
        let in_folder = self.path.split('/').skip(1).any(|part| part == "tests");
        in_folder || self.path.ends_with("/tests.rs")
    }

    /// The tokens that ship, and those of test modules and test functions.
    pub(super) fn split(&self) -> (Vec<&Token>, Vec<&Token>) {
        let everything: Vec<&Token> = self.code.iter().collect();
        if self.is_test() || self.path.starts_with("tests/") {
            return (Vec::new(), everything);
        }
        split_tests(everything)
    }
}

impl Token {
    /// The line that it starts on.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::Ident { line, .. } | Self::Punct { line, .. } => *line,
            Self::Literal { first, .. } | Self::Group { first, .. } => *first,
        }
    }

    pub(super) fn is(&self, punct: char) -> bool {
        matches!(self, Self::Punct { character, .. } if *character == punct)
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Ident { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What a group of this sort holds.
    pub(super) fn group(&self, wanted: Delimiter) -> Option<&[Self]> {
        match self {
            Self::Group { delimiter, inside, .. } if *delimiter == wanted => Some(inside),
            _ => None,
        }
    }
}

/// Calls `visit` for `level` and for the inside of each group below it.
pub(super) fn each_level<'a>(level: &[&'a Token], visit: &mut dyn FnMut(&[&'a Token])) {
    visit(level);
    for token in level {
        if let Token::Group { inside, .. } = token {
            let inside: Vec<&Token> = inside.iter().collect();
            each_level(&inside, visit);
        }
    }
}

/// Parts a level at `#[cfg(test)]`: the item behind it ends at its first brace or semicolon.
fn split_tests(level: Vec<&Token>) -> (Vec<&Token>, Vec<&Token>) {
    let (mut ships, mut tests) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < level.len() {
        let is_test =
            level[at].is('#') && level.get(at + 1).is_some_and(|group| is_cfg_test(group));
        if !is_test {
            ships.push(level[at]);
            at += 1;
            continue;
        }
        let ends = |token: &&Token| token.is(';') || token.group(Delimiter::Brace).is_some();
        let end = level[at..].iter().position(ends).map_or(level.len(), |len| at + len + 1);
        tests.extend(&level[at..end]);
        at = end;
    }
    (ships, tests)
}

fn is_cfg_test(attribute: &Token) -> bool {
    let Some([first, Token::Group { inside, .. }]) = attribute.group(Delimiter::Bracket) else {
        return false;
    };
    first.name() == Some("cfg") && inside.len() == 1 && inside[0].name() == Some("test")
}

fn without_docs(tokens: TokenStream) -> Vec<Token> {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < trees.len() {
        match doc_len(&trees[at..]) {
            0 => {
                kept.push(convert(&trees[at]));
                at += 1;
            }
            len => at += len,
        }
    }
    kept
}

/// How many tokens a doc comment at the start takes; it reads as an attribute.
fn doc_len(trees: &[TokenTree]) -> usize {
    let is = |tree: Option<&TokenTree>, wanted: char| matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
    if !is(trees.first(), '#') {
        return 0;
    }
    let len = if is(trees.get(1), '!') { 3 } else { 2 };
    let Some(TokenTree::Group(group)) = trees.get(len - 1) else { return 0 };
    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
    match inside.as_slice() {
        [TokenTree::Ident(doc), equals, TokenTree::Literal(_)]
            if doc == "doc" && is(Some(equals), '=') =>
        {
            len
        }
        _ => 0,
    }
}

fn convert(tree: &TokenTree) -> Token {
    let first = tree.span().start().line;
    let last = tree.span().end().line;
    match tree {
        TokenTree::Ident(ident) => Token::Ident { name: ident.to_string(), line: first },
        TokenTree::Punct(punct) => Token::Punct { character: punct.as_char(), line: first },
        TokenTree::Literal(_) => Token::Literal { first, last },
        TokenTree::Group(group) => Token::Group {
            delimiter: group.delimiter(),
            inside: without_docs(group.stream()),
            first,
            last,
        },
    }
}

fn listed_by_git(top: &Path) -> Option<Vec<String>> {
    let listed = Command::new("git")
        .current_dir(top)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let is_there = |path: &&str| !path.is_empty() && top.join(path).is_file();
    let mut names: Vec<String> = text.split('\0').filter(is_there).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    (!names.is_empty()).then_some(names)
}

fn walked(top: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(top.join(&folder)).expect("a folder that was listed") {
            let entry = entry.expect("an entry of a folder");
            let path = folder.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else {
                names.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    names.sort();
    names
}
