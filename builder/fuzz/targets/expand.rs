//! Any text is expanded or refused, under every rule.
#![no_main]

use fluyt::dockerfile::{EXPANDED_MAX_BYTES, Expander};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variable = |name: &str| match name.len() {
        1 => Some("a b*c".to_owned()),
        2 => Some(String::new()),
        _ => None,
    };
    for bits in 0..16_u8 {
        let rules = Expander {
            escape: if bits & 1 == 0 { '\\' } else { '`' },
            keep_quotes: bits & 2 != 0,
            keep_escapes: bits & 4 != 0,
            ignore_quotes: bits & 8 != 0,
            keep_unset: bits & 2 != 0,
        };
        if let Ok(expansion) = rules.expand(text, &variable) {
            assert!(expansion.text.len() <= 2 * EXPANDED_MAX_BYTES + text.len());
        }
    }
});
