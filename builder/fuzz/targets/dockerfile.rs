//! Any text is read and lowered: problems may come back, a panic may not.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| fluyt_fuzz::dockerfile(text));
