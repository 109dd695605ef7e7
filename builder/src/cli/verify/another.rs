//! The second build as another user: by a process of its own, root in a user namespace whose ids are somebody else's outside.
//!
//! It is on r2, which leaves what r1 leaves, and it is done only where the first build was on one of these: what another rung
//! does otherwise is not the Dockerfile's doing. The other user reaches neither our store nor our files, so it has a store in
//! memory, with the base images of the first build, and a copy of the context that was given to it.
//!
//! What the kernel itself does otherwise in a user namespace is told like everything else, for an ordinary user's build has it:
//! a setuid file that is written to loses that bit, `/dev` and `/sys` are nobody's, and the numbers in `/proc/self/uid_map` are
//! others. Where a command cannot be run so (`mknod`), the second build is done again as this user, and that is said. A process
//! that is killed at once leaves an empty folder in the folder of temporary files.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use oci_spec::image::{Descriptor, Digest};
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::order::{listed, usable_bytes};
use super::{Builds, wanted};
use crate::blob::Store;
use crate::cli::args::BuildArguments;
use crate::cli::build::{Asked, open_store, request};
use crate::cli::failure::{Blame, Failure};
use crate::cli::interrupt::Interrupt;
use crate::cli::{output, transfer};
use crate::pipeline::{self, Built, ContextSource, Copied, DockerfileSource, Request, Workshop};
use crate::sandbox::{self, InMemory, Isolation, Rung, Shown, Wish};
use crate::task::given;

/// What the other process is to build.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    title: String,
    store: PathBuf,
    context: PathBuf,
    /// The Dockerfile, where it is one of the context.
    file: Option<PathBuf>,
    /// See [`Copied`].
    committed_at: Option<i64>,
    /// See [`Request`].
    other_store: Option<PathBuf>,
}

/// What it says at its end.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Built {
        manifest: Box<Descriptor>,
        config: Digest,
    },
    /// This machine does not let it be another user.
    Refused(String),
}

/// What came of it.
pub(super) enum Outcome {
    Built(Box<Built>),
    Refused(String),
    Failed(String),
}

/// The user for whom a second build can be done, by its number here; none where that would tell of other things than the
/// Dockerfile, and where one rung alone is wanted.
pub(super) fn user(wish: Wish) -> Option<u32> {
    if wish.only.is_some() || !wish.allows(Rung::Rootless) {
        return None;
    }
    if matches!(own_rung(wish), Rung::Root | Rung::Rootless) { sandbox::another_user() } else { None }
}

fn own_rung(wish: Wish) -> Rung {
    Isolation::new(wish).choice().rung
}

/// How to find out whether a difference is the user's.
pub(super) fn hint(wish: Wish) -> String {
    format!(
        "the second build was another user's; with `--isolation {}` both are this one's, and what differs then has another reason",
        own_rung(wish)
    )
}

/// What the other user is given.
pub(super) struct AnotherUser {
    user: u32,
    /// Whether folders list their files in another order there.
    pub(super) has_other_order: bool,
    store: PathBuf,
    context: PathBuf,
    file: Option<PathBuf>,
    committed_at: Option<i64>,
    // Dropped in this order.
    _shown: Shown,
    _memory: InMemory,
    _folder: Folder,
}

impl AnotherUser {
    /// `second` is of the copy that was given to the user. `None` where memory cannot be mounted, or there is little of it.
    pub(super) fn with(user: u32, second: &Request, one: &Built, ours: &Store) -> Option<Self> {
        let ContextSource::Folder(copy) = &second.context else { return None };
        let size_bytes = usable_bytes()?;
        let here = listed(ours.temporary_folder().ok()?.path()).ok()?;
        let folder = Folder::make().ok()?;
        let memory = InMemory::of(&folder.0, size_bytes).ok()??;
        let has_other_order = listed(&folder.0).ok()? != here;
        let (store, shown) = (folder.0.join("store"), folder.0.join("a copy"));
        fs::create_dir(&shown).ok()?;
        let context = Shown::at(copy, &shown).ok()??;
        pipeline::lend_bases(one, ours, &Store::open(&store).ok()?).ok()?;
        give_all(&store, user).ok()?;
        let file = match &second.file {
            Some(DockerfileSource::Path(file)) => file.strip_prefix(copy).ok().map(|file| shown.join(file)),
            _ => None,
        };
        let committed_at = second.copied.and_then(|copied| copied.committed_at);
        let (_shown, _memory, _folder) = (context, memory, folder);
        Some(Self { user, has_other_order, store, context: shown, file, committed_at, _shown, _memory, _folder })
    }

