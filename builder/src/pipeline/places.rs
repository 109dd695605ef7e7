//! Where the context, the named contexts and the Dockerfile are, and which rules hide files of which.
//!
//! Rules hide files only of folders on this machine: `.dockerignore` at a folder's top, and for the build's own context
//! `<Dockerfile>.dockerignore` in its place. A context that is fetched is taken as it is.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use fluyt_client::without_password;
use tokio::runtime::Handle;

use super::fetching::Fetcher;
use super::request::{ContextSource, DockerfileSource, NO_POLICIES};
use super::shown::Shown;
use super::{BuildError, Request, Workshop};
use crate::blob::Store;
use crate::context::{Context, Git, InputError, Modes, read_dockerfile, read_dockerfile_from, read_ignore, usual_name};
use crate::event::{Event, Events};
use crate::execute::{is_archive, open_archive};
use crate::fetch::{self, FetchedFile, GitAddress};
use crate::graph::{Contexts, FetchOp, FetchedTree, FolderId, NamedContext, normal_name};
use crate::layer::{ArchiveError, Kind, LayerError, LayerPath, Limits, read_layer};
use crate::notation::truth;

/// Links from one name of a Dockerfile to another that are followed in an archive.
const LINKS_MAX: usize = 8;

/// What standard input is called.
const STDIN: &str = "standard input";

/// The build argument that keeps `.git` in a context that is a repository.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// The place of a context's address.
const THE_CONTEXT: &str = "the context";

/// What the address of a git repository may look like.
const GIT_FORMS: &str =
    "write `https://HOST/PATH.git#REF:FOLDER`, `USER@HOST:PATH` or `https://HOST/PATH.git?ref=REF&subdir=FOLDER`";

/// Where the context is.
#[derive(Debug)]
pub(super) enum Place {
    /// A folder.
    Folder(PathBuf),
    /// An archive in the store.
    Archive(PathBuf),
    /// There is none: what came is a Dockerfile.
    Text(String),
}

/// The context, found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) contexts: Contexts,
    pub(super) fetched: HashMap<FetchOp, FetchedFile>,
    /// When the commit that it is was made, in seconds since 1970.
    pub(super) committed_at: Option<i64>,
}

/// A Dockerfile, found.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) text: String,
    /// Its name for messages.
    pub(super) name: String,
    /// Where it is, as seen from where the command runs; empty where it is in no file there.
    pub(super) path: String,
    /// Where it is on this machine, for rules that lie beside it.
    pub(super) beside: Option<PathBuf>,
}

/// Finds the context, and fetches it where it is no folder.
pub(super) fn find(request: &Request, workshop: &Workshop, fetcher: &Fetcher) -> Result<Found, BuildError> {
    match &request.context {
        ContextSource::Folder(folder) => {
            // The rules come later, but a context that is no folder is the first thing to say.
            Context::open(folder, crate::context::Ignore::default())?;
            Ok(Found::of(Place::Folder(folder.clone())))
        }
        ContextSource::Stdin => {
            if request.file == Some(DockerfileSource::Stdin) {
                return Err(misused(
                    "standard input cannot be the context and the Dockerfile",
                    "put the Dockerfile into the archive, or give the context as a folder",
                ));
            }
            let file = fetch::keep(&workshop.store, STDIN, &mut *(workshop.stdin)())?;
            if holds_archive(&file.path)? {
                let what = "the context on standard input".to_owned();
                return Ok(archive(FetchOp::Given { digest: file.digest.to_string(), what }, file));
            }
            if let Some(DockerfileSource::Path(path)) = &request.file {
                return Err(misused(
                    format!("standard input is no archive, so that it is a Dockerfile, and so is {}", path.display()),
                    "leave one of them out, or send a tar archive",
                ));
            }
            let text = read_dockerfile_from(&mut opened(&file.path)?, Path::new(STDIN))?;
            Ok(Found::of(Place::Text(text)))
        }
        ContextSource::Address(address) => {
            if let Some(git) = GitAddress::parse_context(address) {
                git.map_err(|error| misused(error.to_string(), GIT_FORMS))?;
                let keep_git_dir = request.build_args.get(KEEP_GIT_DIR).is_some_and(|value| truth(value) == Some(true));
                let op = FetchOp::Git { remote: address.clone(), checksum: None, keep_git_dir, by_user: true };
                let file = Handle::current().block_on(fetcher.one(&op, &Shown::elsewhere(THE_CONTEXT)))?;
                let committed_at = Some(file.modified_seconds);
                return Ok(Found { committed_at, ..archive(op, file) });
            }
            let (url, file_name) = (address.clone(), "context".to_owned());
            let op = FetchOp::Url { url, file_name, checksum: None };
            let file = Handle::current().block_on(fetcher.one(&op, &Shown::elsewhere(THE_CONTEXT)))?;
            if holds_archive(&file.path)? {
                return Ok(archive(op, file));
            }
            // As the reference has it: the file is the Dockerfile, and all that there is of a context.
            let text = read_dockerfile_from(&mut opened(&file.path)?, Path::new(&without_password(address)))?;
            let main = FetchedTree { fetch: op.clone(), unpack: false };
            let contexts = Contexts { main: Some(main), named: BTreeMap::new() };
            Ok(Found { contexts, fetched: HashMap::from([(op, file)]), ..Found::of(Place::Text(text)) })
        }
    }
}

