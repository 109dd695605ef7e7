//! The whole log of a build in a file of the store: every line that a command printed, as it came, whatever the view shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::book::{Book, Line};
use super::plain::{Words, remark};
use crate::event::{Event, StepId};

/// Logs that are kept; the oldest go.
const LOGS_MAX: usize = 50;

/// What they may take together, in bytes. One alone may be larger: no log is cut.
const LOGS_MAX_BYTES: u64 = 1_000_000_000;

/// Logs that are kept whatever they take: the one that is begun, and that of the build before, which somebody may be reading.
const LOGS_MIN: usize = 2;

/// The log that is written.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    words: Words,
    /// Why it ends before the build does.
    failed: Option<io::Error>,
}

impl Log {
    /// Begins a log in `folder` and removes the oldest ones there.
    pub(super) fn begin(folder: &Path, began: Timestamp) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let stamp = began.strftime("%Y%m%dT%H%M%S");
        let mut number = 0u32;
        let (file, path) = loop {
            let more = if number == 0 { String::new() } else { format!("-{number}") };
            let path =
                folder.join(format!("{stamp}.{:03}Z-{}{more}.log", began.subsec_millisecond(), std::process::id()));
            // What a command prints may be nobody else's business.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error),
            }
        };
        // Held as long as it is written, so that another build does not take it for an old one.
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        prune(folder, LOGS_MAX, LOGS_MAX_BYTES)?;
        Ok(Self { file, path, words: Words::default(), failed: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all could be written so far.
    pub(super) fn is_whole(&self) -> bool {
        self.failed.is_none()
    }

    pub(super) fn event(&mut self, book: &Book, now: Duration, event: &Event) {
        let text = match event {
            Event::Warning { .. } | Event::Check { .. } | Event::Note { .. } => remark(event),
            _ => self.words.event(book, now, event).map(|(_, text)| text).unwrap_or_default(),
        };
        self.write(text.as_bytes());
    }

    pub(super) fn lines(&mut self, step: StepId, lines: &[Line]) {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(format!("{step} {:.3} ", line.age.as_secs_f64()).as_bytes());
            bytes.extend_from_slice(&line.bytes);
            bytes.push(b'\n');
        }
        self.write(&bytes);
    }

    /// Writes the end; gives why the log is not whole, if so.
    pub(super) fn end(&mut self, book: &Book) -> Option<io::Error> {
        self.write(book.failures(false).as_bytes());
        self.failed.take()
    }

    fn write(&mut self, bytes: &[u8]) {
        if !bytes.is_empty()
            && self.failed.is_none()
            && let Err(error) = self.file.write_all(bytes)
        {
            self.failed = Some(error);
        }
    }
}

/// Removes the oldest logs that nobody writes, until no more than so many, of no more than so many bytes, are left.
fn prune(folder: &Path, keep: usize, keep_bytes: u64) -> io::Result<()> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "log") {
            // Gone meanwhile, where that cannot be told.
            logs.push((name, entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    // A name begins with its time.
    logs.sort_unstable();
    let (mut left, mut left_bytes) = (logs.len(), logs.iter().map(|(_, bytes)| bytes).sum::<u64>());
    for (name, bytes) in &logs[..logs.len().saturating_sub(LOGS_MIN)] {
        if left <= keep && left_bytes <= keep_bytes {
            break;
        }
        let path = folder.join(name);
        // Gone already, or held: both are somebody else's doing.
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && std::fs::remove_file(&path).is_ok() {
            left -= 1;
            left_bytes -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_go_and_one_that_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = Log::begin(folder.path(), Timestamp::from_second(0).unwrap()).unwrap();
        for second in 1..60 {
            Log::begin(folder.path(), Timestamp::from_second(second).unwrap()).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), LOGS_MAX);
        assert!(first.path().is_file());
        assert!(names[1].starts_with("19700101T000011"), "{names:?}");
    }

    #[test]
    fn logs_together_are_bounded_and_the_last_builds_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |second| Log::begin(folder.path(), Timestamp::from_second(second).unwrap()).unwrap();
        let size = |second, bytes| begin(second).file.set_len(bytes).unwrap();
        (1..=5).for_each(|second| size(second, LOGS_MAX_BYTES / 3));
        let left = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left(), 4, "three of a third, and the one that was begun when they were there");
        size(6, LOGS_MAX_BYTES * 7);
        let last = begin(7);
        assert_eq!(left(), 2);
        assert!(last.path().is_file());
        begin(8);
        assert_eq!(left(), 2, "that of the large one is gone: {:?}", last.path());
    }

    #[test]
    fn two_builds_of_one_moment_have_a_log_each() {
        let folder = tempfile::tempdir().unwrap();
        let moment = Timestamp::from_second(5).unwrap();
        let (one, two) = (Log::begin(folder.path(), moment).unwrap(), Log::begin(folder.path(), moment).unwrap());
        assert_ne!(one.path(), two.path());
    }
}
