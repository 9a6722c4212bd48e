//! Compiles the `.proto` files with `protox`, so that nobody needs a `protoc`.

use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const FILES: [&str; 10] = [
    "kv.proto",
    "lease.proto",
    "auth.proto",
    "membership.proto",
    "rpc.proto",
    "raft_internal.proto",
    "lock.proto",
    "election.proto",
    "wal.proto",
    "health.proto",
];

/// Fields of replies that hold `mvccpb.KeyValue`s exactly as they are stored.
///
/// A nested message and a `bytes` field have the same form on the wire. Declaring these as `bytes`
/// lets the server send what it stored without decoding and encoding it again.
const STORED_FORM: [(&str, &str); 3] =
    [("RangeResponse", "kvs"), ("PutResponse", "prev_kv"), ("DeleteRangeResponse", "prev_kvs")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=etcd");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut set = protox::compile(FILES, ["etcd"])?;
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    use_stored_form(&mut set);
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}

fn use_stored_form(set: &mut FileDescriptorSet) {
    for (message, field) in STORED_FORM {
        let field = set
            .file
            .iter_mut()
            .flat_map(|file| &mut file.message_type)
            .filter(|candidate| candidate.name() == message)
            .flat_map(|candidate| &mut candidate.field)
            .find(|candidate| candidate.name() == field)
            .expect("STORED_FORM names fields that rpc.proto declares");
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
}