impl Found {
    fn of(place: Place) -> Self {
        Self { place, contexts: Contexts::default(), fetched: HashMap::new(), committed_at: None }
    }
}

fn archive(fetch: FetchOp, file: FetchedFile) -> Found {
    Found {
        committed_at: None,
        place: Place::Archive(file.path.clone()),
        contexts: Contexts { main: Some(FetchedTree { fetch: fetch.clone(), unpack: true }), named: BTreeMap::new() },
        fetched: HashMap::from([(fetch, file)]),
    }
}

/// Finds the Dockerfile.
pub(super) fn dockerfile(
    request: &Request,
    workshop: &Workshop,
    fetcher: &Fetcher,
    found: &Found,
) -> Result<Input, BuildError> {
    let plain = |text: String| Input { text, name: "Dockerfile".to_owned(), path: String::new(), beside: None };
    match (&request.file, &found.place) {
        (Some(DockerfileSource::Stdin), _) => {
            Ok(plain(read_dockerfile_from(&mut *(workshop.stdin)(), Path::new(STDIN))?))
        }
        (Some(DockerfileSource::Address(url)), _) => {
            let op = FetchOp::Url { url: url.clone(), file_name: "Dockerfile".to_owned(), checksum: None };
            let file = Handle::current().block_on(fetcher.one(&op, &Shown::elsewhere("--file")))?;
            Ok(plain(read_dockerfile_from(&mut opened(&file.path)?, Path::new(&without_password(url)))?))
        }
        (None, Place::Text(text)) => Ok(plain(text.clone())),
        // As with Docker, a Dockerfile's name is relative to where the command runs, not to the context.
        (file, Place::Folder(folder)) => {
            let file = match file {
                Some(DockerfileSource::Path(path)) => Some(path.as_path()),
                _ => None,
            };
            let read = read_dockerfile(folder, file)?;
            let policy = policy_of(&read.path.display().to_string());
            obeyable(request, &policy, Path::new(&policy).exists())?;
            Ok(Input {
                name: read.path.strip_prefix(folder).unwrap_or(&read.path).display().to_string(),
                path: read.path.display().to_string(),
                text: read.text,
                beside: Some(read.path),
            })
        }
        // Unless it is absolute, which no name in an archive is.
        (Some(DockerfileSource::Path(path)), _) if path.is_absolute() => {
            let read = read_dockerfile(Path::new(""), Some(path))?;
            let name = path.display().to_string();
            obeyable(request, &policy_of(&name), Path::new(&policy_of(&name)).exists())?;
            Ok(Input { text: read.text, name: name.clone(), path: name, beside: None })
        }
        (Some(DockerfileSource::Path(path)), Place::Archive(archive)) => {
            let name = relative(path);
            let has_policy = Cell::new(false);
            let choose = |has: &dyn Fn(&str) -> bool| {
                has_policy.set(has(&policy_of(&name)));
                Some(name.clone())
            };
            let text = in_archive(archive, &choose)?;
            obeyable(request, &policy_of(&name), has_policy.get())?;
            let (name, text) = text.ok_or_else(|| InputError::Missing(path.clone()))?;
            Ok(Input { text, path: name.clone(), name, beside: None })
        }
        (None, Place::Archive(archive)) => {
            let has_policy = Cell::new(false);
            let usual = |has: &dyn Fn(&str) -> bool| {
                let name = usual_name(has)?;
                has_policy.set(has(&policy_of(name)));
                Some(name.to_owned())
            };
            let text = in_archive(archive, &usual)?;
            let (name, text) =
                text.ok_or_else(|| InputError::NoDockerfile(PathBuf::from(request.context.to_string())))?;
            obeyable(request, &policy_of(&name), has_policy.get())?;
            Ok(Input { text, path: name.clone(), name, beside: None })
        }
        (Some(DockerfileSource::Path(path)), Place::Text(_)) => Err(InputError::Missing(path.clone()).into()),
    }
}

