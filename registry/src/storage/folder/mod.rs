//! The port on a local folder: our own driver of object_store's traits.
//!
//! - An object is one file, written under a temporary name beside its own and then renamed: it is there whole or not at
//!   all. File and folder are synced before a write or a delete is acknowledged, unless syncing is switched off.
//! - Lists are sorted by key, take a raw prefix, and stop where the page ends.
//! - One process at a time: a lock on the folder. Hence what a folder holds is known once it was read, and lists and heads
//!   are answered from memory (`index`).
//! - Requests that wait for the disk share a round of syncing (`sync`).
//! - How a key becomes a file name is told in `names`; a long upload is one file that its parts are appended to
//!   (`parts`), so that completing it copies nothing.
//!
//! Writes go straight from the worker thread to the page cache, which is faster than handing them to another thread;
//! whatever waits for the disk (a sync) or may be long (reading a large folder) goes to a blocking thread.

mod control;
mod index;
mod list;
mod names;
mod parts;
mod read;
mod sweep;
mod sync;
mod system;
mod write;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::fs::FlockOperation;

pub use control::{ControlSocket, connect_control};
use index::Index;
use list::{LastRead, Want};
use read::Buffers;
use sync::Rounds;
pub use system::FileSystem;
use write::{Touched, Unsynced, split};

use super::{Port, Room, Unfinished};

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made or opened.
    #[error("cannot use the folder `{}` as a store: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the folder `{}` is in use by another fluyt-registry{}: stop that one, or choose another --store",
        path.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// Which.
        path: PathBuf,
        /// Whose, if it could be told.
        pid: Option<String>,
    },
    /// It is not there, and whoever only looks does not make it.
    #[error("there is no folder `{}`: see that the path of the store (`--store`) is right; `fluyt-registry serve` makes a new one", path.display())]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// There is no store, and whoever only reads does not make one.
    #[error("the folder `{}` holds no store: expected one that `fluyt-registry serve --store` made", path.display())]
    NoStore {
        /// Which.
        path: PathBuf,
    },
    /// It holds what another registry stored.
    #[error(
        "the folder `{}` holds images of a CNCF distribution registry: take them over with `fluyt-registry adopt --store {}`, or choose another folder",
        path.display(), path.display()
    )]
    Distribution {
        /// Which.
        path: PathBuf,
    },
    /// It holds something, and no store.
    #[error(
        "the folder `{}` holds other files (`{}`) and no store: choose an empty or new folder with --store",
        path.display(), found
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
}

impl FolderError {
    /// Whether another path, or other rights to this one, would do; otherwise the disk is full or broken.
    pub fn is_about_the_path(&self) -> bool {
        use io::ErrorKind::{
            AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
        };
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                AlreadyExists
                    | InvalidFilename
                    | IsADirectory
                    | NotADirectory
                    | NotFound
                    | PermissionDenied
                    | ReadOnlyFilesystem
            ),
            Self::InUse { .. } | Self::Absent { .. } | Self::NoStore { .. } => true,
            Self::Distribution { .. } | Self::Foreign { .. } => true,
        }
    }
}

/// A file that is neither ours nor the file system's own, in a folder that is no store yet. What is hidden may stay: tools
/// leave such files in folders that people take for empty.
fn foreign(root: &FilePath) -> io::Result<Option<String>> {
    let mut found: Option<String> = None;
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // A copy that was restored need not have the lock.
        if name == names::LOCK || name.starts_with("store.json.") {
            return Ok(None);
        }
        if !name.starts_with('.') && name != "lost+found" {
            found = Some(name);
        }
    }
    Ok(found)
}

/// What a trial brought into a folder; goes when it is dropped, as far as it is empty.
#[derive(Debug)]
pub(in crate::storage) struct Trial(Vec<PathBuf>);

impl Drop for Trial {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
    }
}

/// A store in a folder.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    sync: bool,
    /// Which start of the machine this is.
    boot: String,
    temporary: AtomicU64,
    /// Serialises parts of the same upload; picked by the upload's id.
    appending: Vec<Mutex<()>>,
    /// What the folders hold. Not there when the lock is not held: then somebody else may change them.
    index: Option<Index>,
    last_read: LastRead,
    unsynced: Mutex<Unsynced>,
    rounds: Mutex<Rounds>,
    #[cfg(test)]
    faults: sync::Faults,
    buffers: Buffers,
    /// `None`: opened to read only, beside whoever has the lock. Then nothing is written, and nothing may be answered
    /// from memory but the further pages of a list (`last_read`).
    lock: Option<File>,
}

