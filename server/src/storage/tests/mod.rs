//! What the tests of several parts of storage share.

pub(super) mod real_etcd;
pub(super) mod test_fs;
