//! `fluyt verify`: builds twice under different conditions, and names what differs.

mod another;
mod compare;
mod conditions;
mod image;
mod order;

pub(super) use another::become_another;

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
use crate::pipeline::{self, Built, ContextSource, Copied, Destination, DockerfileSource, Request, Workshop};
use crate::secrets::Redactor;
use another::{AnotherUser, Outcome};
use compare::Difference;
use order::OtherOrder;

/// The second build begins at least so long after the first: the times that a zip archive holds are even seconds.
const APART: Duration = Duration::from_millis(2100);

/// Differences that are listed as text; the others are counted.
const LISTED_MAX: usize = 20;

/// `another`: the order of the `verify` that started this process as another user.
pub(super) async fn run(store: Option<&Path>, typed: VerifyArguments, another: Option<&str>) -> Result<(), Failure> {
    refuse(&typed.build)?;
    if let Some(order) = another {
        return another::build(order, typed.build).await;
    }
    let store = open_store(store)?;
    if let Some(reference) = image::named(&typed, &store)? {
        return image::run(&store, typed, reference).await;
    }
    let arguments = typed.build;
    let Asked { request, insecure, agents: _agents, .. } = request(&arguments)?;
    let mut registries = arguments.registries.clone();
    registries.insecure_registry.extend(insecure);
    let client = super::transfer::client(&registries)?;
    // The second build has another store, and folders that are not copied may hold this one.
    let first = Request { other_store: Some(store.root().to_owned()), ..wanted(request) };
    let (wish, is_normalized) = (first.isolation, first.normalize);
    let copy = store.temporary_folder().map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    let (second, user, differs) = match &first.context {
        ContextSource::Folder(folder) => {
            let seen = pipeline::seen(folder, &first, &store, &(Arc::new(image::Silent) as Events));
            let seen = seen.map_err(|error| image::no_image(&arguments, failure(error)))?;
            let user = another::user(wish);
            let context = conditions::copy_context(folder, &seen, copy.path(), user)?;
            // A Dockerfile of the context is read from the copy, one from elsewhere where it is.
            let file = seen.file.map(|file| DockerfileSource::Path(context.path.join(file)));
            let second = Request {
                context: ContextSource::Folder(context.path),
                copied: Some(Copied { committed_at: seen.committed_at }),
                file: file.or_else(|| first.file.clone()),
                ..first.clone()
            };
            (second, user.filter(|_| context.is_given), &["folder", "file times"][..])
        }
        // It is fetched by each build, and has the times of the commit.
        ContextSource::Address(_) => (first.clone(), None, &[][..]),
        ContextSource::Stdin => {
            return Err(Failure::usage("`verify` builds twice, and standard input comes once")
                .hint("unpack it, and name the folder"));
        }
    };
    let workshop = |store, cancel| Workshop {
        store,
        client: client.clone(),
        cancel,
        stdout: output::stdout,
        stdin: output::stdin,
    };
    let builds = Builds::new(&arguments, workshop, Some(&store));
    let (one, two, conditions) = both(&builds, &store, first, second, user, differs).await?;
    drop(copy);
    let differences = compare::images(&store, &one, &two)?;
    // What the differences say of themselves is no other user's doing.
    let is_open = differences.iter().any(|difference| difference.hint(is_normalized).is_none());
    let hint = (is_open && conditions.changed.contains(&USER)).then(|| another::hint(wish));
    report(&one, &two, &differences, &conditions, is_normalized, typed.json).map_err(|failure| failure.hints(hint))
}

/// How both builds are done, whatever else was asked for.
fn wanted(request: Request) -> Request {
    Request { destinations: vec![Destination::Store], tags: Vec::new(), no_cache: true, reproducible: true, ..request }
}

/// What a build gives is compared here; it goes nowhere else.
fn refuse(typed: &BuildArguments) -> Result<(), Failure> {
    let files = [&typed.iidfile, &typed.digest_file, &typed.metadata_file, &typed.timeline];
    if typed.file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(Failure::usage("`verify` builds twice, and standard input comes once")
            .hint("write the Dockerfile into a file, and name that"));
    }
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
    /// Where logs are kept, by those whose store is.
    logs: Option<PathBuf>,
}

/// In which order folders list their files.
const ORDER: &str = "order of files in folders";

/// Who builds.
const USER: &str = "user";

/// What is another in the second build, and what could not be made so.
#[derive(Clone, Debug, Default)]
struct Conditions {
    changed: Vec<&'static str>,
    same: Vec<&'static str>,
}