impl Folder {
    /// Opens a folder, and makes it when it is not there. `sync`: whether writes wait for the disk.
    pub fn open(root: &FilePath, sync: bool) -> Result<Self, FolderError> {
        Self::open_beside(root, sync, false)
    }

    /// As [`Folder::open`], also where a CNCF distribution registry has stored something.
    pub fn open_to_adopt(root: &FilePath, sync: bool) -> Result<Self, FolderError> {
        Self::open_beside(root, sync, true)
    }

    /// Opens a folder to try what may be done in it. Gives what takes everything away again that was not there before.
    pub(in crate::storage) fn open_to_try(root: &FilePath, sync: bool) -> Result<(Self, Trial), FolderError> {
        let path = || root.to_owned();
        let listed = match std::fs::read_dir(root) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FolderError::Absent { path: path() }),
            Err(source) => return Err(FolderError::Io { path: path(), source }),
        };
        let there: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        let folder = Self::open(root, sync)?;
        let ours = [names::LOCK, names::PARTS].into_iter().filter(|name| there.iter().all(|there| there != name));
        let trial = Trial(ours.map(|name| folder.root().join(name)).collect());
        Ok((folder, trial))
    }

    fn open_beside(root: &FilePath, sync: bool, adopting: bool) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: root.to_owned(), source };
        // For nobody else: it holds the key that uploads are sealed with, and what was pushed.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let distribution = root.join(names::DISTRIBUTION).is_dir();
        match foreign(&root).map_err(failed)? {
            None => {}
            Some(_) if distribution && adopting => {}
            Some(_) if distribution => return Err(FolderError::Distribution { path: root }),
            Some(found) => return Err(FolderError::Foreign { path: root, found }),
        }
        let lock_path = root.join(names::LOCK);
        let lock =
            File::options().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = std::fs::read_to_string(&lock_path).ok().map(|pid| pid.trim().to_owned());
                return Err(FolderError::InUse { path: root, pid: pid.filter(|pid| !pid.is_empty()) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // The number is for the message above only; not being able to write it is met again at the first real write.
        let _ = lock.set_len(0);
        let _ = std::os::unix::fs::FileExt::write_all_at(&lock, std::process::id().to_string().as_bytes(), 0);
        std::fs::create_dir_all(root.join(names::PARTS)).map_err(failed)?;
        Ok(Self::new(root, sync, Some(lock)))
    }

    /// Opens the store in a folder to look at it, also while another process has it; every write is refused.
    ///
    /// What is seen is what is acknowledged, and perhaps some of what is being written: an object is there whole or not
    /// at all, for whoever reads beside the writer too.
    pub fn open_read_only(root: &FilePath) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: root.to_owned(), source };
        let root = root.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FolderError::Absent { path: root.to_owned() },
            _ => failed(source),
        })?;
        let mut names = std::fs::read_dir(&root).map_err(failed)?.filter_map(std::result::Result::ok);
        if !names.any(|entry| entry.file_name().to_string_lossy().starts_with("store.json.")) {
            return Err(FolderError::NoStore { path: root });
        }
        Ok(Self::new(root, false, None))
    }

    fn new(root: PathBuf, sync: bool, lock: Option<File>) -> Self {
        // Where it cannot be told, parts written by another process are not gone on with.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = boot.map_or_else(|_| std::process::id().to_string(), |id| id.trim().to_owned());
        let appending = (0..64).map(|_| Mutex::new(())).collect();
        Self(Arc::new(Inner {
            root,
            sync,
            boot,
            temporary: AtomicU64::new(0),
            appending,
            index: lock.is_some().then(Index::default),
            last_read: LastRead::default(),
            unsynced: Mutex::default(),
            rounds: Mutex::default(),
            #[cfg(test)]
            faults: sync::Faults::default(),
            buffers: Buffers::default(),
            lock,
        }))
    }

    /// Which start of the machine this is.
    #[cfg(test)]
    pub(super) fn boot(&self) -> &str {
        &self.0.boot
    }

    /// From now on `fault` runs before each sync, of a folder by what its keys begin with and of `content` and `@parts`, and
    /// may make it wait or fail.
    #[cfg(test)]
    pub(super) fn with_faults(&self, fault: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) {
        self.0.faults.set(fault);
    }

    /// Where it is.
    pub fn root(&self) -> &FilePath {
        &self.0.root
    }

    async fn remove(&self, keys: Vec<Result<Path>>) -> Result<Vec<Result<Path>>> {
        if !self.0.sync {
            // Giving back the space of large files takes its time.
            return self.blocking(move |inner| inner.remove(keys, &mut Touched::new())).await;
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let change = move |inner: &Inner, touched: &mut Touched| {
            let _ = tell.send(inner.remove(keys, touched));
            Ok(())
        };
        self.0.commit(None, change).await.map_err(|error| io_error("", error))?;
        told.await.map_err(|error| io_error("", io::Error::other(error)))
    }

    /// Runs what waits for the disk where it may wait.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|source| object_store::Error::Generic { store: STORE, source: source.into() })
    }
}

