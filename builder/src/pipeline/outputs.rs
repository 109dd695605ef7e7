//! Where a finished image goes.

use std::io::Write;
use std::path::{Path, PathBuf};

use fluyt_client::Reference;
use oci_spec::image::Descriptor;

use super::{BuildError, Built, Request, Workshop};
use crate::blob::Store;
use crate::event::{Event, Events};
use crate::execute::{RootState, StepCounter};
use crate::export::{self, ExportError};
use crate::layer::Times;
use crate::remote::{Origins, Remote, Uploads};
use crate::sandbox;

/// Where a result goes. A path that is none is standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// It stays in the store.
    Store,
    /// The registries of its names.
    Registry,
    /// Docker, or podman where there is no Docker.
    Load,
    /// An OCI layout as a folder.
    OciFolder(PathBuf),
    /// An OCI layout as a tar.
    OciTar(Option<PathBuf>),
    /// What `docker load` reads.
    DockerTar(Option<PathBuf>),
    /// The files, as one tar.
    Tar(Option<PathBuf>),
    /// The files, in a folder.
    Local(PathBuf),
}

impl Destination {
    /// Whether it is the image that goes there, rather than its files.
    #[must_use]
    pub fn is_image(&self) -> bool {
        !matches!(self, Self::Tar(_) | Self::Local(_))
    }

    /// The file or folder that is written.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::OciFolder(path) | Self::Local(path) => Some(path),
            Self::OciTar(path) | Self::DockerTar(path) | Self::Tar(path) => path.as_deref(),
            Self::Store | Self::Registry | Self::Load => None,
        }
    }

    /// Whether the result's bytes go to standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::OciTar(None) | Self::DockerTar(None) | Self::Tar(None))
    }

    fn is_export(&self) -> bool {
        !matches!(self, Self::Store | Self::Registry)
    }

    fn describe(&self) -> String {
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string())
        };
        match self {
            Self::Store => "the store".to_owned(),
            Self::Registry => "a registry".to_owned(),
            Self::Load => "Docker or podman".to_owned(),
            Self::OciFolder(folder) | Self::Local(folder) => folder.display().to_string(),
            Self::OciTar(file) | Self::DockerTar(file) | Self::Tar(file) => path(file),
        }
    }
}

/// What the outputs of one build share.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another part of the build; a struct would be taken apart at once"
)]
pub(super) async fn deliver(
    image: &Built,
    root: &RootState,
    origins: &Origins,
    request: &Request,
    workshop: &Workshop,
    times: Times,
    remote: &Remote,
    uploads: &Uploads,
    events: &Events,
    steps: &StepCounter,
) -> Result<(), BuildError> {
    let store = &workshop.store;
    let pushes = request.destinations.contains(&Destination::Registry);
    if pushes && request.tags.is_empty() {
        return Err(BuildError::NoName);
    }
    // An image that only goes to a registry may leave its base's layers where they are.
    let only_pushed = pushes && request.destinations.iter().all(|destination| *destination == Destination::Registry);
    if !only_pushed {
        fetch_missing(root, store, remote, events, steps).await?;
    }
    for destination in request.destinations.iter().filter(|destination| destination.is_export()) {
        export(destination, image, request, workshop, times, events, steps).await?;
    }
    let by_digest = |name: &Reference| name.with_digest(image.manifest.digest());
    if pushes {
        for name in &request.tags {
            let target = if request.form.by_digest { by_digest(name) } else { name.clone() };
            push(&target, image, origins, uploads, events, steps).await?;
        }
    }
    // Under a name in the store stands only what is whole there.
    if root.layers.iter().all(|layer| store.contains(&layer.digest)) {
        for name in &request.tags {
            if !request.form.by_digest {
                store.tag(&name.to_string(), image.manifest.clone())?;
            }
            if request.form.by_digest || request.form.canonical_name {
                store.tag(&format!("{}@{}", name.name(), image.manifest.digest()), image.manifest.clone())?;
            }
        }
    }
    Ok(())
}

