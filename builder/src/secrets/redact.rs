//! Takes secrets out of what is shown.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

use super::search::kind_for;
use super::spelling::{spellings, unbroken};
use super::{REDACTED_MIN_BYTES, SEARCHED_MAX_BYTES, SEARCHED_MIN_BYTES, Secrets, windows, without_certificates};

/// What stands in a secret's place.
const STARS: &[u8] = b"***";

/// Takes the secrets of a build out of what is shown: their values, lines of them, and their spellings.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Words>>);

struct Words {
    whole: Finder,
    /// Spellings that tools break into lines, looked for where there is no white space between their parts.
    broken: Option<Finder>,
}

/// Finds words.
struct Finder {
    matcher: AhoCorasick,
    /// Sorted.
    words: Vec<Vec<u8>>,
    longest_bytes: usize,
}

/// A secret that was found: where it begins and ends, and its parts, with white space between them.
struct Match {
    start: usize,
    end: usize,
    parts: Vec<Range<usize>>,
}

/// Of the first line of a broken word, so many bytes must be there to be recognised; the words without them are looked for
/// as well.
const BEGINNING_BYTES: usize = 4;

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
        let (mut words, mut broken) = (BTreeSet::new(), BTreeSet::new());
        for secret in secrets.0.values() {
            let value = secret.bytes();
            // Certificates in a long value are public, and there may be hundreds.
            let shown = if value.len() > SEARCHED_MAX_BYTES { without_certificates(value) } else { value.to_vec() };
            match value.len() {
                ..REDACTED_MIN_BYTES => continue,
                REDACTED_MIN_BYTES..SEARCHED_MIN_BYTES => drop(words.insert(value.to_vec())),
                _ => {
                    for part in windows(value) {
                        words.extend(spellings(&part).into_iter().map(|(_, text)| text));
                        for (_, text) in unbroken(&part) {
                            broken.extend((0..BEGINNING_BYTES).filter_map(|from| text.get(from..)).map(<[u8]>::to_vec));
                        }
                    }
                    // As it is, a long one is hidden from its beginning to its end.
                    let pieces = shown.chunks(SEARCHED_MAX_BYTES);
                    words.extend(pieces.filter(|piece| piece.len() >= SEARCHED_MIN_BYTES).map(<[u8]>::to_vec));
                }
            }
            // Tools that show a file show a line at a time, with something before it.
            let lines = shown.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            words.extend(lines.filter(|line| line.len() >= SEARCHED_MIN_BYTES).map(<[u8]>::to_vec));
        }
        // Words that are too many for one search are too many for a search before the build as well, which fails it.
        let Some(whole) = Finder::new(words) else { return Self(None) };
        Self(Some(Arc::new(Words { whole, broken: Finder::new(broken) })))
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
            Some(words) => match words.found(text.as_bytes()) {
                found if found.is_empty() => text,
                found => String::from_utf8_lossy(&Words::without(text.as_bytes(), &found, text.len()).0).into_owned(),
            },
            None => text,
        }
    }

    /// Output that comes in pieces.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow { words: self.0.clone(), kept: Vec::new() }
    }
}

impl Finder {
    fn new(words: BTreeSet<Vec<u8>>) -> Option<Self> {
        let words: Vec<Vec<u8>> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let longest_bytes = words.iter().map(Vec::len).max()?;
        let kind = kind_for(words.iter());
        let matcher = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(&words).ok()?;
        Some(Self { matcher, words, longest_bytes })
    }

    /// Where the first word may begin that is not there whole yet, and of which at least so many bytes are.
    fn unfinished(&self, bytes: &[u8], least: usize) -> usize {
        let from = bytes.len().saturating_sub(self.longest_bytes.saturating_sub(1));
        let to = (bytes.len() + 1).saturating_sub(least);
        (from..to)
            .find(|start| {
                let rest = &bytes[*start..];
                let next = self.words.partition_point(|word| word.as_slice() <= rest);
                self.words.get(next).is_some_and(|word| word.starts_with(rest))
            })
            .unwrap_or(bytes.len())
    }
}

/// The bytes that are no white space, and where each stands.
fn without_white_space(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    bytes.iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace()).map(|(at, byte)| (*byte, at)).unzip()
}

