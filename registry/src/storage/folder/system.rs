//! What a folder lies on. On a file system that other machines write to too, a lock need not be one and what is listed may
//! be late, so nothing is collected there.

use std::fmt;
use std::io;

use super::Folder;

/// The kind of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Over NFS.
    Nfs,
    /// Over SMB or CIFS.
    Smb,
    /// In a process (sshfs, s3fs, gcsfuse and others); what it does cannot be told.
    Fuse,
    /// Another one between machines: Ceph, AFS, Lustre, 9p, OCFS2, GFS2.
    Network,
    /// Anything else: this machine's own.
    Local,
}

impl FileSystem {
    /// Whether others than this machine may write to it, as far as can be told.
    pub fn is_shared(self) -> bool {
        self != Self::Local
    }

    /// By the number that Linux gives each kind (statfs(2), linux/magic.h).
    fn of(magic: u64) -> Self {
        match magic {
            0x6969 => Self::Nfs,
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => Self::Smb,
            0x6573_5546 => Self::Fuse,
            0x00c3_6400 | 0x5346_414f | 0x6b41_4653 | 0x0bd0_0bd0 | 0x0102_1997 | 0x7461_636f | 0x0116_1970 => {
                Self::Network
            }
            _ => Self::Local,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nfs => "NFS",
            Self::Smb => "SMB",
            Self::Fuse => "a file system of a process (FUSE)",
            Self::Network => "a file system between machines",
            Self::Local => "this machine's own",
        })
    }
}

impl Folder {
    /// What the folder lies on.
    pub fn file_system(&self) -> io::Result<FileSystem> {
        let magic = rustix::fs::statfs(self.root())?.f_type;
        // Its type differs between machines; magic numbers have 32 bits.
        Ok(FileSystem::of(magic as u64 & 0xffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_numbers() {
        for (magic, kind) in [
            (0x6969, FileSystem::Nfs),
            (0xff53_4d42, FileSystem::Smb),
            (0xfe53_4d42, FileSystem::Smb),
            (0x6573_5546, FileSystem::Fuse),
            (0x00c3_6400, FileSystem::Network),
            (0xef53, FileSystem::Local),
            (0x0102_1994, FileSystem::Local),
            (0x9123_683e, FileSystem::Local),
            (0x794c_7630, FileSystem::Local),
        ] {
            assert_eq!(FileSystem::of(magic), kind, "{magic:x}");
            assert_eq!(kind.is_shared(), kind != FileSystem::Local);
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::open(folder.path(), false).unwrap();
        assert_eq!(folder.file_system().unwrap(), FileSystem::Local);
    }
}
