//! The secrets of a build, and that they stay here.
//!
//! A secret is read once, when the build begins: what a command gets is what is searched for. Values are in memory alone;
//! no key, record or message has anything of them.
//!
//! | where | what |
//! |---|---|
//! | `spelling` | the ways in which a value is written: itself, base64, hex, URL, JSON |
//! | `search` | finds them in bytes that pass by |
//! | `nested` | finds them in archives, compressed files and repositories of git |
//! | `redact` | takes them out of what is shown |
//! | `mark` | tells a new value of a secret from the old one |
//!
//! # What is found
//! A value of at least [`SEARCHED_MIN_BYTES`], white space around it left away, in each of its spellings, wherever it
//! stands: in the middle of other text, across the borders of reads, encoded together with what is before and after it.
//! Of a value of several lines those too that hold something like a key, as they are; a word of a line is not.
//! Of a value of more than [`SEARCHED_MAX_BYTES`] those of its beginning and [`WINDOWS`] parts stand for all of it, one of
//! them its end. Certificates in a long one are public: only what else is in it is searched for. What is encrypted, or changed in another way than those, is not found: a search keeps one from mistakes, not from a
//! command that wants to let a secret out.
//!
//! Searched is what a build makes. What a base image holds came from elsewhere and is there already: no secret of this
//! build gets out by it.

mod mark;
mod nested;
mod redact;
mod search;
mod spelling;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use mark::{Mark, Marks};
pub use nested::{Nested, Unsearched, holds_others, search_nested};
pub use redact::{Flow, Redactor};
pub use search::{Found, Search, SearchError, Stream};
pub use spelling::Spelling;

/// The shortest value that is searched for, in bytes. Shorter ones are words like `production`, which images are full of.
pub const SEARCHED_MIN_BYTES: usize = 12;

/// The longest value that is searched for as a whole, in bytes, which bounds the memory for it.
pub const SEARCHED_MAX_BYTES: usize = 4096;

/// Parts of a longer value that are searched for, each by itself.
pub const WINDOWS: usize = 4;

/// Length of such a part, in bytes. Two files that have so much in common are hardly two.
const WINDOW_BYTES: usize = 2048;

/// The shortest value that is taken out of what is shown, in bytes. There a mistake costs a word, not a build.
const REDACTED_MIN_BYTES: usize = 6;

/// Largest secret, in bytes: what other builders take.
pub const SIZE_MAX_BYTES: u64 = 500 * 1024;

/// A secret that a build was given.
#[derive(Clone, Debug)]
pub struct Secret {
    /// What it is.
    pub value: Value,
    /// Whether the image may not hold it.
    pub searched: bool,
}

/// The value of a secret.
#[derive(Clone)]
pub enum Value {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A variable that is not set: the empty value for those that do not require it.
    Unset {
        /// Its name.
        variable: String,
    },
    /// A file that is too large. Whoever needs it says so.
    TooLarge,
    /// A file that could not be read. Whoever needs it says so.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
}

impl fmt::Debug for Value {
    /// Never shows the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(_) => f.write_str("Bytes(..)"),
            Self::Unset { variable } => write!(f, "Unset({variable})"),
            Self::TooLarge => f.write_str("TooLarge"),
            Self::Unreadable { path, source } => write!(f, "Unreadable({}: {source})", path.display()),
        }
    }
}

impl Secret {
    /// A secret with this value, which the image may not hold.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self { value: Value::Bytes(value.into()), searched: true }
    }

    /// The content of a file. One that cannot be read matters only to a step that needs it.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let read = || match std::fs::metadata(path)?.len() {
            length if length > SIZE_MAX_BYTES => Ok(Value::TooLarge),
            _ => std::fs::read(path).map(|bytes| Value::Bytes(bytes.into())),
        };
        let unreadable = |source| Value::Unreadable { path: path.to_owned(), source: Arc::new(source) };
        Self { value: read().unwrap_or_else(unreadable), searched: true }
    }

    fn bytes(&self) -> &[u8] {
        match &self.value {
            Value::Bytes(bytes) => bytes.trim_ascii(),
            Value::Unset { .. } | Value::TooLarge | Value::Unreadable { .. } => &[],
        }
    }
}

/// The parts of a value that are searched for: itself where it is short enough, else its beginning and [`WINDOWS`] parts of
/// it. Of one with certificates also what else is in it, and where it is long that alone: nothing of a file that has no other
/// content.
fn windows(value: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let private = without_certificates(value);
    let (is_short, has_public) = (value.len() <= SEARCHED_MAX_BYTES, private.len() < value.len());
    let mut parts = Vec::new();
    if is_short || !has_public {
        parts.push(Cow::from(whole_characters(&value[..value.len().min(SEARCHED_MAX_BYTES)])));
    }
    let private = private.trim_ascii();
    match private.len() {
        ..SEARCHED_MIN_BYTES => {}
        SEARCHED_MIN_BYTES..=SEARCHED_MAX_BYTES if !has_public => {}
        SEARCHED_MIN_BYTES..=SEARCHED_MAX_BYTES => parts.push(private.to_vec().into()),
        _ => {
            let last = private.len() - WINDOW_BYTES;
            let windows = (0..WINDOWS).map(|number| &private[last * number / (WINDOWS - 1)..][..WINDOW_BYTES]);
            parts.extend(windows.map(|window| whole_characters(window).to_vec().into()));
        }
    }
    parts
}

