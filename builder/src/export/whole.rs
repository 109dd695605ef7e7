//! Files and folders that appear whole or not at all: made beside their place, and renamed into it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::ExportError;
use crate::blob::remove_tree;

/// The neighbours of this process; `None` once it has abandoned them.
static NEIGHBOURS: Mutex<Option<BTreeSet<PathBuf>>> = Mutex::new(Some(BTreeSet::new()));

fn neighbours() -> MutexGuard<'static, Option<BTreeSet<PathBuf>>> {
    NEIGHBOURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is not whole yet, and lets nothing more be begun: for a process that ends while a thread still writes. Takes no
/// longer than `patience`.
pub fn abandon(patience: Duration) {
    let Some(neighbours) = neighbours().take() else { return };
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        // Whoever writes may make another file in a folder while that is emptied, and cannot once it is gone.
        for path in neighbours.iter().chain(&neighbours) {
            remove_tree(path);
        }
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(patience);
}

/// Writes the file at `path` through `write`.
///
/// A file that is there is replaced once the new one is complete. A pipe or device is written to directly.
///
/// # Errors
/// Those of `write`, with the place of a failed write; nothing is left at `path` then, or what was there before.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            return Err(ExportError::WrongKind { path: path.to_owned(), expected: "a file", found: "a folder" });
        }
        Ok(there) if !there.is_file() => {
            let mut file = File::options().write(true).open(path).map_err(ExportError::at("opening", path))?;
            return write(&mut file).map_err(|error| error.placed(path));
        }
        _ => {}
    }
    // The target of a link is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = Neighbour::of(path)?;
    let file = File::create_new(&temporary.path).map_err(ExportError::at("creating", &temporary.path))?;
    let mut buffered = BufWriter::with_capacity(256 * 1024, file);
    write(&mut buffered).map_err(|error| error.placed(path))?;
    let file = buffered.into_inner().map_err(|error| ExportError::io("writing", path, error.into_error()))?;
    temporary.reveal(&file, path)
}

/// An unused name beside a path, on the same file system; whatever stands there is removed when this is dropped.
pub(super) struct Neighbour {
    pub(super) path: PathBuf,
}

impl Neighbour {
    pub(super) fn of(path: &Path) -> Result<Self, ExportError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut bytes = [0; 6];
        let random = |error: getrandom::Error| io::Error::other(error.to_string());
        getrandom::fill(&mut bytes).map_err(|error| ExportError::io("naming a file beside", path, random(error)))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let neighbour = parent.join(format!(".{name}.{}", hex::encode(bytes)));
        let is_over = || ExportError::io("creating", &neighbour, io::Error::other("the export was stopped"));
        neighbours().as_mut().ok_or_else(is_over)?.insert(neighbour.clone());
        Ok(Self { path: neighbour })
    }

    /// Moves the finished file, which is here, to its place.
    pub(super) fn reveal(&self, file: &File, path: &Path) -> Result<(), ExportError> {
        file.sync_all().map_err(ExportError::at("syncing", path))?;
        fs::rename(&self.path, path).map_err(ExportError::at("renaming the finished file to", path))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        remove_tree(&self.path);
        if let Some(neighbours) = neighbours().as_mut() {
            neighbours.remove(&self.path);
        }
    }
}
