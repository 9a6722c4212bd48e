//! Groups of one stream with events for its live watchers, in the order in which they came up.
//!
//! ```text
//! turns     1: group 4    2: group 9            4 is served first
//! entries   4: since 7, from watcher 30         the portion was full in the middle of revision 7
//!           9: since 8
//! ```

use std::collections::BTreeMap;

use super::interests::GroupId;

/// A group, and where it is served from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) group: GroupId,
    /// The live watchers have been sent everything before this main revision, whatever their cursors
    /// say: a cursor stands still as long as nothing concerns it.
    pub(super) since: i64,
    /// Those before this name have been sent that revision as well.
    pub(super) from_name: i64,
}

/// Each group once. Whatever is done here is done without a look at the others.
#[derive(Debug, Default)]
pub(super) struct ReadyGroups {
    entries: BTreeMap<GroupId, (u64, Ready)>,
    turns: BTreeMap<u64, GroupId>,
    last_turn: u64,
}

impl ReadyGroups {
    /// Adds a group behind the others.
    pub(super) fn push(&mut self, group: GroupId, since: i64) {
        self.remove(group);
        self.last_turn += 1;
        self.turns.insert(self.last_turn, group);
        self.entries.insert(group, (self.last_turn, Ready { group, since, from_name: i64::MIN }));
    }

    /// A watcher joins the live ones of its group and wants everything from `next` on; false if the
    /// group is not here.
    pub(super) fn join(&mut self, group: GroupId, name: i64, next: i64) -> bool {
        let Some((_, ready)) = self.entries.get_mut(&group) else { return false };
        if next < ready.since {
            (ready.since, ready.from_name) = (next, i64::MIN);
        } else if next == ready.since {
            ready.from_name = ready.from_name.min(name);
        }
        true
    }

    /// The group is served from there when it is pulled again.
    pub(super) fn resume_at(&mut self, group: GroupId, since: i64, from_name: i64) {
        if let Some((_, ready)) = self.entries.get_mut(&group) {
            (ready.since, ready.from_name) = (since, from_name);
        }
    }

    /// The group that came up first.
    pub(super) fn front(&self) -> Option<Ready> {
        let (_, group) = self.turns.first_key_value()?;
        self.entries.get(group).map(|(_, ready)| *ready)
    }

    pub(super) fn get(&self, group: GroupId) -> Option<Ready> {
        self.entries.get(&group).map(|(_, ready)| *ready)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn remove(&mut self, group: GroupId) {
        if let Some((turn, _)) = self.entries.remove(&group) {
            self.turns.remove(&turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_served_in_the_order_in_which_they_came_up_whoever_leaves() {
        let mut ready = ReadyGroups::default();
        for (group, since) in [(7, 3), (2, 4), (5, 4)] {
            ready.push(GroupId(group), since);
        }
        ready.remove(GroupId(7));
        let front = Ready { group: GroupId(2), since: 4, from_name: i64::MIN };
        assert_eq!(ready.front(), Some(front));
        ready.push(GroupId(7), 6);
        ready.remove(GroupId(2));
        assert_eq!(ready.front().map(|ready| ready.group), Some(GroupId(5)));
        ready.remove(GroupId(5));
        ready.remove(GroupId(7));
        assert!(ready.is_empty() && ready.front().is_none() && ready.turns.is_empty());
    }

    #[test]
    fn a_watcher_that_joins_is_not_passed_over_by_a_group_that_is_served_already() {
        let mut ready = ReadyGroups::default();
        let group = GroupId(1);
        assert!(!ready.join(group, 4, 9), "it is not ready");
        ready.push(group, 3);
        ready.resume_at(group, 5, 30);
        let at = |ready: &ReadyGroups| ready.front().map(|ready| (ready.since, ready.from_name));
        for (name, next, expected) in
            [(10, 6, (5, 30)), (40, 5, (5, 30)), (20, 5, (5, 20)), (50, 4, (4, i64::MIN))]
        {
            assert!(ready.join(group, name, next));
            assert_eq!(at(&ready), Some(expected), "{name} from {next}");
        }
    }
}
