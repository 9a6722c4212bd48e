//! The methods of the API by path: which exist, and what a call to one that does not is told.

use crate::telemetry::MethodKind;

/// Every method that etcd 3.7 serves on the client port, and reflection: `(service, method, kind)`.
pub const METHODS: [(&str, &str, MethodKind); 54] = [
    ("etcdserverpb.KV", "Range", MethodKind::Unary),
    ("etcdserverpb.KV", "Put", MethodKind::Unary),
    ("etcdserverpb.KV", "Txn", MethodKind::Unary),
    ("etcdserverpb.KV", "DeleteRange", MethodKind::Unary),
    ("etcdserverpb.KV", "Compact", MethodKind::Unary),
    ("etcdserverpb.KV", "RangeStream", MethodKind::ServerStream),
    ("etcdserverpb.Watch", "Watch", MethodKind::BidiStream),
    ("etcdserverpb.Lease", "LeaseGrant", MethodKind::Unary),
    ("etcdserverpb.Lease", "LeaseRevoke", MethodKind::Unary),
    ("etcdserverpb.Lease", "LeaseKeepAlive", MethodKind::BidiStream),
    ("etcdserverpb.Lease", "LeaseTimeToLive", MethodKind::Unary),
    ("etcdserverpb.Lease", "LeaseLeases", MethodKind::Unary),
    ("etcdserverpb.Cluster", "MemberAdd", MethodKind::Unary),
    ("etcdserverpb.Cluster", "MemberRemove", MethodKind::Unary),
    ("etcdserverpb.Cluster", "MemberUpdate", MethodKind::Unary),
    ("etcdserverpb.Cluster", "MemberList", MethodKind::Unary),
    ("etcdserverpb.Cluster", "MemberPromote", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Alarm", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Status", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Defragment", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Hash", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "HashKV", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Snapshot", MethodKind::ServerStream),
    ("etcdserverpb.Maintenance", "MoveLeader", MethodKind::Unary),
    ("etcdserverpb.Maintenance", "Downgrade", MethodKind::Unary),
    ("etcdserverpb.Auth", "AuthEnable", MethodKind::Unary),
    ("etcdserverpb.Auth", "AuthDisable", MethodKind::Unary),
    ("etcdserverpb.Auth", "AuthStatus", MethodKind::Unary),
    ("etcdserverpb.Auth", "Authenticate", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserAdd", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserGet", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserList", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserDelete", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserChangePassword", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserGrantRole", MethodKind::Unary),
    ("etcdserverpb.Auth", "UserRevokeRole", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleAdd", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleGet", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleList", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleDelete", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleGrantPermission", MethodKind::Unary),
    ("etcdserverpb.Auth", "RoleRevokePermission", MethodKind::Unary),
    ("v3lockpb.Lock", "Lock", MethodKind::Unary),
    ("v3lockpb.Lock", "Unlock", MethodKind::Unary),
    ("v3electionpb.Election", "Campaign", MethodKind::Unary),
    ("v3electionpb.Election", "Proclaim", MethodKind::Unary),
    ("v3electionpb.Election", "Leader", MethodKind::Unary),
    ("v3electionpb.Election", "Observe", MethodKind::ServerStream),
    ("v3electionpb.Election", "Resign", MethodKind::Unary),
    ("grpc.health.v1.Health", "Check", MethodKind::Unary),
    ("grpc.health.v1.Health", "Watch", MethodKind::ServerStream),
    ("grpc.health.v1.Health", "List", MethodKind::Unary),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", MethodKind::BidiStream),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", MethodKind::BidiStream),
];

/// The position in [`METHODS`] of the method at `path`; else the text that gRPC has for it.
///
/// The methods that are called most come first in the list.
pub(crate) fn find(path: &str) -> Result<usize, String> {
    let malformed = || format!("malformed method name: {path:?}");
    let (service, method) =
        path.strip_prefix('/').ok_or_else(malformed)?.rsplit_once('/').ok_or_else(malformed)?;
    let found = METHODS.iter().position(|(s, m, _)| *m == method && *s == service);
    match found {
        Some(index) => Ok(index),
        None if METHODS.iter().any(|(s, ..)| *s == service) => {
            Err(format!("unknown method {method} for service {service}"))
        }
        None => Err(format!("unknown service {service}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_or_answered_with_the_texts_of_grpc() {
        assert_eq!(find("/etcdserverpb.KV/Range"), Ok(0));
        let cases = [
            ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
            ("/etcdserverpb.KV/", "unknown method  for service etcdserverpb.KV"),
            ("/nope.Nope/Range", "unknown service nope.Nope"),
            ("/etcdserverpb.KV/Range?x", "unknown method Range?x for service etcdserverpb.KV"),
            ("/a/b/c", "unknown service a/b"),
            ("/nope", "malformed method name: \"/nope\""),
            ("//", "unknown service "),
            ("", "malformed method name: \"\""),
        ];
        for (path, expected) in cases {
            assert_eq!(find(path).unwrap_err(), expected, "{path}");
        }
    }

    #[test]
    fn each_method_is_listed_once() {
        let mut names: Vec<String> = METHODS.iter().map(|(s, m, _)| format!("{s}/{m}")).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
