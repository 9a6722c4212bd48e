//! The etcd v3 API, what gRPC servers say of their health, and the records of the log, as Rust types.
//!
//! The `.proto` files under `etcd/` are written in our own words from the facts of etcd 3.7; names,
//! numbers and types are those of the wire. They are compiled by `build.rs` without `protoc`.
//!
//! Every `bytes` field is a [`bytes::Bytes`]. Three fields of replies differ from the text of the
//! protocol: `RangeResponse.kvs`, `PutResponse.prev_kv` and `DeleteRangeResponse.prev_kvs` are
//! `mvccpb.KeyValue`s in wire form, which is also how they are stored. A client decodes them with
//! `mvccpb::KeyValue::decode`; on the wire nothing differs.
#![allow(missing_docs, unreachable_pub)] // Generated code; the protocol's text is its documentation.
#![allow(clippy::all)]

/// Values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Leases as they are stored.
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

/// Members as the log describes them.
pub mod membershippb {
    tonic::include_proto!("membershippb");
}

/// The six services of the API, and the requests that are replicated.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// Entries, hard state and configuration, as they are on disk.
pub mod raftpb {
    tonic::include_proto!("raftpb");
}

/// Records of the write-ahead log.
pub mod walpb {
    tonic::include_proto!("walpb");
}

/// The health service of gRPC.
pub mod grpc_health {
    tonic::include_proto!("grpc.health.v1");
}

/// All descriptors, for server reflection: a serialized `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