const STORE: &str = "folder";

impl Inner {
    fn file(&self, key: &Path) -> Result<PathBuf> {
        names::file(&self.root, key.as_ref()).map_err(|error| io_error(key.as_ref(), error))
    }

    /// The index, for a folder that nobody else writes to: in an adopted registry of another kind that one may.
    fn index_of(&self, start: &str) -> Option<&Index> {
        self.index.as_ref().filter(|_| !start.starts_with("docker/"))
    }

    /// Sees that this process may write.
    fn writable(&self, key: &str) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let why = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the folder was opened to read only");
        Err(object_store::Error::PermissionDenied { path: key.to_owned(), source: why.into() })
    }

    /// A name beside `target` that no key can have and no other write uses.
    fn temporary(&self, target: &FilePath) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        target.with_file_name(format!("{}{}-{number}", names::TEMPORARY, std::process::id()))
    }
}

/// An I/O error in the port's words; the message names the key.
fn io_error(key: &str, error: io::Error) -> object_store::Error {
    let path = key.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: error.into() },
        io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: error.into() },
        io::ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: error.into() },
        _ => object_store::Error::Generic { store: STORE, source: Box::new(AtKey { path, error }) },
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {error}")]
struct AtKey {
    path: String,
    #[source]
    error: io::Error,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.0.root.display())
    }
}

fn written() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

