//! Folders and names: what is visible now, and what survives a power cut.
//!
//! A change of names is a set of slots (a name in a folder) and what each then holds; a rename changes
//! two at once. Changes wait until their folder is synced. A power cut keeps some of those that wait:
//! either the first so many, as a journal does, or any, so long as no change survives an undone one
//! that touched the same slot.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::content::Mood;
use crate::sim::rng::Rng;

/// The folder that holds everything. Absolute and relative paths start here.
pub(super) const ROOT: Inode = 0;

/// A file or folder, whatever its name.
pub(super) type Inode = u64;
/// A name in a folder.
pub(super) type Slot = (Inode, OsString);

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(Inode),
    Folder(Inode),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    now: BTreeMap<Slot, Node>,
    durable: BTreeMap<Slot, Node>,
    waiting: Vec<Change>,
}

/// Slots that change together, with what each then holds.
pub(super) type Change = Vec<(Slot, Option<Node>)>;

impl Names {
    /// What is at `path`.
    pub(super) fn find(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Folder(ROOT);
        for name in parts(path) {
            let Node::Folder(folder) = node else { return None };
            node = *self.now.get(&(folder, name.to_owned()))?;
        }
        Some(node)
    }

    /// The slot that `path` names, in a folder that exists.
    pub(super) fn slot(&self, path: &Path) -> io::Result<Slot> {
        let names: Vec<&OsStr> = parts(path).collect();
        let (name, above) = names
            .split_last()
            .ok_or_else(|| io::Error::new(io::ErrorKind::IsADirectory, "the root folder"))?;
        match self.find(&above.iter().collect::<PathBuf>()) {
            Some(Node::Folder(folder)) => Ok((folder, (*name).to_owned())),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<Node> {
        self.now.get(slot).copied()
    }

    /// Names in `folder`, sorted.
    pub(super) fn list(&self, folder: Inode) -> Vec<PathBuf> {
        let from = (folder, OsString::new());
        let inside = self.now.range(from..).take_while(|((parent, _), _)| *parent == folder);
        inside.map(|((_, name), _)| PathBuf::from(name)).collect()
    }

    /// Changes slots, to become durable later.
    pub(super) fn change(&mut self, change: Change) {
        for (slot, node) in &change {
            set(&mut self.now, slot, *node);
        }
        self.waiting.push(change);
    }

    /// Makes every change in `folder` durable, and those that they came after.
    pub(super) fn sync(&mut self, folder: Inode) {
        let mut needed = BTreeSet::new();
        let mut synced: Vec<bool> = vec![false; self.waiting.len()];
        for (at, change) in self.waiting.iter().enumerate().rev() {
            if change.iter().any(|(slot, _)| slot.0 == folder || needed.contains(slot)) {
                synced[at] = true;
                needed.extend(change.iter().map(|(slot, _)| slot.clone()));
            }
        }
        let mut rest = Vec::new();
        for (change, synced) in std::mem::take(&mut self.waiting).into_iter().zip(synced) {
            if synced {
                apply(&mut self.durable, &change);
            } else {
                rest.push(change);
            }
        }
        self.waiting = rest;
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        self.waiting.clear();
        self.durable = self.now.clone();
    }

    /// Becomes what a power cut leaves; returns how many changes were undone.
    pub(super) fn crash(&mut self, mood: Mood, rng: &mut Rng) -> u64 {
        let waiting = std::mem::take(&mut self.waiting);
        let journal = rng.percent(50).then(|| rng.index(waiting.len() + 1));
        let mut undone: BTreeSet<&Slot> = BTreeSet::new();
        let mut undone_total = 0;
        for (at, change) in waiting.iter().enumerate() {
            let wanted = match (mood, journal) {
                (Mood::Lose, _) => false,
                (Mood::Keep, _) => true,
                (Mood::Mix, Some(kept)) => at < kept,
                (Mood::Mix, None) => rng.percent(50),
            };
            if wanted && !change.iter().any(|(slot, _)| undone.contains(slot)) {
                apply(&mut self.durable, change);
            } else {
                undone.extend(change.iter().map(|(slot, _)| slot));
                undone_total += 1;
            }
        }
        self.now = self.durable.clone();
        undone_total
    }

    /// Every file that a name, a durable name or a waiting change still leads to.
    pub(super) fn files(&self) -> BTreeSet<Inode> {
        let waiting = self.waiting.iter().flatten().filter_map(|(_, node)| node.as_ref());
        let held = self.now.values().chain(self.durable.values()).chain(waiting);
        held.filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Folder(_) => None,
        })
        .collect()
    }

    /// Whether a visible name leads to `file`.
    pub(super) fn names_file(&self, file: Inode) -> bool {
        self.now.values().any(|node| *node == Node::File(file))
    }

    /// Every visible file with its path, sorted by path.
    pub(super) fn paths(&self) -> Vec<(PathBuf, Inode)> {
        let mut found = Vec::new();
        let mut folders = vec![(PathBuf::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            for name in self.list(folder) {
                let below = path.join(&name);
                match self.now.get(&(folder, name.into_os_string())) {
                    Some(Node::Folder(inode)) => folders.push((below, *inode)),
                    Some(Node::File(inode)) => found.push((below, *inode)),
                    None => {}
                }
            }
        }
        found.sort();
        found
    }
}

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

/// The names of a path below the root; `.`, prefixes and the leading slash mean nothing here.
pub(super) fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn apply(names: &mut BTreeMap<Slot, Node>, change: &Change) {
    for (slot, node) in change {
        set(names, slot, *node);
    }
}

fn set(names: &mut BTreeMap<Slot, Node>, slot: &Slot, node: Option<Node>) {
    match node {
        Some(node) => names.insert(slot.clone(), node),
        None => names.remove(slot),
    };
}
