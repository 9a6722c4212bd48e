//! Who is to blame for an error of a member.
//!
//! That something was wrong with the disk excuses nothing by itself. An error must say what the disk
//! did: its reason is that of a fault which happened in this life, and it names the file that the
//! fault hit, one that a member cannot do without.
//!
//! ```text
//!                       fails        is full      cannot be opened
//! log, state store      ends         ends         ends
//! checkpoints           ends         goes on      goes on
//! copy of the store     goes on      goes on      goes on     a start cannot do without it
//! segment made ahead    goes on      goes on      goes on
//! reserve               goes on      goes on      goes on
//! all else              ends         ends         ends        the identity, the folders
//! ```

use std::io;
use std::path::Path;

use quorate_server::runtime::{RecoverError, RunError};
use quorate_server::storage::data_dir::exit;

use crate::sim::fs::{DiskFault, Fired, OpKind, eio, emfile, enospc, gone};

/// An end of a member in its own words.
#[derive(Clone, Debug)]
pub struct Ending {
    /// That of the process, which tells a disk that refuses from one that holds something else.
    pub exit_code: u8,
    /// What it says.
    pub text: String,
}

impl From<&RunError> for Ending {
    fn from(error: &RunError) -> Self {
        Self { exit_code: error.exit_code(), text: error.to_string() }
    }
}

impl From<&RecoverError> for Ending {
    fn from(error: &RecoverError) -> Self {
        Self { exit_code: error.exit_code(), text: error.to_string() }
    }
}

/// What a member was doing when a fault happened, as far as it matters to who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// It was starting.
    Start,
    /// It prepared a segment ahead of need.
    Preparation,
    /// Anything else.
    Service,
}

/// What the disk of a member did in its present life.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    /// The faults that may end it.
    fired: Vec<Fired>,
    /// Those that it has to bear.
    borne: Vec<Fired>,
    /// There is no room for another segment. The log asks before it begins one, so the disk itself
    /// need not have refused anything.
    lacks_room: bool,
}

impl Blame {
    /// Notes a fault.
    pub fn met(&mut self, fired: &Fired, during: During) {
        let kind = if may_end(fired, during) { &mut self.fired } else { &mut self.borne };
        kind.push(fired.clone());
    }

    /// The same, on a disk that has or lacks room for another segment now.
    pub fn with_room(&self, has_room: bool) -> Self {
        Self { lacks_room: !has_room, ..self.clone() }
    }

    /// Lets an end pass that the disk is to blame for.
    ///
    /// # Errors
    /// Any other.
    pub fn excuses(&self, ending: &Ending) -> Result<(), String> {
        let Ending { exit_code, text } = ending;
        if *exit_code == exit::DISK && self.explains(text) { Ok(()) } else { Err(text.clone()) }
    }

    /// Whether a text says what the disk did, and a member may end for it.
    pub fn explains(&self, text: &str) -> bool {
        self.fired.iter().any(|fired| says(text, fired)) || self.lacks_room && says_no_room(text)
    }

    /// Whether a text says what the disk did, be it something that no member ends for.
    pub fn was_met(&self, text: &str) -> bool {
        self.explains(text) || self.borne.iter().any(|fired| says(text, fired))
    }
}

/// Whether a member may end because of it.
fn may_end(Fired { fault, operation }: &Fired, during: During) -> bool {
    let path = operation.path.to_string_lossy();
    match fault {
        DiskFault::Crash | DiskFault::Kill => true,
        _ if path.ends_with("/reserve") => false,
        _ if path.ends_with(".prepare") => during != During::Preparation,
        _ if path.ends_with(".redb.part") => during == During::Start,
        DiskFault::NoSpace => during == During::Start || !path.contains("/index"),
        DiskFault::NoHandle => !path.contains("/index"),
        DiskFault::Error => true,
    }
}

fn says(text: &str, fired: &Fired) -> bool {
    let is_of_store = fired.operation.path.to_string_lossy().contains(".redb");
    match fired.fault {
        // Whatever is tried then fails.
        DiskFault::Crash | DiskFault::Kill => text.contains(&gone().to_string()),
        fault => {
            let reason = match fault {
                DiskFault::NoSpace => enospc(),
                DiskFault::NoHandle => emfile(),
                _ => eio(),
            };
            let is_reason = text.contains(&reason.to_string());
            // redb takes nothing after a failure.
            let is_later = is_of_store && text.contains("an earlier operation on the file failed");
            (is_reason || is_later) && paths(text).any(|path| is_about(path, fired))
        }
    }
}

/// Whether an error that names `path` can be about this fault.
fn is_about(path: &Path, Fired { operation, .. }: &Fired) -> bool {
    let at = operation.path.as_path();
    let is_beside = path.parent() == at.parent();
    match operation.kind {
        _ if path == at => true,
        // The old name is named.
        OpKind::Rename => is_beside,
        // A file is named for the folder that holds it, and a folder for those above it.
        OpKind::SyncDir => path.parent() == Some(at),
        OpKind::CreateDir => path.starts_with(at),
        // The store is created under another name.
        _ => is_beside && at.file_stem() == path.file_name(),
    }
}

/// What the log says when it asked for the space of a segment.
fn says_no_room(text: &str) -> bool {
    let reason = io::Error::from(io::ErrorKind::StorageFull).to_string();
    let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "prepare");
    text.ends_with(&reason) && paths(text).any(is_segment)
}

