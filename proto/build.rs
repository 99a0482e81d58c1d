//! Compiles the wire protocol without a system `protoc`.

use std::error::Error;

const FILES: [&str; 4] =
    ["shoal/v1/common.proto", "shoal/v1/peer.proto", "shoal/v1/index.proto", "shoal/v1/raft.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=wire");
    let descriptors = protox::compile(FILES, ["wire"])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
