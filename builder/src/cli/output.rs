//! The only file that writes to standard output and standard error.
//!
//! Standard output carries data (a digest, JSON, an archive's bytes); standard error is for people. A reader that has
//! gone away ends neither with an error message nor with a panic.

use std::io::{self, Write};

/// Writes to standard output. A closed pipe is no error: whoever closed it has what they wanted.
///
/// # Errors
/// Any other failure to write, such as a full disk behind a redirection.
pub fn data(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes text for people to standard error; nobody can be told when that fails.
pub fn message(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A text of the user's without characters that steer a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() && character != '\t' { '?' } else { character }).collect()
}

/// Standard output, for results that are written piece by piece.
#[must_use]
pub fn stdout() -> Box<dyn Write> {
    Box::new(io::BufWriter::with_capacity(256 * 1024, io::stdout()))
}

/// Standard input.
pub(super) fn stdin() -> Box<dyn std::io::Read> {
    Box::new(std::io::stdin())
}
