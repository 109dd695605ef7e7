//! `fluyt build`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fluyt_client::Reference;
use jiff::Timestamp;
use serde_json::json;

use super::args::{BuildArguments, Progress};
use super::failure::{Blame, Failure};
use super::interrupt::Interrupt;
use super::{destination, output, progress, settings};
use crate::blob::{Store, StoreError};
use crate::pipeline::{self, BuildError, Built, Destination, Request, Workshop};

pub(super) async fn run(store: Option<&Path>, typed: BuildArguments) -> Result<(), Failure> {
    let request = request(&typed)?;
    let kind = if typed.quiet { Progress::Quiet } else { typed.progress };
    let events = progress::sink(kind);
    let client = super::transfer::client(&typed.registries)?;
    let store = open_store(store)?;
    let (stdout_is_taken, prints_digest) = (
        request.destinations.iter().any(Destination::is_stdout),
        request.destinations.iter().any(Destination::is_image),
    );
    let tags = request.tags.clone();
    let interrupt = Interrupt::listen();
    let workshop = Workshop { store, client, cancel: interrupt.cancel.clone(), stdout: output::stdout };
    let built = interrupt.guard(pipeline::build(workshop, request, events.clone())).await.map_err(failure)?;
    drop(events);
    write_files(&typed, &built, &tags)?;
    if prints_digest && !stdout_is_taken {
        super::print(format!("{}\n", built.manifest.digest()).as_bytes())?;
    }
    Ok(())
}

fn request(typed: &BuildArguments) -> Result<Request, Failure> {
    if typed.context.as_os_str() == "-" {
        return Err(Failure::usage("a context on standard input is not there yet").hint("name a folder"));
    }
    if let Some(text) = typed.context.to_str()
        && ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|prefix| text.starts_with(prefix))
    {
        return Err(Failure::usage(format!("a context at an address (`{text}`) is not there yet"))
            .hint("check it out and name the folder"));
    }
    if typed.file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(Failure::usage("a Dockerfile on standard input is not there yet").hint("write it to a file"));
    }
    let mut tags = typed.tags.iter().map(|text| image_name(text)).collect::<Result<Vec<_>, _>>()?;
    let mut destinations = Vec::new();
    for text in &typed.outputs {
        let (destination, names) = destination::parse(text)?;
        destinations.push(destination);
        tags.extend(names);
    }
    if typed.push {
        destinations.push(Destination::Registry);
    }
    if typed.load {
        destinations.push(Destination::Load);
    }
    if destinations.is_empty() {
        destinations.push(Destination::Store);
    }
    destinations.dedup();
    if destinations.iter().filter(|destination| destination.is_stdout()).count() > 1 {
        return Err(Failure::usage("only one output can go to standard output"));
    }
    if destinations.contains(&Destination::Registry) && tags.is_empty() {
        return Err(
            Failure::usage("there is no name to push the image under").hint("name it with `-t REGISTRY/NAME:TAG`")
        );
    }
    let files = [&typed.iidfile, &typed.digest_file, &typed.metadata_file].into_iter().flatten();
    for file in files.map(PathBuf::as_path).chain(destinations.iter().filter_map(Destination::path)) {
        check_folder(file)?;
    }
    let build_args = settings::build_args(&typed.build_args)?;
    let host = pipeline::host_platform();
    let platform = match typed.platform.as_deref() {
        None | Some("local") => host.clone(),
        Some(text) if text.contains(',') => {
            return Err(Failure::usage("several platforms in one build are not there yet")
                .hint("build them one after the other"));
        }
        Some(text) => super::transfer::parse_platform(text)?,
    };
    Ok(Request {
        context: typed.context.clone(),
        file: typed.file.clone(),
        tags,
        epoch: settings::epoch(&build_args)?,
        build_args,
        target: typed.target.clone(),
        platform,
        build_platform: host,
        labels: typed.labels.iter().cloned().collect(),
        destinations,
        pull: typed.pull,
        no_cache: typed.no_cache,
        reproducible: typed.reproducible,
        now: Timestamp::now(),
    })
}

/// Says before the build, rather than after it, that a file has no folder to be in.
fn check_folder(file: &Path) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() {
        true => Ok(()),
        false => Err(Failure::new(
            Blame::User,
            format!("cannot write {}: there is no folder {}", file.display(), folder.display()),
        )
        .hint("make the folder first")),
    }
}

/// A name for an image: a reference with a tag.
fn image_name(text: &str) -> Result<Reference, Failure> {
    let reference = settings::reference(text)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(Failure::usage(format!("`{text}` has a digest, which a build cannot choose"))
            .hint("name the image with a tag")),
    }
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
            _ => Blame::Environment,
        };
        Failure::from_error(blame, &error)
    })
}

/// A failed build as the user reads it.
fn failure(error: BuildError) -> Failure {
    Failure::from_error(error.fault().into(), &error).hints(error.hints())
}

/// Writes `--iidfile`, `--digest-file` and `--metadata-file`, each whole or not at all.
fn write_files(typed: &BuildArguments, built: &Built, tags: &[Reference]) -> Result<(), Failure> {
    let digest = built.manifest.digest().to_string();
    if let Some(path) = &typed.iidfile {
        write_file(path, built.config_digest.to_string().as_bytes())?;
    }
    if let Some(path) = &typed.digest_file {
        write_file(path, digest.as_bytes())?;
    }
    if let Some(path) = &typed.metadata_file {
        let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let mut metadata = json!({
            "containerimage.config.digest": built.config_digest.to_string(),
            "containerimage.descriptor": built.manifest,
            "containerimage.digest": digest,
        });
        if !names.is_empty() {
            metadata["image.name"] = json!(names.join(","));
        }
        let text =
            serde_json::to_vec_pretty(&metadata).map_err(|error| Failure::from_error(Blame::Environment, &error))?;
        write_file(path, &text)?;
    }
    Ok(())
}

/// Writes a file by rename, so that nobody reads half of it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Blame::Environment, format!("cannot write {}", path.display())).caused_by(&error)
    };
    // A pipe or a device is written to as it is; a rename would replace it.
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(failed);
    }
    let mut name =
        path.file_name().ok_or_else(|| Failure::usage(format!("{} is no file name", path.display())))?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}