/// Where buildx (from 0.31 on) looks for the policy of a Dockerfile's sources, unasked.
fn policy_of(dockerfile: &str) -> String {
    format!("{dockerfile}.rego")
}

/// Refuses what a policy may forbid.
fn obeyable(request: &Request, policy: &str, is_there: bool) -> Result<(), BuildError> {
    if request.policies_off || !is_there {
        return Ok(());
    }
    Err(misused(
        format!("{policy} is a policy for what this Dockerfile uses, and those are not there yet"),
        NO_POLICIES,
    ))
}

/// A path as it is in an archive: `..` stops at its top.
fn relative(path: &Path) -> String {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names.join("/")
}

/// Names a file, given what is there.
type Choose<'a> = &'a dyn Fn(&dyn Fn(&str) -> bool) -> Option<String>;

/// Reads a Dockerfile from an archive; `choose` names it.
fn in_archive(archive: &Path, choose: Choose<'_>) -> Result<Option<(String, String)>, BuildError> {
    let mut links: HashMap<LayerPath, Option<LayerPath>> = HashMap::new();
    read_entries(archive, &mut |entry, _| {
        let target = match &entry.kind {
            Kind::File { .. } => None,
            Kind::Hardlink(target) => Some(target.clone()),
            Kind::Symlink(target) => {
                let above = entry.path.parent().unwrap_or_default();
                let from = if target.starts_with(b"/") { LayerPath::root() } else { above };
                LayerPath::clean(&[from.as_bytes(), b"/", target].concat())
            }
            _ => return Ok(()),
        };
        links.insert(entry.path.clone(), target);
        Ok(())
    })?;
    let has = |name: &str| LayerPath::clean(name.as_bytes()).is_some_and(|path| links.contains_key(&path));
    let Some(name) = choose(&has) else { return Ok(None) };
    let Some(mut wanted) = LayerPath::clean(name.as_bytes()) else { return Ok(None) };
    for _ in 0..LINKS_MAX {
        match links.get(&wanted) {
            Some(Some(target)) => wanted = target.clone(),
            Some(None) => break,
            None => return Ok(None),
        }
    }
    let mut text = None;
    read_entries(archive, &mut |entry, content| {
        if entry.path == wanted && matches!(entry.kind, Kind::File { .. }) {
            text = Some(read_dockerfile_from(content, Path::new(&name))?);
        }
        Ok(())
    })?;
    Ok(text.map(|text| (name, text)))
}

/// An error on the way through an archive.
enum Broken {
    Layer(LayerError),
    Input(InputError),
}

