//! The mounts of a `RUN`: what they show, and what of it counts.
//!
//! Their content is found out for the key ([`Executor::mount_contents`]); when the command runs, they are made real
//! ([`Executor::make_mounts`]): a bind is an overlay whose changes are thrown away, a cache mount is a folder of the store,
//! a secret is a file in memory. Nothing of them comes into a layer.
//!
//! | where | what |
//! |---|---|
//! | `content` | what binds and the first content of cache mounts are |
//! | `folder` | writes such content into a folder |
//! | `agent` | passes on what is said to an agent |
//! | `times` | no input is older than the cache mount that knew it with other content |
//! | `cover` | files with other times than their layers', as a layer that no image contains |

mod agent;
mod content;
mod cover;
mod folder;
mod times;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::agent::Forward;
use self::content::ContextTree;
use self::times::Inputs;
use super::extract::Spool;
use super::moving::Moving;
use super::{Executor, StepError};
use crate::blob::Temporary;
use crate::cache::key::MountContent;
use crate::cache_mount::{CacheMounts, HeldMount, Share, Wanted};
use crate::event::{Event, StepId};
use crate::graph::{FolderId, Mount, MountKind, RunOp, Sharing};
use crate::layer::{Kind, LayerPath, Tree};
use crate::sandbox::{InMemory, MountSource, RootMount, RunMount};
use crate::secrets::{self, Search, Secrets, Value};
use crate::snapshot::Workspace;

pub(super) use self::content::Shown;
pub(super) use self::cover::{Below, find_below, open_all, open_in};

/// How often somebody else's cache mount is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of an agent's socket in its folder.
const AGENT: &str = "agent";

/// What tells a command where its agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// Parts of the context, or of a named one, by where they are in it.
type ContextTrees = HashMap<(Option<FolderId>, String), Arc<ContextTree>>;

/// What the mounts of a build's commands are made of, beside its graph.
#[derive(Debug, Default)]
pub struct MountSources {
    /// The secrets.
    pub secrets: Secrets,
    /// What no layer may hold.
    pub search: Arc<Search>,
    /// The agents' sockets, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// What was found in the context, or in a named one, for binds, by source: once in a build.
    context: Mutex<ContextTrees>,
}

impl MountSources {
    /// With these secrets, the search for them, and agents' sockets.
    #[must_use]
    pub fn new(secrets: Secrets, search: Arc<Search>, agents: BTreeMap<String, PathBuf>) -> Self {
        Self { secrets, search, agents, ..Self::default() }
    }
}

/// The mounts of one command, ready for the sandbox.
#[derive(Debug, Default)]
pub(super) struct MadeMounts {
    pub(super) mounts: Vec<RunMount>,
    /// Variables that they set.
    pub(super) env: Vec<(String, String)>,
    caches: Vec<HeldMount>,
    _agents: Vec<Forward>,
    _views: Vec<Workspace>,
    /// Before the folders that they are mounted on.
    _memories: Vec<InMemory>,
    _folders: Vec<Temporary>,
}

impl MadeMounts {
    /// To be called when the command has ended, however it did.
    ///
    /// # Errors
    /// When a cache mount's memory cannot be written. The others' are nonetheless.
    pub(super) fn finish(self) -> Result<(), StepError> {
        let now = times::now();
        let ends: Vec<_> = self.caches.into_iter().map(|held| held.end(now)).collect();
        Ok(ends.into_iter().collect::<Result<(), _>>()?)
    }
}

impl Executor {
    /// What the mounts' contents are for the key, in the order of the mounts.
    pub(super) fn mount_keys(contents: &[Shown]) -> Vec<MountContent> {
        contents.iter().map(Shown::key).collect()
    }

