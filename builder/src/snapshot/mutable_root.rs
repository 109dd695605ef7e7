//! One folder that is brought from chain to chain: for sandboxes that can only `chroot`.
//!
//! ```text
//! <store>/mutable/root/              the one root
//!                 lock               held by who works on it
//!                 root.aside/, root.lent   of a sandbox at work, or of one that was killed: `sandbox::recover`
//!                 state.json         the chain that the root holds, and in which run of the machine it was written; absent
//!                                    while it may hold anything else
//!                 layers/            a store: the blobs that the root is unpacked from again when another chain is wanted, also
//!                                    when the builder's own store has let go of them; while it has them, they are files of both
//!                 layers/diffs/<hex> the blob of a diff id
//! ```
//!
//! Copying a root file by file costs as much as unpacking it, and hard links would let a step write to what others share;
//! so the root is unpacked again when the wanted chain does not continue the one it holds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use oci_spec::image::Digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::boot;
use super::workspace::Keep;
use super::{SnapshotError, Snapshotter, Workspace};
use crate::blob::{BlobWriter, Store};
use crate::layer::{
    Form, Layer, LayerError, LayerIndex, Limits, Manifest, apply_layer_with_times, note_owners, read_layer,
};
use crate::owners::{self, Inodes, Paths};
use crate::sandbox::{self, RootMount};
use crate::stop::Cancel;

/// The grain of a file's times is that of the kernel's timer, at most 10 ms (`CONFIG_HZ=100`).
const TIME_GRAIN: Duration = Duration::from_millis(10);

/// How often a root that somebody has is asked for again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// One root that is written in place. There is one workspace at a time: [`Snapshotter::prepare`] waits for the one before.
#[derive(Clone, Debug)]
pub struct MutableRoot {
    /// Where temporary trees go.
    store: Store,
    /// The layers' blobs.
    layers: Store,
    folder: PathBuf,
    cancel: Cancel,
}

/// What `state.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The run of the machine; none where the kernel does not tell, and all is on the disk.
    boot: Option<String>,
    chain: Vec<String>,
}

impl MutableRoot {
    /// Uses the root in that store.
    pub fn open(store: Store) -> Result<Self, SnapshotError> {
        let folder = store.root().join("mutable");
        // Held before it is looked at: it is pruned as a whole or not at all.
        store.hold("mutable", || Ok(Some(())))?;
        fs::create_dir_all(&folder).map_err(SnapshotError::at("creating", &folder))?;
        let layers = Store::open(&folder.join("layers"))?;
        Ok(Self { store, layers, folder, cancel: Cancel::new() })
    }

