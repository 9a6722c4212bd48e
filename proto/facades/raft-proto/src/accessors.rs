//! Accessors in the style of `protobuf` 2, which is how the `raft` crate reaches fields.
//!
//! `prost` itself writes `set_` for an enumeration; the rest comes from here. A message that is not
//! there reads as an empty one.

use std::mem;

use bytes::Bytes;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
    Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};

/// Writes the accessors of one message: per field its kind, its name, the names of the accessors that
/// this kind has, and its type.
macro_rules! accessors {
    ($message:ident { $($kind:ident $get:ident $($more:ident)* => $field:ident: $type:ty;)* }) => {
        #[allow(missing_docs)] // Each is its field, read or written.
        impl $message {
            $(accessors!(@$kind $get $($more)* => $field: $type);)*
        }
    };
    (@scalar $get:ident $set:ident => $field:ident: $type:ty) => {
        #[inline]
        pub fn $get(&self) -> $type {
            self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = value;
        }
    };
    (@choice $get:ident => $field:ident: $type:ty) => {
        #[inline]
        pub fn $get(&self) -> $type {
            self.$field()
        }
    };
    (@bytes $get:ident $set:ident $take:ident => $field:ident: $type:ty) => {
        #[inline]
        pub fn $get(&self) -> &[u8] {
            &self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = value;
        }
        #[inline]
        pub fn $take(&mut self) -> $type {
            mem::take(&mut self.$field)
        }
    };
    (@list $get:ident $set:ident $take:ident $mut:ident => $field:ident: $type:ty) => {
        #[inline]
        pub fn $get(&self) -> &[$type] {
            &self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: Vec<$type>) {
            self.$field = value;
        }
        #[inline]
        pub fn $take(&mut self) -> Vec<$type> {
            mem::take(&mut self.$field)
        }
        #[inline]
        pub fn $mut(&mut self) -> &mut Vec<$type> {
            &mut self.$field
        }
    };
    (@message $get:ident $set:ident $take:ident $mut:ident $has:ident => $field:ident: $type:ty) => {
        #[inline]
        pub fn $get(&self) -> &$type {
            static EMPTY: $type = <$type>::EMPTY;
            self.$field.as_ref().unwrap_or(&EMPTY)
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = Some(value);
        }
        #[inline]
        pub fn $take(&mut self) -> $type {
            self.$field.take().unwrap_or_default()
        }
        #[inline]
        pub fn $mut(&mut self) -> &mut $type {
            self.$field.get_or_insert_default()
        }
        #[inline]
        pub fn $has(&self) -> bool {
            self.$field.is_some()
        }
    };
}

impl ConfState {
    const EMPTY: ConfState = ConfState {
        voters: Vec::new(),
        learners: Vec::new(),
        voters_outgoing: Vec::new(),
        learners_next: Vec::new(),
        auto_leave: false,
    };
}

impl SnapshotMetadata {
    const EMPTY: SnapshotMetadata = SnapshotMetadata { conf_state: None, index: 0, term: 0 };
}

impl Snapshot {
    const EMPTY: Snapshot = Snapshot { data: Bytes::new(), metadata: None };
}

accessors!(Entry {
    choice get_entry_type => entry_type: EntryType;
    scalar get_term set_term => term: u64;
    scalar get_index set_index => index: u64;
    bytes get_data set_data take_data => data: Bytes;
    bytes get_context set_context take_context => context: Bytes;
});

accessors!(SnapshotMetadata {
    message get_conf_state set_conf_state take_conf_state mut_conf_state has_conf_state
        => conf_state: ConfState;
    scalar get_index set_index => index: u64;
    scalar get_term set_term => term: u64;
});

accessors!(Snapshot {
    bytes get_data set_data take_data => data: Bytes;
    message get_metadata set_metadata take_metadata mut_metadata has_metadata
        => metadata: SnapshotMetadata;
});

accessors!(Message {
    choice get_msg_type => msg_type: MessageType;
    scalar get_to set_to => to: u64;
    scalar get_from set_from => from: u64;
    scalar get_term set_term => term: u64;
    scalar get_log_term set_log_term => log_term: u64;
    scalar get_index set_index => index: u64;
    list get_entries set_entries take_entries mut_entries => entries: Entry;
    scalar get_commit set_commit => commit: u64;
    scalar get_commit_term set_commit_term => commit_term: u64;
    message get_snapshot set_snapshot take_snapshot mut_snapshot has_snapshot => snapshot: Snapshot;
    scalar get_request_snapshot set_request_snapshot => request_snapshot: u64;
    scalar get_reject set_reject => reject: bool;
    scalar get_reject_hint set_reject_hint => reject_hint: u64;
    bytes get_context set_context take_context => context: Bytes;
    scalar get_priority set_priority => priority: i64;
});

accessors!(HardState {
    scalar get_term set_term => term: u64;
    scalar get_vote set_vote => vote: u64;
    scalar get_commit set_commit => commit: u64;
});

accessors!(ConfState {
    list get_voters set_voters take_voters mut_voters => voters: u64;
    list get_learners set_learners take_learners mut_learners => learners: u64;
    list get_voters_outgoing set_voters_outgoing take_voters_outgoing mut_voters_outgoing
        => voters_outgoing: u64;
    list get_learners_next set_learners_next take_learners_next mut_learners_next
        => learners_next: u64;
    scalar get_auto_leave set_auto_leave => auto_leave: bool;
});

accessors!(ConfChange {
    choice get_change_type => change_type: ConfChangeType;
    scalar get_node_id set_node_id => node_id: u64;
    bytes get_context set_context take_context => context: Bytes;
    scalar get_id set_id => id: u64;
});

accessors!(ConfChangeSingle {
    choice get_change_type => change_type: ConfChangeType;
    scalar get_node_id set_node_id => node_id: u64;
});

accessors!(ConfChangeV2 {
    choice get_transition => transition: ConfChangeTransition;
    list get_changes set_changes take_changes mut_changes => changes: ConfChangeSingle;
    bytes get_context set_context take_context => context: Bytes;
});
