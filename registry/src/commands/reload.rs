//! Files that are read again when they change: by asking the file system every now and then, which sees whatever replaces
//! them, a symbolic link in a mounted secret included.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;

/// How often.
const INTERVAL: Duration = Duration::from_secs(2);

/// What changes when a file does.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    let (changed, modified) = ((data.ctime(), data.ctime_nsec()), (data.mtime(), data.mtime_nsec()));
    Some((data.dev(), data.ino(), data.len(), changed.0, changed.1, modified.0, modified.1))
}

/// Files that were read, and how they were then.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl Files {
    /// Reads them for the first time; `what` they are is for the message.
    pub(crate) fn read(what: &str, paths: &[&Path]) -> Result<(Self, Vec<Vec<u8>>), Failure> {
        let mut files = Self { paths: paths.iter().map(|path| path.to_path_buf()).collect(), stamps: Vec::new() };
        // Before the content, so that what is written in between is seen later.
        files.stamps = files.stamps();
        let contents = files.contents().map_err(|error| Failure::User(format!("cannot read {what} {error}").into()))?;
        Ok((files, contents))
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.paths.iter().map(|path| stamp(path)).collect()
    }

    fn contents(&self) -> Result<Vec<Vec<u8>>, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        self.paths.iter().map(read).collect()
    }

    /// Their names, for messages.
    pub(crate) fn names(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// From now on gives `take` their content whenever it changed. What it refuses is logged, and the old stays.
    pub(crate) fn watch(
        mut self,
        what: &'static str,
        take: impl Fn(Vec<Vec<u8>>) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) {
        // A thread of its own: a file system that hangs must not hold up anything else.
        let watching = move || {
            loop {
                std::thread::sleep(INTERVAL);
                let stamps = self.stamps();
                if stamps == self.stamps {
                    continue;
                }
                self.stamps = stamps;
                let files = self.names();
                let taken = self.contents().map_err(Into::into).and_then(&take);
                match taken {
                    Ok(()) => tracing::info!(files, "{what} changed and was taken up"),
                    Err(error) => {
                        tracing::error!(files, error = %error, "{what} changed, but the old one stays in use")
                    }
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reload".into()).spawn(watching) {
            tracing::error!(error = %error, "{what} will not be read again: restart after a change");
        }
    }
}
