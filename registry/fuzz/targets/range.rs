//! Any header that asks for a part of a blob, or says where a chunk belongs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fluyt_registry_fuzz::range(bytes));
