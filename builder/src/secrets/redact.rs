//! Takes secrets out of what is shown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

use super::spelling::spellings;
use super::{REDACTED_MIN_BYTES, SEARCHED_MAX_BYTES, SEARCHED_MIN_BYTES, Secrets};

/// What stands in a secret's place.
const STARS: &[u8] = b"***";

/// Takes the secrets of a build out of what is shown: their values, lines of them, and their spellings.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Words>>);

struct Words {
    matcher: AhoCorasick,
    /// Sorted.
    words: Vec<Vec<u8>>,
    longest_bytes: usize,
}

impl fmt::Debug for Redactor {
    /// Shows no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Redactor(..)" } else { "Redactor" })
    }
}

impl Redactor {
    /// Of these secrets, also of those that the image may hold.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        let mut words = BTreeSet::new();
        for secret in secrets.0.values() {
            let value = secret.bytes();
            let value = &value[..value.len().min(SEARCHED_MAX_BYTES)];
            match value.len() {
                ..REDACTED_MIN_BYTES => continue,
                REDACTED_MIN_BYTES..SEARCHED_MIN_BYTES => drop(words.insert(value.to_vec())),
                _ => words.extend(spellings(value).into_iter().map(|(_, text)| text)),
            }
            // Tools that show a file show a line at a time, with something before it.
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            words.extend(lines.filter(|line| line.len() >= SEARCHED_MIN_BYTES).map(<[u8]>::to_vec));
        }
        let words: Vec<Vec<u8>> = words.into_iter().collect();
        let Some(longest_bytes) = words.iter().map(Vec::len).max() else { return Self(None) };
        let matcher = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&words);
        // Words that are too many for one search are too many for a search before the build as well, which fails it.
        Self(matcher.ok().map(|matcher| Arc::new(Words { matcher, words, longest_bytes })))
    }

    /// Whether there is nothing to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A text without the secrets.
    #[must_use]
    pub fn text(&self, text: String) -> String {
        match &self.0 {
            Some(words) if words.matcher.is_match(&text) => {
                let bytes = words.without(text.as_bytes(), text.len()).0;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => text,
        }
    }

    /// Output that comes in pieces.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow { words: self.0.clone(), kept: Vec::new() }
    }
}

impl Words {
    /// What is before `end` without the secrets, and where it ends, which is later when a secret spans `end`.
    fn without(&self, bytes: &[u8], end: usize) -> (Vec<u8>, usize) {
        let (mut shown, mut at) = (Vec::with_capacity(bytes.len()), 0);
        for found in self.matcher.find_iter(bytes).take_while(|found| found.start() < end) {
            shown.extend_from_slice(&bytes[at..found.start()]);
            shown.extend_from_slice(STARS);
            at = found.end();
        }
        if at < end {
            shown.extend_from_slice(&bytes[at..end]);
            at = end;
        }
        (shown, at)
    }

    /// Where the first word may begin that is not there whole yet.
    fn unfinished(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest_bytes.saturating_sub(1));
        (from..bytes.len())
            .find(|start| {
                let rest = &bytes[*start..];
                let next = self.words.partition_point(|word| word.as_slice() <= rest);
                self.words.get(next).is_some_and(|word| word.starts_with(rest))
            })
            .unwrap_or(bytes.len())
    }
}

/// Output that comes in pieces. An end of it in which a secret may have begun is kept back.
#[derive(Clone, Debug)]
pub struct Flow {
    words: Option<Arc<Words>>,
    kept: Vec<u8>,
}

impl fmt::Debug for Words {
    /// Shows no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words(..)")
    }
}

impl Flow {
    /// The next piece; gives what may be shown by now.
    pub fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(words) = &self.words else { return bytes };
        let all = match self.kept.is_empty() {
            true => bytes,
            false => [std::mem::take(&mut self.kept), bytes].concat(),
        };
        let unfinished = words.unfinished(&all);
        if unfinished == all.len() && !words.matcher.is_match(&all) {
            return all;
        }
        let (shown, end) = words.without(&all, unfinished);
        self.kept = all[end..].to_vec();
        shown
    }

    /// What was kept back, as nothing comes any more.
    pub fn finish(&mut self) -> Vec<u8> {
        let kept = std::mem::take(&mut self.kept);
        match &self.words {
            Some(words) => words.without(&kept, kept.len()).0,
            None => kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Secret;
    use super::*;

    fn redactor(all: &[&str]) -> Redactor {
        let secrets = all.iter().enumerate().map(|(id, value)| (id.to_string(), Secret::of(value.as_bytes())));
        Redactor::new(&secrets.collect())
    }

    #[test]
    fn values_their_spellings_and_their_lines_become_stars() {
        let redactor = redactor(&["s3cret\n", "four", "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----\n"]);
        let text = |text: &str| redactor.text(text.to_owned());
        assert_eq!(text("+ login s3cret four"), "+ login *** four");
        assert_eq!(text("12: MIIEvQIBADANBgkq"), "12: ***");
        assert_eq!(text(&format!("{:?}", "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----")), "\"***\"");
        assert_eq!(Redactor::default().text("s3cret".to_owned()), "s3cret");
    }

    #[test]
    fn nothing_is_kept_back_that_is_no_beginning_of_a_secret() {
        let mut flow = redactor(&["tok_123456789"]).flow();
        assert_eq!(flow.push(b"Step 1\n".to_vec()), b"Step 1\n");
        assert_eq!(flow.push(b"using tok_12".to_vec()), b"using ");
        assert_eq!(flow.push(b"9\n".to_vec()), b"tok_129\n");
        assert_eq!(flow.push(b"using tok_12".to_vec()), b"using ");
        assert_eq!(flow.push(b"3456789, to".to_vec()), b"***, ");
        assert_eq!(flow.finish(), b"to");
        assert_eq!(flow.finish(), b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_cut_shows_a_value(text in "[ab]{0,9}(abababac[ab]{0,6}){0,4}", cuts in proptest::collection::vec(1_usize..9, 1..9)) {
            let redactor = redactor(&["abababac", "bacbab"]);
            let mut flow = redactor.flow();
            let (mut shown, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                shown.extend(flow.push(piece.to_vec()));
                rest = more;
                if rest.is_empty() { break; }
            }
            shown.extend(flow.finish());
            let shown = String::from_utf8(shown).unwrap();
            prop_assert!(!shown.contains("abababac") && !shown.contains("bacbab"), "{}", shown);
            prop_assert_eq!(shown, redactor.text(text));
        }
    }
}
