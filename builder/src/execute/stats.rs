//! The stat cache: digests of the context's files, as long as the system says that they are the files that were read.
//!
//! A file is named by its absolute path and known by size, times of its last change and of its inode's, inode and device.
//! A user can set the first time back; the second is the kernel's. A file is not taken when it changed less than 2 s before
//! it was read: times have grains (up to 2 s on old file systems), and a further change within the same grain would
//! not be seen. What is written into a layer is hashed again there, against the digest from here.
//!
//! It is a hint: a file that is absent, cut or of another form makes the build read everything, and `--no-cache` does.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::StepError;
use crate::blob::{ContentHash, Store, sha256};

/// How old a file's last change must be when it is read, in nanoseconds.
const SETTLED_NANOSECONDS: i128 = 2_000_000_000;

/// The first bytes of a cache's file. Another form has another number.
const MAGIC: &[u8] = b"fluyt stat cache 2\n";

/// Length of a SHA-256 in hexadecimal.
const HEX: usize = 64;

/// How many times the files of a build may be kept before it is looked which are still there.
const OTHERS_FACTOR: usize = 2;

/// How many numbers a [`Stat`] has.
const NUMBERS: usize = 7;

/// What the system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    size_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Whether the file had been left alone for long enough at `now`, in nanoseconds since 1970. A time in the future
    /// says nothing.
    fn settled(&self, now: i128) -> bool {
        let age =
            |(seconds, nanoseconds): (i64, i64)| now - (i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds));
        age(self.modified) >= SETTLED_NANOSECONDS && age(self.changed) >= SETTLED_NANOSECONDS
    }

    fn numbers(&self) -> [u64; NUMBERS] {
        let ((modified, modified_rest), (changed, changed_rest)) = (self.modified, self.changed);
        let signed = [modified, modified_rest, changed, changed_rest].map(i64::cast_unsigned);
        [self.size_bytes, signed[0], signed[1], signed[2], signed[3], self.inode, self.device]
    }

    fn from_numbers(numbers: [u64; NUMBERS]) -> Self {
        let [size_bytes, a, b, c, d, inode, device] = numbers;
        let signed = u64::cast_signed;
        Self { size_bytes, modified: (signed(a), signed(b)), changed: (signed(c), signed(d)), inode, device }
    }
}

/// What is known of files: a hundred thousand of them are ordinary, so a hash stands as its bytes.
type Known = HashMap<Box<Path>, (Stat, ContentHash)>;

/// Hashes of files by what the system says of them. Steps share it.
#[derive(Debug)]
pub struct StatCache {
    place: PathBuf,
    kept: Known,
    /// What this build read.
    new: Mutex<Known>,
    /// How many of those that are kept it asked for.
    hits: AtomicUsize,
}

impl StatCache {
    /// What earlier builds of the context in the folder `root` left; nothing of it unless `trusted`.
    #[must_use]
    pub fn load(store: &Store, root: &Path, trusted: bool) -> Self {
        let name = sha256(root.as_os_str().as_bytes());
        // Among the indexes of layers, so that it is counted and pruned as they are.
        let place = PathBuf::from("indexes").join(format!("context-{}", name.digest()));
        let bytes = if trusted { store.read_entry(&place).ok().flatten() } else { None };
        let kept = bytes.and_then(|bytes| read(&bytes)).unwrap_or_default();
        Self { place, kept, new: Mutex::default(), hits: AtomicUsize::new(0) }
    }

    /// The hash of a file's content: what is known of it, or else it is read.
    pub(super) fn hash_of(&self, path: &Path) -> Result<ContentHash, StepError> {
        let failed = |source| StepError::Read { path: path.to_owned(), source };
        if let Some((stat, hash)) = self.kept.get(path) {
            let found = std::fs::symlink_metadata(path).map_err(failed)?;
            if found.is_file() && Stat::of(&found) == *stat {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(*hash);
            }
        }
        let file = File::open(path).map_err(failed)?;
        // Of the file that is read, and before it is: what changes it afterwards gives it a later time.
        let (now, stat) = (now(), Stat::of(&file.metadata().map_err(failed)?));
        let hash = ContentHash::read(file).map_err(failed)?;
        if stat.settled(now) {
            self.learn(path, stat, hash);
        }
        Ok(hash)
    }

