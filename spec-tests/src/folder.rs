//! A folder of one test, gone when the test ends.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program;

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

    /// A new, empty folder in another one.
    ///
    /// # Panics
    /// When that one does not take it.
    #[must_use]
    pub fn new_in(folder: &Path) -> Self {
        let inner = tempfile::Builder::new().prefix("fluyt-test-").tempdir_in(folder).expect("a temporary folder");
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

/// A small file system in memory, for filling it up. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TestDir,
}

impl SmallDisk {
    /// A disk of `mebibytes`; `None`, said as a skip of `test`, where none can be mounted.
    #[must_use]
    pub fn new(test: &str, mebibytes: u32) -> Option<Self> {
        if !program::is_root(test) {
            return None;
        }
        let folder = TestDir::new();
        let mounted = program::run(
            "mount",
            ["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs", &folder.path().to_string_lossy()],
        );
        if mounted.code != Some(0) {
            program::skip(test, &format!("no tmpfs can be mounted: {}", mounted.stderr.trim()));
            return None;
        }
        Some(Self { folder })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// How many bytes are left.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn free(&self) -> u64 {
        let room = rustix::fs::statvfs(self.path()).expect("the room of the small disk");
        room.f_bavail * room.f_frsize
    }

    /// Takes all the space that is left.
    ///
    /// # Panics
    /// When the file that takes it cannot be made.
    pub fn fill(&self) {
        self.fill_to(0);
    }

    /// Takes so much space that `mebibytes` are left.
    ///
    /// # Panics
    /// When the file that takes it cannot be made.
    pub fn fill_to(&self, mebibytes: u64) {
        use std::io::Write as _;
        let ballast = fs::OpenOptions::new().append(true).create(true).open(self.path().join("ballast"));
        let mut ballast = ballast.expect("a file on the small disk");
        let block = [0_u8; 4096];
        while self.free() > mebibytes << 20 && ballast.write_all(&block).is_ok() {}
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it was never taken.
    pub fn empty(&self) {
        fs::remove_file(self.path().join("ballast")).expect("what filled the disk");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = program::run("umount", ["--lazy", &self.folder.path().to_string_lossy()]);
    }
}

/// A folder in which nothing can be written any more, by whoever finds it by its path. Dropping this lets it be written
/// again.
#[derive(Debug)]
pub struct ReadOnly {
    path: PathBuf,
}

impl ReadOnly {
    /// Makes `path` so; `None`, said as a skip of `test`, where that cannot be done.
    #[must_use]
    pub fn new(test: &str, path: &Path) -> Option<Self> {
        if !program::is_root(test) {
            return None;
        }
        let name = path.to_string_lossy().into_owned();
        // A mount of its own, since a file system that somebody writes to cannot be made read-only.
        let mounted = program::run("mount", ["--bind", &name, &name]);
        if mounted.code != Some(0) {
            program::skip(test, &format!("nothing can be mounted: {}", mounted.stderr.trim()));
            return None;
        }
        let read_only = Self { path: path.to_owned() };
        let _ = program::run("mount", ["-o", "remount,bind,ro", &name]).expect_success();
        Some(read_only)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = program::run("umount", ["--lazy", &self.path.to_string_lossy()]);
    }
}
