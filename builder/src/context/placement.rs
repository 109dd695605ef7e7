//! Where a `COPY` puts what it selected. Pure: the caller looks at the destination and says what it is.
//!
//! The rules, as the reference builder has them:
//! - a directory gives its *contents*; a file, link or device gives itself;
//! - one source that is no directory goes to exactly the destination, unless that was written as a directory (`dir/`)
//!   or is one: then it goes into it under its own name;
//! - several sources go there one after the other, each finding what those before it left: of several files, the last one
//!   stays, unless the destination is a directory;
//! - the destination's own mode and owner are never taken from a source: where it is missing it is made with mode 0755.
//!
//! Paths are bytes without a leading `/`, cleaned; the empty path is the root.

/// What is at the destination, links followed inside the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationState {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// Anything else.
    NotADirectory,
}

/// What the plan needs to know of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceShape<'a> {
    /// Its path as matched; its last component is its name.
    pub name: &'a [u8],
    /// Whether it is a directory, a link at its end followed.
    pub is_directory: bool,
}

/// How a source lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The source is a directory: what is *in* it goes below the target, which is made (0755) when it is missing.
    Contents,
    /// The source itself becomes the target; the folders above it are made (0755) when they are missing.
    Itself,
}

/// Where one source goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSource {
    /// Which of the sources.
    pub source: usize,
    /// How it lands.
    pub placement: Placement,
    /// Where: join the relative paths of the source's entries to it.
    pub target: Vec<u8>,
}

/// A copy that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The destination must be a directory and is not.
    #[error("cannot copy {what} to {}: it is not a directory", shown(.destination))]
    NotADirectory {
        /// What was to be copied there.
        what: String,
        /// The destination.
        destination: Vec<u8>,
    },
}

fn shown(path: &[u8]) -> String {
    format!("`/{}`", String::from_utf8_lossy(path))
}

/// Plans a copy of `sources` (all that all patterns of one instruction selected, in order).
///
/// `wants_directory`: the destination was written with a `/` at its end, as `.` or as nothing.
///
/// # Errors
///
/// When the destination has to be a directory and is something else. (A file over a directory further down, or the
/// reverse, is found by whoever writes, who knows what is there.)
pub fn plan_copy(
    sources: &[SourceShape<'_>],
    destination: &[u8],
    wants_directory: bool,
    state: DestinationState,
) -> Result<Vec<PlannedSource>, PlacementError> {
    let mut state = state;
    let mut planned = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        let into = wants_directory || state == DestinationState::Directory;
        if state == DestinationState::NotADirectory && (into || source.is_directory) {
            let what = if source.is_directory { "the directory " } else { "" };
            let what = format!("{what}{}", shown(source.name));
            return Err(PlacementError::NotADirectory { what, destination: destination.to_vec() });
        }
        let (placement, target) = if source.is_directory {
            (Placement::Contents, destination.to_vec())
        } else if into {
            (Placement::Itself, join(destination, last_component(source.name)))
        } else {
            (Placement::Itself, destination.to_vec())
        };
        planned.push(PlannedSource { source: index, placement, target });
        // What the source leaves there is what the next one finds.
        state = if into || source.is_directory { DestinationState::Directory } else { DestinationState::NotADirectory };
    }
    Ok(planned)
}

/// `path` below `folder`; either may be empty.
fn join(folder: &[u8], path: &[u8]) -> Vec<u8> {
    match (folder.is_empty(), path.is_empty()) {
        (true, _) => path.to_vec(),
        (_, true) => folder.to_vec(),
        (false, false) => [folder, b"/", path].concat(),
    }
}

fn last_component(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: DestinationState = DestinationState::Missing;
    const DIRECTORY: DestinationState = DestinationState::Directory;
    const FILE: DestinationState = DestinationState::NotADirectory;

    /// `names`: a name that ends in `/` is a directory; `/` alone is the context itself. `destination` likewise.
    fn plan(names: &[&str], destination: &str, state: DestinationState) -> String {
        let sources: Vec<SourceShape<'_>> = names
            .iter()
            .map(|name| SourceShape { name: name.trim_end_matches('/').as_bytes(), is_directory: name.ends_with('/') })
            .collect();
        let wants_directory = destination.ends_with('/');
        match plan_copy(&sources, destination.trim_matches('/').as_bytes(), wants_directory, state) {
            Err(error) => format!("error: {error}"),
            Ok(planned) => planned
                .iter()
                .map(|one| {
                    let mark = match one.placement {
                        Placement::Contents => "contents of ",
                        Placement::Itself => "",
                    };
                    format!("{mark}{} -> /{}", names[one.source], String::from_utf8_lossy(&one.target))
                })
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    #[test]
    fn each_rule_of_a_destination() {
        for (names, destination, state, expected) in [
            // one file
            (&["a"][..], "/x", MISSING, "a -> /x"),
            (&["a"], "/x/", MISSING, "a -> /x/a"),
            (&["a"], "/x", DIRECTORY, "a -> /x/a"),
            (&["a"], "/x", FILE, "a -> /x"),
            (&["a"], "/", DIRECTORY, "a -> /a"),
            (&["sub/a"], "/x/", MISSING, "sub/a -> /x/a"),
            (&["sub/a"], "/x/y/z", MISSING, "sub/a -> /x/y/z"),
            (&["a"], "/x/", FILE, "error: cannot copy `/a` to `/x`: it is not a directory"),
            // one directory: its contents
            (&["d/"], "/x", MISSING, "contents of d/ -> /x"),
            (&["d/"], "/x/", MISSING, "contents of d/ -> /x"),
            (&["d/"], "/x", DIRECTORY, "contents of d/ -> /x"),
            (&["/"], "/x", MISSING, "contents of / -> /x"),
            (&["/"], "/", DIRECTORY, "contents of / -> /"),
            (&["d/"], "/x", FILE, "error: cannot copy the directory `/d` to `/x`: it is not a directory"),
            // several
            (&["a", "b"], "/x", MISSING, "a -> /x, b -> /x"),
            (&["a", "b"], "/x", DIRECTORY, "a -> /x/a, b -> /x/b"),
            (&["d/", "a"], "/x", MISSING, "contents of d/ -> /x, a -> /x/a"),
            (&["a", "d/"], "/x", MISSING, "error: cannot copy the directory `/d` to `/x`: it is not a directory"),
            (&["a", "d/"], "/x/", MISSING, "a -> /x/a, contents of d/ -> /x"),
            (&["d/", "e/"], "/x", MISSING, "contents of d/ -> /x, contents of e/ -> /x"),
            (&["a", "b"], "/x", FILE, "a -> /x, b -> /x"),
            (&["a", "b"], "/x/", FILE, "error: cannot copy `/a` to `/x`: it is not a directory"),
            // nothing selected
            (&[], "/x/", FILE, ""),
        ] {
            assert_eq!(plan(names, destination, state), expected, "{names:?} to {destination}, {state:?}");
        }
    }
}
