//! Digests: `sha256:<64 hex>` and `sha512:<128 hex>`, lower case, nothing else.
//!
//! The registry keeps its own type rather than `oci_spec`'s, because digests become parts of keys: the type has to be
//! ordered, and an algorithm that is not computed here must be refused at the edge.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// A hash algorithm that this registry computes (image-spec, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`
    Sha256,
    /// `sha512`
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_characters(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Algorithm { found: shown(text) }),
        }
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:hex`.
    #[error("`{found}` is not a digest: expected `sha256:<64 hex digits>` or `sha512:<128 hex digits>`")]
    Form {
        /// What was given, shortened.
        found: String,
    },
    /// An algorithm that is not computed here.
    #[error("digest algorithm `{found}` is not supported: use sha256 or sha512")]
    Algorithm {
        /// What was given, shortened.
        found: String,
    },
    /// The wrong number of digits, or something that is no lower-case hex digit.
    #[error("`{found}` is not a {algorithm} digest: expected {expected} lower-case hex digits after the colon")]
    Hex {
        /// The algorithm named.
        algorithm: Algorithm,
        /// How many digits it has.
        expected: usize,
        /// What was given, shortened.
        found: String,
    },
}

/// At most 150 characters of what a client sent, for a message.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(150).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// The digest of a blob or manifest, as stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which hash it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hex digits after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::Form { found: shown(text) })?;
        let algorithm: Algorithm = name.parse()?;
        let expected = algorithm.hex_characters();
        if hex.len() != expected || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex { algorithm, expected, found: shown(text) });
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

/// A hash that is still being fed; its state can be written down and taken up by another process.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// sha256
    Sha256(sha2::Sha256),
    /// sha512
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Which hash it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let hex = match self {
            Self::Sha256(h) => hex::encode(h.finalize()),
            Self::Sha512(h) => hex::encode(h.finalize()),
        };
        Digest { algorithm, hex: hex.into() }
    }

    /// The state so far: 104 bytes for sha256, 208 for sha512. Its form is the hash crate's and is not stable between
    /// its major versions, so whoever stores it stores a version beside it.
    pub fn save(&self) -> Vec<u8> {
        match self {
            Self::Sha256(h) => h.serialize().to_vec(),
            Self::Sha512(h) => h.serialize().to_vec(),
        }
    }

    /// Takes up a state written by [`Hasher::save`]; `None` when the bytes are none.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Sha256 => {
                let state = SerializedState::<sha2::Sha256>::try_from(state).ok()?;
                Self::Sha256(sha2::Sha256::deserialize(&state).ok()?)
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<sha2::Sha512>::try_from(state).ok()?;
                Self::Sha512(sha2::Sha512::deserialize(&state).ok()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_say_what_was_found() {
        for (text, message) in [
            ("latest", "`latest` is not a digest: expected `sha256:<64 hex digits>` or `sha512:<128 hex digits>`"),
            ("md5:abc", "digest algorithm `md5` is not supported: use sha256 or sha512"),
            ("sha256:ABC", "`sha256:ABC` is not a sha256 digest: expected 64 lower-case hex digits after the colon"),
        ] {
            assert_eq!(text.parse::<Digest>().unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn a_saved_state_goes_on_as_if_never_stopped(bytes: Vec<u8>, cut: prop::sample::Index, wide: bool) {
            let algorithm = if wide { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let at = cut.index(bytes.len() + 1);
            let mut first = Hasher::new(algorithm);
            first.update(&bytes[..at]);
            let mut second = Hasher::restore(algorithm, &first.save()).unwrap();
            second.update(&bytes[at..]);
            prop_assert_eq!(second.finish(), Digest::of(algorithm, &bytes));
        }

        #[test]
        fn parsing_never_panics_and_shows_what_it_read(text in "(sha256|sha512|x)?:?[0-9a-fA-F]{0,140}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
