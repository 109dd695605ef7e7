//! Why a build failed, whose fault that is, and what to do.

use fluyt_client::{ClientError, FileError, ReferenceError};

use super::shown::Shown;
use crate::blob::{StoreError, is_about_the_path, is_disk_full};
use crate::context::{ContextError, InputError};
use crate::event::Ending;
use crate::execute::{Lacks, StepError, ways_to_run};
use crate::export::ExportError;
use crate::fetch::{FetchError, GitError};
use crate::graph::About;
use crate::image::ImageError;
use crate::layer::{ArchiveError, LayerError};
use crate::remote::RemoteError;
use crate::secrets::{Found, SearchError};
use crate::snapshot::SnapshotError;
use crate::stop::Stopped;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The user can mend it.
    User,
    /// The command line asks for what cannot be.
    Usage,
    /// Ours, or the environment's.
    Environment,
    /// The user stopped the build.
    Interrupted,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The user stopped it.
    #[error("interrupted")]
    Cancelled,
    /// The context, or a file in it, cannot be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The Dockerfile or the ignore rules cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What was asked for cannot be.
    #[error("{problem}")]
    Unusable {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The command line asks for what cannot be.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The context is a damaged archive.
    #[error("the context is an archive that cannot be read")]
    Archive {
        /// Why.
        source: Box<ArchiveError>,
    },
    /// Something was not fetched.
    #[error("cannot fetch {what} ({place}){}", place.excerpt())]
    Fetch {
        /// What.
        what: String,
        /// The line that names it.
        place: Shown,
        /// Why.
        source: Box<FetchError>,
    },
    /// Standard input was not kept.
    #[error(transparent)]
    Stream(#[from] FetchError),
    /// The Dockerfile cannot be built.
    #[error("{}", dockerfile_text(.rendered))]
    Dockerfile {
        /// Each problem with its place in the source.
        rendered: Vec<String>,
    },
    /// The Dockerfile asks that checks which are not passed fail the build.
    #[error("the Dockerfile does not pass the build checks {}", rules.join(", "))]
    Checks {
        /// Their names.
        rules: Vec<&'static str>,
    },
    /// A base image's name is none.
    #[error("`{text}` is no image name ({place}){}", place.excerpt())]
    BaseName {
        /// As written.
        text: String,
        /// The line that names it.
        place: Shown,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A base image cannot be had.
    #[error("cannot get the base image {reference} ({place}){}", place.excerpt())]
    Base {
        /// Which.
        reference: String,
        /// The line that names it.
        place: Shown,
        /// A stage that may have been meant.
        near: Option<String>,
        /// Why.
        source: Box<RemoteError>,
    },
    /// Several things failed that were done at the same time.
    #[error("{first}")]
    Several {
        /// What is told first; its cause is this one's.
        #[source]
        first: Box<BuildError>,
        /// What failed beside it.
        others: Vec<BuildError>,
    },
    /// A step failed.
    #[error("step `{}` failed{} ({file}:{})", about.instruction, in_stage(about), about.lines)]
    Step {
        /// The Dockerfile's name.
        file: String,
        /// Which step.
        about: Box<About>,
        /// Why.
        source: Box<StepError>,
        /// What failed beside it, before the build could be stopped.
        others: Vec<BuildError>,
    },
    /// The image cannot be pushed.
    #[error("cannot push {reference}")]
    Push {
        /// Where to.
        reference: String,
        /// The image is in the store, whole and with its names.
        is_kept: bool,
        /// Why.
        source: Box<RemoteError>,
    },
    /// A base layer cannot be fetched for the image.
    #[error("cannot fetch the image's layers")]
    Layers {
        /// Why.
        source: Box<RemoteError>,
    },
    /// A base layer cannot be compressed in another way.
    #[error("cannot compress the base image's layers")]
    Compress {
        /// Why.
        source: Box<StepError>,
    },
    /// The result cannot be written.
    #[error("cannot write the result to {destination}")]
    Export {
        /// Where to.
        destination: String,
        /// Why.
        source: Box<ExportError>,
    },
    /// The result has no name to push it under.
    #[error("there is no name to push the image under")]
    NoName,
    /// The image's documents cannot be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer's record failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A document of the image would hold a secret.
    #[error(
        "{} the secret `{}`{} into {place}{}",
        step.as_ref().map_or_else(|| "this build would put".to_owned(), |step| format!("{step} would put")),
        found.id, found.spelling, excerpt
    )]
    Leak {
        /// Where it would be.
        place: String,
        /// The step that puts it there, and its lines.
        step: Option<String>,
        /// These lines with a caret.
        excerpt: String,
        /// Which secret.
        found: Found,
    },
    /// The secrets cannot be searched for.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Snapshots cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Ending for BuildError {
    fn why(&self) -> Option<String> {
        let text = match self {
            Self::Cancelled => return None,
            // The step's title says the rest.
            Self::Push { source, .. } => source.to_string(),
            Self::Export { source, .. } => source.to_string(),
            Self::Layers { source } => source.to_string(),
            error => error.to_string(),
        };
        Some(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl From<Stopped> for BuildError {
    fn from(_: Stopped) -> Self {
        Self::Cancelled
    }
}

/// Each problem as it is rendered; the first without its `error: `, which the message gets anyway.
fn dockerfile_text(rendered: &[String]) -> String {
    let text = rendered.join("\n");
    text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()
}

fn in_stage(about: &About) -> String {
    about.stage.as_ref().map(|stage| format!(" in stage `{stage}`")).unwrap_or_default()
}

impl BuildError {
    /// One error for all of these; none for none. A build that was stopped says nothing but that.
    pub(super) fn of_all(errors: Vec<Self>) -> Option<Self> {
        if errors.iter().any(|error| matches!(error, Self::Cancelled)) {
            return Some(Self::Cancelled);
        }
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let others: Vec<Self> = errors.collect();
        if others.is_empty() { Some(first) } else { Some(Self::Several { first: Box::new(first), others }) }
    }

    /// What came of a build's steps, and of the fetches beside them. What failed of one side stops the other, which then has
    /// nothing to say of its own; of two failures that of the fetches is told first, as steps need them.
    pub(super) fn of_sides<T>(fetches: Result<(), Self>, steps: Result<T, Self>) -> Result<T, Self> {
        let (fetches, steps) = match (fetches, steps) {
            (Ok(()), steps) | (Err(Self::Cancelled), steps @ Err(_)) => return steps,
            (Err(error), Ok(_) | Err(Self::Cancelled)) => return Err(error),
            // Whatever was being written: it is one disk, and one thing to do about it.
            (Err(error), Err(steps)) if error.lacks_room() && steps.lacks_room() => return Err(error),
            (Err(fetches), Err(steps)) => (fetches, steps),
        };
        let mut all = vec![fetches];
        match steps {
            // One list, not one within the other.
            Self::Step { file, about, source, others } => {
                all.push(Self::Step { file, about, source, others: Vec::new() });
                all.extend(others);
            }
            steps => all.push(steps),
        }
        Err(Self::of_all(all).unwrap_or(Self::Cancelled))
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Cancelled => Fault::Interrupted,
            Self::Usage { .. } => Fault::Usage,
            Self::Several { first, .. } => first.fault(),
            // Whatever was being written: the disk is the environment's.
            error if is_disk_full(error) => Fault::Environment,
            Self::Context(_)
            | Self::Input(_)
            | Self::Unusable { .. }
            | Self::Archive { .. }
            | Self::Dockerfile { .. }
            | Self::Checks { .. }
            | Self::BaseName { .. }
            | Self::NoName
            | Self::Leak { .. }
            | Self::Search(_) => Fault::User,
            Self::Fetch { source, .. } if source.is_the_users() => Fault::User,
            Self::Fetch { .. } | Self::Stream(_) => Fault::Environment,
            Self::Base { source, .. } | Self::Push { source, .. } | Self::Layers { source } => remote_fault(source),
            Self::Step { source, .. } | Self::Compress { source } => step_fault(source),
            Self::Export { source, .. } => export_fault(source),
            Self::Image(_) | Self::Store(_) | Self::Layer(_) | Self::Snapshot(_) => Fault::Environment,
        }
    }

    /// Whether this, and all that failed beside it, is for want of room.
    fn lacks_room(&self) -> bool {
        (is_disk_full(self) || self.is_about_room()) && self.others().iter().all(Self::lacks_room)
    }

    /// Whether a step found the disk full.
    pub(super) fn is_about_room(&self) -> bool {
        matches!(self, Self::Step { source, .. } if matches!(**source, StepError::DiskFull { .. }))
    }

    /// What failed beside this.
    #[must_use]
    pub fn others(&self) -> &[Self] {
        match self {
            Self::Step { others, .. } | Self::Several { others, .. } => others,
            _ => &[],
        }
    }

    /// What the user can do.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Several { first, .. } => first.hints(),
            Self::Input(InputError::NoDockerfile(_) | InputError::Missing(_)) => {
                vec!["name the Dockerfile with `--file PATH`, and the folder that COPY reads as CONTEXT".to_owned()]
            }
            Self::Input(InputError::NotText { found, .. }) => vec![match *found {
                "UTF-16 text" | "text in another encoding" => "save it as UTF-8".to_owned(),
                _ => "name the Dockerfile, which is text, with `--file PATH`".to_owned(),
            }],
            Self::Context(ContextError::NotADirectory(path) | ContextError::NotThere { path, .. })
                if path.components().any(|name| name.as_os_str() == "file:") =>
            {
                vec!["name the folder itself, without `file://`".to_owned()]
            }
            Self::Context(ContextError::NotADirectory(_) | ContextError::NotThere { .. }) => {
                vec!["CONTEXT is the folder that COPY reads; a Dockerfile elsewhere is named with `--file`".to_owned()]
            }
            Self::Unusable { hint, .. } | Self::Usage { hint, .. } => vec![hint.clone()],
            Self::Fetch { what, source, .. } => fetch_hints(what, source),
            Self::Checks { .. } => vec![
                "mend what the warnings say, or take a check out: `# check=skip=NAME`, for the file at its top, for one \
                 instruction on the line before it"
                    .to_owned(),
            ],
            Self::Leak { found, .. } => vec![
                "give it to the command that needs it: `RUN --mount=type=secret,id=...`; an `ARG` or `ENV` stays in the image"
                    .to_owned(),
                may_be_there(found),
            ],
            Self::Export { source, .. } => match &**source {
                ExportError::Program { program, said, .. } if program == "docker" && said.contains("daemon") => vec![
                    "start Docker's daemon, or give the image to podman: `fluyt build -o type=docker,dest=- ... | podman load`"
                        .to_owned(),
                ],
                _ => Vec::new(),
            },
            Self::NoName => vec!["name the image with `-t REGISTRY/NAME:TAG`".to_owned()],
            Self::Push { is_kept: true, reference, .. } => {
                vec![format!("the image is in the store: `fluyt push {reference}` tries again")]
            }
            Self::Step { source, about, .. } => match &**source {
                StepError::NoProgram { program } if program.ends_with("sh") => vec![format!(
                    "`RUN command` needs {program} in the image: start from one that has it, name another with `SHELL`, or \
                     write `RUN [\"/program\", \"argument\"]`, which needs no shell"
                )],
                StepError::ExitStatus { status: 126 | 127, .. } if about.instruction.contains("['") => {
                    vec!["a JSON list has double quotes: `[\"a\", \"b\"]`; with others it is words for the shell".to_owned()]
                }
                StepError::ExitStatus { status: 126, without_raw: true } => vec![
                    "a program with the file capability cap_net_raw does not start on the host's network: give the build \
                     `--cap-add NET_RAW`, or `--network isolated`"
                        .to_owned(),
                ],
                StepError::RecordedUser { .. } => vec![
                    "run it all the same with `--allow user.recorded`: what it makes is the user's".to_owned(),
                    "`fluyt doctor` tells what a user namespace with many ids needs here".to_owned(),
                ],
                StepError::NoSandbox { refused } => ways_to_run(refused),
                StepError::Platform { lacks: Lacks::Interpreter | Lacks::HeldInterpreter, .. } => vec![
                    "register an interpreter that is held open (flag F): in a workflow of GitHub by docker/setup-qemu-action, on \
                     Debian and Ubuntu by the packages qemu-user-static and binfmt-support; a container has to see \
                     /proc/sys/fs/binfmt_misc too"
                        .to_owned(),
                ],
                StepError::Platform { lacks: Lacks::BetterRung, .. } => {
                    vec!["`fluyt doctor` tells what a better way to run commands would need here".to_owned()]
                }
                StepError::NoAgent { id } => vec![format!("give it with `--ssh {id}`, or `--ssh {id}=SOCKET`")],
                StepError::NoSecret { id } => {
                    vec![format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")]
                }
                StepError::SecretUnset { id, variable } => vec![format!(
                    "set {variable}, or leave `required` away in the `--mount` of `{id}`, which is then empty"
                )],
                StepError::Layer(LayerError::Secret { found, .. }) => vec![
                    "remove it in the same RUN that writes it, or leave it where it is mounted: a later step cannot take it out of \
                     this layer"
                        .to_owned(),
                    may_be_there(found),
                ],
                _ => Vec::new(),
            },
            Self::Base { near: Some(stage), reference, .. } => vec![match reference.ends_with(&format!("/{stage}:latest")) {
                true => format!("the stage `{stage}` is no earlier one: put it before the stage that begins with it"),
                false => format!("did you mean the stage `{stage}`?"),
            }],
            Self::Base { source, .. } if is_not_found(source) => {
                vec!["check the name and the tag; a private image needs `fluyt login`".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// What lets a secret be in the image.
fn may_be_there(found: &Found) -> String {
    format!("if the image may hold it: `--secret id={},...,scan=off`", found.id)
}

fn fetch_hints(what: &str, error: &FetchError) -> Vec<String> {
    let hint = match error {
        FetchError::Git(GitError::NoAgent) => "give the build an agent with `--ssh default`",
        FetchError::Git(GitError::NoAgentForSubmodule { .. }) => {
            "give the build an agent with `--ssh default`, or leave submodules out: `?submodules=false` after the address"
        }
        FetchError::Git(GitError::NoProgram { .. }) => "install git",
        FetchError::Git(GitError::Failed { said, .. }) if said.contains("certificate") => {
            "name a file of the certificates to trust in the variable SSL_CERT_FILE, or add them to the system's"
        }
        FetchError::Git(GitError::Failed { .. }) if error.is_the_users() => {
            "a private repository needs `--secret id=GIT_AUTH_TOKEN,env=VARIABLE`, or `--ssh default` for ssh"
        }
        FetchError::Http(source) if matches!(**source, FileError::Status { status: 401 | 403, .. }) => {
            let host = crate::fetch::host_name(what);
            return vec![format!(
                "a server that asks for a password needs `--secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE`, or \
                 `HTTP_AUTH_HEADER_{host}` for another header than a bearer token"
            )];
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// A registry that answers "no" has been asked by the user for the wrong thing; all else is the environment.
#[must_use]
pub fn remote_fault(error: &RemoteError) -> Fault {
    let RemoteError::Client(error) = error else {
        return if matches!(error, RemoteError::NoPlatform { .. }) { Fault::User } else { Fault::Environment };
    };
    match &**error {
        ClientError::NotFound { .. }
        | ClientError::Unauthorized { .. }
        | ClientError::Denied { .. }
        | ClientError::Setting { .. } => Fault::User,
        ClientError::Protocol { status, .. } if (400..500).contains(status) => Fault::User,
        _ => Fault::Environment,
    }
}

/// A destination that cannot be what it is asked to be is the user's choice.
#[must_use]
pub fn export_fault(error: &ExportError) -> Fault {
    match error {
        ExportError::Io { source, .. } if is_about_the_path(source) => Fault::User,
        ExportError::NotALayout { .. }
        | ExportError::NoFolder { .. }
        | ExportError::WrongKind { .. }
        | ExportError::SeveralImages { .. }
        | ExportError::NoProgram { .. }
        | ExportError::Program { .. } => Fault::User,
        _ => Fault::Environment,
    }
}

fn is_not_found(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Client(error) if matches!(**error, ClientError::NotFound { .. }))
}

fn step_fault(error: &StepError) -> Fault {
    match error {
        StepError::Cancelled => Fault::Interrupted,
        StepError::ExitStatus { .. }
        | StepError::NoProgram { .. }
        | StepError::Signal { .. }
        | StepError::Context(_)
        | StepError::Exclude(_)
        | StepError::Select(_)
        | StepError::Placement(_)
        | StepError::Placing(_)
        | StepError::Owner(_)
        | StepError::Tree(_)
        | StepError::Read { .. }
        | StepError::Archive { .. }
        | StepError::CacheFromFile { .. }
        | StepError::NoSecret { .. }
        | StepError::SecretUnset { .. }
        | StepError::NoAgent { .. }
        | StepError::Agent { .. }
        | StepError::SecretNotText { .. }
        | StepError::SecretTooLarge { .. }
        | StepError::RecordedUser { .. }
        | StepError::Platform { .. } => Fault::User,
        StepError::Layer(error) => match error {
            LayerError::Changed { .. }
            | LayerError::ReservedName { .. }
            | LayerError::Content { .. }
            | LayerError::Secret { .. } => Fault::User,
            _ => Fault::Environment,
        },
        StepError::Remote(error) => remote_fault(error),
        StepError::NoSandbox { .. }
        | StepError::Sandbox(_)
        | StepError::Snapshot(_)
        | StepError::Changes(_)
        | StepError::Normalize { .. }
        | StepError::Apply(_)
        | StepError::Store(_)
        | StepError::CacheMount(_)
        | StepError::Temporary { .. }
        | StepError::FoundDiskFull { .. }
        | StepError::DiskFull { .. }
        | StepError::NotFetched { .. }
        | StepError::DiffId { .. }
        | StepError::NoTimes { .. }
        | StepError::IndexMismatch { .. } => Fault::Environment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch() -> BuildError {
        BuildError::Unusable { problem: "fetch".to_owned(), hint: String::new() }
    }

    fn step(instruction: &str, others: Vec<BuildError>) -> BuildError {
        let about = Box::new(About { instruction: instruction.to_owned(), ..About::default() });
        let source = Box::new(StepError::ExitStatus { status: 7, without_raw: false });
        BuildError::Step { file: "Dockerfile".to_owned(), about, source, others }
    }

    /// What is told of the two sides, in order.
    fn told(fetches: Result<(), BuildError>, steps: Result<(), BuildError>) -> Vec<String> {
        let Err(error) = BuildError::of_sides(fetches, steps) else { return Vec::new() };
        std::iter::once(&error).chain(error.others()).map(ToString::to_string).collect()
    }

    #[test]
    fn a_side_that_was_stopped_is_not_told() {
        let stopped = || Err(BuildError::Cancelled);
        let (one, two) = ("step `one` failed (Dockerfile:0)", "step `two` failed (Dockerfile:0)");
        let steps = || Err(step("one", vec![step("two", Vec::new())]));
        assert_eq!(told(Ok(()), Ok(())), [""; 0]);
        assert_eq!(told(Ok(()), steps()), [one, two]);
        assert_eq!(told(stopped(), steps()), [one, two]);
        assert_eq!(told(Err(fetch()), stopped()), ["fetch"]);
        assert_eq!(told(Err(fetch()), steps()), ["fetch", one, two]);
        assert_eq!(told(stopped(), stopped()), ["interrupted"]);
        assert_eq!(told(Err(fetch()), Ok(())), ["fetch"]);
    }

    #[test]
    fn a_full_disk_is_told_once() {
        let full = || StoreError::io("writing", std::path::Path::new("/s"), std::io::ErrorKind::StorageFull.into());
        let without_room = |others| BuildError::Step {
            file: "Dockerfile".to_owned(),
            about: Box::default(),
            source: Box::new(full().into()),
            others,
        };
        let fetch = || Err(BuildError::Store(full()));
        assert_eq!(told(fetch(), Err(without_room(vec![without_room(Vec::new())]))).len(), 1);
        assert_eq!(told(fetch(), Err(without_room(vec![step("one", Vec::new())]))).len(), 3);
        assert_eq!(told(fetch(), Err(step("one", vec![without_room(Vec::new())]))).len(), 3);
    }
}
