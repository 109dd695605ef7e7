//! `fluyt build`.

use std::io::IsTerminal as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::args::{BuildArguments, Progress};
use super::buildx::{self, Commands};
use super::call::Call;
use super::destination::Output;
use super::failure::{Blame, Failure};
use super::form::{self, Wishes};
use super::interrupt::Interrupt;
use super::metadata::{self, Wanted, Warnings};
use super::progress::{Shown, size};
use super::settings::Surroundings;
use super::{destination, output, settings};
use crate::blob::{Store, StoreError, is_about_the_path};
use crate::event::{Event, Events, Sink as _};
use crate::export::{self, ExportError};
use crate::pipeline::{
    self, BuildError, ContextSource, Destination, DockerfileSource, ImageForm, Request, Workshop, export_fault,
};
use crate::prune::Ceiling;
use crate::sandbox::{self, Resources, Wish};
use crate::secrets::Redactor;
use crate::ssh_agent::Served;
use crate::task::blocking;

pub(super) async fn run(store: Option<&Path>, typed: BuildArguments) -> Result<(), Failure> {
    let typed = typed.without_empty();
    let Asked { mut request, insecure, agents: _agents, mut notes } = request(&typed)?;
    notes.extend(buildx::notes(&typed.buildx, &request.build_args)?);
    notes.extend(read_from_a_person(&request));
    let kind = if typed.quiet { Progress::Quiet } else { typed.progress };
    let mut registries = typed.registries.clone();
    registries.insecure_registry.extend(insecure);
    let client = super::transfer::client(&registries)?;
    let store = open_store(store)?;
    let call = if typed.check { Call::CHECK } else { typed.call };
    let (stdout_is_taken, prints_digest) = (
        request.destinations.iter().any(Destination::is_stdout),
        request.destinations.iter().any(Destination::is_image),
    );
    if let Err(wrong) = request.resources.values_are_possible() {
        let flags = buildx::limits(&typed.buildx).join(", ");
        return Err(Failure::new(Blame::User, format!("{flags}: {wrong}")));
    }
    let wanted = Wanted::of(&request);
    let shown = Shown::begin(kind, &Surroundings::from_process(), Some(&store.root().join(LOGS)));
    let events = Warnings::of(shown.events());
    let notes = notes.into_iter().chain(refused_limits(&mut request, &typed));
    notes.for_each(|text| events.hear(Event::Note { text: format!("note: {text}") }));
    let redactor = Redactor::new(&request.secrets);
    let interrupt = Interrupt::listen(shown.say());
    let workshop = Workshop {
        store: store.clone(),
        client,
        cancel: interrupt.cancel.clone(),
        stdout: output::stdout,
        stdin: output::stdin,
    };
    if let Some(question) = call.question {
        let asked = pipeline::report(workshop, request, question, events.clone());
        let report = interrupt.guard(asked).await;
        drop(shown.end());
        return call.print(&report.map_err(|error| failure(error).without(&redactor))?);
    }
    let build = async {
        let built = pipeline::build(workshop, request, events.clone()).await;
        if !interrupt.cancel.is_cancelled() {
            keep_limit(typed.store_limit.unwrap_or_default(), store.clone(), &shown.events()).await;
        }
        built
    };
    let built = interrupt.guard(build).await;
    let left = shown.end();
    let timeline = typed.timeline.as_ref().map(|path| write_file(path, &left.timeline)).transpose();
    let built = built.map_err(|error| {
        let hint = left.log.map(|path| format!("the whole log is in {}", path.display()));
        let room = pipeline::room_hint(&store, &error);
        failure(error).hints(room).hints(hint).without(&redactor)
    })?;
    timeline?;
    metadata::write(&typed, &built, &wanted, &events)?;
    if prints_digest && !stdout_is_taken {
        super::print(format!("{}\n", built.manifest.digest()).as_bytes())?;
    }
    Ok(())
}

/// What is said where the build waits for somebody who types: else it only seems to hang.
fn read_from_a_person(request: &Request) -> Option<String> {
    let what = match (&request.context, &request.file) {
        (ContextSource::Stdin, _) => "context",
        (_, Some(DockerfileSource::Stdin)) => "Dockerfile",
        _ => return None,
    };
    std::io::stdin().is_terminal().then(|| format!("reading the {what} from standard input; Ctrl-D ends it"))
}

