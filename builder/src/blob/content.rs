//! What is in a file, told apart from what is in others.
//!
//! Images name blobs by SHA-256. What a build compares for itself (the files of a context before and while they are copied, those
//! of layers) it hashes by BLAKE3, which takes less than half the time.

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bytes are hashed at a time: enough for all that a processor does side by side.
const BUFFER_BYTES: usize = 16 * 1024;

/// The BLAKE3 hash of a file's content. Kept as 64 hexadecimal digits, and told with `blake3:` before them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; Self::BYTES]);

impl ContentHash {
    /// How long it is.
    pub const BYTES: usize = 32;

    /// That of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// That of all that `reader` gives.
    ///
    /// # Errors
    /// Those of `reader`.
    pub fn read(reader: impl Read) -> io::Result<Self> {
        Self::copy(reader, io::sink())
    }

    /// That of all that `reader` gives, which `writer` gets too.
    ///
    /// # Errors
    /// Those of both.
    pub fn copy(mut reader: impl Read, mut writer: impl Write) -> io::Result<Self> {
        let mut hasher = ContentHasher::default();
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    writer.write_all(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One that was made before, by its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; Self::BYTES];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|error| serde::de::Error::custom(format!("`{text}`: {error}")))?;
        Ok(Self(bytes))
    }
}

/// Makes a [`ContentHash`] while bytes pass by.
#[derive(Clone, Debug, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_blake3_however_its_bytes_come() {
        // From the test vectors of BLAKE3: no bytes, and 1,024 that count up to 250 again and again.
        let counted: Vec<u8> = (0..=250).cycle().take(1024).collect();
        for (bytes, expected) in [
            (&b""[..], "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
            (&counted, "blake3:42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        ] {
            assert_eq!(ContentHash::of(bytes).to_string(), expected);
            assert_eq!(ContentHash::read(bytes).unwrap().to_string(), expected);
            let mut copied = Vec::new();
            assert_eq!(ContentHash::copy(bytes, &mut copied).unwrap().to_string(), expected);
            assert_eq!(copied, bytes);
            let mut hasher = ContentHasher::default();
            bytes.chunks(7).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish().to_string(), expected);
            let json = serde_json::to_string(&hasher.finish()).unwrap();
            assert_eq!(serde_json::from_str::<ContentHash>(&json).unwrap(), hasher.finish());
        }
        for bad in
            ["\"\"", "\"ab\"", "\"blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"", "7"]
        {
            assert!(serde_json::from_str::<ContentHash>(bad).is_err(), "{bad}");
        }
    }
}
