//! What a `COPY` selects: sources, each with a sorted listing of what lies in it.

use std::path::PathBuf;

/// All sources that one pattern of a `COPY` selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// In order of name; several only for a wildcard, none for a wildcard that matches nothing.
    pub sources: Vec<Source>,
    /// Sockets that were left out, relative to the context.
    pub skipped_sockets: Vec<Vec<u8>>,
}

/// One selected path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path as matched, relative to the context, before a link at its end was followed; empty is the context itself. Its
    /// last component is the name in a destination directory.
    pub name: Vec<u8>,
    /// What is there: the source itself first (empty relative path), then all below it that no rule hides, sorted by
    /// component (a folder stands directly before what is in it).
    pub entries: Vec<SourceEntry>,
}

impl Source {
    /// The source itself.
    #[must_use]
    pub fn base(&self) -> Option<&SourceEntry> {
        self.entries.first()
    }
}

/// One file, folder or link of the context. It has no extended attributes: the reference builder takes none from there
/// either, not even capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEntry {
    /// Relative to the source; empty for the source itself.
    pub relative: Vec<u8>,
    /// Where to open it. Open it without following a link at its end.
    pub absolute: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Length of a file's content.
    pub size_bytes: u64,
    /// Time of the last change: seconds since 1970.
    pub modified_seconds: i64,
    /// And nanoseconds after them.
    pub modified_nanoseconds: u32,
    /// Time of the last change of the inode: seconds since 1970; for a stat cache.
    pub changed_seconds: i64,
    /// And nanoseconds after them.
    pub changed_nanoseconds: u32,
    /// Device and inode: entries that share them, where `links` is above 1, are one file.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// How many names the file has.
    pub links: u64,
    /// A folder that the source's filter leaves out, and that is there for what it takes inside.
    pub is_way: bool,
}

/// What an entry of the context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}
