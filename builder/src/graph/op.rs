//! The operations of a build. Each names its inputs; an input stands before its users.
//!
//! All that a key may count is in [`Op`]; what only describes a step is in [`About`], outside every key.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::contexts::{Contexts, FolderId};
use super::mode::SymbolicMode;
use super::outline::Outline;
use crate::dockerfile::{Lines, Problem};
use crate::image::{HistoryRow, ImageConfig, Platform, RuntimeConfig};

/// Names an operation of one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub(super) usize);

impl OpId {
    /// The operation at this place in [`Graph::ops`].
    #[must_use]
    pub fn at(index: usize) -> Self {
        Self(index)
    }

    /// Its place in [`Graph::ops`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A root file system in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// Nothing at all (`FROM scratch`).
    Scratch,
    /// What an operation leaves.
    Of(OpId),
}

impl Root {
    /// The operation, if there is one.
    #[must_use]
    pub fn op(self) -> Option<OpId> {
        match self {
            Self::Scratch => None,
            Self::Of(id) => Some(id),
        }
    }
}

/// A build for one target and platform.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    /// The target stage's image.
    pub result: StageResult,
    /// What it is built for.
    pub platform: Platform,
    /// Problems that do not stop the build.
    pub warnings: Vec<Problem>,
    /// The number of the target's stage in the file.
    pub target: Option<usize>,
    /// What the target can be given.
    pub outline: Outline,
}

/// An operation and what describes it.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Texts for people.
    pub about: About,
}

impl Graph {
    /// All operations, inputs before their users.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = (OpId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (OpId(index), node))
    }

    /// One operation.
    ///
    /// # Panics
    ///
    /// When `id` comes from another graph.
    #[must_use]
    pub fn node(&self, id: OpId) -> &Node {
        &self.nodes[id.0]
    }
}

/// What describes an operation: for messages and progress, never in a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The instruction as typed, continuation lines joined; a `RUN` of a heredoc shows the first line of the body.
    pub instruction: String,
    /// The stage's name, or `stage-N` for the Nth (from 0) if it has none; none when the file has a single unnamed stage.
    pub stage: Option<String>,
    /// The lines of the instruction.
    pub lines: Lines,
    /// Which of the stage's steps this is, from 1.
    pub step: usize,
    /// How many steps the stage has.
    pub steps: usize,
}

impl About {
    /// `[build 2/5] RUN make`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.stage {
            Some(stage) => format!("[{stage} {}/{}] {}", self.step, self.steps, self.instruction),
            None => format!("[{}/{}] {}", self.step, self.steps, self.instruction),
        }
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A base image's root file system.
    Base(BaseOp),
    /// Files put on a root file system.
    Copy(CopyOp),
    /// A command run on a root file system.
    Run(RunOp),
    /// Something fetched from a URL or a git repository.
    Fetch(FetchOp),
}

impl Op {
    /// Every operation it needs, each once, in order of id.
    #[must_use]
    pub fn inputs(&self) -> Vec<OpId> {
        let mut inputs = Vec::new();
        match self {
            Self::Base(_) | Self::Fetch(_) => {}
            Self::Copy(copy) => {
                inputs.extend(copy.input.op());
                match &copy.from {
                    CopyFrom::Root(root) => inputs.extend(root.op()),
                    CopyFrom::Fetch(id) => inputs.push(*id),
                    CopyFrom::Context | CopyFrom::Folder(_) | CopyFrom::MakeDirectory => {}
                }
            }
            Self::Run(run) => {
                inputs.extend(run.input.op());
                inputs.extend(run.mounts.iter().filter_map(|mount| match mount.from {
                    MountFrom::Root(root) => root.op(),
                    MountFrom::Context | MountFrom::Folder(_) | MountFrom::Nothing => None,
                }));
            }
        }
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// The root file system that it adds a layer to; none for operations that start one.
    #[must_use]
    pub fn below(&self) -> Option<Root> {
        match self {
            Self::Base(_) | Self::Fetch(_) => None,
            Self::Copy(copy) => Some(copy.input),
            Self::Run(run) => Some(run.input),
        }
    }
}

/// Asks for an image: the caller resolves it and lowers again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRequest {
    /// The reference as written, variables expanded (`alpine`, `registry/name:tag@sha256:...`).
    pub reference: String,
    /// The platform wanted.
    pub platform: Platform,
}

