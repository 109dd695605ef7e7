//! Unpacked layers on disk: found, made visible, thrown away.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::boot::this_boot;
use crate::blob::{Store, sha256};
use crate::layer::{Kind, LayerIndex};
use crate::owners;

/// The file that tells whether an entry is what was written.
const META: &str = "meta.json";

/// Hex digits of a chain's hash in a name: 64 bits, among the few chains that one layer is used in.
const CHAIN_HEX: usize = 16;

/// How often, and after which pause, a damaged entry that someone else has is tried again.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long after its last use an entry is marked as used again.
const USE_GRAIN: Duration = Duration::from_secs(60);

/// After which time an entry is noted as being on the disk. The kernel has written most of it by then (it begins after
/// 30 s), so that seeing to it costs little.
const SETTLED_SECONDS: i64 = 60;

/// What stands beside an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The inode of `fs`, and of its device: in a store that was copied, owners and times may be lost.
    inode: u64,
    device: u64,
    /// Whether the layer has an entry for the root itself.
    pub(super) has_root: bool,
    /// The run of the machine outside of which the entry may be in pieces; none when it is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// Whose ids the files have; none for the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<String>,
}

/// An unpacked layer. Nobody prunes it as long as the store is open that it was found in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) fs: PathBuf,
    pub(super) meta: Meta,
}

impl Entry {
    /// Whether the files have the times of this index. A blob's times are all cut in one way, so the newest file tells.
    pub(super) fn has_times(&self, index: &LayerIndex) -> bool {
        let files = index.entries.iter().map(|row| &row.entry).filter(|entry| matches!(entry.kind, Kind::File { .. }));
        files.max_by_key(|entry| entry.modified).is_none_or(|newest| {
            let path = self.fs.join(newest.path.as_path());
            fs::symlink_metadata(path).is_ok_and(|found| found.mtime() == newest.modified.seconds)
        })
    }
}