/// Takes limits away that cannot be set here, and says so.
fn refused_limits(request: &mut Request, typed: &BuildArguments) -> Option<String> {
    if request.resources.is_empty() {
        return None;
    }
    let reason = request.resources.check().err()?;
    request.resources = Resources::default();
    let flags = buildx::limits(&typed.buildx).join(", ");
    Some(format!(
        "{flags}: no effect here, for {reason}; commands have the limits of the builder: start it with the ones you want, as \
         with `systemd-run --scope -p MemoryMax=4G -p CPUQuota=200% fluyt build`"
    ))
}

/// Makes room where the store takes more than it may. What this build used is held until here, and stays.
async fn keep_limit(limit: Ceiling, store: Store, events: &Events) {
    match blocking(move || limit.keep(&store)).await {
        Ok(Some(outcome)) if outcome.freed_bytes > 0 => {
            let (freed, left) = (size(outcome.freed_bytes), size(outcome.left_bytes));
            let text =
                format!("the store was above its limit: what was used longest ago is gone, {freed}; {left} left");
            events.hear(Event::Note { text });
        }
        Ok(_) => {}
        // The build is what it is.
        Err(error) => {
            events
                .hear(Event::Warning { text: format!("whether the store is above its limit cannot be told: {error}") });
        }
    }
}

/// Folder of the store that holds the logs of builds.
pub(super) const LOGS: &str = "logs";

/// What is asked for.
pub(super) struct Asked {
    pub(super) request: Request,
    /// The registries that an output calls insecure.
    pub(super) insecure: Vec<String>,
    /// The agents of our own that the request names; to be kept until it is done.
    pub(super) agents: Vec<Served>,
    /// What was typed without effect.
    pub(super) notes: Vec<String>,
}

