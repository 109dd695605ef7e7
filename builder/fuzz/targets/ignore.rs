//! Any rules on any path: the last line is the path, what stands before it the ignore file.
#![no_main]

use fluyt::context::{Ignore, Pattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (rules, path) = text.rsplit_once('\n').unwrap_or((text, "a/b"));
    if let Ok(ignore) = Ignore::parse(rules, ".dockerignore") {
        let verdict = ignore.matches(path.as_bytes());
        // What hides something has a rule.
        assert!(!verdict.hidden || verdict.rule.is_some());
    }
    if let Ok(pattern) = Pattern::parse(rules) {
        let _ = pattern.matches(path.as_bytes());
    }
});
