//! What can go wrong on an image's way out.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::blob::StoreError;
use crate::image::ImageError;
use crate::layer::LayerError;

/// Why an image could not be written out. Nothing half-written is left where it was to appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store failed, or lacks a part of the image.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer could not be read.
    #[error(transparent)]
    Layer(LayerError),
    /// A manifest or configuration could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The destination's disk or quota is full.
    #[error("the disk is full while writing {}; free space there, or choose another `dest`", path.display())]
    DiskFull {
        /// The destination.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the destination's file system.
    #[error("{during} {}", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// The destination, or something in it.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The stream that takes the image failed: standard output, or another program's input.
    #[error("writing the image")]
    Write(#[source] io::Error),
    /// The destination folder has content that is no image layout.
    #[error("{} holds other files and is no OCI image layout; choose an empty or new folder as `dest`", path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
    },
    /// The destination of a file is a folder, or that of a folder is a file.
    #[error("{} is {found}, and `dest` must be {expected}", path.display())]
    WrongKind {
        /// The destination.
        path: PathBuf,
        /// What must be there, or may be made there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// There is no folder to put the destination in.
    #[error("there is no folder {}; make it first", path.display())]
    NoFolder {
        /// Which.
        path: PathBuf,
    },
    /// One image was needed, and there are several.
    #[error("the image is for {count} platforms, and {what} holds one; choose one with `--platform`")]
    SeveralImages {
        /// How many.
        count: usize,
        /// What holds one.
        what: &'static str,
    },
    /// Neither program to load an image into is there.
    #[error("cannot load the image: found neither {} here; write an archive with `-o type=docker,dest=FILE`", programs.join(" nor "))]
    NoProgram {
        /// What was looked for.
        programs: Vec<String>,
    },
    /// The program that was to load the image refused it.
    #[error("`{program} load` failed ({status}): {}", said.trim_end())]
    Program {
        /// Which program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
}

impl From<LayerError> for ExportError {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Write(error) => Self::Write(error),
            LayerError::Store(error) => Self::Store(error),
            other => Self::Layer(other),
        }
    }
}

impl ExportError {
    pub(super) fn io(during: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { during, path, source },
        }
    }

    pub(super) fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::io(during, &path, source)
    }

    pub(super) fn errno(during: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |source| Self::io(during, &path, source.into())
    }

    /// Names the file behind a stream that failed.
    pub(super) fn placed(self, path: &Path) -> Self {
        match self {
            Self::Write(source) => Self::io("writing", path, source),
            other => other,
        }
    }
}
