//! Repository names, tags and references.
//!
//! ```text
//! name      = component ( "/" component )*         at most 255 characters
//! component = word ( separator word )*             at most 200 characters
//! word      = [a-z0-9]+
//! separator = "." | "_" | "__" | "-"+
//! tag       = [a-zA-Z0-9_] [a-zA-Z0-9._-]{0,127}
//! ```
//! (distribution-spec, "Pulling manifests".) A component of a name therefore never begins with `_` and a tag never with
//! `.` or `-`: keys rely on it.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError};

/// Longest repository name. The specification warns that clients count the host into 255; more is never of use.
pub const NAME_MAX_CHARACTERS: usize = 255;
/// Longest part of a name between slashes: it becomes one component of a key, and a folder allows 255 bytes for that,
/// some of which the key needs for itself.
pub const NAME_COMPONENT_MAX_CHARACTERS: usize = 200;
const TAG_MAX_CHARACTERS: usize = 128;

/// Why a text is no repository name, tag or reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Characters or separators that names do not have.
    #[error(
        "`{found}` is not a repository name: expected lower-case letters and digits, joined by `.`, `_`, `__` or `-`, in parts divided by `/`"
    )]
    Name {
        /// What was given, shortened.
        found: String,
    },
    /// Too long.
    #[error(
        "the repository name is too long: {characters} characters, expected at most {NAME_MAX_CHARACTERS}, and {NAME_COMPONENT_MAX_CHARACTERS} between two slashes"
    )]
    Long {
        /// How long it is.
        characters: usize,
    },
    /// No tag.
    #[error(
        "`{found}` is not a tag: expected a letter, digit or `_`, then at most 127 letters, digits, `.`, `_` or `-`"
    )]
    Tag {
        /// What was given, shortened.
        found: String,
    },
    /// A reference with a colon, which only digests have.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// The name of a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(Box<str>);

impl RepoName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let long = text.len() > NAME_MAX_CHARACTERS;
        if long || text.split('/').any(|part| part.len() > NAME_COMPONENT_MAX_CHARACTERS) {
            return Err(NameError::Long { characters: text.chars().count() });
        }
        if text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Name { found: shown(text) })
        }
    }
}

fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    // What stands between two words is one whole separator.
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// A name that a manifest goes by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag under which a client without a referrers list keeps what refers to `subject` (distribution-spec,
    /// "Referrers Tag Schema"). The digits of a sha512 are cut, so two subjects may share one.
    pub fn of_referrers(subject: &Digest) -> Self {
        const DIGITS: usize = 64;
        let hex = subject.hex();
        Self(format!("{}-{}", subject.algorithm(), hex.get(..DIGITS).unwrap_or(hex)).into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let fits = bytes.len() <= TAG_MAX_CHARACTERS
            && bytes.first().is_some_and(|b| is_word(*b))
            && bytes.iter().all(|b| is_word(*b) || matches!(b, b'.' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(NameError::Tag { found: shown(text) }) }
    }
}

/// What stands after `/manifests/`: a tag, or a digest (which alone holds a colon).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By name.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(150).collect()
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )*};
}
as_text!(RepoName, Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "library/alpine", "a.b_c__d---e/f0", &"a".repeat(200)] {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        let long = format!("{}/{}", "a".repeat(200), "a".repeat(60));
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "_a/b", "a b", "ä", &long] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_of_referrers_are_tags() {
        for digits in [("sha256", 64), ("sha512", 128)] {
            let subject: Digest = format!("{}:{}", digits.0, "ab".repeat(digits.1 / 2)).parse().unwrap();
            let tag = Tag::of_referrers(&subject);
            assert_eq!(tag.as_str(), format!("{}-{}", digits.0, "ab".repeat(32)));
            assert_eq!(tag.as_str().parse::<Tag>(), Ok(tag.clone()));
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "V1.0-rc_1", "_", &"T".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a!", "é", &"t".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
