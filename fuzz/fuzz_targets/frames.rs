//! Fuzzes `frames`; see `cache-node/src/probes.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shoal_node::probes::run("frames", data));