    /// Makes the mounts of a command that runs in `workspace`, and gives that the times that a cache mount asks for.
    pub(super) fn make_mounts(
        &self,
        step: StepId,
        op: &RunOp,
        contents: &[Shown],
        tree: &Tree,
        workspace: &mut Workspace,
    ) -> Result<MadeMounts, StepError> {
        let mut made = MadeMounts::default();
        let held = self.take_caches(step, op, contents)?;
        let mut order: Vec<(usize, &Mount)> = op.mounts.iter().enumerate().collect();
        // An outer mount before those in it.
        order.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        let mut inputs = Inputs::of_root(tree, op);
        for (number, mount) in order {
            let source = match &mount.kind {
                MountKind::Bind => {
                    let stacks = matches!(workspace.root(), RootMount::Overlay { .. });
                    self.bind(step, number, mount, &contents[number], stacks, &mut inputs, &mut made)?
                }
                MountKind::Cache { .. } => {
                    let held = wanted(mount, &contents[number]).and_then(|wanted| held.get(&wanted));
                    let Some(held) = held else { continue };
                    MountSource::Tree { root: RootMount::Directory(held.data()), path: PathBuf::new(), is_folder: true }
                }
                MountKind::Tmpfs { size_bytes } => {
                    MountSource::Memory { size_bytes: *size_bytes, mode: mode_of(tree, &mount.target) }
                }
                MountKind::Secret { id, env, required, mode, uid, gid } => {
                    let Some(value) = self.secret(id, *required)? else {
                        // The reference sets the variable nonetheless, over one of the image too.
                        made.env.extend(env.iter().map(|name| (name.clone(), String::new())));
                        continue;
                    };
                    if let Some(name) = env {
                        let text = String::from_utf8(value.clone());
                        let text = text.map_err(|_| StepError::SecretNotText { id: id.clone() })?;
                        made.env.push((name.clone(), text));
                    }
                    if mount.target.is_empty() {
                        continue;
                    }
                    MountSource::File { content: value, mode: *mode, uid: *uid, gid: *gid }
                }
                MountKind::Ssh { id, required, mode, uid, gid } => {
                    let agent = match self.mounts.agents.get(id) {
                        Some(agent) => agent,
                        None if *required => return Err(StepError::NoAgent { id: id.clone() }),
                        None => continue,
                    };
                    let folder = self.store.temporary_folder()?;
                    made._agents.push(Forward::start(folder.path(), AGENT, agent, (*mode, *uid, *gid))?);
                    if made.env.iter().all(|(name, _)| name != AGENT_VARIABLE) {
                        made.env.push((AGENT_VARIABLE.to_owned(), mount.target.clone()));
                    }
                    let root = RootMount::Directory(folder.path().to_owned());
                    made._folders.push(folder);
                    MountSource::Tree { root, path: PathBuf::from(AGENT), is_folder: false }
                }
            };
            made.mounts.push(RunMount { target: mount.target.clone(), source, read_only: mount.read_only });
        }
        if let Some(script) = &op.script {
            let source = MountSource::File { content: script.content.clone(), mode: script.mode, uid: 0, gid: 0 };
            made.mounts.push(RunMount { target: script.name.clone(), source, read_only: true });
        }
        let writable: BTreeSet<Wanted> = op
            .mounts
            .iter()
            .zip(contents)
            .filter(|(mount, _)| !mount.read_only)
            .filter_map(|(mount, content)| wanted(mount, content))
            .collect();
        let (writable, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            held.into_iter().partition(|(wanted, _)| writable.contains(wanted));
        let mut writable: Vec<HeldMount> = writable.into_values().collect();
        if !writable.is_empty() {
            writable.sort_by(|a, b| a.place().cmp(b.place()));
            times::show(inputs, &mut writable, workspace, &mut made.mounts)?;
        }
        made.caches.extend(writable.into_iter().chain(others.into_values()));
        Ok(made)
    }

    /// Takes the cache mounts of a command, each once, always in the same order: two commands that want the same ones
    /// cannot wait for each other.
    fn take_caches(
        &self,
        step: StepId,
        op: &RunOp,
        contents: &[Shown],
    ) -> Result<BTreeMap<Wanted, HeldMount>, StepError> {
        let mut all: BTreeMap<Wanted, (Share, &Shown)> = BTreeMap::new();
        for (mount, content) in op.mounts.iter().zip(contents) {
            let (MountKind::Cache { sharing, .. }, Some(this)) = (&mount.kind, wanted(mount, content)) else {
                continue;
            };
            let share = match sharing {
                Sharing::Shared => Share::Shared,
                Sharing::Private => Share::Private,
                Sharing::Locked => Share::Locked,
            };
            let entry = all.entry(this).or_insert((share, content));
            if share == Share::Locked {
                entry.0 = share;
            }
        }
        let mounts = CacheMounts::new(self.store.clone());
        let mut held = BTreeMap::new();
        for (wanted, (share, content)) in all {
            let mut said = false;
            let mut wait = || {
                if !said {
                    let text = format!("waiting for the cache mount `{}`, which another step or build uses", wanted.id);
                    self.events.hear(Event::Note { text });
                    said = true;
                }
                std::thread::sleep(PAUSE);
                !self.cancel.is_cancelled()
            };
            let mut fill = |folder: &Path| self.fill(step, content, folder);
            let taken = mounts.take(&wanted, share, &mut fill, &mut wait)?;
            held.insert(wanted, taken.ok_or(StepError::Cancelled)?);
        }
        Ok(held)
    }

    /// Puts the first content of a cache mount into a folder.
    fn fill(&self, step: StepId, content: &Shown, folder: &Path) -> Result<(), StepError> {
        let Shown::Root(root) = content else { return Ok(()) };
        if !root.is_folder {
            return Err(StepError::CacheFromFile { path: root.path.to_string() });
        }
        let items = root.items()?;
        let mut spool = Spool::create(&self.store)?;
        let items = self.extract(step, items, &root.state, &mut spool)?;
        folder::write(&items, Some(&spool), folder, &self.cancel, self.copying(step, root.path.to_string()))
    }

    /// A bind: an overlay over what it shows, whose changes go with it. `stacks` says that the sandbox has overlays; one that
    /// has not copies the lower folder, and has no second root for us to show a part of.
    #[expect(clippy::too_many_arguments, reason = "what a mount is made of, and what it is added to")]
    fn bind(
        &self,
        step: StepId,
        number: usize,
        mount: &Mount,
        content: &Shown,
        stacks: bool,
        inputs: &mut Inputs,
        made: &mut MadeMounts,
    ) -> Result<MountSource, StepError> {
        match content {
            Shown::Nothing => Err(StepError::NotFetched { what: format!("what is shown at {}", mount.target) }),
            Shown::Context(context) => {
                inputs.add_items(number, mount, context);
                let lower = context.folder(&self.store, &self.cancel, self.copying(step, mount.target.clone()))?;
                let root = self.over(lower, made)?;
                Ok(MountSource::Tree {
                    root,
                    path: ContextTree::within(context.is_folder),
                    is_folder: context.is_folder,
                })
            }
            Shown::Root(root) if !stacks => {
                inputs.add_root(number, mount, root);
                let folder = self.store.temporary_folder()?;
                folder::open_up(folder.path())?;
                let mut spool = Spool::create(&self.store)?;
                let items = self.extract(step, root.items()?, &root.state, &mut spool)?;
                folder::write(
                    &items,
                    Some(&spool),
                    folder.path(),
                    &self.cancel,
                    self.copying(step, mount.target.clone()),
                )?;
                let lower = folder.path().to_owned();
                made._folders.push(folder);
                let (path, is_folder) = (ContextTree::within(root.is_folder), root.is_folder);
                Ok(MountSource::Tree { root: self.over(lower, made)?, path, is_folder })
            }
            Shown::Root(root) => {
                inputs.add_root(number, mount, root);
                self.unpack_all(step, &root.state)?;
                let view = self.snapshots.prepare(&root.state.diff_ids())?;
                let (tree, path) = (view.root().clone(), root.path.as_path().to_owned());
                made._views.push(view);
                Ok(MountSource::Tree { root: tree, path, is_folder: root.is_folder })
            }
        }
    }

    /// How far it is that what a mount shows is copied.
    fn copying(&self, step: StepId, of: String) -> impl FnOnce(u64) -> Moving + '_ {
        move |size_bytes| Moving::begin(&self.events, step, format!("copying what {of} shows"), size_bytes)
    }

