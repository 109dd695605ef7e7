//! `--normalize`: what is known to differ from build to build is mended in what a command left.
//!
//! Which files that are, and how each is mended, says the table of [`suspects`]; only such as the command made or changed are
//! touched. They are mended where the command wrote them (the upper folder of an overlay, or the root itself), before its
//! changes are read, so that the layer, its result hash and the folder that later steps stand on come of the same files.
//!
//! On each rung that means the same. Whether a file was there before is told by the layers' indexes. What it was is in the
//! layers below an overlay; of a root that is written in place, a copy is made before the command. A file whose change is
//! undone is written as it was, with owner, mode and time: then it is no change to whoever reads the changes. It is
//! not just removed from an upper folder, as below a folder that was made again that would be a removal.
//!
//! The command is over, with all that it started, so nobody changes a path while it is looked at. Paths are those of the
//! changes: real folders, no links. They are opened as such, below the folder of the command's changes, so that none leads
//! elsewhere; what was mounted for the command is not there any more. Files with several names are left alone.

use std::collections::{HashMap, HashSet};
use std::fs::{File, FileTimes, Metadata};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, OFlags, fstat, unlinkat};

use super::mounts::{Below, find_below, open_all, open_in};
use super::run::{EARLIEST_ZIP_TIME, EPOCH};
use super::{Executor, StepError};
use crate::blob::Temporary;
use crate::event::{Event, StepId};
use crate::graph::RunOp;
use crate::layer::{Kind, LayerPath, Node, Tree};
use crate::owners::{self, Owner};
use crate::sandbox::RootMount;
use crate::snapshot::Workspace;
use crate::suspects::{self, Mend};

/// A file's time is that of the kernel's timer, a little earlier than the clock.
const TIME_GRAIN: Duration = Duration::from_secs(1);

/// Largest list of passwords that is mended, in bytes: ten thousand accounts.
const SHADOW_MAX_BYTES: u64 = 1024 * 1024;

/// Largest source whose byte code is mended, in bytes; it is read as a whole.
const SOURCE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// As much as is read of a machine's id, in bytes: it has 33.
const ID_MAX_BYTES: u64 = 64;

/// Most files that are named.
const NAMED_MAX: usize = 3;

/// What has to be known before a command, to mend what it leaves.
#[derive(Debug)]
pub(super) struct Normalizer {
    /// What the command takes for the time of the build.
    epoch_seconds: i64,
    began: SystemTime,
    /// Of a root that is written in place: what files were.
    kept: HashMap<LayerPath, Kept>,
    _folder: Option<Temporary>,
}

#[derive(Debug)]
struct Kept {
    copy: PathBuf,
    modified: SystemTime,
}

impl Executor {
    /// Makes ready to mend what a command will leave in `workspace`, which shows `tree`. `None` where nobody asked for it.
    pub(super) fn normalizer(
        &self,
        op: &RunOp,
        workspace: &Workspace,
        tree: &Tree,
    ) -> Result<Option<Normalizer>, StepError> {
        if !self.options.mode.normalize {
            return Ok(None);
        }
        let declared = op.env.iter().find(|(name, _)| name == EPOCH).and_then(|(_, value)| value.parse().ok());
        let mut normalizer = Normalizer {
            epoch_seconds: declared.unwrap_or(EARLIEST_ZIP_TIME),
            began: SystemTime::now() - TIME_GRAIN,
            kept: HashMap::new(),
            _folder: None,
        };
        if let RootMount::Directory(root) = workspace.root() {
            let needed = |path: &LayerPath| matches!(mend_of(path), Some(Mend::Undo | Mend::Days));
            let files = tree.iter().filter(|(path, node)| is_file(node) && needed(path)).map(|(path, _)| path);
            let files: Vec<&LayerPath> = files.collect();
            if !files.is_empty() {
                let folder = self.store.temporary_folder()?;
                normalizer.kept = keep(root, &files, folder.path())?;
                normalizer._folder = Some(folder);
            }
        }
        Ok(Some(normalizer))
    }

    /// Mends what a command left, and says what.
    pub(super) fn normalize(
        &self,
        step: StepId,
        normalizer: &Normalizer,
        workspace: &mut Workspace,
        tree: &Tree,
    ) -> Result<(), StepError> {
        let mended = normalizer.mend(workspace, tree)?;
        if !mended.is_empty() {
            workspace.look_again();
            self.events.hear(Event::Note { text: format!("{step} {}", told(&mended)) });
        }
        Ok(())
    }
}

