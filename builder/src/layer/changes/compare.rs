//! Whether a file is what it was.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::owned::Owned;
use super::{ChangesError, capability};

/// Whether what is at `at` is what is at `before`. A folder's size, time and content do not count.
pub(super) fn is_unchanged(
    at: &Path,
    metadata: &Metadata,
    before: &Path,
    before_metadata: &Metadata,
    owned: &Owned,
) -> Result<bool, ChangesError> {
    let id = |metadata: &Metadata| (metadata.mode(), metadata.rdev());
    let owner = owned.now(at, metadata, Some((before, before_metadata)));
    if id(metadata) != id(before_metadata) || owner != owned.before(before, before_metadata) {
        return Ok(false);
    }
    if !metadata.is_dir() {
        let shape = |metadata: &Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if shape(metadata) != shape(before_metadata) {
            return Ok(false);
        }
    }
    if capability(at)? != capability(before)? {
        return Ok(false);
    }
    if metadata.is_symlink() {
        let target = |path: &Path| fs::read_link(path).map_err(ChangesError::at("reading the link", path));
        return Ok(target(at)? == target(before)?);
    }
    if metadata.is_file() && metadata.len() > 0 {
        return same_content(at, before).map_err(ChangesError::at("comparing", at));
    }
    Ok(true)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut from_a, mut from_b) = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    loop {
        let count = a.read(&mut from_a)?;
        if count == 0 {
            return Ok(b.read(&mut from_b)? == 0);
        }
        match b.read_exact(&mut from_b[..count]) {
            Ok(()) if from_a[..count] == from_b[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
