//! Fuzzes `trace`; see `loadtest/src/policy/trace.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(shoal_loadtest::policy::trace::read(data)));