    /// The same for a build that ends a wait for the root by this switch.
    #[must_use]
    pub fn until(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    fn record(diff_id: &Digest) -> PathBuf {
        Path::new("diffs").join(diff_id.digest())
    }

    /// The blob of a layer, when it is there.
    fn blob(&self, diff_id: &Digest) -> Result<Option<Digest>, SnapshotError> {
        let record = self.layers.read_entry(&Self::record(diff_id))?;
        let digest = record.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
        Ok(digest.filter(|digest| self.layers.contains(digest)))
    }

    /// Lets a blob that the store has too take its room on the disk once. Where that is not possible, there are two.
    fn share(&self, digest: &Digest) {
        let (theirs, ours) = (self.store.path(digest), self.layers.path(digest));
        let Ok(folder) = self.layers.temporary() else { return };
        let new = folder.join("blob");
        if fs::hard_link(theirs, &new).is_ok() {
            let _ = fs::rename(&new, ours);
        }
        // A rename leaves two names of one file where they are.
        let _ = fs::remove_dir_all(&folder);
    }

    /// Keeps the blob of a layer that the store has.
    fn take(&self, layer: &Layer) -> Result<(), SnapshotError> {
        let Layer { diff_id, digest, index, .. } = layer;
        let failed = |source: LayerError| SnapshotError::Layer { diff_id: diff_id.clone(), source: source.into() };
        index.save(&self.layers, diff_id).map_err(failed)?;
        self.share(digest);
        if !self.layers.contains(digest) {
            let mut copy = self.layers.writer()?;
            let copied = io::copy(&mut self.store.open_blob(digest)?, &mut copy);
            let _ = copied.map_err(SnapshotError::at("copying", &self.store.path(digest)))?;
            let _ = copy.commit(Some(digest))?;
        }
        Ok(self.layers.write_entry(&Self::record(diff_id), digest.as_ref().as_bytes())?)
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// The chain that the root holds; empty, with an empty root, when that is not known.
    fn held(&self, root: &Path) -> Result<Vec<String>, SnapshotError> {
        let state = fs::read(self.state()).ok().and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
        if let Some(state) = state
            && (state.boot.is_none() || state.boot.as_deref() == boot::this_boot())
            && root.is_dir()
        {
            return Ok(state.chain);
        }
        self.empty(root)?;
        Ok(Vec::new())
    }

    fn empty(&self, root: &Path) -> Result<(), SnapshotError> {
        let trash = self.store.temporary_folder()?;
        match fs::rename(root, trash.path().join("root")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SnapshotError::at("clearing", root)(error));
            }
            _ => drop(trash),
        }
        let forgotten = Paths::default().write_for(root).and_then(|()| Inodes::default().write_for_run(root));
        forgotten.map_err(SnapshotError::at("clearing the owners beside", root))?;
        fs::create_dir(root).map_err(SnapshotError::at("creating", root))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).map_err(SnapshotError::at("opening up", root))
    }

    /// Brings home what a killed build of this store has left in the root, so that whoever uses a cache mount in another way,
    /// or removes the root, finds it. Nothing is done while a build has the root: that one did it when it began.
    ///
    /// # Errors
    /// When that cannot be done: then the root holds what should be elsewhere.
    pub fn bring_home(store: &Store) -> Result<(), SnapshotError> {
        if !store.root().join("mutable/root.lent").exists() {
            return Ok(());
        }
        let root = Self::open(store.clone())?;
        match root.try_lock()? {
            Some(_lock) => root.recover(&root.folder.join("root")),
            None => Ok(()),
        }
    }

    fn recover(&self, root: &Path) -> Result<(), SnapshotError> {
        let failed = |failure| SnapshotError::at("ending what a killed build left in", root)(io::Error::other(failure));
        sandbox::recover(root).map_err(failed)
    }

    fn lock(&self) -> Result<File, SnapshotError> {
        loop {
            match self.try_lock()? {
                Some(lock) => return Ok(lock),
                // Another step has it, or another build, which may take its time.
                None => self.cancel.check()?,
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    fn try_lock(&self) -> Result<Option<File>, SnapshotError> {
        let path = self.folder.join("lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = options.map_err(SnapshotError::at("opening", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(SnapshotError::errno("locking", &path)(error)),
        }
    }

    fn set_state(&self, chain: Vec<String>) -> Result<(), SnapshotError> {
        let path = self.state();
        let boot = boot::this_boot().map(str::to_owned);
        if boot.is_none() {
            // What it says must be on the disk before it is; else a machine that loses power is another run.
            let folder = File::open(&self.folder).map_err(SnapshotError::at("opening", &self.folder))?;
            rustix::fs::syncfs(&folder).map_err(SnapshotError::errno("syncing", &self.folder))?;
        }
        // Texts always serialise.
        let json = serde_json::to_vec(&State { boot, chain }).unwrap_or_default();
        Ok(self.store.write_entry(path.strip_prefix(self.store.root()).unwrap_or(&path), &json)?)
    }

    fn forget_state(&self) -> Result<(), SnapshotError> {
        let path = self.state();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SnapshotError::at("removing", &path)(error)),
            // A state that comes back because the machine lost power is of another run.
            _ if boot::this_boot().is_some() => Ok(()),
            _ => {
                let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
                folder.map_err(SnapshotError::at("syncing", &self.folder))
            }
        }
    }

    fn apply(&self, root: &Path, diff_id: &Digest) -> Result<(), SnapshotError> {
        let missing = || SnapshotError::NotUnpacked { diff_id: diff_id.clone() };
        let digest = self.blob(diff_id)?.ok_or_else(missing)?;
        let blob = self.layers.open_verified(&digest)?;
        let index = LayerIndex::load(&self.layers, diff_id)
            .map_err(|error| SnapshotError::Apply { diff_id: diff_id.clone(), source: Box::new(error.into()) })?;
        let applied =
            apply_layer_with_times(blob, "", &Limits::DEFAULT, root, Form::FlatWithoutDevices, index.as_ref())
                .map_err(|source| SnapshotError::Apply { diff_id: diff_id.clone(), source: source.into() })?;
        for left_out in &applied.left_out {
            tracing::debug!(layer.diff_id = %diff_id, path = %left_out.path, what = left_out.what, "not unpacked");
        }
        applied.owners.write_for(root).map_err(SnapshotError::at("writing the owners beside", root))
    }
}

/// Keeps what is read.
struct Copied<'a> {
    source: Box<dyn Read + Send>,
    copy: &'a mut BlobWriter,
}

impl Read for Copied<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

impl Snapshotter for MutableRoot {
    fn has(&self, diff_id: &Digest) -> bool {
        // An index of another version, which would not be read, is brought again.
        let is_told = !LayerIndex::is_kept(&self.layers, diff_id) || LayerIndex::is_of_step(&self.layers, diff_id);
        is_told && matches!(self.blob(diff_id), Ok(Some(_)))
    }

    fn has_times(&self, diff_id: &Digest, index: &LayerIndex) -> bool {
        matches!(LayerIndex::load(&self.layers, diff_id), Ok(Some(kept)) if kept.entries == index.entries)
    }

