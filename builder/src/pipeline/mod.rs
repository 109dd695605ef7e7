//! The only room that names every stage in order: text, tree, graph, keys, steps, layers, image, export.

mod assemble;
mod bases;
mod checks;
mod early;
mod error;
mod fetching;
mod layout;
mod leaks;
mod outputs;
mod places;
mod redact;
mod report;
mod request;
mod room;
mod seen;
mod shown;
mod slips;
mod source;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

pub use bases::{PULLED_FROM, lend_bases, lend_image};
pub use error::{BuildError, Fault, export_fault, remote_fault};
pub use outputs::Destination;
pub use report::{Answer, Argument, Found, Needed, Outline, Question, Refusal, Report, Target, report};
pub use request::{Built, ContextSource, Copied, DockerfileSource, ImageForm, NO_POLICIES, Request};
pub use room::room_hint;
pub use seen::{Seen, no_folder, seen};

use crate::blob::Store;
use crate::cache::{Mode, Records};
use crate::context::{Context, Modes};
use crate::dockerfile::{Lines, Problem};
use crate::event::{Event, Events};
use crate::execute::{
    BaseImage, EARLIEST_ZIP_TIME, Executor, Explain, Flights, MountSources, NoCache, Options, StatCache, StepCounter,
    StepError, Trees, Watcher, layers_run_on,
};
use crate::graph::{self, Graph, ImageRequest, LowerInput, Lowered};
use crate::layer::{FileTime, LayerOptions, Times};
use crate::remote::{Origins, Remote};
use crate::sandbox::Isolation;
use crate::secrets::{SEARCHED_MIN_BYTES, Search};
use crate::snapshot::Chosen;
use crate::stop::Cancel;
use crate::task::{blocking, given};
use fluyt_client::Client;

pub use crate::context::{FileKind, SourceEntry};
pub use crate::execute::memory_limit_bytes;
pub use crate::graph::{Allowed, Conditions, Limit, Network};
pub use crate::image::{Platform, PlatformError};

/// The platform that this machine runs.
#[must_use]
pub fn host_platform() -> Platform {
    Platform::new("linux", std::env::consts::ARCH, None)
}

/// What a build works with.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// The store on disk.
    pub store: Store,
    /// Registries.
    pub client: Client,
    /// Stops the build.
    pub cancel: Cancel,
    /// Standard output, for results that go there.
    pub stdout: fn() -> Box<dyn Write>,
    /// Standard input, for a context or a Dockerfile that comes from there.
    pub stdin: fn() -> Box<dyn Read>,
}

