//! What a layer is made of: entries, as values that no file system or archive format shows through.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Path of an entry inside a layer or a root file system: raw bytes, relative, components joined by one `/`.
///
/// No component is empty, `.` or `..`, and there is no leading or trailing `/`, so byte equality is path equality.
/// The empty path is the root. Ordering is by component (`a/b` before `a.b`), so that a folder stands directly before
/// what is in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Cleans `raw` lexically: leading `/`, empty and `.` components go, and `..` removes the component before it.
    ///
    /// `None` when a `..` would leave the root, or when `raw` holds a NUL byte.
    #[must_use]
    pub fn clean(raw: &[u8]) -> Option<Self> {
        if raw.contains(&0) {
            return None;
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    kept.pop()?;
                }
                name => kept.push(name),
            }
        }
        Some(Self(kept.join(&b'/')))
    }

    /// The bytes, without a leading `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the system writes it, relative.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The folder that holds this entry; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// This path with one more component, which must not be empty, `.`, `..` or hold a `/`.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(&other.0[..]).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

impl Ord for LayerPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (one, other) = (&self.0[..], &other.0[..]);
        // Large trees are sorted and searched by this, and neighbours share most of their bytes.
        let alike = one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(one, other)| one == other).count() * 8;
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
        one[alike..].iter().map(rank).cmp(other[alike..].iter().map(rank))
    }
}

impl PartialOrd for LayerPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A point in time as a file has it: seconds since 1970 (may be negative), and nanoseconds below 10^9 after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileTime {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file of that many bytes.
    File {
        /// Length of the content.
        size_bytes: u64,
    },
    /// A folder.
    Directory,
    /// A symbolic link with exactly these bytes as its target.
    Symlink(Vec<u8>),
    /// Another name of a file that stands earlier in the same layer.
    Hardlink(LayerPath),
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
    /// A named pipe.
    Fifo,
    /// The lower layers' entry of this path, with all below it, is gone. The path is the removed one, without `.wh.`.
    Whiteout,
    /// All that the lower layers have below this folder is gone (`.wh..wh..opq` in an archive). We read it, and never write it.
    Opaque,
}

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: LayerPath,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub modified: FileTime,
    /// Extended attributes that the layer carries, by full name (`security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn paths_stand_in_the_order_of_their_components(one in "[ab./\0\n-]{0,30}", other in "[ab./\0\n-]{0,30}", start in "(abcdefgh/){0,3}") {
            let paths = [one, other].map(|end| LayerPath::clean(format!("{start}{end}").as_bytes()));
            if let [Some(one), Some(other)] = paths {
                prop_assert_eq!(one.cmp(&other), one.components().cmp(other.components()), "{:?} {:?}", one, other);
            }
        }
    }
}
