//! Any state of an upload, as a Location carries it and as the store keeps it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fluyt_registry_fuzz::session(bytes));