    /// Builds; the image comes to `ours`.
    pub(super) async fn build(&self, title: &str, ours: &Store) -> Result<Outcome, Failure> {
        let order = Order {
            title: format!("{title} (user {} here, on {})", self.user, Rung::Rootless),
            store: self.store.clone(),
            context: self.context.clone(),
            file: self.file.clone(),
            committed_at: self.committed_at,
            other_store: Some(ours.root().to_owned()),
        };
        // A Dockerfile whose path is no text cannot be named in the order.
        let Ok(order) = serde_json::to_string(&order) else {
            return Ok(Outcome::Refused("the Dockerfile's path is no text".to_owned()));
        };
        let started = Command::new("/proc/self/exe")
            .arg0("fluyt")
            .args(["--as-another-user", &order])
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It hears of a Ctrl-C from us, once.
            .process_group(0)
            .spawn();
        let ended = match started {
            Ok(child) => wait(child).await?,
            Err(error) => return Ok(Outcome::Refused(error.to_string())),
        };
        match serde_json::from_slice(&ended.stdout) {
            Ok(Said::Built { manifest, config }) => {
                let environment =
                    |error: &(dyn std::error::Error + 'static)| Failure::from_error(Blame::Environment, error);
                give(&self.store, 0).map_err(|error| environment(&error))?;
                let theirs = open_store(Some(&self.store))?;
                pipeline::lend_image(manifest.digest(), &theirs, ours).map_err(|error| environment(&error))?;
                Ok(Outcome::Built(Box::new(Built { manifest: *manifest, config_digest: config, bases: Vec::new() })))
            }
            Ok(Said::Refused(reason)) => Ok(Outcome::Refused(reason)),
            // It has said so, and why.
            Err(_) if ended.status.code() == Some(i32::from(Blame::Interrupted.exit_code())) => {
                Err(Failure::new(Blame::Interrupted, ""))
            }
            Err(_) => Ok(Outcome::Failed(ended.status.to_string())),
        }
    }
}

async fn wait(child: Child) -> Result<Output, Failure> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let interrupt = Interrupt::listen(|_| ());
    let mut waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let ended = tokio::select! {
        ended = &mut waiting => ended,
        () = interrupt.heard() => {
            // It may be gone already.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            waiting.await
        }
    };
    given(ended)
        .map_err(|error| Failure::new(Blame::Environment, "cannot hear from the second build").caused_by(&error))
}

/// A folder that every user reaches; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> std::io::Result<Self> {
        let mut bytes = [0; 6];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        let path = std::env::temp_dir().join(format!("fluyt-verify-{}", hex::encode(bytes)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self(path);
        fs::set_permissions(&folder.0, Permissions::from_mode(0o711))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a folder could not be removed");
        }
    }
}

/// Makes a file the user's; a link itself, not what it names.
pub(super) fn give(path: &Path, user: u32) -> std::io::Result<()> {
    Ok(chownat(CWD, path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn give_all(path: &Path, user: u32) -> std::io::Result<()> {
    give(path, user)?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// Becomes the other user, in the process that was started for that; where it may not, that is its answer.
pub(in crate::cli) fn become_another() -> Result<(), Failure> {
    match sandbox::enter_as_another() {
        Ok(()) => {
            // Whoever started this process waits for it. The kernel forgets the wish of a process that changes its ids.
            let _ = set_parent_process_death_signal(Some(Signal::TERM));
            Ok(())
        }
        Err(refusal) => {
            answer(&Said::Refused(refusal.reason))?;
            // All is said.
            Err(Failure::new(Blame::Environment, String::new()))
        }
    }
}

/// Does the second build, as the other user.
pub(super) async fn build(order: &str, arguments: BuildArguments) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order)
        .map_err(|error| Failure::usage("`--as-another-user` is for `verify` itself").caused_by(&error))?;
    let Asked { request, insecure, agents: _agents, .. } = request(&arguments)?;
    let mut registries = arguments.registries.clone();
    registries.insecure_registry.extend(insecure);
    let client = transfer::client(&registries)?;
    let store = open_store(Some(&order.store))?;
    let file = order.file.map(DockerfileSource::Path).or_else(|| request.file.clone());
    let copied = Some(Copied { committed_at: order.committed_at });
    let (context, other_store) = (ContextSource::Folder(order.context), order.other_store);
    let second = Request { context, copied, other_store, file, ..wanted(request) };
    let workshop = |store, cancel| Workshop {
        store,
        client: client.clone(),
        cancel,
        stdout: output::stdout,
        stdin: output::stdin,
    };
    let built = Builds::new(&arguments, workshop, None).build(&order.title, second, &store).await?;
    answer(&Said::Built { manifest: Box::new(built.manifest), config: built.config_digest })
}

fn answer(said: &Said) -> Result<(), Failure> {
    let text = serde_json::to_vec(said).map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    crate::cli::print(&text)
}
