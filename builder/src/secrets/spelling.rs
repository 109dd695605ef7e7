//! The ways in which a value is written.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A way to write a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spelling {
    /// As it is.
    Plain,
    /// In base64, of either alphabet.
    Base64,
    /// In hexadecimal digits.
    Hex,
    /// With the escapes of a URL.
    Url,
    /// With the escapes of a JSON string.
    Json,
}

impl fmt::Display for Spelling {
    /// What follows the name of the secret in a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "",
            Self::Base64 => ", in base64",
            Self::Hex => ", in hexadecimal digits",
            Self::Url => ", in the spelling of a URL",
            Self::Json => ", in the spelling of a JSON string",
        })
    }
}

/// The spellings of a value, each once; itself first.
pub(super) fn spellings(value: &[u8]) -> Vec<(Spelling, Vec<u8>)> {
    let mut all = vec![(Spelling::Plain, value.to_vec())];
    for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        all.extend((0..3).map(|before| (Spelling::Base64, base64_after(&alphabet, before, value))));
    }
    all.push((Spelling::Hex, hex::encode(value).into_bytes()));
    all.push((Spelling::Hex, hex::encode_upper(value).into_bytes()));
    // What people escape: all that is no name (Go, Rust), what `encodeURIComponent` does, what Python's `quote` does.
    for (kept, space) in [(&b"-._~"[..], "%20"), (b"-._~!*'()", "%20"), (b"-._~/", "%20"), (b"-._~", "+")] {
        all.push((Spelling::Url, url(value, kept, space, true)));
        all.push((Spelling::Url, url(value, kept, space, false)));
    }
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::Value::from(text).to_string();
        let plain = quoted[1..quoted.len() - 1].to_owned();
        // Go's encoder, which writes the configurations of images, escapes these as well.
        let of_go = plain.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
        let of_php = plain.replace('/', "\\/");
        all.extend([plain, of_go, of_php].map(|text| (Spelling::Json, text.into_bytes())));
    }
    let mut seen = BTreeSet::new();
    all.retain(|(_, text)| seen.insert(text.clone()));
    all
}

/// The digits that all base64 of something has in which the value stands after so many bytes more than a multiple of
/// three: those that hold bits of the value alone.
fn base64_after(engine: &impl Engine, before: usize, value: &[u8]) -> Vec<u8> {
    let text = engine.encode([&[0; 3][..before], value].concat());
    let (first, end) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
    text.as_bytes()[first..end].to_vec()
}

fn url(value: &[u8], kept: &[u8], space: &str, upper: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in value {
        match byte {
            b' ' => text.extend_from_slice(space.as_bytes()),
            byte if byte.is_ascii_alphanumeric() || kept.contains(byte) => text.push(*byte),
            byte if upper => text.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => text.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    text
}

/// Spellings that tools break into lines, without the white space: those of the value in digits, and the value itself
/// where it has lines.
pub(super) fn unbroken(value: &[u8]) -> Vec<(Spelling, Vec<u8>)> {
    let mut all = spellings(value);
    all.retain_mut(|(spelling, text)| match spelling {
        Spelling::Base64 | Spelling::Hex => true,
        Spelling::Plain => {
            let length = text.len();
            text.retain(|byte| !byte.is_ascii_whitespace());
            text.len() < length && text.len() >= super::SEARCHED_MIN_BYTES
        }
        Spelling::Url | Spelling::Json => false,
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Vec<String> {
        spellings(value.as_bytes()).into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn each_spelling_is_there_once() {
        let all = of("a plain word");
        assert_eq!(
            all,
            [
                "a plain word",
                "YSBwbGFpbiB3b3Jk",
                "EgcGxhaW4gd29yZ",
                "hIHBsYWluIHdvcm",
                "6120706c61696e20776f7264",
                "6120706C61696E20776F7264",
                "a%20plain%20word",
                "a+plain+word",
            ]
        );
        let all = of("\u{fb}>?/\"<&\n~~~~~~");
        for text in ["w7s-Py8iPCYKfn5-fn5-", "%C3%BB%3E%3F%2F%22%3C%26%0A~~~~~~", "%c3%bb%3e%3f/%22%3c%26%0a~~~~~~"] {
            assert!(all.iter().any(|spelled| spelled.contains(text)), "{text} in {all:?}");
        }
        for text in
            ["\u{fb}>?/\\\"<&\\n~~~~~~", "\u{fb}\\u003e?/\\\"\\u003c\\u0026\\n~~~~~~", "\u{fb}>?\\/\\\"<&\\n~~~~~~"]
        {
            assert!(all.iter().any(|spelled| spelled == text), "{text} in {all:?}");
        }
    }

    #[test]
    fn base64_is_found_whatever_stands_around_it() {
        for (before, after) in [("", ""), ("x", ""), ("xy", "z"), ("xyz", "zz"), ("wxyz", "zzz")] {
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(format!("{before}\u{fb}\u{ff}~>?a token{after}"));
                let found = of("\u{fb}\u{ff}~>?a token").iter().any(|spelled| text.contains(spelled));
                assert!(found, "{text}");
            }
        }
    }
}