impl Words {
    /// The secrets in these bytes, in order.
    fn found(&self, bytes: &[u8]) -> Vec<Match> {
        let whole = self.whole.matcher.find_iter(bytes);
        let mut all: Vec<Match> = whole
            .map(|found| Match {
                start: found.start(),
                end: found.end(),
                parts: std::iter::once(found.range()).collect(),
            })
            .collect();
        if let Some(broken) = &self.broken {
            let (text, at) = without_white_space(bytes);
            for found in broken.matcher.find_iter(&text) {
                let mut parts: Vec<Range<usize>> = Vec::new();
                for place in &at[found.range()] {
                    match parts.last_mut() {
                        Some(part) if part.end == *place => part.end += 1,
                        _ => parts.push(*place..place + 1),
                    }
                }
                // One without white space in it is among the whole ones.
                if let [first, .., last] = &parts[..] {
                    all.push(Match { start: first.start, end: last.end, parts });
                }
            }
            all.sort_by_key(|found| found.start);
        }
        all
    }

    /// What is before `end` without the secrets, and where it ends, which is later when a secret spans `end`.
    fn without(bytes: &[u8], found: &[Match], mut end: usize) -> (Vec<u8>, usize) {
        let mut hidden: Vec<&Range<usize>> = Vec::new();
        for one in found {
            if one.start < end {
                end = end.max(one.end);
                hidden.extend(&one.parts);
            }
        }
        hidden.sort_by_key(|part| part.start);
        let (mut shown, mut at) = (Vec::with_capacity(bytes.len()), 0);
        for part in hidden {
            // Parts of two secrets may overlap.
            if part.start >= at {
                shown.extend_from_slice(&bytes[at..part.start]);
                shown.extend_from_slice(STARS);
            }
            at = at.max(part.end);
        }
        shown.extend_from_slice(&bytes[at.min(end)..end]);
        (shown, end)
    }

    /// Where the first word may begin that is not there whole yet.
    fn unfinished(&self, bytes: &[u8]) -> usize {
        let whole = self.whole.unfinished(bytes, 1);
        let Some(broken) = &self.broken else { return whole };
        let (text, at) = without_white_space(bytes);
        let begun = broken.unfinished(&text, BEGINNING_BYTES);
        at.get(begun).map_or(whole, |place| whole.min(*place))
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
        let (unfinished, found) = (words.unfinished(&all), words.found(&all));
        if unfinished == all.len() && found.is_empty() {
            return all;
        }
        let (shown, end) = Words::without(&all, &found, unfinished);
        self.kept = all[end..].to_vec();
        shown
    }

    /// What was kept back, as nothing comes any more.
    pub fn finish(&mut self) -> Vec<u8> {
        let kept = std::mem::take(&mut self.kept);
        match &self.words {
            Some(words) => Words::without(&kept, &words.found(&kept), kept.len()).0,
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
    fn what_a_tool_breaks_into_lines_becomes_stars_line_by_line() {
        use base64::Engine as _;
        let value = "a token of many more characters than there are in one line of base64, which is 76 of them, or 64";
        let redactor = redactor(&[value]);
        for (before, width) in [("", 76), ("", 64), ("password=", 76), ("x", 20)] {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{before}{value}\n"));
            let lines: Vec<&str> =
                text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            let told = redactor.text(lines.join("\n") + "\nnext\n");
            assert!(told.ends_with("\nnext\n") && told.matches("***").count() >= lines.len() - 1, "{told}");
            // Of what stands before and after it, some digits are left.
            assert!(told.lines().all(|line| line.len() <= 22), "{told}");
            let mut flow = redactor.flow();
            let mut shown: Vec<u8> =
                lines.iter().flat_map(|line| flow.push(format!("{line}\n").into_bytes())).collect();
            shown.extend(flow.push(b"next\n".to_vec()));
            shown.extend(flow.finish());
            assert_eq!(String::from_utf8(shown).unwrap(), told);
        }
    }

    #[test]
    fn a_long_value_becomes_stars_from_its_beginning_to_its_end() {
        use std::fmt::Write as _;
        let value = (0..2000).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "key{number:05}: {:x}", (number + 3) * 7_919_993_u64);
            text
        });
        let redactor = redactor(&[&value]);
        let shown = redactor.text(format!("it is {value}!"));
        assert!(shown.starts_with("it is ***") && shown.ends_with("***\n!") && !shown.contains("key"), "{shown}");
        let numbered: Vec<String> = value.lines().map(|line| format!("> {line}")).collect();
        let shown = redactor.text(numbered.join("\n"));
        assert_eq!(shown.lines().filter(|line| *line == "> ***").count(), 2000);
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
