//! Prints where the protoc is that a crate ships, for the variable `PROTOC`.
//!
//! The build script of etcd-client runs a protoc, and a build script sees only the environment that
//! cargo was started with. So this is built and run first: nothing has to be installed by hand.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", protoc_bin_vendored::protoc_bin_path()?.display());
    Ok(())
}