fn not_offered(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

#[async_trait]
impl ObjectStore for Folder {
    /// Nothing but bytes is stored: attributes and tags are dropped. `PutMode::Update` is refused.
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let replace = match opts.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => return Err(not_offered("conditional updates")),
        };
        self.0.writable(location.as_ref())?;
        let failed = |error| io_error(location.as_ref(), error);
        let written = self.0.write(location.as_ref(), &payload).map_err(failed)?;
        drop(payload);
        let content =
            if self.0.sync && written.has_content() { Some(written.file.try_clone().map_err(failed)?) } else { None };
        let key = location.clone();
        let placed = self.0.commit(content, move |inner, touched| inner.place(key.as_ref(), written, replace, touched));
        placed.await.map_err(failed)?;
        Ok(self::written())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_offered("put_multipart (use MultipartStore)"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let failed = |error| io_error(location.as_ref(), error);
        let mut seen = None;
        if options.head && options.range.is_none() {
            let (start, name) = split(location.as_ref());
            seen = self.0.look(start, name).map_err(failed)?;
        }
        let answer = match seen {
            Some(Some(stat)) => {
                let answer = read::known(stat, location);
                options.check_preconditions(&answer.meta)?;
                answer
            }
            Some(None) => return Err(failed(io::ErrorKind::NotFound.into())),
            None => read::get(&self.0.file(location)?, location, &options, &self.0.buffers)?,
        };
        if options.head {
            self.0.settle(location.as_ref()).await.map_err(failed)?;
        }
        Ok(answer)
    }

    /// What is not there counts as deleted.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        const AT_ONCE: usize = 100;
        let folder = self.clone();
        locations
            .chunks(AT_ONCE)
            .then(move |batch| {
                let folder = folder.clone();
                async move {
                    if let Err(error) = folder.0.writable("") {
                        return stream::iter(vec![Err(error)]);
                    }
                    let results = folder.remove(batch).await.unwrap_or_else(|error| vec![Err(error)]);
                    stream::iter(results)
                }
            })
            .flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let folder = self.clone();
        let pages = stream::try_unfold(Some(None), move |next: Option<Option<String>>| {
            let (folder, prefix) = (folder.clone(), prefix.clone());
            async move {
                let Some(offset) = next else { return Ok(None) };
                let options = PaginatedListOptions { offset, ..Default::default() };
                let page = folder.list_paginated(Some(&prefix), options).await?;
                let objects = stream::iter(page.result.objects.into_iter().map(Ok));
                Ok::<_, object_store::Error>(Some((objects, page.page_token.map(Some))))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let start = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let mut result =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        let mut all = self.list(prefix);
        while let Some(object) = all.try_next().await? {
            let rest = object.location.as_ref().strip_prefix(&start).unwrap_or_default().to_owned();
            match rest.split_once('/') {
                None => result.objects.push(object),
                Some((child, _)) => {
                    let folder = Path::parse(format!("{start}{child}"))?;
                    if result.common_prefixes.last() != Some(&folder) {
                        result.common_prefixes.push(folder);
                    }
                }
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_offered("copying: no object is ever copied"))
    }
}

#[async_trait]
impl MultipartStore for Folder {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.0.writable(path.as_ref())?;
        self.0.file(path)?;
        self.0.begin_parts().map_err(|error| io_error(path.as_ref(), error))
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, _: usize, data: PutPayload) -> Result<PartId> {
        self.0.writable(path.as_ref())?;
        let content_id = self.0.append_part(id, &data).map_err(|error| io_error(path.as_ref(), error))?;
        Ok(PartId { content_id })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.0.writable(path.as_ref())?;
        let failed = |error| io_error(path.as_ref(), error);
        let (key, multipart) = (path.clone(), id.clone());
        let end = self.blocking(move |inner| inner.prepare_parts(&multipart, &parts)).await?.map_err(failed)?;
        let id = id.clone();
        let finished = self.0.commit(None, move |inner, touched| inner.finish_parts(key.as_ref(), &id, end, touched));
        finished.await.map_err(failed)?;
        Ok(written())
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.0.writable(path.as_ref())?;
        self.0.abort_parts(id).map_err(|error| io_error(path.as_ref(), error))
    }
}

#[async_trait]
impl PaginatedListStore for Folder {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        if opts.delimiter.is_some() {
            return Err(not_offered("paged lists with a delimiter"));
        }
        let want = Want {
            prefix: prefix.unwrap_or_default().to_owned(),
            after: opts.page_token.or(opts.offset),
            max: opts.max_keys.unwrap_or(1000),
        };
        let (mut page, mut prefix) = (self.0.list(&want, false), want.prefix.clone());
        if matches!(page, Ok(None)) {
            (page, prefix) = self.blocking(move |inner| (inner.list(&want, true), want.prefix)).await?;
        }
        let failed = |error| io_error(&prefix, error);
        let page = page.map_err(failed)?.ok_or_else(|| failed(io::Error::other("a list did not wait")))?;
        self.0.settle(&prefix).await.map_err(failed)?;
        Ok(page)
    }
}

#[async_trait]
impl Port for Folder {
    fn may_collect(&self) -> bool {
        // What cannot be asked is taken for the worse.
        self.file_system().is_ok_and(|system| !system.is_shared())
    }

    fn takes_any_parts(&self) -> bool {
        true
    }

    fn join_parts(&self, first: &str, second: &str) -> Option<String> {
        self.0.join_parts(first, second)
    }

    fn answers_from_memory(&self) -> bool {
        self.0.index.is_some()
    }

    async fn unfinished_multiparts(&self, _: &str, after: Option<&Unfinished>) -> Result<Option<Vec<Unfinished>>> {
        if after.is_some() {
            // The first page holds them all.
            return Ok(Some(Vec::new()));
        }
        let found = self.blocking(|inner| inner.unfinished_parts()).await?;
        found.map(Some).map_err(|error| io_error(names::PARTS, error))
    }

    async fn sweep_temporary(&self, before: SystemTime) -> Result<Vec<String>> {
        let removed = self.blocking(move |inner| inner.sweep_temporary(before)).await?;
        removed.map_err(|error| io_error("", error))
    }

    fn room(&self) -> Option<Room> {
        self.0.room()
    }
}
