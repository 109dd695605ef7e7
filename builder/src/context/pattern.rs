//! Wildcards of `COPY` sources, as Go's `filepath.Match` has them. Pure.
//!
//! `*` is any text without `/`, `?` one character but `/`, `[a-z]` and `[^a-z]` a set, and `\` makes the next character
//! literal. A pattern matches a whole path or nothing. A name that is not UTF-8 is matched with one character in place of
//! each wrong sequence.

use regex::Regex;

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern `{pattern}`: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A pattern, ready to match.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Whether a text has a wildcard that is not escaped. Without one it is a path and is taken literally, `\` included.
#[must_use]
pub fn has_wildcards(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When a set is not closed or empty, or `\` stands at the end.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let bad = |reason| BadPattern { pattern: text.to_owned(), reason };
        let mut expression = String::from("(?s)^");
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '*' => expression.push_str(ANY_TEXT),
                '?' => expression.push_str(ANY_CHARACTER),
                '[' => expression.push_str(&set(&mut characters).map_err(bad)?),
                '\\' => push_literal(&mut expression, characters.next().ok_or(bad("a lone `\\` at its end"))?),
                other => push_literal(&mut expression, other),
            }
        }
        expression.push('$');
        Regex::new(&expression).map(Self).map_err(|_| bad("it is too long"))
    }

    /// Whether all of `path` matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.is_match(&String::from_utf8_lossy(path))
    }
}

/// Cuts a source at its first component with a wildcard: the path before it, taken literally, and a pattern for each
/// component from there on. Links are followed in the first part only.
///
/// # Errors
///
/// When one of the patterns is malformed.
pub fn split_at_wildcard(source: &str) -> Result<(&str, Vec<Pattern>), BadPattern> {
    let mut start = 0;
    for component in source.split('/') {
        if has_wildcards(component) {
            let patterns = source[start..].split('/').filter(|component| !component.is_empty()).map(Pattern::parse);
            return Ok((source[..start].trim_end_matches('/'), patterns.collect::<Result<_, _>>()?));
        }
        start = (start + component.len() + 1).min(source.len());
    }
    Ok((source, Vec::new()))
}

/// `*`, as a regular expression.
pub(super) const ANY_TEXT: &str = "[^/]*";
/// `?`, as a regular expression.
pub(super) const ANY_CHARACTER: &str = "[^/]";

/// One literal character of a regular expression.
pub(super) fn push_literal(expression: &mut String, character: char) {
    expression.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
}

/// What follows `[`, up to and with `]`, as a regular expression.
pub(super) fn set(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, &'static str> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
            break;
        }
        let low = member(characters)?;
        let high = if characters.next_if_eq(&'-').is_some() { member(characters)? } else { low };
        ranges.push((low, high));
    }
    let mut members = String::new();
    for (low, high) in ranges {
        // A range the wrong way round holds nothing.
        if low <= high {
            members.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
        }
    }
    Ok(match (negated, members.is_empty()) {
        (false, true) => "[^\\x{0}-\\x{10ffff}]".to_owned(),
        (true, true) => ".".to_owned(),
        (false, false) => format!("[{members}]"),
        (true, false) => format!("[^{members}]"),
    })
}

fn member(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    const UNCLOSED: &str = "a `[` without its `]`";
    match characters.next().ok_or(UNCLOSED)? {
        '-' | ']' => Err("a set with an empty range: escape `-` and `]` with `\\`"),
        '\\' => characters.next().ok_or(UNCLOSED),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("arr[[]0].txt", "arr[0].txt", true),
            ("{a,b}", "{a,b}", true),
            ("{a,b}", "a", false),
            ("[!a]", "!", true),
            ("[!a]", "b", false),
            ("a.c", "abc", false),
            ("a\nb", "a\nb", true),
            ("*", "a\nb", true),
            ("[z-a]", "b", false),
            ("", "", true),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches(name.as_bytes());
            assert_eq!(found, expected, "{pattern:?} on {name:?}");
        }
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[]", "[a\\"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern:?}");
        }
        assert!(Pattern::parse("a?b").unwrap().matches(b"a\xffb"));
    }

    #[test]
    fn a_source_is_cut_at_its_first_wildcard() {
        let cut = |source: &'static str| split_at_wildcard(source).map(|(path, patterns)| (path, patterns.len()));
        assert_eq!(cut("a/b").unwrap(), ("a/b", 0));
        assert_eq!(cut("a/b*/c").unwrap(), ("a", 2));
        assert_eq!(cut("*").unwrap(), ("", 1));
        assert_eq!(cut("").unwrap(), ("", 0));
        assert!(cut("a/[").is_err());
    }

    #[test]
    fn an_escaped_wildcard_is_none() {
        for (text, expected) in
            [("a", false), ("a*", true), ("a\\*", false), ("a\\\\*", true), ("[", true), ("a?", true)]
        {
            assert_eq!(has_wildcards(text), expected, "{text}");
        }
    }
}