    fn unpack(
        &self,
        diff_id: &Digest,
        below: &[Digest],
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
        index: Option<&LayerIndex>,
    ) -> Result<(), SnapshotError> {
        if let Some(index) = index {
            if self.has(diff_id) && !self.has_times(diff_id, index) {
                // The root may hold the layer as it was.
                let _lock = self.lock()?;
                self.forget_state()?;
            }
            index
                .save(&self.layers, diff_id)
                .map_err(|error| SnapshotError::Apply { diff_id: diff_id.clone(), source: Box::new(error.into()) })?;
        }
        if self.has(diff_id) {
            return Ok(());
        }
        if let Some(missing) = below.iter().find(|below| !self.has(below)) {
            return Err(SnapshotError::NotUnpacked { diff_id: missing.clone() });
        }
        let mut copy = self.layers.writer()?;
        let source = Copied { source: blob, copy: &mut copy };
        let scan = read_layer::<LayerError>(source, media_type, limits, &mut |_, _| Ok(()))
            .map_err(|source| SnapshotError::Apply { diff_id: diff_id.clone(), source: Box::new(source.into()) })?;
        if scan.diff_id != *diff_id {
            return Err(SnapshotError::WrongDiffId { expected: diff_id.clone(), actual: scan.diff_id });
        }
        let info = copy.commit(None)?;
        self.share(&info.digest);
        Ok(self.layers.write_entry(&Self::record(diff_id), info.digest.as_ref().as_bytes())?)
    }

    fn prepare(&self, chain: &[Digest]) -> Result<Workspace, SnapshotError> {
        if let Some(missing) = chain.iter().find(|diff_id| !self.has(diff_id)) {
            return Err(SnapshotError::NotUnpacked { diff_id: missing.clone() });
        }
        let lock = self.lock()?;
        let root = self.folder.join("root");
        self.recover(&root)?;
        let held = self.held(&root)?;
        self.forget_state()?;
        let continues =
            held.len() <= chain.len() && held.iter().zip(chain).all(|(held, wanted)| held == wanted.as_ref());
        let start = if continues {
            held.len()
        } else {
            self.empty(&root)?;
            0
        };
        for diff_id in &chain[start..] {
            self.apply(&root, diff_id)?;
        }
        let before = Manifest::of(&root)?;
        std::thread::sleep(TIME_GRAIN);
        let keep = Keep::MutableRoot { before, told: OnceLock::new(), covered: Vec::new(), _lock: lock };
        Ok(Workspace { root: RootMount::Directory(root), chain: chain.to_vec(), keep })
    }

    fn commit(&self, workspace: Workspace, layer: &Layer) -> Result<(), SnapshotError> {
        if !matches!(workspace.keep, Keep::MutableRoot { .. }) {
            return Err(SnapshotError::AnothersWorkspace { expected: "the mutable root" });
        }
        if let RootMount::Directory(root) = &workspace.root
            && owners::are_recorded()
        {
            let changes = &workspace.changes()?;
            let keep = || -> io::Result<()> {
                let mut table = Paths::of_tree(root)?;
                note_owners(&mut table, changes);
                table.write_for(root)?;
                Inodes::default().write_for_run(root)
            };
            keep().map_err(SnapshotError::at("keeping the owners beside", root))?;
        }
        if !self.has(&layer.diff_id) {
            self.take(layer)?;
        }
        let chain = workspace.chain.iter().chain([&layer.diff_id]).map(ToString::to_string).collect::<Vec<_>>();
        self.set_state(chain)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::layer::{LayerOptions, write_layer};

    #[test]
    fn a_blob_of_the_store_takes_its_room_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let root = MutableRoot::open(store.clone()).unwrap();
        let layer = write_layer(&store, LayerOptions::default(), &[]).unwrap();
        let blob = Box::new(store.open_blob(&layer.digest).unwrap());
        root.unpack(&layer.diff_id, &[], blob, &layer.media_type, &Limits::DEFAULT, None).unwrap();
        let inode = |store: &Store| fs::metadata(store.path(&layer.digest)).unwrap().ino();
        assert_eq!(inode(&store), inode(&root.layers));
        assert!(root.has(&layer.diff_id));
    }

    #[test]
    fn what_a_command_left_takes_its_room_once_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let root = MutableRoot::open(store.clone()).unwrap();
        let workspace = root.prepare(&[]).unwrap();
        let RootMount::Directory(at) = workspace.root() else { panic!("it is a folder") };
        fs::write(at.join("made"), "made").unwrap();
        let layer = write_layer(&store, LayerOptions::default(), &workspace.changes().unwrap()).unwrap();
        root.commit(workspace, &layer).unwrap();
        let inode = |store: &Store| fs::metadata(store.path(&layer.digest)).unwrap().ino();
        assert_eq!(inode(&store), inode(&root.layers));
        // Another chain is wanted, and then this one again, which the store has let go of.
        fs::remove_file(store.path(&layer.digest)).unwrap();
        drop(root.prepare(&[]).unwrap());
        let workspace = root.prepare(&[layer.diff_id]).unwrap();
        let RootMount::Directory(at) = workspace.root() else { panic!("it is a folder") };
        assert_eq!(fs::read_to_string(at.join("made")).unwrap(), "made");
    }
}
