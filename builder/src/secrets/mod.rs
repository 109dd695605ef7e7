//! The secrets of a build, and that they stay here.
//!
//! A secret is read once, when the build begins: what a command gets is what is searched for. Values are in memory alone;
//! no key, record or message has anything of them.
//!
//! | where | what |
//! |---|---|
//! | `spelling` | the ways in which a value is written: itself, base64, hex, URL, JSON |
//! | `search` | finds them in bytes that pass by |
//! | `nested` | finds them in archives and compressed files |
//! | `redact` | takes them out of what is shown |
//!
//! # What is found
//! A value of at least [`SEARCHED_MIN_BYTES`], white space around it left away, in each of its spellings, wherever it
//! stands: in the middle of other text, across the borders of reads, encoded together with what is before and after it.
//! Of a longer value the first [`SEARCHED_MAX_BYTES`] stand for all of it. What is encrypted, or changed in another way
//! than those, is not found: a search keeps one from mistakes, not from a command that wants to let a secret out.

mod nested;
mod redact;
mod search;
mod spelling;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use nested::{Nested, holds_others, search_nested};
pub use redact::{Flow, Redactor};
pub use search::{Found, Search, SearchError, Stream};
pub use spelling::Spelling;

/// The shortest value that is searched for, in bytes. Shorter ones are words like `production`, which images are full of.
pub const SEARCHED_MIN_BYTES: usize = 12;

/// How much of a value is searched for, in bytes, which bounds the memory for it. Two files that begin with the same 4 KiB
/// are hardly two.
pub const SEARCHED_MAX_BYTES: usize = 4096;

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
            Value::TooLarge | Value::Unreadable { .. } => &[],
        }
    }
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