/// Understands what was typed.
pub(super) fn request(typed: &BuildArguments) -> Result<Asked, Failure> {
    let wish = Wish {
        only: typed.isolation.and_then(|wanted| wanted.0),
        least: typed.isolation_min.and_then(|wanted| wanted.0),
    };
    if let (Some(only), Some(least), true) = (wish.only, wish.least, wish.contradicts_itself()) {
        return Err(Failure::usage(format!(
            "`--isolation {only}` and `--isolation-min {least}` contradict each other"
        ))
        .hint("leave one of them out"));
    }
    if let Some(hint) = typed.context.to_str().and_then(super::kaniko::context_hint) {
        return Err(Failure::usage(format!("there is no context `{}`", typed.context.display())).hint(hint));
    }
    let commands = Commands::read(&typed.buildx)?;
    let host = pipeline::host_platform();
    let default = settings::variable("DOCKER_DEFAULT_PLATFORM");
    let platform = match typed.platform.as_deref().or(default.as_deref()) {
        None | Some("local") => host.clone(),
        Some(text) if text.contains(',') => {
            return Err(Failure::usage("several platforms in one build are not there yet")
                .hint("build them one after the other"));
        }
        Some(text) => super::transfer::parse_platform(text)?,
    };
    let outputs = typed
        .outputs
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| destination::parse(text, &platform.to_string(), typed.push))
        .collect::<Result<Vec<_>, _>>()?;
    let form = image_form(typed, &outputs, &platform.to_string())?;
    // As buildx does: names that are typed stand for those of outputs.
    let named: Vec<String> = outputs.iter().flat_map(|output| &output.names).cloned().collect();
    let mut notes = Vec::new();
    if let Some(name) = named.iter().find(|name| !typed.tags.is_empty() && !typed.tags.contains(*name)) {
        notes.push(format!("`name={name}` of an output has no effect: `-t` names the image"));
    }
    let names = if typed.tags.is_empty() { named } else { typed.tags.clone() };
    let mut tags = destination::names(&names, form.by_digest)?;
    let insecure = match outputs.iter().any(|output| output.insecure) {
        true => tags.iter().map(|name| name.host().to_owned()).collect(),
        false => Vec::new(),
    };
    let written = outputs.iter().filter(|output| !output.is_cache_only).map(|output| output.destination.clone());
    let flags = [(typed.push, Destination::Registry), (typed.load, Destination::Load)];
    let mut destinations: Vec<Destination> = Vec::new();
    for destination in
        written.chain(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, destination)| destination))
    {
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
    }
    if destinations.is_empty() {
        destinations.push(Destination::Store);
        if !outputs.is_empty() {
            if !tags.is_empty() {
                notes.push("`-t` has no effect: `type=cacheonly` keeps the steps, and gives no name".to_owned());
            }
            tags.clear();
        }
    }
    let to_stdout = destinations.iter().filter(|destination| destination.is_stdout()).count();
    if to_stdout > 1 {
        return Err(Failure::usage("only one output can go to standard output"));
    }
    let is_terminal = |path: &Path| {
        let file_type = std::fs::metadata(path).ok().map(|metadata| metadata.file_type());
        file_type.is_some_and(|kind| kind.is_char_device())
            && std::fs::File::open(path).is_ok_and(|file| file.is_terminal())
    };
    if to_stdout > 0 && std::io::stdout().is_terminal()
        || destinations.iter().filter_map(Destination::path).any(is_terminal)
    {
        return Err(Failure::usage("the archive would go to the terminal")
            .hint("write `dest=FILE` behind the output's type, or lead standard output to a file"));
    }
    if destinations.contains(&Destination::Registry) && tags.is_empty() {
        return Err(
            Failure::usage("there is no name to push the image under").hint("name it with `-t REGISTRY/NAME:TAG`")
        );
    }
    let files = [&typed.iidfile, &typed.digest_file, &typed.metadata_file, &typed.timeline].into_iter().flatten();
    // Before the build, rather than after it.
    for file in files {
        unwritable(file, export::check_file(file))?;
    }
    for destination in &destinations {
        destination.path().map_or(Ok(()), |path| unwritable(path, destination.check()))?;
    }
    let mut build_args = settings::build_args(&typed.build_args)?;
    settings::proxies(&fluyt_client::Environment::from_process(), &mut build_args)?;
    let epoch = epoch(&outputs, settings::epoch(&build_args)?, typed.reproducible)?;
    if let Some(epoch) = epoch {
        // An `ARG` sees the environment's too, as with buildx.
        build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
    }
    let (sockets, agents) = settings::agents(&typed.agents)?;
    let request = Request {
        context: ContextSource::parse(typed.context.as_os_str()),
        copied: None,
        other_store: None,
        file: typed.file.as_ref().map(|file| DockerfileSource::parse(file.as_os_str())),
        policies_off: buildx::policies_are_off(&typed.buildx),
        contexts: typed.build_contexts.iter().cloned().collect(),
        tags,
        epoch,
        build_args,
        target: typed.target.clone(),
        platform,
        build_platform: host,
        labels: typed.labels.iter().cloned().collect(),
        destinations,
        form,
        pull: typed.pull,
        explain: typed.explain,
        no_cache: typed.no_cache,
        no_cache_stages: typed
            .no_cache_filter
            .iter()
            .filter(|stage| !stage.is_empty())
            .map(|stage| stage.to_lowercase())
            .collect(),
        reproducible: typed.reproducible,
        normalize: typed.normalize,
        secrets: settings::secrets(&typed.secrets)?,
        certificates: settings::variable("SSL_CERT_FILE").map(PathBuf::from),
        agents: sockets,
        home: sandbox::entered().and_then(|_| settings::variable("HOME")).map(PathBuf::from),
        network: commands.network,
        conditions: commands.conditions,
        resources: commands.resources,
        allowed: commands.allowed,
        isolation: wish,
        now: Timestamp::now(),
    };
    Ok(Asked { request, insecure, agents, notes })
}