fn paths(text: &str) -> impl Iterator<Item = &Path> {
    text.split_whitespace().map(|word| Path::new(word.trim_end_matches([':', ','])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fs::Operation;
    use During::{Preparation, Service, Start};
    use OpKind::{Open, Rename, Sync, SyncDir, Write};

    const EIO: &str = "Input/output error (os error 5)";
    const ENOSPC: &str = "No space left on device (os error 28)";
    const EMFILE: &str = "Too many open files (os error 24)";

    fn blame(fault: DiskFault, kind: OpKind, path: &str, during: During) -> Blame {
        let operation = Operation { number: 1, kind, path: path.into(), offset: 0, len: 1 };
        let mut blame = Blame::default();
        blame.met(&Fired { fault, operation }, during);
        blame
    }

    fn excuses(blame: &Blame, text: &str) -> bool {
        let ending = Ending { exit_code: exit::DISK, text: text.to_owned() };
        blame.excuses(&ending).is_ok()
    }

    #[test]
    fn a_fault_excuses_an_end_only_on_a_file_that_a_member_cannot_do_without() {
        let (segment, made) = ("d/wal/0-1.wal", "d/wal/2.prepare");
        let (point, store, copy) = ("d/index/4-1.idx.part", "d/state.redb", "d/state.redb.part");
        for (path, during, [ends_if_failed, ends_if_full, ends_if_shut]) in [
            (segment, Service, [true, true, true]),
            (made, Service, [true, true, true]),
            (made, Preparation, [false, false, false]),
            (point, Service, [true, false, false]),
            (point, Start, [true, true, false]),
            (store, Service, [true, true, true]),
            (copy, Service, [false, false, false]),
            (copy, Start, [true, true, true]),
            ("d/reserve", Start, [false, false, false]),
            ("d/identity.part", Start, [true, true, true]),
        ] {
            for (fault, kind, reason, ends) in [
                (DiskFault::Error, Write, EIO, ends_if_failed),
                (DiskFault::NoSpace, Write, ENOSPC, ends_if_full),
                (DiskFault::NoHandle, Open, EMFILE, ends_if_shut),
            ] {
                let blame = blame(fault, kind, path, during);
                let text = format!("cannot use {path}: {reason}");
                assert_eq!(excuses(&blame, &text), ends, "{path} {during:?}: {reason}");
                assert!(blame.was_met(&text), "{path} {during:?}: {reason}");
            }
        }
    }

    #[test]
    fn a_fault_excuses_only_an_error_that_says_what_happened_and_to_which_file() {
        let segment = blame(DiskFault::Error, Sync, "d/wal/0-1.wal", Service);
        for (text, is_excused) in [
            (format!("cannot sync d/wal/0-1.wal: {EIO}"), true),
            (format!("the log is closed after a failure: cannot sync d/wal/0-1.wal: {EIO}"), true),
            (format!("cannot sync d/wal/0-2.wal: {EIO}"), false),
            (format!("cannot sync d/wal/0-1.wal: {ENOSPC}"), false),
            ("cannot sync d/wal/0-1.wal: an earlier operation on the file failed".into(), false),
            ("the simulated process has ended".into(), false),
        ] {
            assert_eq!(excuses(&segment, &text), is_excused, "{text}");
        }
        for (kind, path, text) in [
            (Rename, "d/wal/0-1.wal", "cannot rename d/wal/2.prepare"),
            (SyncDir, "d", "cannot sync the folder of the state store d/state.redb"),
            (OpKind::CreateDir, "d", "cannot create d/member/wal"),
        ] {
            let text = format!("{text}: {EIO}");
            assert!(excuses(&blame(DiskFault::Error, kind, path, Start), &text), "{text}");
            assert!(!excuses(&blame(DiskFault::Error, kind, "e/f/g", Start), &text), "{text}");
        }
        let store = blame(DiskFault::Error, Write, "d/state.redb", Service);
        let later =
            "cannot write the state store d/state.redb: an earlier operation on the file failed";
        assert!(excuses(&store, later) && !excuses(&segment, later));
        let killed = blame(DiskFault::Kill, Write, "d/index/4-1.idx.part", Start);
        assert!(excuses(&killed, "cannot list d: the simulated process has ended"));
    }

    #[test]
    fn damage_is_never_excused_and_a_lack_of_room_only_to_the_log() {
        let text = format!("d/state.redb is damaged: {EIO}");
        let store = blame(DiskFault::Error, Write, "d/state.redb", Service);
        assert!(store.excuses(&Ending { exit_code: exit::DISK, text: text.clone() }).is_ok());
        for exit_code in [exit::STATE_DAMAGED, exit::LOG_DAMAGED, exit::LOG_ABSENT] {
            assert!(store.excuses(&Ending { exit_code, text: text.clone() }).is_err());
        }
        let (full, roomy) = (Blame::default().with_room(false), Blame::default().with_room(true));
        let reason = io::Error::from(io::ErrorKind::StorageFull);
        let log = format!("cannot fill d/wal/2.prepare: {reason}");
        assert!(excuses(&full, &log) && !excuses(&roomy, &log));
        assert!(!excuses(&full, &format!("cannot write d/index/4-1.idx.part: {reason}")));
    }
}
