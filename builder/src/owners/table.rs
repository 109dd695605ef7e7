//! The two tables of owners: by path, for a tree at rest; by inode, for one that a command changes.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Owner;

/// Owners by path below the root of a tree, without a leading `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(BTreeMap<Vec<u8>, Owner>);

impl Paths {
    /// Reads the table of a tree; empty when it has none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not such a table.
    pub fn of_tree(tree: &Path) -> io::Result<Self> {
        let mut table = Self::default();
        read(&super::table(tree), &mut |owner, path| {
            table.0.insert(path.to_vec(), owner);
            Some(())
        })?;
        Ok(table)
    }

    /// Writes the table of a tree; one that is empty is no file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_for(&self, tree: &Path) -> io::Result<()> {
        write(&super::table(tree), &rows(self.0.iter().map(|(path, owner)| (*owner, path.clone()))))
    }

    /// The owner of what is at that path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<Owner> {
        self.0.get(path).copied()
    }

    /// Notes an owner.
    pub fn insert(&mut self, path: &[u8], owner: Owner) {
        self.0.insert(path.to_vec(), owner);
    }

    /// Forgets a path, and nothing below it.
    pub fn remove(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// Forgets a path and all below it.
    pub fn forget(&mut self, path: &[u8]) {
        self.0.retain(|other, _| !is_at_or_below(other, path));
    }

    /// Whether nothing is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Owner)> {
        self.0.iter().map(|(path, owner)| (&path[..], *owner))
    }
}

fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| folder.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

/// What a file is, whatever its name. A number of an inode is used again, but not with the same time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    device: u64,
    number: u64,
    /// Seconds and nanoseconds; both 0 where the file system does not keep it.
    born: (u64, u32),
}

impl Inode {
    /// That of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Self { device: metadata.dev(), number: metadata.ino(), born: (born.as_secs(), born.subsec_nanos()) }
    }

    fn text(self) -> Vec<u8> {
        format!("{}:{}:{}.{}", self.device, self.number, self.born.0, self.born.1).into_bytes()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split([':', '.']);
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (device, number, seconds, nanoseconds) = (next()?, next()?, next()?, next()?);
        let nanoseconds = u32::try_from(nanoseconds).ok()?;
        parts.next().is_none().then_some(Self { device, number, born: (seconds, nanoseconds) })
    }
}

/// Owners by inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inodes(HashMap<Inode, Owner>);

impl Inodes {
    /// Reads what a run left beside a tree; empty when it left nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or is not such a table.
    pub fn of_run(tree: &Path) -> io::Result<Self> {
        let mut table = Self::default();
        read(&super::run_table(tree), &mut |owner, inode| {
            table.0.insert(Inode::parse(inode)?, owner);
            Some(())
        })?;
        Ok(table)
    }

    /// Writes what a run leaves beside a tree; a table that is empty is no file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_for_run(&self, tree: &Path) -> io::Result<()> {
        write(&super::run_table(tree), &self.bytes())
    }

    /// The content of its file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        rows(self.0.iter().map(|(inode, owner)| (*owner, inode.text())))
    }

    /// The owner of that file.
    #[must_use]
    pub fn get(&self, inode: &Inode) -> Option<Owner> {
        self.0.get(inode).copied()
    }

    /// Notes an owner.
    pub fn insert(&mut self, inode: Inode, owner: Owner) {
        self.0.insert(inode, owner);
    }

    /// Forgets an owner.
    pub fn remove(&mut self, inode: &Inode) {
        self.0.remove(inode);
    }

    /// Whether nothing is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn read(path: &Path, row: &mut dyn FnMut(Owner, &[u8]) -> Option<()>) -> io::Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let blank = line.iter().position(|byte| *byte == b' ');
        let parsed = blank.and_then(|blank| row(Owner::parse(&line[..blank])?, &line[blank + 1..]));
        if parsed.is_none() {
            let text = format!(
                "{} is no table of owners: expected `USER:GROUP NAME`, found `{}`",
                path.display(),
                String::from_utf8_lossy(line)
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    Ok(())
}

fn rows(rows: impl Iterator<Item = (Owner, Vec<u8>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (owner, name) in rows {
        bytes.extend_from_slice(owner.text().as_bytes());
        bytes.push(b' ');
        bytes.extend(name);
        bytes.push(0);
    }
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if !bytes.is_empty() {
        return fs::write(path, bytes);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
