//! `fluyt verify`: builds twice under different conditions, and names what differs.

mod compare;
mod conditions;
mod image;
mod suspects;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{BuildArguments, Progress, VerifyArguments};
use super::build::{Asked, LOGS, failure, open_store, request};
use super::failure::{Blame, Failure};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Shown;
use super::settings::Surroundings;
use crate::blob::Store;
use crate::event::{Event, Events, Sink};
use crate::pipeline::{self, Built, ContextSource, Destination, DockerfileSource, Request, Workshop};
use crate::secrets::Redactor;
use compare::Difference;

/// The second build begins at least so long after the first: the times that a zip archive holds are even seconds.
const APART: Duration = Duration::from_millis(2100);

/// Differences that are listed as text; the others are counted.
const LISTED_MAX: usize = 20;

pub(super) async fn run(store: Option<&Path>, typed: VerifyArguments) -> Result<(), Failure> {
    refuse(&typed.build)?;
    if let Some(reference) = image::named(&typed) {
        return image::run(store, typed, reference).await;
    }
    let arguments = typed.build;
    let Asked { request, insecure, agents: _agents } = request(&arguments)?;
    let mut registries = arguments.registries.clone();
    registries.insecure_registry.extend(insecure);
    let client = super::transfer::client(&registries)?;
    let store = open_store(store)?;
    let copy = store.temporary_folder().map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    let first = Request {
        destinations: vec![Destination::Store],
        tags: Vec::new(),
        no_cache: true,
        reproducible: true,
        ..request.clone()
    };
    let ContextSource::Folder(folder) = &first.context else {
        return Err(Failure::usage("`verify` builds a folder of this machine").hint("check it out and name the folder"));
    };
    let second_context = conditions::copy_context(folder, copy.path())?;
    let workshop = |cancel| Workshop {
        store: store.clone(),
        client: client.clone(),
        cancel,
        stdout: output::stdout,
        stdin: output::stdin,
    };
    let builds = Builds::new(&arguments, workshop, store.clone());
    let (one, two, changed) = both(&builds, first, second_context, &arguments).await?;
    drop(copy);
    let differences = compare::images(&store, &one, &two)?;
    report(&one, &two, &differences, changed, typed.json)
}

/// What a build gives is compared here; it goes nowhere else.
fn refuse(typed: &BuildArguments) -> Result<(), Failure> {
    let files = [&typed.iidfile, &typed.digest_file, &typed.metadata_file, &typed.timeline];
    if typed.push || typed.load || !typed.outputs.is_empty() || files.iter().any(|file| file.is_some()) {
        return Err(Failure::usage("`verify` compares two builds and writes neither anywhere")
            .hint("leave out --push, --load, --output and the flags that name files"));
    }
    Ok(())
}

/// What both builds have in common.
struct Builds<W> {
    kind: Progress,
    workshop: W,
    store: Store,
}

async fn both<W: Fn(crate::sandbox::Cancel) -> Workshop>(
    builds: &Builds<W>,
    first: Request,
    second_context: PathBuf,
    typed: &BuildArguments,
) -> Result<(Built, Built, Vec<&'static str>), Failure> {
    let began = Instant::now();
    let mut second = Request { context: ContextSource::Folder(second_context.clone()), ..first.clone() };
    // A Dockerfile of the context is read from the copy, one from elsewhere where it is.
    if let Some(file) = &typed.file
        && let (Ok(file), Ok(context)) = (file.canonicalize(), typed.context.canonicalize())
        && let Ok(below) = file.strip_prefix(context)
    {
        second.file = Some(DockerfileSource::Path(second_context.join(below)));
    }
    let one = builds.build("first build: as things are", first).await?;
    tokio::time::sleep(APART.saturating_sub(began.elapsed())).await;
    second.now = jiff::Timestamp::now();
    let mut changed = vec!["folder", "order of files", "file times", "time of the build"];
    let processors = conditions::OneProcessor::take();
    if processors.is_some() {
        changed.push("number of processors");
    }
    let umask = conditions::OtherUmask::take();
    changed.push("umask");
    let two = builds.build(&format!("second build: another {}", changed.join(", ")), second).await?;
    drop((processors, umask));
    Ok((one, two, changed))
}

impl<W: Fn(crate::sandbox::Cancel) -> Workshop> Builds<W> {
    fn new(typed: &BuildArguments, workshop: W, store: Store) -> Self {
        Self { kind: if typed.quiet { Progress::Quiet } else { typed.progress }, workshop, store }
    }

    async fn build(&self, title: &str, request: Request) -> Result<Built, Failure> {
        let shown = Shown::begin(self.kind, &Surroundings::from_process(), Some(&self.store.root().join(LOGS)));
        let events: Events = Arc::new(WithoutNotes(shown.events()));
        let say = shown.say();
        if !matches!(self.kind, Progress::Quiet | Progress::Rawjson) {
            say(title);
        }
        let interrupt = Interrupt::listen(say);
        let redactor = Redactor::new(&request.secrets);
        let built = interrupt.guard(pipeline::build((self.workshop)(interrupt.cancel.clone()), request, events)).await;
        let left = shown.end();
        built.map_err(|error| {
            let hint = left.log.map(|path| format!("the whole log is in {}", path.display()));
            failure(error).hints(hint).without(&redactor)
        })
    }
}

/// That an image lies in the store without a name is no news here.
struct WithoutNotes(Events);

impl Sink for WithoutNotes {
    fn hear(&self, event: Event) {
        if !matches!(event, Event::Note { .. }) {
            self.0.hear(event);
        }
    }
}

fn report(
    one: &Built,
    two: &Built,
    differences: &[Difference],
    changed: Vec<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let same = one.manifest.digest() == two.manifest.digest();
    let text = if as_json {
        let rows: Vec<_> = differences.iter().map(Difference::json).collect();
        let value = json!({"same": same, "first": one.manifest.digest(), "second": two.manifest.digest(),
            "changed": changed, "differences": rows});
        format!("{value}\n")
    } else if same {
        format!("same: {}\n", one.manifest.digest())
    } else {
        listed(differences)
    };
    super::print(text.as_bytes())?;
    let Some(first) = differences.first() else {
        return match same {
            true => Ok(()),
            false => {
                Err(Failure::new(Blame::Environment, "the two images differ in a way that their parts do not show"))
            }
        };
    };
    let more = differences.len() - 1;
    let and = if more == 0 { String::new() } else { format!(", and {more} more") };
    let mut hints: Vec<String> = Vec::new();
    for hint in differences.iter().filter_map(Difference::hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    Err(Failure::new(Blame::User, format!("the two builds differ: {}{and}", first.title())).hints(hints))
}

fn listed(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences.iter().take(LISTED_MAX) {
        let _ = writeln!(text, "{difference}");
    }
    if differences.len() > LISTED_MAX {
        let _ = writeln!(text, "and {} more; --json lists all", differences.len() - LISTED_MAX);
    }
    text
}