    fn learn(&self, path: &Path, stat: Stat, hash: ContentHash) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into(), (stat, hash));
    }

    /// Keeps what this build read beside what is known of other files: two Dockerfiles take different parts of a context.
    /// When most of it is not this build's, files that are gone are forgotten.
    pub(super) fn save(&self, store: &Store) {
        let new = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
        if new.is_empty() {
            store.entry_used(&self.place);
            return;
        }
        let taken = new.len() + self.hits.load(Ordering::Relaxed);
        // The later of one path is the one that is taken.
        let mut files: HashMap<&Path, _> = self.kept.iter().chain(&new).map(|(path, known)| (&**path, known)).collect();
        if files.len() / OTHERS_FACTOR > taken {
            files.retain(|path, _| std::fs::symlink_metadata(path).is_ok());
        }
        if let Err(error) = store.write_hint(&self.place, &written(&files)) {
            tracing::debug!(%error, "the stat cache is not kept");
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// The form on disk: [`MAGIC`], the SHA-256 of the rest, then for each file seven numbers, its hash, and its path with the
/// path's length before it. Numbers are of 8 bytes, the smallest first. The hash is there as nothing syncs the file.
fn written(files: &HashMap<&Path, &(Stat, ContentHash)>) -> Vec<u8> {
    let head = MAGIC.len() + HEX;
    let numbers = size_of::<u64>() * (NUMBERS + 1) + ContentHash::BYTES;
    let rows: usize = files.keys().map(|path| numbers + path.as_os_str().len()).sum();
    let mut bytes = Vec::with_capacity(head + rows);
    bytes.extend_from_slice(MAGIC);
    bytes.resize(head, 0);
    for (path, (stat, hash)) in files {
        for number in stat.numbers() {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(hash.as_bytes());
        let path = path.as_os_str().as_bytes();
        bytes.extend_from_slice(&(path.len() as u64).to_le_bytes());
        bytes.extend_from_slice(path);
    }
    let hash = sha256(&bytes[head..]);
    bytes[MAGIC.len()..head].copy_from_slice(hash.digest().as_bytes());
    bytes
}

/// What [`written`] wrote; `None` for anything else.
fn read(bytes: &[u8]) -> Option<Known> {
    let (hash, mut rows) = bytes.strip_prefix(MAGIC)?.split_at_checked(HEX)?;
    if sha256(rows).digest().as_bytes() != hash {
        return None;
    }
    let mut files = HashMap::new();
    while !rows.is_empty() {
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            *number = take_number(&mut rows)?;
        }
        let hash = ContentHash::from_bytes(take(&mut rows, ContentHash::BYTES)?.try_into().ok()?);
        let length = usize::try_from(take_number(&mut rows)?).ok()?;
        let path = Path::new(std::ffi::OsStr::from_bytes(take(&mut rows, length)?));
        files.insert(path.into(), (Stat::from_numbers(numbers), hash));
    }
    Some(files)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            Self { folder, store }
        }

        /// What a build finds of the file, and how many files the next one will know.
        fn build(&self, path: &Path, trusted: bool) -> (ContentHash, usize) {
            let cache = StatCache::load(&self.store, self.folder.path(), trusted);
            let digest = cache.hash_of(path).unwrap();
            cache.save(&self.store);
            (digest, StatCache::load(&self.store, self.folder.path(), true).kept.len())
        }

        fn forge(&self, path: &Path, content: &[u8]) {
            let cache = StatCache::load(&self.store, self.folder.path(), true);
            let stat = Stat::of(&std::fs::metadata(path).unwrap());
            cache.learn(path, stat, ContentHash::of(content));
            cache.save(&self.store);
        }
    }

    #[test]
    fn a_file_that_nobody_touched_is_not_read_again() {
        let bench = Bench::new();
        let path = bench.folder.path().join("file \u{e9}");
        std::fs::write(&path, "one").unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"one"), 1));
        // That it is not read shows when what is kept is not what is in it.
        bench.forge(&path, b"known");
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"known"), 1));
        // Unless it is not to be trusted, and then it is right again.
        assert_eq!(bench.build(&path, false), (ContentHash::of(b"one"), 1));
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"one"), 1));
    }

    #[test]
    fn the_same_size_and_the_old_time_put_back_do_not_hide_a_change() {
        let bench = Bench::new();
        let path = bench.folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"one"), 1));
        let before = std::fs::metadata(&path).unwrap();
        std::fs::write(&path, "two").unwrap();
        let times = std::fs::FileTimes::new().set_modified(before.modified().unwrap());
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
        assert_eq!(bench.build(&path, true).0, ContentHash::of(b"two"));
        // Another file under the name, with the same size and time.
        let other = bench.folder.path().join("other");
        std::fs::write(&other, "six").unwrap();
        File::options().write(true).open(&other).unwrap().set_times(times).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(bench.build(&path, true).0, ContentHash::of(b"six"));
    }

    #[test]
    fn a_file_that_changed_just_now_is_read_again_next_time() {
        let bench = Bench::new();
        let path = bench.folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"one"), 0));
        // The time of its content is old, and that of its inode is not.
        let old = SystemTime::now() - Duration::from_secs(1_000);
        let set = || File::options().write(true).open(&path)?.set_times(std::fs::FileTimes::new().set_modified(old));
        set().unwrap();
        assert_eq!(bench.build(&path, true), (ContentHash::of(b"one"), 0));
        // Nor is a time that has not come yet one to go by.
        let stat = Stat::of(&std::fs::metadata(&path).unwrap());
        let later = now() + 10 * SETTLED_NANOSECONDS;
        assert!(stat.settled(later));
        assert!(!Stat { modified: (i64::MAX, 0), ..stat }.settled(later));
        assert!(!stat.settled(now()));
    }

    #[test]
    fn files_of_other_builds_stay_until_they_are_gone() {
        let bench = Bench::new();
        let paths: Vec<PathBuf> = (0..6).map(|number| bench.folder.path().join(format!("file {number}"))).collect();
        for path in &paths {
            std::fs::write(path, "one").unwrap();
        }
        std::thread::sleep(Duration::from_millis(2_100));
        let counts: Vec<usize> = paths[..4].iter().map(|path| bench.build(path, true).1).collect();
        assert_eq!(counts, [1, 2, 3, 4]);
        for path in &paths[..3] {
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(bench.build(&paths[4], true).1, 2, "itself, and the one that is still there");
        assert_eq!(bench.build(&paths[5], true).1, 3);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let stat = Stat { size_bytes: 1, modified: (-5, 7), changed: (9, 1), inode: 3, device: u64::MAX };
        let known = (stat, ContentHash::from_bytes([7; ContentHash::BYTES]));
        let bytes = written(&HashMap::from([(Path::new("/a"), &known)]));
        assert_eq!(read(&bytes), Some(Known::from([(Path::new("/a").into(), known)])));
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_none_or(|files| files.is_empty()), "cut at {end}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(read(&damaged), None, "byte {place}");
        }
    }
}
