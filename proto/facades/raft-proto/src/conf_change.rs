//! What the `raft` crate asks of a configuration change: one form for both versions, and whether it
//! goes through a joint configuration.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// One change for one member.
pub fn new_conf_change_single(node_id: u64, kind: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: kind.into(), node_id }
}

/// Whether two configurations are the same; the order of members means nothing.
pub fn conf_state_eq(one: &ConfState, other: &ConfState) -> bool {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    one.auto_leave == other.auto_leave
        && sorted(&one.voters) == sorted(&other.voters)
        && sorted(&one.learners) == sorted(&other.learners)
        && sorted(&one.voters_outgoing) == sorted(&other.voters_outgoing)
        && sorted(&one.learners_next) == sorted(&other.learners_next)
}

/// A configuration change of either version.
pub trait ConfChangeI {
    /// Turns it into the newer form.
    fn into_v2(self) -> ConfChangeV2;

    /// The newer form, copied only if it is of the older.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The older form, if that is what it is.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: ConfChangeTransition::Auto.into(),
            changes: vec![new_conf_change_single(self.node_id, self.get_change_type())],
            context: self.context,
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether this starts a joint configuration, and then whether raft leaves it by itself.
    ///
    /// Several changes always do; one does if it says so.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.get_transition() {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Whether this ends a joint configuration: it changes nothing, at once.
    pub fn leave_joint(&self) -> bool {
        self.changes.is_empty() && self.get_transition() == ConfChangeTransition::Auto
    }
}

impl<Voters, Learners> From<(Voters, Learners)> for ConfState
where
    Voters: IntoIterator<Item = u64>,
    Learners: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (Voters, Learners)) -> Self {
        ConfState {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..ConfState::default()
        }
    }
}
