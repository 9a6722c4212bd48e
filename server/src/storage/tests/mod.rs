//! What the tests of several parts of storage share.

pub(super) mod real_etcd;
pub(crate) mod test_fs;