/// What the caller found for an [`ImageRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedBase {
    /// The image's configuration.
    pub config: ImageConfig,
    /// Digest of its manifest for this platform.
    pub digest: String,
}

/// A base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseOp {
    /// What was asked for. The reference is not for the key: the digest says all.
    pub request: ImageRequest,
    /// Digest of the manifest for this platform.
    pub digest: String,
    /// The layers' diff ids, bottom first.
    pub diff_ids: Vec<String>,
}

/// `COPY`, `ADD` and `WORKDIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOp {
    /// What it adds to.
    pub input: Root,
    /// Where the files come from.
    pub from: CopyFrom,
    /// Paths in there, relative to its root: cleaned, without a leading `/`, wildcards still in them; the empty text is
    /// the root. With `parents` the pivot `/./` is still in them. Empty for a fetch and a directory.
    pub sources: Vec<String>,
    /// Files that the Dockerfile holds, copied after all others.
    pub inline: Vec<InlineFile>,
    /// Absolute, cleaned path; `/` at the end only for the root.
    pub destination: String,
    /// Whether the destination was written as a directory (`dir/`, `.`, or nothing): files go into it.
    pub destination_is_directory: bool,
    /// `user[:group]`, names or numbers. None: 0:0 for context, inline and fetched files, kept for a stage's or image's.
    pub chown: Option<String>,
    /// Mode for everything copied.
    pub chmod: Option<Chmod>,
    /// Its own layer, whatever is below.
    pub link: bool,
    /// Keep the sources' folders.
    pub parents: bool,
    /// Ignore patterns for the sources, in order.
    pub exclude: Vec<String>,
    /// Unpack sources that are archives.
    pub unpack: bool,
}

/// Where a copy reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// The folder of a named context.
    Folder(FolderId),
    /// A stage's or an image's root file system.
    Root(Root),
    /// Something fetched.
    Fetch(OpId),
    /// No source at all: make `destination` (and missing parents) a directory of mode 0755 owned by `chown`; nothing
    /// happens, and the layer is empty, when it is there. This is `WORKDIR`.
    MakeDirectory,
}

/// A file that a heredoc holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// Octal: these bits, at most 0o7777.
    Bits(u32),
    /// Symbolic (`u=rwX,go=rX`).
    Symbolic(SymbolicMode),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOp {
    /// What it runs on.
    pub input: Root,
    /// Program and arguments; the shell is already in front of a shell form.
    pub argv: Vec<String>,
    /// The environment in scope, `ENV` and `ARG`, in the order of last setting; the later of two of one name counts.
    pub env: Vec<(String, String)>,
    /// Proxy settings from build arguments that no `ARG` declares: in the command's environment, in no key.
    pub proxy_env: Vec<(String, String)>,
    /// Absolute working directory.
    pub cwd: String,
    /// `USER` as written, variables expanded; empty is root.
    pub user: String,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// What the build says of all its commands.
    pub conditions: Arc<Conditions>,
    /// A heredoc that is a script of its own (`#!`): `argv` names it, and it is there only for this command.
    pub script: Option<InlineFile>,
    /// Platform it runs on.
    pub platform: Platform,
}

/// What a build says of all its commands, beside their network: each counts in the key of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `--add-host`: names and addresses for `/etc/hosts`, in order.
    pub hosts: Vec<(String, String)>,
    /// `--shm-size`: the size of `/dev/shm` in bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`, in order; of two of one name the last counts.
    pub limits: Vec<Limit>,
    /// The build argument `BUILDKIT_SANDBOX_HOSTNAME`.
    pub host_name: Option<String>,
    /// `--cap-add`: names, sorted.
    pub added_capabilities: Vec<String>,
    /// `--cap-drop`: names, sorted.
    pub dropped_capabilities: Vec<String>,
}

/// A resource limit of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As `ulimit` options of Docker name it: `nofile`, `core` ...
    pub name: String,
    /// What the command may use; none is no limit.
    pub soft: Option<u64>,
    /// How far the command may raise it; none is no limit.
    pub hard: Option<u64>,
}

/// What `--allow` lets the commands of a build do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `network.host`: `RUN --network=host`.
    pub host_network: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub insecure: bool,
    /// `user.recorded`: a `RUN` of another user than root where a user is only played. No part of any key: what it leaves is
    /// recorded as such.
    pub recorded_user: bool,
}

/// `--network` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// As the build has it.
    #[default]
    Default,
    /// No network but loopback.
    None,
    /// The host's.
    Host,
    /// One of its own that leads to other machines and not to the host.
    Isolated,
}

