//! What a RUN is told, and what it answers.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::process::Resource;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::capabilities::{self, CapabilityChange};
use super::groups::Resources;

/// Everything that one RUN depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSpec {
    /// The root file system.
    pub root: RootMount,
    /// The command and its arguments. A command without a slash is looked up in the `PATH` of `env`, inside the root.
    pub argv: Vec<String>,
    /// The whole environment, in order. Of a name that occurs twice the last value counts. A missing `HOME` is set
    /// from the root's `/etc/passwd`.
    pub env: Vec<(String, String)>,
    /// The working folder, absolute; made (and given to `uid`:`gid`) when it is missing.
    pub cwd: String,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The host name that the command sees.
    pub hostname: String,
    /// Content of `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Which network the command sees.
    pub network: Network,
    /// Whether it keeps all rights of root on this machine: every capability and device, and nothing filtered or hidden.
    pub insecure: bool,
    /// What the build changes about its capabilities; an insecure command has all in any case.
    #[serde(default)]
    pub capabilities: CapabilityChange,
    /// Size of `/dev/shm`; 0 is [`SHM_BYTES`].
    pub shm_size_bytes: u64,
    /// Its resource limits; those not named are the builder's.
    pub limits: Vec<Limit>,
    /// How much of the machine it may use.
    #[serde(skip)]
    pub resources: Resources,
    /// What is mounted in the root besides what every RUN has there, outer mounts before those in them. Places that the
    /// root lacks are made for the command and gone after it.
    pub mounts: Vec<RunMount>,
    /// Whether owners are recorded and ids are played, as this process has one id only.
    pub recorded: bool,
}

impl RunSpec {
    /// Whether the command is kept from raw packets, as those of the host's network are others' too.
    #[must_use]
    pub fn is_without_raw(&self) -> bool {
        self.network == Network::Host && !self.insecure && !capabilities::of(self).contains(CapabilitySet::NET_RAW)
    }
}

/// Size of a command's `/dev/shm` in bytes, as other builders have it.
pub const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// A resource limit of a command. `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What is limited, in the words of Docker's `--ulimit`: one of [`Limit::NAMES`].
    pub name: String,
    /// What the command may use.
    pub soft: Option<u64>,
    /// How far it may raise that.
    pub hard: Option<u64>,
}

impl Limit {
    /// All that can be limited.
    pub const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    /// The kernel's name; none for a name that is not in [`Limit::NAMES`].
    pub(super) fn resource(&self) -> Option<Resource> {
        Some(match self.name.as_str() {
            "core" => Resource::Core,
            "cpu" => Resource::Cpu,
            "data" => Resource::Data,
            "fsize" => Resource::Fsize,
            "locks" => Resource::Locks,
            "memlock" => Resource::Memlock,
            "msgqueue" => Resource::Msgqueue,
            "nice" => Resource::Nice,
            "nofile" => Resource::Nofile,
            "nproc" => Resource::Nproc,
            "rss" => Resource::Rss,
            "rtprio" => Resource::Rtprio,
            "rttime" => Resource::Rttime,
            "sigpending" => Resource::Sigpending,
            "stack" => Resource::Stack,
            _ => return None,
        })
    }
}

/// One mount in the root of a RUN.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunMount {
    /// Where the command sees it: absolute, not the root.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// Something in a tree on this machine.
    Tree {
        /// The tree. Writes to an overlay land in its upper folder, those to a folder in it.
        root: RootMount,
        /// Where in it; links are followed inside the tree only. Empty is all of it.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// Whether a folder is there, or something else.
        is_folder: bool,
    },
    /// A file in memory.
    File {
        /// What is in it.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// An empty folder in memory.
    Memory {
        /// Ceiling in bytes; 0 is the kernel's.
        size_bytes: u64,
        /// Permission bits.
        mode: u32,
    },
}

impl MountSource {
    /// Whether it is mounted on a folder.
    pub(super) fn is_folder(&self) -> bool {
        match self {
            Self::Tree { is_folder, .. } => *is_folder,
            Self::File { .. } => false,
            Self::Memory { .. } => true,
        }
    }
}

/// What is in a file may be a secret.
impl std::fmt::Debug for MountSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tree { root, path, is_folder } => {
                f.debug_struct("Tree").field("root", root).field("path", path).field("is_folder", is_folder).finish()
            }
            Self::File { content, mode, uid, gid } => {
                let (length, owner) = (content.len(), (uid, gid));
                f.debug_struct("File").field("bytes", &length).field("mode", mode).field("owner", &owner).finish()
            }
            Self::Memory { size_bytes, mode } => {
                f.debug_struct("Memory").field("size_bytes", size_bytes).field("mode", mode).finish()
            }
        }
    }
}

/// The root file system of a RUN. The stage mounts it in a mount namespace of its own, so nothing is left mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RootMount {
    /// An overlay: changes land in `upper`.
    Overlay {
        /// Read-only folders, topmost first; at most 500. With none, `upper` alone is the root.
        #[serde(with = "path_list")]
        lowers: Vec<PathBuf>,
        /// Receives the changes.
        #[serde(with = "path_bytes")]
        upper: PathBuf,
        /// Empty folder on the file system of `upper`; the kernel's scratch space.
        #[serde(with = "path_bytes")]
        work: PathBuf,
    },
    /// A folder that the command changes in place.
    Directory(#[serde(with = "path_bytes")] PathBuf),
}

/// Which network a RUN sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The builder's own.
    Host,
    /// A loopback device and nothing else.
    None,
    /// One of its own that leads to other machines, and not to the host's loopback device.
    Isolated,
}

/// Where a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a RUN ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command ended with this code; 127 when it was not found, 126 when it could not be executed.
    Code(u8),
    /// A signal ended the command.
    Signal {
        /// The signal's number.
        signal: i32,
        /// The kernel counted an out-of-memory kill while the command ran. A shell that reports such a death of its
        /// child as code 137 is shown as signal 9 here too.
        out_of_memory: bool,
    },
    /// [`Cancel::cancel`](crate::stop::Cancel::cancel) was called; nothing of the command is left.
    Cancelled,
}

/// Paths need not be UTF-8, and JSON must be: they travel as bytes.
mod path_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}

/// As `path_bytes`, for a list.
mod path_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| path.as_os_str().as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let paths: Vec<Vec<u8>> = Vec::deserialize(deserializer)?;
        Ok(paths.into_iter().map(|path| OsString::from_vec(path).into()).collect())
    }
}

impl RunSpec {
    /// The command `program` alone: what is run to see whether commands can be.
    pub(super) fn trial(root: RootMount, program: &str, recorded: bool) -> Self {
        Self {
            root,
            argv: vec![program.to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "trial".to_owned(),
            hosts: Vec::new(),
            resolv_conf: Vec::new(),
            network: Network::Host,
            insecure: false,
            capabilities: CapabilityChange::default(),
            shm_size_bytes: 0,
            limits: Vec::new(),
            resources: Resources::default(),
            mounts: Vec::new(),
            recorded,
        }
    }
}
