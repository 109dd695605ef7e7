//! Where a finished image goes.

use std::path::{Path, PathBuf};

use fluyt_client::Reference;
use oci_spec::image::Descriptor;

use super::{BuildError, Built, Request};
use crate::blob::Store;
use crate::event::{Event, Events};
use crate::execute::{RootState, StepCounter};
use crate::export::{self, ExportError, Target};
use crate::remote::{Origins, Remote};
use crate::sandbox::Cancel;

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
    store: &Store,
    remote: &Remote,
    events: &Events,
    steps: &StepCounter,
    cancel: &Cancel,
) -> Result<(), BuildError> {
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
        export(destination, image, request, store, events, steps, cancel).await?;
    }
    if pushes {
        for name in &request.tags {
            push(name, image, origins, remote, events, steps).await?;
        }
    }
    // Under a name in the store stands only what is whole there.
    if root.layers.iter().all(|layer| store.contains(&layer.digest)) {
        for name in &request.tags {
            store.tag(&name.to_string(), image.manifest.clone())?;
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
    remote: &Remote,
    events: &Events,
    steps: &StepCounter,
) -> Result<(), BuildError> {
    let step = steps.next();
    events.hear(Event::Started { step, name: format!("push {name}") });
    match remote.push(&image.manifest, name, origins, step).await {
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

async fn export(
    destination: &Destination,
    image: &Built,
    request: &Request,
    store: &Store,
    events: &Events,
    steps: &StepCounter,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let step = steps.next();
    events.hear(Event::Started { step, name: format!("export to {}", destination.describe()) });
    let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
    let (store, manifest, wanted, cancel) =
        (store.clone(), image.manifest.clone(), destination.clone(), cancel.clone());
    let result = tokio::task::spawn_blocking(move || write(&store, &manifest, &names, &wanted, &cancel)).await;
    match result {
        Ok(Ok(())) => {
            events.hear(Event::Finished { step });
            Ok(())
        }
        Ok(Err(source)) => {
            events.hear(Event::Failed { step, error: source.to_string() });
            Err(BuildError::Export { destination: destination.describe(), source: Box::new(source) })
        }
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn write(
    store: &Store,
    manifest: &Descriptor,
    names: &[String],
    destination: &Destination,
    _cancel: &Cancel,
) -> Result<(), ExportError> {
    let target =
        |path: &Option<PathBuf>| path.as_deref().map_or(Target::Stdout, |path: &Path| Target::File(path.to_owned()));
    match destination {
        Destination::Store | Destination::Registry => Ok(()),
        Destination::Load => export::load(store, manifest, names),
        Destination::OciFolder(folder) => export::oci_folder(store, manifest, names, folder),
        Destination::OciTar(path) => export::oci_tar(store, manifest, names, target(path)),
        Destination::DockerTar(path) => export::docker_tar(store, manifest, names, target(path)),
        Destination::Tar(path) => export::tar(store, manifest, target(path)),
        Destination::Local(folder) => export::local(store, manifest, folder),
    }
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