/// `--security` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// The usual limits.
    #[default]
    Sandbox,
    /// All capabilities, no filters.
    Insecure,
}

/// A `--mount` of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Absolute path; empty for a secret that is only a variable.
    pub target: String,
    /// Where the content comes from.
    pub from: MountFrom,
    /// Path in there.
    pub source: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountFrom {
    /// The build context.
    Context,
    /// The folder of a named context.
    Folder(FolderId),
    /// A stage's or an image's root file system.
    Root(Root),
    /// Nowhere.
    Nothing,
}

/// The five kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a context, stage or image.
    Bind,
    /// A folder that outlives the build.
    Cache {
        /// Which one.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Permission bits of a fresh one.
        mode: u32,
        /// Owner of a fresh one.
        uid: u32,
        /// Group of a fresh one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Ceiling, in bytes; 0 is none.
        size_bytes: u64,
    },
    /// A secret, as a file, a variable or both.
    Secret {
        /// Which one.
        id: String,
        /// Variable to set.
        env: Option<String>,
        /// Whether its absence is an error.
        required: bool,
        /// Permission bits of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The agent's socket.
    Ssh {
        /// Which one.
        id: String,
        /// Whether its absence is an error.
        required: bool,
        /// Permission bits of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    #[default]
    Shared,
    /// Everyone, each with its own.
    Private,
    /// One after the other.
    Locked,
}

/// Something that is had from elsewhere as one file, which each build asks for anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FetchOp {
    /// A file over HTTP.
    Url {
        /// Where.
        url: String,
        /// The name it gets when the destination is a directory.
        file_name: String,
        /// The digest that its content must have.
        checksum: Option<String>,
    },
    /// A git repository, as a tar of its check-out.
    Git {
        /// The remote with its fragment, as written.
        remote: String,
        /// The commit it must be.
        checksum: Option<String>,
        /// Whether `.git` stays, where the address does not say.
        keep_git_dir: bool,
        /// Whether the user named it, rather than the Dockerfile: then ssh may use the user's own keys.
        by_user: bool,
    },
    /// What the store holds already: what standard input gave.
    Given {
        /// Digest of the file.
        digest: String,
        /// What it is, for messages.
        what: String,
    },
}

/// The image that a stage makes.
#[derive(Clone, Debug, PartialEq)]
pub struct StageResult {
    /// Its files.
    pub root: Root,
    /// Its runtime configuration.
    pub config: RuntimeConfig,
    /// `MAINTAINER`.
    pub author: Option<String>,
    /// What else its base's configuration hands down.
    pub others: BTreeMap<String, Value>,
    /// Its history, oldest first.
    pub history: Vec<HistoryStep>,
    /// The platform written into its configuration.
    pub platform: Platform,
}

/// One row of a stage's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryStep {
    /// A row that the base image brought; kept as it is.
    Base(HistoryRow),
    /// A row of this build.
    Made {
        /// The instruction in the reference's spelling.
        created_by: String,
        /// The operation whose layer it describes; none for a row with `empty_layer`.
        layer: Option<OpId>,
        /// The instruction's lines.
        lines: Lines,
    },
}

impl HistoryStep {
    /// The comment of every row that a Dockerfile gave.
    pub const COMMENT: &'static str = "buildkit.dockerfile.v0";
}

/// What lowering is told.
#[derive(Clone, Debug)]
pub struct LowerInput {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// What to build for.
    pub platform: Platform,
    /// What builds.
    pub build_platform: Platform,
    /// Images that are resolved so far.
    pub bases: BTreeMap<ImageRequest, ResolvedBase>,
    /// `--label`: set on the result, over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--network`: for each `RUN` that has none of its own.
    pub network: Network,
    /// `--add-host` and what else is said of all commands.
    pub conditions: Conditions,
    /// `--allow`.
    pub allowed: Allowed,
    /// What stands for the context, and for images and stages.
    pub contexts: Contexts,
    /// Lower all stages, whether the target needs them or not: to check them.
    pub all_stages: bool,
}

/// How far lowering came.
#[derive(Clone, Debug)]
pub enum Lowered {
    /// These images must be resolved first; then lower again with them in [`LowerInput::bases`]. Each with the lines of the
    /// first instruction that names it.
    Needs(Vec<(ImageRequest, Lines)>),
    /// The build.
    Done(Box<Graph>),
}
