//! Folders that were moved into a root and must come back: cache mounts, which outlive their commands.
//!
//! While one is in a root, a file beside it tells where it belongs. A stage that is killed leaves both, and whoever comes to
//! the root next brings the folders home before anything else. The file is on the disk before a folder is moved: a machine
//! that loses power loses none of them either.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::{During, Failure};
use super::copy;

/// The folders that are in a root, in the order in which they came.
#[derive(Debug)]
pub(super) struct Lent {
    list: PathBuf,
    folders: Vec<Folder>,
}

/// One of them: where it belongs, and by what it is known wherever the command moves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Folder {
    /// In bytes: a path need not be text.
    home: Vec<u8>,
    device: u64,
    inode: u64,
    /// When it was made, where the file system knows: a number of an inode is given again.
    made: Option<(i64, u32)>,
}

impl Lent {
    /// None yet.
    pub(super) fn of(root: &Path) -> Self {
        Self { list: root.with_extension("lent"), folders: Vec::new() }
    }

    /// Notes that a folder is about to be moved.
    pub(super) fn add(&mut self, home: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(home)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        self.folders.push(Folder { home: bytes(home)?, device, inode, made: made(home) });
        self.write()
    }

    /// Whether all are home.
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Notes that a folder is home.
    pub(super) fn remove(&mut self, home: &Path) -> io::Result<()> {
        let home = bytes(home)?;
        self.folders.retain(|folder| folder.home != home);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        if self.folders.is_empty() {
            return match fs::remove_file(&self.list) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let new = self.list.with_extension("lent-new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&self.folders)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.list)?;
        match self.list.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Brings home what a killed stage left in a root, or in the folder beside it. One that the command removed is not there.
pub(super) fn bring_home(root: &Path) -> Result<(), Failure> {
    let mut lent = Lent::of(root);
    let what = |doing: &str, path: &Path| format!("{doing} {}, left by a build that was killed", path.display());
    match fs::read(&lent.list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // One that cannot be read was never whole, and then nothing was moved.
        read => {
            lent.folders = serde_json::from_slice(&read.during(|| what("reading", &lent.list))?).unwrap_or_default()
        }
    }
    let mut found = BTreeMap::new();
    for top in [root.to_owned(), root.with_extension("aside")] {
        folders(&top, &mut found);
    }
    // The last first: one may be in another.
    while let Some(folder) = lent.folders.pop() {
        let at = found.get(&(folder.device, folder.inode)).filter(|at| made(at) == folder.made);
        let home = PathBuf::from(OsString::from_vec(folder.home));
        // One whose place was pruned meanwhile is nobody's any more.
        let is_away = !home.exists() && home.parent().is_some_and(Path::is_dir);
        if let (true, Some(at)) = (is_away, at) {
            copy::part_from_others(at).during(|| what("parting from other files what is in", at))?;
            fs::rename(at, &home).during(|| what("bringing home", &home))?;
        }
        lent.write().during(|| what("writing", &lent.list))?;
    }
    lent.write().during(|| what("removing", &lent.list))
}

/// All folders of a tree, by device and inode. What cannot be read has nothing of ours in it.
fn folders(top: &Path, found: &mut BTreeMap<(u64, u64), PathBuf>) {
    let mut ahead = vec![top.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Ok(metadata) = fs::symlink_metadata(&path)
                && metadata.is_dir()
            {
                found.insert((metadata.dev(), metadata.ino()), path.clone());
                ahead.push(path);
            }
        }
    }
}

/// A path as it is also understood from another working folder.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    Ok(std::path::absolute(path)?.as_os_str().as_bytes().to_vec())
}

fn made(path: &Path) -> Option<(i64, u32)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}
