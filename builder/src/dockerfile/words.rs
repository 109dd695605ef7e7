//! How an instruction's arguments are split: by blanks, by shell words, as JSON, and into flags.

use std::ops::Range;

/// The blanks that the reference splits arguments at.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// Splits at blanks. Quotes mean nothing here.
pub(super) fn split_at_blanks(text: &str, base: usize) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices() {
        if is_blank(character) {
            if let Some(start) = start.take() {
                words.push(base + start..base + at);
            }
        } else {
            start.get_or_insert(at);
        }
    }
    if let Some(start) = start {
        words.push(base + start..base + text.len());
    }
    words
}

/// Splits like a shell, and leaves quotes and escapes in the words.
pub(super) fn split_words(text: &str, base: usize, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut end = 0;
    let mut quote = None;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if let Some(start) = start.take() {
                words.push(base + start..base + end);
            }
            continue;
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if character == open => quote = None,
            None if character == '"' || character == '\'' => quote = Some(character),
            _ => {}
        }
        end = at + character.len_utf8();
        if character == escape && quote != Some('\'') {
            match characters.next() {
                // An escape character at the very end is dropped.
                None => end = at,
                Some((at, escaped)) => end = at + escaped.len_utf8(),
            }
        }
    }
    if let Some(start) = start.filter(|start| end > *start) {
        words.push(base + start..base + end);
    }
    words
}

/// One `--name` or `--name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    /// Without quotes; `None` when there was no `=`.
    pub(super) value: Option<String>,
    pub(super) place: Range<usize>,
    /// Where the value is, quotes included.
    pub(super) value_place: Range<usize>,
}

/// Takes the leading words that start with `--`; a bare `--` ends them. Returns where the arguments begin.
pub(super) fn take_flags(text: &str, base: usize, escape: char) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut position = 0;
    loop {
        let rest = &text[position..];
        let trimmed = rest.trim_start();
        position += rest.len() - trimmed.len();
        if !trimmed.starts_with("--") {
            return (flags, position);
        }
        let mut word = String::new();
        let mut equals = None;
        let mut quote = None;
        let mut end = trimmed.len();
        let mut characters = trimmed.char_indices();
        while let Some((at, character)) = characters.next() {
            if quote.is_none() && character.is_whitespace() {
                end = at;
                break;
            }
            if quote == Some(character) {
                quote = None;
                continue;
            }
            if quote.is_none() && (character == '"' || character == '\'') {
                quote = Some(character);
                continue;
            }
            if quote.is_none() && character == '=' && equals.is_none() {
                equals = Some((word.len(), at));
            }
            if character == escape {
                if let Some((_, escaped)) = characters.next() {
                    word.push(escaped);
                }
                continue;
            }
            word.push(character);
        }
        let place = base + position..base + position + end;
        position += end;
        if word == "--" {
            return (flags, position + (text[position..].len() - text[position..].trim_start().len()));
        }
        let (name, value, value_at) = match equals {
            Some((cut, at)) => (word[..cut].to_owned(), Some(word[cut + 1..].to_owned()), place.start + at + 1),
            None => (word, None, place.end),
        };
        let value_place = value_at.min(place.end)..place.end;
        flags.push(Flag { name: name.trim_start_matches("--").to_owned(), value, place, value_place });
    }
}

/// What a JSON form turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of texts.
    Words(Vec<String>),
    /// An array with something else in it.
    NotTexts,
    /// No JSON array: the shell form.
    No,
}

/// Reads the exec form.
pub(super) fn read_json(text: &str) -> Json {
    if !text.trim_start().starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text.trim()) else { return Json::No };
    let words: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        })
        .collect();
    words.map_or(Json::NotTexts, Json::Words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        split_words(text, 0, '\\').into_iter().map(|place| &text[place]).collect()
    }

    #[test]
    fn words_keep_quotes_and_escapes() {
        for (text, expected) in [
            ("a=1 b=2", &["a=1", "b=2"][..]),
            (r#"a="x y" b='p q'"#, &[r#"a="x y""#, "b='p q'"]),
            (r"a=x\ y", &[r"a=x\ y"]),
            (r#"a="x\" y" b"#, &[r#"a="x\" y""#, "b"]),
            (r"a='x\' b", &[r"a='x\'", "b"]),
            (r"a=1\", &["a=1"]),
            (r"a \", &["a"]),
            ("  ", &[]),
            ("\"\"", &["\"\""]),
            ("a=\"unclosed b", &["a=\"unclosed b"]),
            ("é=ü ö", &["é=ü", "ö"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn flags_lead_and_a_bare_double_dash_ends_them() {
        let show = |text: &str| {
            let (flags, rest) = take_flags(text, 0, '\\');
            let flags: Vec<String> =
                flags.iter().map(|flag| format!("{}={}", flag.name, flag.value.as_deref().unwrap_or("-"))).collect();
            format!("{} | {}", flags.join(" "), &text[rest..])
        };
        assert_eq!(show("--from=a --link x --y z"), "from=a link=- | x --y z");
        assert_eq!(show("--chown=\"a b\":c x"), "chown=a b:c | x");
        assert_eq!(show("--a=b\\ c x"), "a=b c | x");
        assert_eq!(show("--a -- --b c"), "a=- | --b c");
        assert_eq!(show("--"), " | ");
        assert_eq!(show("-x"), " | -x");
        assert_eq!(show("--x='a=b'"), "x=a=b | ");
    }

    #[test]
    fn what_is_not_json_is_the_shell_form() {
        assert_eq!(read_json(r#"["a", "b"]"#), Json::Words(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read_json(r"[]"), Json::Words(Vec::new()));
        assert_eq!(read_json(r#"["a", 1]"#), Json::NotTexts);
        assert_eq!(read_json(r"['a']"), Json::No);
        assert_eq!(read_json(r#"["a"] x"#), Json::No);
        assert_eq!(read_json(r#"["a",]"#), Json::No);
        assert_eq!(read_json("[ -f x ] && y"), Json::No);
    }
}
