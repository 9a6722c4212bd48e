//! What members send each other.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{self, MessageType};

use super::checks;
use super::error::DecodeError;

/// A message from one member to another, to be delivered at most once.
///
/// It is encoded by whoever sends it, outside of the agreement; entries in it share their bytes with
/// the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(eraftpb::Message);

/// What a message is about, for those that carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// A follower's proposals, forwarded to the leader.
    Propose,
    /// Entries for a follower.
    Append,
    /// They are on its disk, or do not fit.
    AppendResponse,
    /// Would you vote for me, and the answer.
    PreVote,
    /// See [`MessageKind::PreVote`].
    PreVoteResponse,
    /// Vote for me, and the answer.
    Vote,
    /// See [`MessageKind::Vote`].
    VoteResponse,
    /// The leader is alive, and the answer.
    Heartbeat,
    /// See [`MessageKind::Heartbeat`].
    HeartbeatResponse,
    /// Start an election now: the lead is yours.
    TimeoutNow,
    /// A follower's linearizable read, forwarded to the leader, and the answer.
    ReadIndex,
    /// See [`MessageKind::ReadIndex`].
    ReadIndexResponse,
}

impl Message {
    /// Reads a message that arrived.
    ///
    /// # Errors
    /// Not a message that another member may send: drop it, and perhaps the connection.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let message = eraftpb::Message::decode(bytes).map_err(DecodeError::Malformed)?;
        checks::shape(&message)?;
        Ok(Self(message))
    }

    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// The length of [`Message::encode`] in bytes.
    pub fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    /// The member that it is for.
    pub fn to(&self) -> u64 {
        self.0.to
    }

    /// The member that sent it.
    pub fn from(&self) -> u64 {
        self.0.from
    }

    /// The sender's term, or the term that it campaigns for; 0 in what is forwarded to the leader.
    pub fn term(&self) -> u64 {
        self.0.term
    }

    /// What it is about.
    pub fn kind(&self) -> MessageKind {
        kind(&self.0).expect("no other kind is decoded, nor sent by raft as it is used here")
    }

    pub(super) fn from_raft(message: eraftpb::Message) -> Self {
        Self(message)
    }

    pub(super) fn as_raft(&self) -> &eraftpb::Message {
        &self.0
    }

    pub(super) fn into_raft(self) -> eraftpb::Message {
        self.0
    }
}

/// The kind of a message that travels; none of those that raft only tells itself, nor of those that we
/// do not use.
pub(super) fn kind(message: &eraftpb::Message) -> Option<MessageKind> {
    // Not `get_msg_type`, to which an unknown kind is the first one.
    Some(match MessageType::try_from(message.msg_type).ok()? {
        MessageType::MsgPropose => MessageKind::Propose,
        MessageType::MsgAppend => MessageKind::Append,
        MessageType::MsgAppendResponse => MessageKind::AppendResponse,
        MessageType::MsgRequestVote => MessageKind::Vote,
        MessageType::MsgRequestVoteResponse => MessageKind::VoteResponse,
        MessageType::MsgHeartbeat => MessageKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => MessageKind::HeartbeatResponse,
        MessageType::MsgTimeoutNow => MessageKind::TimeoutNow,
        MessageType::MsgReadIndex => MessageKind::ReadIndex,
        MessageType::MsgReadIndexResp => MessageKind::ReadIndexResponse,
        MessageType::MsgRequestPreVote => MessageKind::PreVote,
        MessageType::MsgRequestPreVoteResponse => MessageKind::PreVoteResponse,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return None,
    })
}