/// The folder of unpacked layers.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    store: Store,
    /// What this process sees to the disk; once each is enough.
    settling: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Entries {
    pub(super) fn new(store: Store) -> Self {
        Self { store, settling: Arc::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Where a layer is; with `below` (bottom first), the form that it has above those layers only.
    fn place(&self, diff_id: &Digest, below: Option<&[Digest]>) -> PathBuf {
        let layers = self.store.root().join("layers");
        match below {
            None => layers.join(diff_id.digest()),
            Some(below) => {
                let chain: Vec<&str> = below.iter().map(AsRef::as_ref).collect();
                let hash = sha256(chain.join("\n").as_bytes());
                layers.join(format!("{}-{}", diff_id.digest(), &hash.digest()[..CHAIN_HEX]))
            }
        }
    }

    /// The form of a layer that is the same whatever is below it.
    pub(super) fn find_independent(&self, diff_id: &Digest) -> Option<Entry> {
        self.open_timed(&self.place(diff_id, None))
    }

    /// What is at a place, with its step's times where it is there with the blob's too.
    fn open_timed(&self, place: &Path) -> Option<Entry> {
        self.open(&timed(place)).or_else(|| self.open(place))
    }

    /// Opens and holds an entry; `None` when it is not there, or not what was written.
    fn open(&self, place: &Path) -> Option<Entry> {
        let found = self.store.hold(&name_of(place), || Ok(read_meta(place)));
        let meta = found.ok()??;
        mark_used(&place.join(META));
        self.settle(place, &meta);
        Some(Entry { fs: place.join("fs"), meta })
    }

    /// The layer above those layers.
    pub(super) fn find(&self, diff_id: &Digest, below: &[Digest]) -> Option<Entry> {
        self.find_independent(diff_id).or_else(|| self.open_timed(&self.place(diff_id, Some(below))))
    }

    /// All layers of a chain, bottom first.
    pub(super) fn chain(&self, chain: &[Digest]) -> Result<Vec<Entry>, SnapshotError> {
        let mut entries = Vec::new();
        for (index, diff_id) in chain.iter().enumerate() {
            let entry = self.find(diff_id, &chain[..index]);
            entries.push(entry.ok_or_else(|| SnapshotError::NotUnpacked { diff_id: diff_id.clone() })?);
        }
        Ok(entries)
    }

    /// Makes `folder`, in which `fs` is finished, the entry of a layer. When there is one already, `folder` goes; but where that
    /// one has not the times of `index`, as somebody unpacked the layer who did not know them, there are two from then on.
    ///
    /// Where it is not known which run of the machine this is, all files must reach the disk before the name does. One
    /// `syncfs` does that for all of them: a layer has thousands of small files, and an `fsync` each is slower than the
    /// unpacking. What others write to the same file system meanwhile is waited for too.
    pub(super) fn reveal(
        &self,
        folder: &Path,
        diff_id: &Digest,
        below: Option<&[Digest]>,
        has_root: bool,
        index: Option<&LayerIndex>,
    ) -> Result<(), SnapshotError> {
        let fs = folder.join("fs");
        let metadata = fs::symlink_metadata(&fs).map_err(SnapshotError::at("looking at", &fs))?;
        let boot = this_boot().map(str::to_owned);
        let synced = boot.is_none();
        let meta = Meta { inode: metadata.ino(), device: metadata.dev(), has_root, boot, ids: owners::ids() };
        let path = folder.join(META);
        // A struct of numbers always serialises.
        let json = serde_json::to_vec(&meta).unwrap_or_default();
        fs::write(&path, json).map_err(SnapshotError::at("writing", &path))?;
        if synced {
            let opened = File::open(folder).map_err(SnapshotError::at("opening", folder))?;
            rustix::fs::syncfs(&opened).map_err(SnapshotError::errno("syncing", folder))?;
        }

        let mut target = self.place(diff_id, below);
        let layers = self.store.root().join("layers");
        fs::create_dir_all(&layers).map_err(SnapshotError::at("creating", &layers))?;
        loop {
            // Held from before it is there: nobody prunes what has just been made.
            let mut failed = None;
            let made = self.store.hold(&name_of(&target), || match fs::rename(folder, &target) {
                Ok(()) => Ok(Some(())),
                Err(error) => {
                    failed = Some(error);
                    Ok(None)
                }
            })?;
            match failed {
                None => {
                    debug_assert!(made.is_some());
                    break;
                }
                Some(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
                {
                    let timed = timed(&self.place(diff_id, below));
                    match self.open(&target) {
                        Some(entry) if target == timed || index.is_none_or(|index| entry.has_times(index)) => {
                            self.store.trash().take(folder);
                            return Ok(());
                        }
                        Some(_) => target = timed,
                        None => self.throw_away(&target)?,
                    }
                }
                Some(error) => return Err(SnapshotError::at("renaming a finished layer to", &target)(error)),
            }
        }
        if synced {
            let synced = File::open(&layers).and_then(|folder| folder.sync_all());
            synced.map_err(SnapshotError::at("syncing", &layers))?;
        }
        Ok(())
    }

    /// Sees that an entry that has been there for some time is on the disk, and notes that. Nobody waits for it: a process
    /// that ends before leaves it to the next.
    fn settle(&self, place: &Path, meta: &Meta) {
        let made = fs::symlink_metadata(place.join("fs")).map(|metadata| metadata.ctime());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ago = |made: i64| i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(made);
        if meta.boot.is_none() || !made.is_ok_and(|made| ago(made) >= SETTLED_SECONDS) {
            return;
        }
        if !self.settling.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned()) {
            return;
        }
        let place = place.to_owned();
        let meta = Meta { boot: None, ids: meta.ids.clone(), ..*meta };
        // Without a thread it stays as it is.
        let _ = std::thread::Builder::new().name("settle".to_owned()).spawn(move || note_settled(&place, &meta));
    }

    /// Sees to it at once, however young the entry is.
    #[cfg(test)]
    pub(super) fn settle_now(&self, diff_id: &Digest) {
        let place = self.place(diff_id, None);
        let meta = read_meta(&place).unwrap();
        note_settled(&place, &Meta { boot: None, ..meta });
    }

    /// Takes away an entry that is not what was written. Another process may do the same at the same time.
    fn throw_away(&self, entry: &Path) -> Result<(), SnapshotError> {
        let failed = |error| SnapshotError::at("replacing the damaged", entry)(error);
        let trash = self.store.temporary_folder()?;
        let take = || match read_meta(entry) {
            Some(_) => Ok(()),
            None => fs::rename(entry, trash.path().join("entry")),
        };
        self.store.let_go(&name_of(entry));
        // Whoever holds it found it in order, or is about to see that it is not.
        let mut tries = LOCK_TRIES;
        let taken = loop {
            match self.store.alone(&name_of(entry), take)? {
                Some(taken) => break taken,
                None if tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                None => {
                    return Err(SnapshotError::DamagedInUse { path: entry.to_owned() });
                }
            }
        };
        match taken {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// Where an entry is with the times of its step, when others have it with those of its blob.
fn timed(place: &Path) -> PathBuf {
    place.with_extension("timed")
}

/// The name under which an entry is held: its path below the store.
fn name_of(place: &Path) -> String {
    format!("layers/{}", place.file_name().unwrap_or_default().to_string_lossy())
}

/// The time of an entry's last use is that of its file. A file system that refuses only loses the order of pruning.
fn mark_used(meta: &Path) {
    let now = SystemTime::now();
    let last = fs::symlink_metadata(meta).and_then(|metadata| metadata.modified());
    let lately = last.is_ok_and(|last| now.duration_since(last).is_ok_and(|ago| ago < USE_GRAIN));
    if !lately {
        let _ = File::open(meta).and_then(|file| file.set_times(fs::FileTimes::new().set_modified(now)));
    }
}

/// Has an entry written to the disk, and notes it. A failure leaves the note away.
fn note_settled(place: &Path, meta: &Meta) {
    // Not by way of the store's `tmp/`: a store that this thread had would outlive the build.
    let noted = place.join(format!(".{META}.{}", std::process::id()));
    let settle = || {
        rustix::fs::syncfs(File::open(place)?)?;
        fs::write(&noted, serde_json::to_vec(meta)?)?;
        fs::rename(&noted, place.join(META))
    };
    if let Err(error) = settle() {
        tracing::debug!(%error, path = %place.display(), "not noted as being on the disk");
    }
}

/// What stands in an entry's file, when the entry is what was written.
fn read_meta(place: &Path) -> Option<Meta> {
    let meta: Meta = serde_json::from_slice(&fs::read(place.join(META)).ok()?).ok()?;
    let found = fs::symlink_metadata(place.join("fs")).ok()?;
    let same_run = meta.boot.is_none() || meta.boot.as_deref() == this_boot();
    let same_ids = meta.ids == owners::ids();
    (found.is_dir() && same_run && same_ids && (meta.inode, meta.device) == (found.ino(), found.dev())).then_some(meta)
}
