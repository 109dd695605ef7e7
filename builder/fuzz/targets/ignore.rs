//! Any rules on any path: the last line is the path, what stands before it the ignore file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| fluyt_fuzz::ignore(text));
