//! Any text is expanded or refused, under every rule.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| fluyt_fuzz::expand(text));