    /// An overlay over one folder.
    fn over(&self, lower: PathBuf, made: &mut MadeMounts) -> Result<RootMount, StepError> {
        let own = self.store.temporary_folder()?;
        made._memories.extend(InMemory::over(own.path())?);
        let (upper, work) = (own.path().join("upper"), own.path().join("work"));
        folder::make_like(&upper, &lower)?;
        folder::make(&work)?;
        made._folders.push(own);
        Ok(RootMount::Overlay { lowers: vec![lower], upper, work })
    }

    /// The value of a secret; none when the build was given none and needs none.
    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, StepError> {
        match self.mounts.secrets.get(id) {
            None if required => Err(StepError::NoSecret { id: id.to_owned() }),
            None => Ok(None),
            Some(secret) => match &secret.value {
                Value::Bytes(bytes) => Ok(Some(bytes.to_vec())),
                Value::Unset { variable } if required => {
                    Err(StepError::SecretUnset { id: id.to_owned(), variable: variable.clone() })
                }
                // Of which the build says that it is so.
                Value::Unset { .. } => Ok(Some(Vec::new())),
                Value::TooLarge => {
                    Err(StepError::SecretTooLarge { id: id.to_owned(), limit_bytes: secrets::SIZE_MAX_BYTES })
                }
                Value::Unreadable { path, source } => {
                    let source = io::Error::new(source.kind(), source.to_string());
                    Err(StepError::Read { path: path.clone(), source })
                }
            },
        }
    }
}

/// Which cache mount that is; none where it is another mount.
fn wanted(mount: &Mount, content: &Shown) -> Option<Wanted> {
    let MountKind::Cache { id, mode, uid, gid, .. } = &mount.kind else { return None };
    let initial = match content {
        Shown::Root(root) => Some(format!("{:?} {}", root.content, root.path)),
        Shown::Context(_) | Shown::Nothing => None,
    };
    Some(Wanted { id: id.clone(), initial, mode: *mode, uid: *uid, gid: *gid })
}

/// The mode of a folder in memory: that of the folder which it covers, as runc has it, else that of `/tmp`.
fn mode_of(tree: &Tree, target: &str) -> u32 {
    let path = LayerPath::clean(target.as_bytes()).and_then(|path| tree.resolve(&path, true).ok());
    let covered = path.and_then(|path| tree.get(&path)).filter(|node| node.entry.kind == Kind::Directory);
    covered.map_or(0o1777, |node| node.entry.mode & 0o7777)
}