impl From<LayerError> for Broken {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<InputError> for Broken {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

fn read_entries(
    archive: &Path,
    visit: &mut dyn FnMut(&crate::layer::Entry, &mut dyn std::io::Read) -> Result<(), Broken>,
) -> Result<(), BuildError> {
    let failed = |source| InputError::Read { path: archive.to_owned(), source };
    let reader = open_archive(archive).map_err(failed)?;
    match read_layer(reader, "", &Limits::DEFAULT, visit) {
        Ok(_) => Ok(()),
        Err(Broken::Input(error)) => Err(error.into()),
        Err(Broken::Layer(source)) => Err(BuildError::Archive { source: Box::new(ArchiveError(source)) }),
    }
}

fn opened(path: &Path) -> Result<File, BuildError> {
    Ok(File::open(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?)
}

/// Whether a context is an archive: a tar, or anything compressed, as no Dockerfile is. So a damaged one is told as that.
fn holds_archive(path: &Path) -> Result<bool, BuildError> {
    let mut start = Vec::new();
    let read = opened(path)?.take(6).read_to_end(&mut start);
    read.map_err(|source| InputError::Read { path: path.to_owned(), source })?;
    let compressed: [&[u8]; 4] = [b"\x1F\x8B\x08", b"BZh", b"\xFD7zXZ\0", b"\x28\xB5\x2F\xFD"];
    Ok(compressed.iter().any(|magic| start.starts_with(magic)) || is_archive(path).map_err(archive_failed)?)
}

fn archive_failed(error: crate::execute::StepError) -> BuildError {
    unusable(format!("the context cannot be read: {error}"), "send it again")
}

/// Opens a folder with the rules that hide files of it, and with `modes` where those are known.
pub(super) fn open_folder(
    folder: &Path,
    dockerfile: Option<&Path>,
    modes: Option<Modes>,
    request: &Request,
    store: &Store,
    events: &Events,
) -> Result<Context, BuildError> {
    let context = Context::open(folder, read_ignore(folder, dockerfile)?)?;
    let context =
        [store.root()].into_iter().chain(request.other_store.as_deref()).fold(context, Context::without_store);
    if !request.reproducible && request.epoch.is_none() {
        return Ok(context);
    }
    Ok(context.with_modes(match modes.map_or_else(|| Modes::ask(folder), Git::Known) {
        Git::Known(modes) => modes,
        Git::Absent => Modes::default(),
        Git::Silent(reason) => {
            let text = format!(
                "{} is a check-out of git, which cannot be asked for files' modes: {reason}; they are taken from the \
                 files, less write for group and others",
                folder.display()
            );
            events.hear(Event::Warning { text });
            Modes::default()
        }
    }))
}

/// What each `--build-context` stands for, and the folders among them.
#[expect(clippy::type_complexity, reason = "two lists, which the caller takes apart at once")]
pub(super) fn named(
    request: &Request,
    store: &Store,
    events: &Events,
) -> Result<(Vec<Arc<Context>>, BTreeMap<String, NamedContext>), BuildError> {
    let (mut folders, mut named) = (Vec::new(), BTreeMap::new());
    for (name, value) in &request.contexts {
        if name == "scratch" || name == "context" {
            let text = format!("`--build-context {name}` has no effect: the name is reserved");
            events.hear(Event::Warning { text });
            continue;
        }
        let wrong = |problem: String, hint: &str| {
            unusable(format!("`--build-context {name}={}`: {problem}", without_password(value)), hint)
        };
        let context = if let Some(reference) = value.strip_prefix("docker-image://") {
            match reference {
                "scratch" => NamedContext::Scratch,
                _ => {
                    fluyt_client::Reference::parse(reference)
                        .map_err(|error| wrong(error.to_string(), "write `docker-image://NAME:TAG`"))?;
                    NamedContext::Image(reference.to_owned())
                }
            }
        } else if value.starts_with("oci-layout://") {
            NamedContext::Image(value.clone())
        } else if let Some(address) = GitAddress::parse_context(value) {
            address.map_err(|error| wrong(error.problem, GIT_FORMS))?;
            let fetch = FetchOp::Git { remote: value.clone(), checksum: None, keep_git_dir: false, by_user: true };
            NamedContext::Tree(FetchedTree { fetch, unpack: true })
        } else if fetch::is_url(value) {
            // As the reference has it: a single file of this name, never unpacked.
            let (url, file_name) = (value.clone(), "context".to_owned());
            NamedContext::Tree(FetchedTree { fetch: FetchOp::Url { url, file_name, checksum: None }, unpack: false })
        } else if value.starts_with("target:") || value.starts_with("input:") {
            return Err(wrong(
                "it is the result of another build".to_owned(),
                "give that build's image as `docker-image://NAME`, or its layout as `oci-layout://FOLDER`",
            ));
        } else {
            let folder = Path::new(value);
            let opened = open_folder(folder, None, None, request, store, events).map_err(|error| match error {
                BuildError::Context(_) => wrong(
                    format!("{} is no folder", folder.display()),
                    "expected a folder, `docker-image://`, `oci-layout://`, or the address of a file or git repository",
                ),
                other => other,
            })?;
            folders.push(Arc::new(opened));
            NamedContext::Folder(FolderId(folders.len() - 1))
        };
        named.insert(normal_name(name), context);
    }
    Ok((folders, named))
}

/// What no command line may ask for.
fn misused(problem: impl Into<String>, hint: impl Into<String>) -> BuildError {
    BuildError::Usage { problem: problem.into(), hint: hint.into() }
}

pub(super) fn unusable(problem: impl Into<String>, hint: impl Into<String>) -> BuildError {
    BuildError::Unusable { problem: problem.into(), hint: hint.into() }
}