impl Conditions {
    fn add(&mut self, what: &'static str, is_changed: bool) {
        if is_changed { &mut self.changed } else { &mut self.same }.push(what);
    }

    fn is_the_same(&mut self, what: &'static str) {
        self.changed.retain(|changed| *changed != what);
        self.same.push(what);
    }

    fn title(&self) -> String {
        let same = if self.same.is_empty() { String::new() } else { format!("; the same {}", self.same.join(", ")) };
        format!("second build: another {}{same}", self.changed.join(", "))
    }
}

async fn both<W: Fn(Store, crate::stop::Cancel) -> Workshop>(
    builds: &Builds<W>,
    store: &Store,
    first: Request,
    mut second: Request,
    user: Option<u32>,
    differs: &[&'static str],
) -> Result<(Built, Built, Conditions), Failure> {
    let began = Instant::now();
    let one = builds.build("first build: as things are", first, store).await?;
    tokio::time::sleep(APART.saturating_sub(began.elapsed())).await;
    second.now = jiff::Timestamp::now();
    let changed = [differs, &["time of the build", "umask"]].concat();
    let mut conditions = Conditions { changed, same: Vec::new() };
    let processors = conditions::OneProcessor::take();
    conditions.add("number of processors", processors.is_some());
    let umask = conditions::OtherUmask::take();
    if let Some(another) = user.and_then(|user| AnotherUser::with(user, &second, &one, store)) {
        let mut conditions = conditions.clone();
        conditions.add(ORDER, another.has_other_order);
        conditions.add(USER, true);
        match another.build(&conditions.title(), store).await? {
            Outcome::Built(two) => return Ok((one, *two, conditions)),
            Outcome::Refused(reason) => tracing::debug!(reason, "the second build is not another user's"),
            Outcome::Failed(status) => output::message(&format!(
                "warning: the build as another user failed ({status}): it is done again as this one\n"
            )),
        }
    }
    let other = OtherOrder::beside(store);
    conditions.add(ORDER, other.is_some());
    conditions.add(USER, false);
    let two = match other {
        None => builds.build(&conditions.title(), second, store).await?,
        Some(other) => {
            let environment = |error| Failure::from_error(Blame::Environment, &error);
            other.take_bases(store, &one).map_err(environment)?;
            match builds.build(&conditions.title(), second.clone(), &other.store).await {
                Ok(two) => {
                    other.give(&two, store).map_err(environment)?;
                    two
                }
                Err(failure) if failure.blame == Blame::Interrupted => return Err(failure),
                // A command may need more room than memory has, or what is to be had no more.
                Err(failure) => {
                    output::message(&format!(
                        "warning: the build with another order of files failed\n{}",
                        failure.render()
                    ));
                    drop(other);
                    conditions.is_the_same(ORDER);
                    builds.build(&conditions.title(), second, store).await?
                }
            }
        }
    };
    drop((processors, umask));
    Ok((one, two, conditions))
}

impl<W: Fn(Store, crate::stop::Cancel) -> Workshop> Builds<W> {
    /// `kept`: the store that is there when all is done, if it is this process's.
    fn new(typed: &BuildArguments, workshop: W, kept: Option<&Store>) -> Self {
        let logs = kept.map(|store| store.root().join(LOGS));
        Self { kind: if typed.quiet { Progress::Quiet } else { typed.progress }, workshop, logs }
    }

    async fn build(&self, title: &str, request: Request, store: &Store) -> Result<Built, Failure> {
        let shown = Shown::begin(self.kind, &Surroundings::from_process(), self.logs.as_deref());
        let events: Events = Arc::new(WithoutNotes(shown.events()));
        let say = shown.say();
        if !matches!(self.kind, Progress::Quiet | Progress::Rawjson) {
            say(title);
        }
        let interrupt = Interrupt::listen(say);
        let redactor = Redactor::new(&request.secrets);
        let built = interrupt
            .guard(pipeline::build((self.workshop)(store.clone(), interrupt.cancel.clone()), request, events))
            .await;
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
    conditions: &Conditions,
    is_normalized: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let same = one.manifest.digest() == two.manifest.digest();
    let text = if as_json {
        let rows: Vec<_> = differences.iter().map(Difference::json).collect();
        let value = json!({"same": same, "first": one.manifest.digest(), "second": two.manifest.digest(),
            "changed": conditions.changed, "same_conditions": conditions.same, "differences": rows});
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
    for hint in differences.iter().filter_map(|difference| difference.hint(is_normalized)) {
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
