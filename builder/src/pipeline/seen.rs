//! What a build sees of a folder, for whoever gives a build the same in another one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::request::DockerfileSource;
use super::{BuildError, Request, places};
use crate::blob::Store;
use crate::context::{Context, Ignore, Modes, SourceEntry, read_dockerfile};
use crate::event::Events;

/// What a build sees of a folder.
#[derive(Debug)]
pub struct Seen {
    /// What no rule hides, a folder before what is in it, with the modes that the build gives.
    pub entries: Vec<SourceEntry>,
    /// The Dockerfile and the ignore file where they lie in the folder, relative to it. Rules may hide them.
    pub inputs: Vec<PathBuf>,
    /// The one of them that was named as the Dockerfile.
    pub file: Option<PathBuf>,
    /// When the commit that is checked out there was made, in seconds since 1970.
    pub committed_at: Option<i64>,
}

/// Looks at the folder that is the context.
///
/// # Errors
/// Those of a build that cannot begin.
pub fn seen(folder: &Path, request: &Request, store: &Store, events: &Events) -> Result<Seen, BuildError> {
    Context::open(folder, Ignore::default())?;
    let named = match &request.file {
        Some(DockerfileSource::Path(path)) => Some(path.as_path()),
        _ => None,
    };
    let dockerfile = match (&request.file, named) {
        (Some(_), None) => None,
        (_, named) => Some(read_dockerfile(folder, named)?.path),
    };
    let context = places::open_folder(folder, dockerfile.as_deref(), None, request, store, events)?;
    let entries = context.select("")?.sources.into_iter().flat_map(|source| source.entries).collect();
    let root = context.root();
    let mut inputs = Vec::new();
    let rules = dockerfile.as_ref().map(|path| {
        let mut name = OsString::from(path);
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in dockerfile.iter().chain(&rules).chain([&root.join(".dockerignore")]) {
        // Where a link leads counts too: what it names may be hidden.
        inputs.extend(
            place_in(root, path).into_iter().chain(path.canonicalize().ok().and_then(|path| below(root, &path))),
        );
    }
    inputs.retain(|input| root.join(input).is_file());
    let file = named.and_then(|path| place_in(root, path));
    Ok(Seen { entries, inputs, file, committed_at: context.modes().and_then(Modes::committed_at) })
}

/// What is wrong with a folder that was to be the context; nothing if nothing is.
#[must_use]
pub fn no_folder(folder: &Path) -> Option<String> {
    Context::open(folder, Ignore::default()).err().map(|error| error.to_string())
}

/// Where a file lies below `root`, whatever links lead to its folder.
fn place_in(root: &Path, path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    below(root, &folder.canonicalize().ok()?.join(path.file_name()?))
}

fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(Path::to_owned)
}
