//! Fuzzes `cache_control`; see `cache-node/src/probes.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shoal_node::probes::run("cache_control", data));
