//! What a message from another member must fulfil before raft sees it.
//!
//! Raft trusts its messages: it panics on a commit index beyond its log, on a gap between entries, on
//! an empty proposal. To us a message is input like any other. [`shape`] judges it alone, when it is
//! decoded; [`range`] against the state of the receiver, when it is stepped.

use raft::eraftpb::{self, Entry, EntryType};
use raft::{RawNode, StateRole};

use super::conf_change;
use super::error::{DecodeError, StepError};
use super::log_view::LogView;
use super::message::{MessageKind, kind};

/// No honest term or index comes near it, and adding to it cannot overflow.
pub(super) const PLAUSIBLE_MAX: u64 = 1 << 62;

/// Whether the message could come from a member at all.
///
/// # Errors
/// It contradicts itself or the protocol.
pub(super) fn shape(message: &eraftpb::Message) -> Result<(), DecodeError> {
    let kind = kind(message).ok_or(DecodeError::Kind(message.msg_type))?;
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    let forwarded = matches!(kind, MessageKind::Propose | MessageKind::ReadIndex);
    for (wrong, text) in [
        (message.from == 0 || message.to == 0, "a message without sender or receiver"),
        (numbers.iter().any(|&number| number > PLAUSIBLE_MAX), "an implausible term or index"),
        (forwarded != (message.term == 0), "a term where none belongs, or none where one does"),
        (message.snapshot.is_some() || message.request_snapshot != 0, "a snapshot"),
    ] {
        if wrong {
            return Err(DecodeError::Field(text));
        }
    }
    match kind {
        MessageKind::Propose => check_proposal(&message.entries),
        MessageKind::Append => check_append(message),
        MessageKind::AppendResponse if message.reject && message.reject_hint > message.index => {
            Err(DecodeError::Field("a rejection that hints at a later entry"))
        }
        MessageKind::ReadIndex | MessageKind::ReadIndexResponse => match &message.entries[..] {
            [request] if !request.data.is_empty() => Ok(()),
            _ => Err(DecodeError::Field("not one read context")),
        },
        _ => Ok(()),
    }
}

fn check_proposal(entries: &[Entry]) -> Result<(), DecodeError> {
    if entries.is_empty() {
        return Err(DecodeError::Field("a proposal of nothing"));
    }
    for entry in entries {
        if check_entry_kind(entry)? == EntryType::EntryConfChange {
            conf_change::decode(&entry.data)?;
        }
    }
    Ok(())
}

/// The entries must follow `index` without a gap, and terms never decrease nor pass the leader's.
fn check_append(message: &eraftpb::Message) -> Result<(), DecodeError> {
    if (message.index == 0) != (message.log_term == 0) {
        return Err(DecodeError::Field("an entry without term, or a term without entry"));
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        check_entry_kind(entry)?;
        index += 1;
        if entry.index != index {
            return Err(DecodeError::Field("entries with a gap"));
        }
        if entry.term < term.max(1) || entry.term > message.term {
            return Err(DecodeError::Field("an entry of an impossible term"));
        }
        term = entry.term;
    }
    if term > message.term {
        return Err(DecodeError::Field("a leader of an earlier term than its log"));
    }
    Ok(())
}

fn check_entry_kind(entry: &Entry) -> Result<EntryType, DecodeError> {
    match EntryType::try_from(entry.entry_type) {
        Ok(kind @ (EntryType::EntryNormal | EntryType::EntryConfChange)) => Ok(kind),
        _ => Err(DecodeError::EntryKind(entry.entry_type)),
    }
}

/// Whether the message can be true as seen from this member.
///
/// # Errors
/// It is not for this member, or sender and receiver cannot both have the log that they have.
pub(super) fn range(message: &eraftpb::Message, node: &RawNode<LogView>) -> Result<(), StepError> {
    let raft = &node.raft;
    if message.to != raft.id {
        return Err(StepError::Misaddressed { to: message.to });
    }
    if message.from == raft.id {
        return Err(StepError::FromMyself);
    }
    if message.term < raft.term {
        return Ok(()); // Old or forwarded: raft compares no index of it with the log.
    }
    let last_index = raft.raft_log.last_index();
    let within = |index: u64| match index <= last_index {
        true => Ok(()),
        false => Err(StepError::BeyondLog { index, last_index }),
    };
    match kind(message) {
        Some(MessageKind::Heartbeat) => within(message.commit),
        // A leader that just hears of a new term steps down and does not look at the rest.
        Some(MessageKind::AppendResponse)
            if message.term == raft.term && raft.state == StateRole::Leader =>
        {
            within(message.index.max(message.commit))
        }
        Some(MessageKind::Append) => check_committed(message, node),
        _ => Ok(()),
    }
}

/// A leader has everything that is committed, so at or after our commit index its terms are not lower.
fn check_committed(message: &eraftpb::Message, node: &RawNode<LogView>) -> Result<(), StepError> {
    let log = &node.raft.raft_log;
    if message.index < log.committed {
        return Ok(()); // Raft answers with its commit index.
    }
    match log.term(log.committed) {
        Ok(committed_term) if message.log_term < committed_term => Err(StepError::BelowCommitted {
            index: message.index,
            term: message.log_term,
            committed_term,
        }),
        _ => Ok(()),
    }
}
