//! Any body and Content-Type of a manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fluyt_registry_fuzz::manifest(bytes));
