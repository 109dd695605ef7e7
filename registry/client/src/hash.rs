//! Digests of bytes that pass by.

use std::str::FromStr as _;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::error::{ClientError, Subject};

/// A running digest. A copy of it goes on from the same place.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn knows(algorithm: &DigestAlgorithm) -> bool {
        matches!(algorithm, DigestAlgorithm::Sha256 | DigestAlgorithm::Sha384 | DigestAlgorithm::Sha512)
    }

    pub(crate) fn new(algorithm: &DigestAlgorithm, subject: &Subject) -> Result<Self, ClientError> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Self::Sha256(Sha256::new())),
            DigestAlgorithm::Sha384 => Ok(Self::Sha384(Sha384::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            other => Err(ClientError::Algorithm { what: subject.what.clone(), algorithm: other.to_string() }),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self, subject: &Subject) -> Result<Digest, ClientError> {
        let text = match self {
            Self::Sha256(hasher) => format!("sha256:{}", hex::encode(hasher.finalize())),
            Self::Sha384(hasher) => format!("sha384:{}", hex::encode(hasher.finalize())),
            Self::Sha512(hasher) => format!("sha512:{}", hex::encode(hasher.finalize())),
        };
        Digest::from_str(&text).map_err(|error| subject.answer(format!("its digest cannot be written: {error}")))
    }
}

/// The digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8], algorithm: &DigestAlgorithm, subject: &Subject) -> Result<Digest, ClientError> {
    let mut hasher = Hasher::new(algorithm, subject)?;
    hasher.update(bytes);
    hasher.finish(subject)
}