/// Builds what `request` says.
///
/// # Errors
/// See [`BuildError`]. Nothing that failed half way is visible under a name, in a file or in a registry.
pub async fn build(workshop: Workshop, request: Request, events: Events) -> Result<Built, BuildError> {
    let (store, cancel) = (workshop.store.clone(), workshop.cancel.clone());
    let search = Arc::new(Search::new(&request.secrets)?);
    let events = redact::without(&request.secrets, events);
    say_what_lacks_of_secrets(&request, &events);
    let mut ready = prepare(&workshop, &request, &events, &search).await?;
    let problems = std::mem::take(&mut ready.problems);
    ready.checks.tell(&ready.read, &problems, &events);
    if problems.iter().any(Problem::is_error) {
        return Err(ready.read.refused(&problems));
    }
    slips::tell(&request, &ready.read, &events);
    let (graph, found) = match lowered(&mut ready, &workshop, &request, &events, false).await {
        Ok(lowered) => lowered,
        Err(stopped) => {
            if let Stopped::Problems(problems) = &stopped {
                ready.checks.tell(&ready.read, problems, &events);
            }
            return Err(stopped.into_error(&ready.read));
        }
    };
    leaks::in_names(&search, &request)?;
    leaks::in_graph(&search, &graph, &ready.read)?;
    let Preparation { mut read, mut checks, steps, remote, records, fetcher, pruner, .. } = ready;
    checks.tell(&read, &graph.warnings, &events);
    checks.tell(&read, &checks::ignored_sources(&read, &graph), &events);
    checks.verdict()?;
    let stop = cancel.child();
    let fetched = std::mem::take(&mut read.fetched);
    let fetcher = fetcher.under(&stop);
    let jobs = fetcher.begin(&graph, &read, &fetched);
    let (on_the_way, arrivals) = fetching::on_the_way(&jobs);

    let options = options(&request);
    let times = options.layers.times;
    let uploads = remote.uploads();
    let early = early::Early::new(&graph, &request, &uploads, &store, &events, &steps, &stop);
    let fetched_commit = read.committed_at.filter(|_| request.reproducible);
    let committed_at = read.context.modes().and_then(Modes::committed_at).or(fetched_commit);
    let place = match &request.context {
        ContextSource::Folder(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
        other => PathBuf::from(other.to_string()),
    };
    let isolation = Isolation::new(request.isolation).at(store.root());
    let contexts: Vec<_> = std::iter::once(&read.context).chain(&read.folders).cloned().collect();
    let executor = Executor {
        store: store.until(&stop),
        records,
        remote: remote.clone(),
        runtime: Handle::current(),
        context: read.context.clone(),
        folders: std::mem::take(&mut read.folders),
        fetched,
        snapshots: Arc::new(Chosen::new(store.clone(), isolation.clone(), stop.clone())),
        events: events.clone(),
        steps: steps.clone(),
        run_on: layers_run_on(&graph, &found),
        bases: found,
        options,
        isolation,
        allows_recorded_user: request.allowed.recorded_user,
        cancel: stop,
        interrupt: cancel.clone(),
        explain: Explain::new(&place, read.name(), &request.platform.to_string(), request.explain),
        flights: Flights::default(),
        trees: Trees::default(),
        relief: pruner.clone(),
        stats: StatCache::load(&store, read.context.root(), !request.no_cache),
        watcher: early.clone().map(|early| early as Arc<dyn Watcher>),
        mounts: MountSources::new(request.secrets.clone(), search.clone(), request.agents.clone()),
    };
    let bases = executor.bases.clone().into_iter().collect();
    let guard = early::Guard::of(early.clone());
    let graph = Arc::new(*graph);
    let (states, root, refused) = {
        let (graph, force) = (graph.clone(), request.form.force_compression);
        let fetches = tokio::spawn(fetcher.all(jobs, arrivals));
        let steps = tokio::task::spawn_blocking(move || {
            let states = executor.run(&graph, on_the_way).map_err(|error| read.failed(error))?;
            let root = states.of(graph.result.root);
            let compressed = |source| match source {
                StepError::Cancelled => BuildError::Cancelled,
                source => BuildError::Compress { source: Box::new(source) },
            };
            let root = if force { Arc::new(executor.force_compression(&root).map_err(compressed)?) } else { root };
            Ok::<_, BuildError>((states, root))
        });
        let (fetches, steps) = tokio::join!(fetches, steps);
        let (fetches, steps) = (given(fetches), given(steps));
        let stopped = early.and_then(|early| early.end());
        match (BuildError::of_sides(fetches, steps), stopped.filter(|_| !cancel.is_cancelled())) {
            // Stopped from there: what it says is why, and was told.
            (Err(BuildError::Cancelled), Some(why)) => return Err(why),
            // It would have been stopped, had the steps taken longer. The image is made by now, and kept for another try.
            (result, refused) => result.map(|(states, root)| (states, root, refused))?,
        }
    };
    let assemble = async || assemble::assemble(&graph, &states, &root, &request, committed_at, &search, &store);
    let image = Built { bases, ..pruner.with_room("the image", assemble).await? };
    let origins: Origins =
        root.layers.iter().filter_map(|layer| Some((layer.digest.clone(), layer.origin.clone()?))).collect();
    let mut delivery = outputs::Delivery {
        image: &image,
        root: &root,
        origins: &origins,
        request: &request,
        workshop: &workshop,
        times,
        remote: &remote,
        uploads: &uploads,
        events: &events,
        steps: &steps,
        pruner: &pruner,
        refused,
    };
    delivery.deliver().await?;
    guard.finish();
    // Two contexts may be one folder.
    let left_out: BTreeSet<String> = contexts.iter().filter_map(|context| store_left_out(context)).collect();
    left_out.into_iter().for_each(|text| events.hear(Event::Note { text }));
    if let Some(text) = outputs::where_it_is(&request) {
        events.hear(Event::Note { text });
    }
    Ok(image)
}

/// That the store lies in a context, where something asked for it.
fn store_left_out(context: &Context) -> Option<String> {
    let path = context.store_left_out()?;
    Some(format!("`{path}` of {} is the store, which is in no context: it was left out", context.root().display()))
}

/// Says once which secrets are empty for want of a variable, and which are not searched for.
fn say_what_lacks_of_secrets(request: &Request, events: &Events) {
    for (id, variable) in request.secrets.unset() {
        let text = format!("the secret `{id}` is empty: the variable {variable} is not set");
        events.hear(Event::Warning { text });
    }
    for id in request.secrets.public() {
        let text =
            format!("the secret `{id}` holds nothing but certificates, which are public: the image may hold them");
        events.hear(Event::Note { text });
    }
    let ids = request.secrets.too_short();
    if ids.is_empty() {
        return;
    }
    let names: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
    let (noun, verb) = if ids.len() == 1 { ("secret", "has") } else { ("secrets", "have") };
    let text = format!(
        "the {noun} {} {verb} fewer than {SEARCHED_MIN_BYTES} bytes: the image is not searched for so short a value",
        names.join(", ")
    );
    events.hear(Event::Warning { text });
}

/// A Dockerfile that was read, and what reading on takes.
struct Preparation {
    read: source::Read,
    checks: checks::Checks,
    problems: Vec<Problem>,
    steps: Arc<StepCounter>,
    remote: Remote,
    records: Records,
    fetcher: fetching::Fetcher,
    pruner: Arc<room::Pruner>,
}

async fn prepare(
    workshop: &Workshop,
    request: &Request,
    events: &Events,
    search: &Arc<Search>,
) -> Result<Preparation, BuildError> {
    let (store, client) = (workshop.store.clone(), workshop.client.clone());
    let steps = Arc::new(StepCounter::default());
    let remote = Remote::new(client, store.clone(), events.clone());
    let records = Records::new(store, search.clone());
    let pruner = Arc::new(room::Pruner::new(&workshop.store, events));
    let fetcher = fetching::Fetcher::new(workshop, request, events, &steps, &pruner);
    let (read, checks, problems) = {
        // In a thread of its own: a Dockerfile may be a pipe that nobody writes to, and then a signal must still be heard.
        let (request, workshop, fetcher) = (request.clone(), workshop.clone(), fetcher.clone());
        let (events, steps) = (events.clone(), steps.clone());
        blocking(move || source::read(&request, &workshop, &fetcher, &events, &steps)).await?
    };
    Ok(Preparation { read, checks, problems, steps, remote, records, fetcher, pruner })
}

/// Why a Dockerfile has no graph.
enum Stopped {
    /// What is wrong in it, and what else was found.
    Problems(Vec<Problem>),
    /// Something else.
    Failed(BuildError),
}

impl Stopped {
    fn into_error(self, read: &source::Read) -> BuildError {
        match self {
            Self::Problems(problems) => read.refused(&problems),
            Self::Failed(error) => error,
        }
    }
}

/// The graph, with the base images that it names.
async fn lowered(
    ready: &mut Preparation,
    workshop: &Workshop,
    request: &Request,
    events: &Events,
    all_stages: bool,
) -> Result<(Box<Graph>, HashMap<ImageRequest, BaseImage>), Stopped> {
    let mut input = LowerInput {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        platform: request.platform.clone(),
        build_platform: request.build_platform.clone(),
        bases: std::collections::BTreeMap::new(),
        labels: request.labels.clone(),
        network: request.network,
        conditions: request.conditions.clone(),
        allowed: request.allowed,
        contexts: std::mem::take(&mut ready.read.contexts),
        all_stages,
    };
    let mut found = HashMap::new();
    loop {
        match graph::lower(&ready.read.dockerfile, &input).map_err(Stopped::Problems)? {
            Lowered::Done(graph) => return Ok((graph, found)),
            Lowered::Needs(requests) => {
                let (read, ready) = (&ready.read, &*ready);
                let resolve = |(wanted, lines): &(ImageRequest, Lines)| {
                    let (wanted, lines) = (wanted.clone(), *lines);
                    async move {
                        let place = read.place_of(lines, Some(&wanted.reference));
                        let near = read.stage_near(&wanted.reference);
                        let (remote, records) = (&ready.remote, &ready.records);
                        let (steps, pruner) = (&ready.steps, &ready.pruner);
                        bases::resolve(&wanted, &place, near, request, remote, records, workshop, events, steps, pruner)
                            .await
                    }
                };
                let answers = bases::together(requests.iter().map(resolve).collect()).await;
                let mut failures = Vec::new();
                for ((wanted, _), answer) in requests.into_iter().zip(answers) {
                    match answer {
                        Ok(base) => {
                            input.bases.insert(wanted.clone(), bases::as_resolved(&base));
                            found.insert(wanted, base);
                        }
                        Err(error) => failures.push(error),
                    }
                }
                if let Some(error) = BuildError::of_all(failures) {
                    return Err(Stopped::Failed(error));
                }
            }
        }
    }
}

fn options(request: &Request) -> Options {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let times = match (request.epoch, request.reproducible) {
        (Some(epoch), _) => Times::Clamp(epoch),
        (None, true) => Times::Clamp(EARLIEST_ZIP_TIME),
        (None, false) => Times::Real,
    };
    Options {
        no_cache: match request.no_cache {
            true => NoCache::Always,
            false if request.no_cache_stages.is_empty() => NoCache::Never,
            false => NoCache::Stages(request.no_cache_stages.clone()),
        },
        mode: Mode { reproducible: request.reproducible || request.epoch.is_some(), normalize: request.normalize },
        layers: LayerOptions { compression: request.form.compression, threads, times },
        resources: request.resources.clone(),
        made_at: FileTime { seconds: request.now.as_second(), nanoseconds: 0 },
    }
}