async fn fetch_missing(
    root: &RootState,
    store: &Store,
    remote: &Remote,
    events: &Events,
    steps: &StepCounter,
) -> Result<(), BuildError> {
    let missing: Vec<_> = root.layers.iter().filter(|layer| !store.contains(&layer.digest)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = steps.next();
    events.hear(Event::Started { step, name: "fetch the base image's layers".to_owned() });
    for layer in missing {
        let Some(origin) = &layer.origin else { continue };
        if let Err(error) = remote.fetch_blob(origin, &layer.digest, layer.size_bytes, step).await {
            events.hear(Event::Failed { step, error: error.to_string() });
            return Err(BuildError::Layers { source: Box::new(error) });
        }
    }
    events.hear(Event::Finished { step });
    Ok(())
}

async fn push(
    name: &Reference,
    image: &Built,
    origins: &Origins,
    uploads: &Uploads,
    events: &Events,
    steps: &StepCounter,
) -> Result<(), BuildError> {
    let step = steps.next();
    events.hear(Event::Started { step, name: format!("push {name}") });
    match uploads.push(&image.manifest, name, origins, step).await {
        Ok(_) => {
            events.hear(Event::Finished { step });
            Ok(())
        }
        Err(error) => {
            events.hear(Event::Failed { step, error: error.to_string() });
            Err(BuildError::Push { reference: name.to_string(), source: Box::new(error) })
        }
    }
}

/// What one export needs, as values that can go to another thread.
struct Order {
    store: Store,
    manifest: Descriptor,
    names: Vec<String>,
    destination: Destination,
    times: Times,
    stdout: fn() -> Box<dyn Write>,
}

async fn export(
    destination: &Destination,
    image: &Built,
    request: &Request,
    workshop: &Workshop,
    times: Times,
    events: &Events,
    steps: &StepCounter,
) -> Result<(), BuildError> {
    let step = steps.next();
    events.hear(Event::Started { step, name: format!("export to {}", destination.describe()) });
    let order = Order {
        store: workshop.store.clone(),
        manifest: image.manifest.clone(),
        names: request.tags.iter().map(ToString::to_string).collect(),
        destination: destination.clone(),
        times,
        stdout: workshop.stdout,
    };
    let result = tokio::task::spawn_blocking(move || write(&order)).await;
    match result {
        Ok(Ok(said)) => {
            events.hear(Event::Finished { step });
            said.into_iter().for_each(|text| events.hear(Event::Note { text }));
            Ok(())
        }
        Ok(Err(source)) => {
            events.hear(Event::Failed { step, error: source.to_string() });
            Err(BuildError::Export { destination: destination.describe(), source: Box::new(source) })
        }
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Writes what one destination wants; gives what the user should know about it.
fn write(order: &Order) -> Result<Vec<String>, ExportError> {
    let Order { store, manifest, names, times, .. } = order;
    let into = |path: &Option<PathBuf>, write: &dyn Fn(&mut dyn Write) -> Result<(), ExportError>| match path {
        None => write(&mut (order.stdout)()),
        Some(path) => export::write_file(path, |sink| write(sink)),
    };
    match &order.destination {
        Destination::Store | Destination::Registry => {}
        Destination::Load => {
            let said = export::load(store, manifest, names, export::PROGRAMS)?;
            return Ok(said.lines().map(str::to_owned).collect());
        }
        Destination::OciFolder(folder) => export::layout_folder(store, manifest, names, folder)?,
        Destination::OciTar(path) => into(path, &|sink| export::layout_tar(store, manifest, names, sink))?,
        Destination::DockerTar(path) => into(path, &|sink| export::docker_archive(store, manifest, names, sink))?,
        Destination::Tar(path) => into(path, &|sink| export::root_tar(store, manifest, *times, sink))?,
        Destination::Local(folder) => {
            let skipped = export::local(store, manifest, *times, !sandbox::is_root_inside_only(), folder)?;
            return Ok(skipped
                .iter()
                .map(|path| format!("left out the device {path}, which only root can make"))
                .collect());
        }
    }
    Ok(Vec::new())
}

/// What to tell someone whose image went nowhere.
pub(super) fn where_it_is(request: &Request) -> Option<String> {
    if request.destinations.iter().any(|destination| *destination != Destination::Store) {
        return None;
    }
    let names: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
    Some(match names.is_empty() {
        true => "the image is in the store, without a name; name it with -t, and send it on with --push, --load or -o"
            .to_owned(),
        false => format!("the image is in the store as {}; send it on with --push, --load or -o", names.join(", ")),
    })
}
