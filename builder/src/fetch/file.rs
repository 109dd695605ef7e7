//! A file in the store that came from elsewhere.

use std::io::{self, Read, Write as _};
use std::path::PathBuf;

use oci_spec::image::Digest;

use super::FetchError;
use crate::blob::Store;

/// Bytes that are taken from a stream at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// When it was last changed, in seconds since 1970; 0 when nobody said.
    pub modified_seconds: i64,
}

/// Keeps all that a stream gives.
///
/// # Errors
/// When the stream breaks, and when the store cannot be written.
pub fn keep(store: &Store, what: &str, stream: &mut dyn Read) -> Result<FetchedFile, FetchError> {
    let mut writer = store.writer()?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(FetchError::Read { what: what.to_owned(), source }),
        };
        writer.write_all(piece.get(..count).unwrap_or_default()).map_err(|error| writer.failure(error))?;
    }
    let info = writer.commit(None)?;
    Ok(FetchedFile {
        path: store.path(&info.digest),
        digest: info.digest,
        size_bytes: info.size_bytes,
        modified_seconds: 0,
    })
}
