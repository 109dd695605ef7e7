//! A part of a file, read without moving the file's own position.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// Reads from a place in a file on. A copy reads the same again.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    file: &'a File,
    offset_bytes: u64,
    left_bytes: u64,
}

impl<'a> Part<'a> {
    /// The bytes from `offset_bytes` on, `size_bytes` at most.
    #[must_use]
    pub fn of(file: &'a File, offset_bytes: u64, size_bytes: u64) -> Self {
        Self { file, offset_bytes, left_bytes: size_bytes }
    }

    /// All of a file.
    #[must_use]
    pub fn all(file: &'a File) -> Self {
        Self::of(file, 0, u64::MAX)
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.offset_bytes)?;
        self.offset_bytes += count as u64;
        self.left_bytes -= count as u64;
        Ok(count)
    }
}
