//! `shoal`: one binary for members, local clusters and the commands that ask them.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything speaks TLS: with no provider installed, rustls would panic at first use. An
    // error means that one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    shoal_node::cli::main(std::env::args_os())
}
