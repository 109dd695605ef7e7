//! Any bytes are read as a layer, and what is read is shown as a tree: an error may come back, a panic may not. What is read
//! can be kept as an index, and read back from it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fluyt_fuzz::layer(bytes));