/// Most lines of a value that are searched for, each by itself: of more, so many that lie evenly in it.
const LINES_MAX: usize = 32;

/// Fewest letters and digits in a row that tell a line from those that other files have too.
const TELLING_BYTES: usize = 12;

/// The lines of a value of several that are searched for each by itself: a command may take one out of a file of keys. In
/// layers a mistake costs a build, so that only those count that nobody else writes: `apiVersion: v1`, `[default]`,
/// `registry=https://registry.npmjs.org/` and comments are in many images.
fn lines(value: &[u8]) -> Vec<Vec<u8>> {
    let private = without_certificates(value);
    let mut lines: Vec<&[u8]> = private.trim_ascii().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    if lines.len() < 2 {
        return Vec::new();
    }
    lines.retain(|line| (SEARCHED_MIN_BYTES..=SEARCHED_MAX_BYTES).contains(&line.len()) && is_telling(line));
    let step = lines.len().div_ceil(LINES_MAX).max(1);
    lines.into_iter().step_by(step).map(<[u8]>::to_vec).collect()
}

/// Whether a line holds something that looks like a key: letters and digits, many in a row, and not in an address.
fn is_telling(line: &[u8]) -> bool {
    let parts = line.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b','));
    let is_address = |part: &[u8]| part.windows(3).any(|three| three == b"://") && !part.contains(&b'@');
    let is_key = |word: &[u8]| {
        word.len() >= TELLING_BYTES && word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic)
    };
    let mut words = parts
        .filter(|part| !is_address(part))
        .flat_map(|part| part.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/')));
    !line.starts_with(b"#") && !line.starts_with(b";") && words.any(is_key)
}

/// A value without the certificates in it. A file of them that a build trusts is given as a secret too, so as to leave no
/// trace, and the same ones are in images; a key beside a certificate is what may not get out.
fn without_certificates(value: &[u8]) -> Vec<u8> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let find = |text: &[u8], word: &[u8]| text.windows(word.len()).position(|part| part == word);
    let (mut private, mut rest) = (Vec::new(), value);
    while let Some(begin) = find(rest, BEGIN) {
        let Some(length) = find(&rest[begin..], END) else { break };
        private.extend_from_slice(&rest[..begin]);
        rest = &rest[begin + length + END.len()..];
    }
    private.extend_from_slice(rest);
    private
}

/// A part of a text without the halves of characters at its ends, which no spelling of text could be made of.
fn whole_characters(part: &[u8]) -> &[u8] {
    let inside = |byte: &&u8| **byte & 0xC0 == 0x80;
    let first = part.iter().take(3).take_while(inside).count();
    let part = &part[first..];
    // An end is cut where the last character says that it is longer than what is there.
    let tail = part.iter().rev().take(3).take_while(inside).count();
    let Some(lead) = part.len().checked_sub(tail + 1) else { return part };
    let length = match part[lead] {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0.. => 4,
        _ => 1,
    };
    if length > tail + 1 { &part[..lead] } else { part }
}

/// The secrets of a build, by id.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// The secret of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Secret> {
        self.0.get(id)
    }

    /// Those that the image may not hold, and that are too short to search for, by id.
    #[must_use]
    pub fn too_short(&self) -> Vec<&str> {
        let short = |secret: &Secret| secret.searched && (1..SEARCHED_MIN_BYTES).contains(&secret.bytes().len());
        self.0.iter().filter(|(_, secret)| short(secret)).map(|(id, _)| id.as_str()).collect()
    }

    /// Those that the image may not hold, and that hold nothing but certificates, of which it may.
    #[must_use]
    pub fn public(&self) -> Vec<&str> {
        self.searched().filter(|(_, value)| windows(value).is_empty()).map(|(id, _)| id).collect()
    }

    /// Those of variables that are not set, by id, and their names.
    #[must_use]
    pub fn unset(&self) -> Vec<(&str, &str)> {
        let mut unset = Vec::new();
        for (id, secret) in &self.0 {
            if let Value::Unset { variable } = &secret.value {
                unset.push((id.as_str(), variable.as_str()));
            }
        }
        unset
    }

    /// The ids and values that are searched for.
    fn searched(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let long = |secret: &Secret| secret.searched && secret.bytes().len() >= SEARCHED_MIN_BYTES;
        self.0.iter().filter(move |(_, secret)| long(secret)).map(|(id, secret)| (id.as_str(), secret.bytes()))
    }
}

impl FromIterator<(String, Secret)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, Secret)>>(secrets: T) -> Self {
        Self(secrets.into_iter().collect())
    }
}