fn told(mended: &[LayerPath]) -> String {
    let noun = if mended.len() == 1 { "file" } else { "files" };
    let names: Vec<String> = mended.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = mended.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("normalized {} {noun}: {}{more}", mended.len(), names.join(", "))
}

fn mend_of(path: &LayerPath) -> Option<Mend> {
    suspects::suspect(std::str::from_utf8(path.as_bytes()).ok()?)?.mend
}

fn is_file(node: &Node) -> bool {
    matches!(node.entry.kind, Kind::File { .. })
}

/// Copies files of a root into `folder`.
fn keep(root: &Path, files: &[&LayerPath], folder: &Path) -> Result<HashMap<LayerPath, Kept>, StepError> {
    let roots = open_all(&[root.to_owned()]);
    let mut kept = HashMap::new();
    for (number, path) in files.iter().enumerate() {
        let Some(Below { file, metadata, .. }) = find_below(&roots, path.as_path()) else { continue };
        let copy = folder.join(number.to_string());
        let copied = || -> io::Result<SystemTime> {
            // Passwords are among them.
            let mut to = File::options().write(true).create_new(true).mode(0o600).open(&copy)?;
            // The kernel shares the blocks where the file system can.
            io::copy(&mut &file, &mut to)?;
            metadata.modified()
        };
        let modified = copied().map_err(|source| StepError::Temporary { path: copy.clone(), source })?;
        kept.insert((*path).clone(), Kept { copy, modified });
    }
    Ok(kept)
}

impl Normalizer {
    /// Mends what was changed in the workspace; says which files that were, in their order.
    fn mend(&self, workspace: &Workspace, tree: &Tree) -> Result<Vec<LayerPath>, StepError> {
        let changes = workspace.changes_over(tree)?;
        let mends = changes.iter().filter(|change| matches!(change.entry.kind, Kind::File { .. }));
        let mends: Vec<_> =
            mends.filter_map(|change| Some((&change.entry.path, mend_of(&change.entry.path)?))).collect();
        if mends.is_empty() {
            return Ok(Vec::new());
        }
        let gone = changes.iter().filter(|change| change.entry.kind == Kind::Whiteout);
        let (written, below) = match workspace.root() {
            RootMount::Overlay { upper, .. } => (upper, open_all(workspace.lowers())),
            RootMount::Directory(root) => (root, Vec::new()),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |path: &LayerPath| {
            let path = path.clone();
            |source: io::Error| StepError::Normalize { path, source }
        };
        let written = rustix::fs::open(written, flags, rustix::fs::Mode::empty())
            .map_err(|errno| failed(&LayerPath::root())(errno.into()))?;
        let gone = gone.map(|change| &change.entry.path).collect();
        let left = Left { normalizer: self, workspace, tree, written, below, gone };
        let mut mended = Vec::new();
        for (path, mend) in mends {
            if left.mend(path, mend).map_err(failed(path))? {
                mended.push(path.clone());
            }
        }
        Ok(mended)
    }
}

/// What a command left.
struct Left<'a> {
    normalizer: &'a Normalizer,
    workspace: &'a Workspace,
    /// What was there before.
    tree: &'a Tree,
    /// Where the command wrote.
    written: OwnedFd,
    /// What lies below, topmost first; nothing where it wrote in place.
    below: Vec<OwnedFd>,
    /// What it removed.
    gone: HashSet<&'a LayerPath>,
}

/// What a file was.
struct Was {
    /// At its begin.
    file: File,
    modified: SystemTime,
}

