//! What is asked of a build, and what it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use fluyt_client::{Reference, without_password};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest};

use super::outputs::Destination;
use crate::execute::BaseImage;
use crate::fetch;
use crate::graph::{Allowed, Conditions, ImageRequest, Network};
use crate::image::Format;
use crate::image::Platform;
use crate::layer::Compression;
use crate::sandbox::{Resources, Wish};
use crate::secrets::Secrets;

/// What to do where a policy says what may be built.
pub const NO_POLICIES: &str = "policies are not evaluated, so what one forbids would be built: check the sources before the build, \
                               and say `--policy disabled=true`";

/// What is asked of a build. Everything that the command line, the environment and the clock have to say is in here.
#[derive(Clone, Debug)]
pub struct Request {
    /// The context.
    pub context: ContextSource,
    /// The context is a copy of what a build sees of another folder.
    pub copied: Option<Copied>,
    /// A store beside the build's own that is in no context either.
    pub other_store: Option<PathBuf>,
    /// The Dockerfile, when it was named.
    pub file: Option<DockerfileSource>,
    /// A policy beside the Dockerfile need not be obeyed.
    pub policies_off: bool,
    /// `--build-context`, by name as typed.
    pub contexts: BTreeMap<String, String>,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; none is the last.
    pub target: Option<String>,
    /// What to build for.
    pub platform: Platform,
    /// What this machine is.
    pub build_platform: Platform,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Where the image goes.
    pub destinations: Vec<Destination>,
    /// What form it has there.
    pub form: ImageForm,
    /// Registries must be asked for every base image.
    pub pull: bool,
    /// Say of every step that runs why no earlier result stands for it.
    pub explain: bool,
    /// Run every step again.
    pub no_cache: bool,
    /// Run the steps of these stages again; in small letters.
    pub no_cache_stages: BTreeSet<String>,
    /// The result may depend on inputs alone.
    pub reproducible: bool,
    /// Files that are known to differ from build to build are mended in what commands leave.
    pub normalize: bool,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
    /// `--network`.
    pub network: Network,
    /// `--add-host` and what else is said of all commands.
    pub conditions: Conditions,
    /// `--memory` and the like: how much of the machine each command may use. In no key.
    pub resources: Resources,
    /// `--allow`.
    pub allowed: Allowed,
    /// `--secret`.
    pub secrets: Secrets,
    /// The file of CA certificates that stands for the system's, for git.
    pub certificates: Option<PathBuf>,
    /// `--ssh`: agents' sockets, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// The user's folder, where this process has become root of a user namespace, so that the system names another.
    pub home: Option<PathBuf>,
    /// Which ways to run commands are wanted.
    pub isolation: Wish,
    /// The time of the build.
    pub now: Timestamp,
}

/// What of a context is lost in a copy of it.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// When the commit that is checked out in the original was made, in seconds since 1970.
    pub committed_at: Option<i64>,
}

/// Where the context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// A folder on this machine.
    Folder(PathBuf),
    /// Standard input: an archive, or a Dockerfile that needs no context.
    Stdin,
    /// A URL or a git repository.
    Address(String),
}

impl ContextSource {
    /// What was typed: a folder, `-`, or an address.
    #[must_use]
    pub fn parse(text: &OsStr) -> Self {
        match text.to_str() {
            Some("-") => Self::Stdin,
            Some(address) if fetch::is_address(address) => Self::Address(address.to_owned()),
            _ => Self::Folder(PathBuf::from(text)),
        }
    }
}

impl fmt::Display for ContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Stdin => f.write_str("standard input"),
            Self::Address(address) => f.write_str(&without_password(address)),
        }
    }
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A file: on this machine, or in a context that is not.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// A URL.
    Address(String),
}

impl DockerfileSource {
    /// What was typed: a path, `-`, or a URL.
    #[must_use]
    pub fn parse(text: &OsStr) -> Self {
        match text.to_str() {
            Some("-") => Self::Stdin,
            Some(url) if fetch::is_url(url) => Self::Address(url.to_owned()),
            _ => Self::Path(PathBuf::from(text)),
        }
    }
}

/// What form an image has, whatever is in it. A build makes one image, so all its outputs share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageForm {
    /// How layers are compressed.
    pub compression: Compression,
    /// Layers of base images too.
    pub force_compression: bool,
    /// Whose media types it has.
    pub format: Format,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the manifest's descriptor, wherever one is written.
    pub descriptor_annotations: BTreeMap<String, String>,
    /// It is pushed without tags.
    pub by_digest: bool,
    /// In the store it is also named with its digest.
    pub canonical_name: bool,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Digest of its configuration.
    pub config_digest: Digest,
    /// The images that the build started from or copied from.
    pub bases: Vec<(ImageRequest, BaseImage)>,
}
