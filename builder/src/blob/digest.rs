//! Hashing while bytes pass by.

use std::io::{self, Read, Write};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

/// A running hash that ends as a [`Digest`].
#[derive(Clone, Debug)]
pub enum Hasher {
    /// What everything here is named by.
    Sha256(Sha256),
    /// What some registries name their content by.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// A hasher for SHA-256.
    #[must_use]
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// The hasher that can check `digest`; `None` for an algorithm that is not registered in the image specification
    /// (descriptor.md, "Registered algorithms") or that we do not have.
    #[must_use]
    pub fn for_digest(digest: &Digest) -> Option<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Some(Self::sha256()),
            DigestAlgorithm::Sha512 => Some(Self::Sha512(Box::default())),
            _ => None,
        }
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (name, hex) = match self {
            Self::Sha256(state) => ("sha256", hex::encode(state.finalize())),
            Self::Sha512(state) => ("sha512", hex::encode(state.finalize())),
        };
        let text = format!("{name}:{hex}");
        Digest::try_from(text).expect("a registered algorithm and its hexadecimal digits are a digest")
    }
}

/// The SHA-256 digest of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    size_bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Taps `inner` with `hasher`.
    pub fn with(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, size_bytes: 0 }
    }

    /// Bytes read so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest and number of the bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size_bytes)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size_bytes += count as u64;
        Ok(count)
    }
}

/// Hashes and counts what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size_bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Taps `inner` with SHA-256.
    pub fn new(inner: W) -> Self {
        Self::with(inner, Hasher::sha256())
    }

    /// Taps `inner` with `hasher`.
    pub fn with(inner: W, hasher: Hasher) -> Self {
        Self { inner, hasher, size_bytes: 0 }
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The inner writer, and the digest and number of the bytes it was given.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size_bytes)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").as_ref(), empty);
        let abc = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        let mut hasher = Hasher::for_digest(&abc.parse().unwrap()).unwrap();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish().as_ref(), abc);
    }

    #[test]
    fn the_taps_hash_what_passes() {
        let mut reader = HashingReader::with(&b"hello"[..], Hasher::sha256());
        let mut writer = HashingWriter::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        let (bytes, written, size_bytes) = writer.finish();
        assert_eq!(bytes, b"hello");
        assert_eq!(size_bytes, 5);
        assert_eq!(reader.finish(), (written, 5));
    }

    #[test]
    fn an_algorithm_without_a_hasher_is_none() {
        assert!(Hasher::for_digest(&"blake3:abcd".parse().unwrap()).is_none());
    }
}
