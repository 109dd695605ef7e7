//! File systems that are soon full.

use std::path::Path;

/// A file system in memory, taken away again at the end.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Little more room than what pushes leave free (256 MiB).
    pub(crate) const LITTLE_ROOM: &str = "size=258m";
    /// Room, but few files.
    pub(crate) const FEW_INODES: &str = "size=600m,nr_inodes=2000";

    /// `None` where this process may not mount.
    pub(crate) fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("{options},mode=700"), "fluyt-test"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes files, which are nobody's, until there can be none.
    pub(crate) fn use_up_inodes(&self) {
        let full = (0..).find_map(|n| std::fs::write(self.path().join(format!("@new-filler{n}")), "").err());
        assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}