impl Left<'_> {
    /// Whether the file was mended, rather than in no need of it, or such as is left alone.
    fn mend(&self, path: &LayerPath, mend: Mend) -> io::Result<bool> {
        let Some(mut file) = self.open(path, OFlags::RDWR)? else { return Ok(false) };
        let metadata = file.metadata()?;
        if metadata.nlink() != 1 {
            return Ok(false);
        }
        let is_mended = match mend {
            Mend::Undo => return self.undo(path, file),
            Mend::Empty => empty(&mut file)?,
            Mend::Days => self.days(path, &mut file)?,
            Mend::ByteCode => self.byte_code(path, &file, &metadata)?,
        };
        if is_mended {
            file.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        }
        Ok(is_mended)
    }

    /// Opens a file among what the command wrote; none where something else is there. That is looked up first, since some
    /// devices do something when they are opened.
    fn open(&self, path: &LayerPath, flags: OFlags) -> io::Result<Option<File>> {
        let there = open_in(&self.written, path.as_path(), OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&there)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        Ok(Some(File::from(open_in(&self.written, path.as_path(), flags | OFlags::NONBLOCK)?)))
    }

    /// The file that was at that path before the command. By the tree it was one; none where it is not there all the same.
    fn was(&self, path: &LayerPath) -> io::Result<Option<Was>> {
        if let Some(Kept { copy, modified }) = self.normalizer.kept.get(path) {
            return Ok(Some(Was { file: File::open(copy)?, modified: *modified }));
        }
        let Some(Below { file, metadata, .. }) = find_below(&self.below, path.as_path()) else { return Ok(None) };
        Ok(Some(Was { file, modified: metadata.modified()? }))
    }

    fn undo(&self, path: &LayerPath, mut file: File) -> io::Result<bool> {
        let Some(node) = self.tree.get(path) else {
            self.remove(path)?;
            return Ok(true);
        };
        if !is_file(node) {
            return Ok(false);
        }
        let Some(mut was) = self.was(path)? else { return Ok(false) };
        file.set_len(0)?;
        io::copy(&mut was.file, &mut file)?;
        // A file loses bits of its mode when it is given away.
        owners::give_open(file.as_fd(), Owner { uid: node.entry.uid, gid: node.entry.gid })?;
        owners::set_mode_open(file.as_fd(), false, node.entry.mode)?;
        file.set_times(FileTimes::new().set_modified(was.modified))?;
        Ok(true)
    }

    /// Removes a file. Its folder keeps its time.
    fn remove(&self, path: &LayerPath) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Ok(()) };
        let folder = File::from(open_in(&self.written, parent.as_path(), OFlags::RDONLY | OFlags::DIRECTORY)?);
        let modified = folder.metadata()?.modified()?;
        unlinkat(&folder, name, AtFlags::empty())?;
        folder.set_times(FileTimes::new().set_modified(modified))
    }

    fn days(&self, path: &LayerPath, file: &mut File) -> io::Result<bool> {
        let mut before = Vec::new();
        if let Some(node) = self.tree.get(path) {
            let was = if is_file(node) { self.was(path)? } else { None };
            let Some(was) = was else { return Ok(false) };
            was.file.take(SHADOW_MAX_BYTES).read_to_end(&mut before)?;
        }
        let mut now = Vec::new();
        if (&*file).take(SHADOW_MAX_BYTES + 1).read_to_end(&mut now)? as u64 > SHADOW_MAX_BYTES {
            return Ok(false);
        }
        let Some(mended) = suspects::with_day_of(self.normalizer.epoch_seconds, &before, &now) else {
            return Ok(false);
        };
        rewrite(file, &mended)?;
        Ok(true)
    }

    /// Byte code that was unpacked has an older time, and is left to whoever packed it.
    fn byte_code(&self, path: &LayerPath, file: &File, metadata: &Metadata) -> io::Result<bool> {
        let source = std::str::from_utf8(path.as_bytes()).ok().and_then(suspects::source_of);
        let Some(path) = source.and_then(|source| LayerPath::clean(source.as_bytes())) else { return Ok(false) };
        let mut header = [0; suspects::HEADER_BYTES];
        if metadata.modified()? < self.normalizer.began || metadata.len() < header.len() as u64 {
            return Ok(false);
        }
        file.read_exact_at(&mut header, 0)?;
        let Some(source) = self.now(&path)? else { return Ok(false) };
        let seconds = self.workspace.seconds_shown(path.as_path(), &source.metadata()?);
        let mut text = Vec::new();
        if source.take(SOURCE_MAX_BYTES + 1).read_to_end(&mut text)? as u64 > SOURCE_MAX_BYTES {
            return Ok(false);
        }
        let Some(mended) = suspects::with_hash(&header, seconds, &text) else { return Ok(false) };
        file.write_all_at(&mended, 0)?;
        Ok(true)
    }

    /// The file that is at that path after the command, whoever made it; none where there is none. No link is followed.
    fn now(&self, path: &LayerPath) -> io::Result<Option<File>> {
        if self.gone.contains(path) {
            return Ok(None);
        }
        match self.open(path, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let is_below = self.tree.get(path).is_some_and(is_file);
        Ok(if is_below { find_below(&self.below, path.as_path()).map(|below| below.file) } else { None })
    }
}

/// Empties a machine's id, where it was drawn.
fn empty(file: &mut File) -> io::Result<bool> {
    let mut id = Vec::new();
    (&*file).take(ID_MAX_BYTES).read_to_end(&mut id)?;
    let is_drawn = suspects::is_drawn(&id);
    if is_drawn {
        file.set_len(0)?;
    }
    Ok(is_drawn)
}

fn rewrite(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(text)
}