/// The form of the image: an output's attributes go before the flags, and all outputs must want the same.
fn image_form(typed: &BuildArguments, outputs: &[Output], platform: &str) -> Result<ImageForm, Failure> {
    let mut flags = Wishes {
        compression: typed.compression.clone(),
        level: typed.compression_level,
        force_compression: typed.force_compression.then_some(true),
        ..Wishes::default()
    };
    for text in typed.annotations.iter().filter(|text| !text.is_empty()) {
        form::annotate(text, platform, &mut flags)?;
    }
    let mut chosen: Option<(ImageForm, &str)> = None;
    for output in outputs.iter().filter(|output| output.destination.is_image()) {
        let wishes = output.wishes.clone().or(&flags);
        let mut form = wishes.form()?;
        if let Some((other, text)) = &chosen {
            // How a registry is told of the image is no matter of its bytes.
            form.by_digest |= other.by_digest;
            form.canonical_name |= other.canonical_name;
            let same = ImageForm { by_digest: form.by_digest, canonical_name: form.canonical_name, ..other.clone() };
            if form != same {
                return Err(Failure::usage(format!(
                    "`--output {text}` and `--output {}` want different images of one build",
                    output.text
                ))
                .hint("give both the same compression, media types and annotations, or build twice: the second finds all steps"));
            }
        }
        chosen = Some((form, &output.text));
    }
    chosen.map_or_else(|| flags.form(), |(form, _)| Ok(form))
}

/// The epoch of the build: what an output says goes before the environment and the build arguments.
fn epoch(outputs: &[Output], given: Option<i64>, reproducible: bool) -> Result<Option<i64>, Failure> {
    let mut said = outputs.iter().filter_map(|output| Some((output.epoch?, &output.text)));
    let first = said.next();
    if let (Some((one, text)), Some((other, again))) =
        (first, said.find(|(other, _)| Some(*other) != first.map(|one| one.0)))
    {
        return Err(Failure::usage(format!("`--output {text}` has the epoch {one} and `--output {again}` {other}"))
            .hint("a build has one epoch"));
    }
    let epoch = first.map(|(epoch, _)| epoch).or(given);
    let clamped = epoch.is_some() || reproducible;
    for output in outputs {
        match output.rewrite_timestamp {
            Some(true) if !clamped => {
                return Err(Failure::usage(format!("`--output {}`: there is no time to rewrite to", output.text))
                    .hint("set SOURCE_DATE_EPOCH or `source-date-epoch=SECONDS`, or use `--reproducible`"));
            }
            Some(false) if clamped => {
                return Err(Failure::usage(format!(
                    "`--output {}`: with an epoch, files in layers are never later than it",
                    output.text
                ))
                .hint("leave `rewrite-timestamp` out, or build without SOURCE_DATE_EPOCH and `--reproducible`"));
            }
            _ => {}
        }
    }
    Ok(epoch)
}

/// What could not be written, or cannot be, as the user reads it.
pub(super) fn unwritable<T>(path: &Path, written: Result<T, ExportError>) -> Result<T, Failure> {
    written.map_err(|error| {
        Failure::new(export_fault(&error).into(), format!("cannot write {}", path.display())).caused_by(&error)
    })
}

/// Opens the store, or says why it cannot be.
pub(super) fn open_store(typed: Option<&Path>) -> Result<Store, Failure> {
    let folder = settings::store_folder(typed)?;
    Store::open(&folder).map_err(|error| {
        let blame = match error {
            StoreError::NewerLayout { .. }
            | StoreError::NotAStore { .. }
            | StoreError::AnotherUsers { .. }
            | StoreError::RemoteFileSystem { .. } => Blame::User,
            _ => of_path(&error),
        };
        // As where HOME is `/`, and so in many containers.
        let hint = matches!(error, StoreError::Io { .. }) && is_about_the_path(&error);
        let hint = hint.then(|| "name one that this user can write to with `--store DIR` or FLUYT_STORE".to_owned());
        Failure::from_error(blame, &error).hints(hint)
    })
}

/// A failed build as the user reads it.
pub(super) fn failure(error: BuildError) -> Failure {
    let one = |error: &BuildError| Failure::from_error(error.fault().into(), error).hints(error.hints());
    one(&error).beside(error.others().iter().map(one))
}

/// Whose fault an error is that a path, if it was chosen well, would not have.
pub(super) fn of_path(error: &(dyn std::error::Error + 'static)) -> Blame {
    if is_about_the_path(error) { Blame::User } else { Blame::Environment }
}

/// Writes a file whole or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    unwritable(path, export::write_file(path, |sink| sink.write_all(bytes).map_err(ExportError::Write)))
}
