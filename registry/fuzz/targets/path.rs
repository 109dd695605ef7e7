//! Any path of a request: it names something or is refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fluyt_registry_fuzz::path(bytes));
