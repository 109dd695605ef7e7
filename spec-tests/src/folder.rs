//! A folder of one test, gone when the test ends.

use std::fs;
use std::path::{Path, PathBuf};

/// A temporary folder with methods for what tests put into it.
#[derive(Debug)]
pub struct TestDir {
    inner: tempfile::TempDir,
}

impl TestDir {
    /// A new, empty folder.
    ///
    /// # Panics
    /// When the folder for temporary files does not take one.
    #[must_use]
    pub fn new() -> Self {
        let inner = tempfile::Builder::new().prefix("fluyt-test-").tempdir().expect("a temporary folder");
        Self { inner }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.path()
    }

    /// The path of `name` in it, whether or not that exists.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.inner.path().join(name)
    }

    /// Writes a file and the folders above it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("the folders above a file");
        }
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// Makes a folder and the folders above it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        path
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}
