//! How a layer is written, and how much of one is read.

use std::num::NonZeroUsize;

use super::FileTime;

/// How a layer's tar becomes its blob.
///
/// The bytes depend on these values and on the compressor's version alone, never on the number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// One gzip member, of independent blocks: every reader reads it.
    Gzip {
        /// 0 to 9.
        level: u32,
    },
    /// A gzip member a block. Readers that stop after the first member see a cut layer.
    GzipMembers {
        /// 0 to 9.
        level: u32,
    },
    /// One zstd frame.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
    /// The tar itself.
    Uncompressed,
}

impl Compression {
    /// The level for gzip where the user names none: the fastest whose layers are about as large as Go's at its default
    /// level, which is BuildKit's (1.00 and 1.04 of its size, for text and for `/usr`; level 1 1.05 and 1.08). Level 3
    /// is as slow again for a hundredth of the size, level 6 takes half as long again.
    pub const GZIP_LEVEL: u32 = 2;

    /// The level for zstd where the user names none: zstd's own default.
    pub const ZSTD_LEVEL: i32 = 3;

    /// Kind, level and compressor, for records: a blob that was made with others has other bytes. The number behind a
    /// compressor is raised together with the digests in `tests/pinned_digests.rs`.
    #[must_use]
    pub fn recorded(self) -> String {
        match self {
            Self::Gzip { level } => format!("gzip {level} libdeflate/3"),
            Self::GzipMembers { level } => format!("gzip-members {level} libdeflate/3"),
            Self::Zstd { level } => format!("zstd {level} zstd/1"),
            Self::Uncompressed => "uncompressed".to_owned(),
        }
    }

    /// The OCI media type of a layer that is written so (image specification, media-types.md).
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip { .. } | Self::GzipMembers { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: Self::GZIP_LEVEL }
    }
}

/// Which times the entries of a layer carry. Whiteouts always carry the time 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Times {
    /// Those they have.
    #[default]
    Real,
    /// Those they have, but none later than this (seconds since 1970): what steps make under `--reproducible`.
    Clamp(i64),
    /// All this one (seconds since 1970): context entries under `--reproducible`.
    Fixed(i64),
}

impl Times {
    /// The time that is written for one: whole seconds, rounded down.
    #[must_use]
    pub fn apply(self, time: FileTime) -> FileTime {
        let seconds = match self {
            Self::Real => time.seconds,
            Self::Clamp(epoch) => time.seconds.min(epoch),
            Self::Fixed(epoch) => epoch,
        };
        FileTime { seconds, nanoseconds: 0 }
    }
}

/// How a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// How many threads compress. The bytes do not depend on it.
    pub threads: NonZeroUsize,
    /// Which times it carries.
    pub times: Times,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self { compression: Compression::default(), threads: NonZeroUsize::MIN, times: Times::Real }
    }
}

/// How much a foreign layer may hold before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub uncompressed_bytes: u64,
    /// Bytes of one path or link target.
    pub path_bytes: u64,
    /// Bytes of the PAX records or the GNU long name before one entry.
    pub extension_bytes: u64,
    /// Whether `..` in a path stops at the top, as where an archive is unpacked, rather than being refused.
    pub stops_at_top: bool,
}

impl Limits {
    /// For images that people use. The largest public ones have some 2 million files and 100 GB in all their layers;
    /// a path is at most 4,096 bytes on Linux (`PATH_MAX`), and xattrs at most 64 KiB each, so 1 MiB holds any real header.
    pub const DEFAULT: Self = Self {
        entries: 10_000_000,
        uncompressed_bytes: 512 * 1024 * 1024 * 1024,
        path_bytes: 4096,
        extension_bytes: 1024 * 1024,
        stops_at_top: false,
    };

    /// For archives of a build's own files.
    pub const ARCHIVE: Self = Self { stops_at_top: true, ..Self::DEFAULT };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_seconds_and_only_later_ones_are_clamped() {
        let time = |seconds| FileTime { seconds, nanoseconds: 999 };
        let plain = |seconds| FileTime { seconds, nanoseconds: 0 };
        assert_eq!(Times::Real.apply(time(-5)), plain(-5));
        assert_eq!(Times::Clamp(100).apply(time(99)), plain(99));
        assert_eq!(Times::Clamp(100).apply(time(101)), plain(100));
        assert_eq!(Times::Fixed(100).apply(time(-7)), plain(100));
    }
}
