//! The commands that are one call each: names, methods, and what stands first.

/// What the words right behind a command mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leading {
    /// Fields only.
    Fields,
    /// `KEY=VALUE`.
    KeyValue,
    /// `KEY` or `KEY..END`.
    KeyRange,
    /// The value of this field.
    One(&'static str),
}

/// A command that is one call.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// One or two words.
    pub name: &'static str,
    /// Service and method.
    pub method: &'static str,
    /// What comes first.
    pub leading: Leading,
}

const fn verb(name: &'static str, method: &'static str, leading: Leading) -> Verb {
    Verb { name, method, leading }
}

/// All of them.
pub const VERBS: &[Verb] = &[
    verb("put", "etcdserverpb.KV/Put", Leading::KeyValue),
    verb("range", "etcdserverpb.KV/Range", Leading::KeyRange),
    verb("stream", "etcdserverpb.KV/RangeStream", Leading::KeyRange),
    verb("delete", "etcdserverpb.KV/DeleteRange", Leading::KeyRange),
    verb("txn", "etcdserverpb.KV/Txn", Leading::Fields),
    verb("compact", "etcdserverpb.KV/Compact", Leading::One("revision")),
    verb("lease grant", "etcdserverpb.Lease/LeaseGrant", Leading::Fields),
    verb("lease revoke", "etcdserverpb.Lease/LeaseRevoke", Leading::One("ID")),
    verb("lease ttl", "etcdserverpb.Lease/LeaseTimeToLive", Leading::One("ID")),
    verb("lease list", "etcdserverpb.Lease/LeaseLeases", Leading::Fields),
    verb("member add", "etcdserverpb.Cluster/MemberAdd", Leading::One("peerURLs")),
    verb("member remove", "etcdserverpb.Cluster/MemberRemove", Leading::One("ID")),
    verb("member update", "etcdserverpb.Cluster/MemberUpdate", Leading::One("ID")),
    verb("member list", "etcdserverpb.Cluster/MemberList", Leading::Fields),
    verb("member promote", "etcdserverpb.Cluster/MemberPromote", Leading::One("ID")),
    verb("alarm", "etcdserverpb.Maintenance/Alarm", Leading::One("action")),
    verb("status", "etcdserverpb.Maintenance/Status", Leading::Fields),
    verb("defragment", "etcdserverpb.Maintenance/Defragment", Leading::Fields),
    verb("snapshot", "etcdserverpb.Maintenance/Snapshot", Leading::Fields),
    verb("hash", "etcdserverpb.Maintenance/Hash", Leading::Fields),
    verb("hashkv", "etcdserverpb.Maintenance/HashKV", Leading::One("revision")),
    verb("move leader", "etcdserverpb.Maintenance/MoveLeader", Leading::One("targetID")),
    verb("downgrade", "etcdserverpb.Maintenance/Downgrade", Leading::One("action")),
    verb("auth enable", "etcdserverpb.Auth/AuthEnable", Leading::Fields),
    verb("auth disable", "etcdserverpb.Auth/AuthDisable", Leading::Fields),
    verb("auth status", "etcdserverpb.Auth/AuthStatus", Leading::Fields),
    verb("authenticate", "etcdserverpb.Auth/Authenticate", Leading::One("name")),
    verb("user add", "etcdserverpb.Auth/UserAdd", Leading::One("name")),
    verb("user get", "etcdserverpb.Auth/UserGet", Leading::One("name")),
    verb("user list", "etcdserverpb.Auth/UserList", Leading::Fields),
    verb("user delete", "etcdserverpb.Auth/UserDelete", Leading::One("name")),
    verb("user password", "etcdserverpb.Auth/UserChangePassword", Leading::One("name")),
    verb("user grant", "etcdserverpb.Auth/UserGrantRole", Leading::One("user")),
    verb("user revoke", "etcdserverpb.Auth/UserRevokeRole", Leading::One("name")),
    verb("role add", "etcdserverpb.Auth/RoleAdd", Leading::One("name")),
    verb("role get", "etcdserverpb.Auth/RoleGet", Leading::One("role")),
    verb("role list", "etcdserverpb.Auth/RoleList", Leading::Fields),
    verb("role delete", "etcdserverpb.Auth/RoleDelete", Leading::One("role")),
    verb("role grant", "etcdserverpb.Auth/RoleGrantPermission", Leading::One("name")),
    verb("role revoke", "etcdserverpb.Auth/RoleRevokePermission", Leading::One("role")),
    verb("lock", "v3lockpb.Lock/Lock", Leading::One("name")),
    verb("unlock", "v3lockpb.Lock/Unlock", Leading::One("key")),
    verb("campaign", "v3electionpb.Election/Campaign", Leading::One("name")),
    verb("proclaim", "v3electionpb.Election/Proclaim", Leading::Fields),
    verb("leader", "v3electionpb.Election/Leader", Leading::One("name")),
    verb("resign", "v3electionpb.Election/Resign", Leading::Fields),
];

/// The verb that a command begins with, and the words behind it.
pub fn find(words: &[String]) -> Option<(&'static Verb, &[String])> {
    VERBS.iter().find_map(|verb| {
        let count = verb.name.split(' ').count();
        let begins = words.len() >= count
            && verb.name.split(' ').zip(words).all(|(name, word)| name == word);
        begins.then(|| (verb, &words[count..]))
    })
}
