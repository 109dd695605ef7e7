//! Where a finished image goes.

use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fluyt_client::{Blob, Reference};
use oci_spec::image::Descriptor;

use super::room::Pruner;
use super::{BuildError, Built, Request, Workshop};
use crate::blob::Store;
use crate::event::{Event, Events, StepId};
use crate::execute::{BuiltLayer, RootState, StepCounter};
use crate::export::{self, ExportError};
use crate::layer::Times;
use crate::remote::{Origins, Remote, Uploads};
use crate::task::blocking;

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

    /// Whether it can be expected to be written.
    ///
    /// # Errors
    /// When there is something else, or what is to be written may not be.
    pub fn check(&self) -> Result<(), ExportError> {
        match self {
            Self::OciFolder(folder) => export::check_layout(folder),
            Self::Local(folder) => export::check_folder(folder),
            Self::OciTar(Some(file)) | Self::DockerTar(Some(file)) | Self::Tar(Some(file)) => export::check_file(file),
            Self::OciTar(None) | Self::DockerTar(None) | Self::Tar(None) => Ok(()),
            Self::Store | Self::Registry | Self::Load => Ok(()),
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

/// A finished image, and all that it takes to bring it where it goes.
pub(super) struct Delivery<'a> {
    pub(super) image: &'a Built,
    pub(super) root: &'a RootState,
    pub(super) origins: &'a Origins,
    pub(super) request: &'a Request,
    pub(super) workshop: &'a Workshop,
    pub(super) times: Times,
    pub(super) remote: &'a Remote,
    pub(super) uploads: &'a Uploads,
    pub(super) events: &'a Events,
    pub(super) steps: &'a StepCounter,
    pub(super) pruner: &'a Arc<Pruner>,
    /// Why there will be no push, as is known by now.
    pub(super) refused: Option<BuildError>,
}

impl Delivery<'_> {
    /// Brings the image to each of its places, in their order. Where one of them fails it is told which have it.
    pub(super) async fn deliver(&mut self) -> Result<(), BuildError> {
        let mut done = Vec::new();
        let delivered = self.deliver_to_all(&mut done).await;
        if delivered.is_err() && !done.is_empty() {
            self.events.hear(Event::Note { text: format!("these have the image: {}", done.join(", ")) });
        }
        delivered
    }

    async fn deliver_to_all(&mut self, done: &mut Vec<String>) -> Result<(), BuildError> {
        let (image, request) = (self.image, self.request);
        let pushes = request.destinations.contains(&Destination::Registry);
        if pushes && request.tags.is_empty() {
            return Err(BuildError::NoName);
        }
        // An image that only goes to a registry may leave its base's layers where they are.
        let only_pushed =
            pushes && request.destinations.iter().all(|destination| *destination == Destination::Registry);
        if !only_pushed {
            self.fetch_missing().await?;
        }
        for destination in request.destinations.iter().filter(|destination| destination.is_export()) {
            self.workshop.cancel.check()?;
            self.export(destination).await?;
            done.push(destination.describe());
        }
        self.workshop.cancel.check()?;
        // Before the pushes: it can be pushed again, whatever becomes of them.
        let is_whole = self.name().await?;
        let is_kept = is_whole && !request.form.by_digest;
        let kept = |error| match error {
            BuildError::Push { reference, source, .. } => BuildError::Push { reference, is_kept, source },
            other => other,
        };
        if let Some(error) = self.refused.take() {
            return Err(kept(error));
        }
        if pushes {
            let by_digest = |name: &Reference| name.with_digest(image.manifest.digest());
            for name in &request.tags {
                match (request.form.by_digest, is_whole) {
                    (true, _) => self.push(&by_digest(name)).await.map_err(kept)?,
                    (false, true) => self.push(name).await.map_err(kept)?,
                    (false, false) => self.push_over(name).await?,
                }
                done.push(name.to_string());
            }
        }
        Ok(())
    }

    /// Pushes an image that the store does not have whole. What has its name in the store is older than what the registry has
    /// from then on, and loses it: first, so that a process that dies leaves no old image under a new one's name. It gets
    /// it back when the push failed.
    async fn push_over(&self, name: &Reference) -> Result<(), BuildError> {
        let store = &self.workshop.store;
        let here = name.to_string();
        let earlier = store.resolve(&here)?;
        store.untag(&here)?;
        let pushed = self.push(name).await;
        if let Some(earlier) = earlier {
            match pushed {
                // Why it failed matters more than that the name is lost as well.
                Err(_) => drop(store.tag(&here, earlier)),
                Ok(()) => self.events.hear(Event::Note {
                    text: format!(
                        "{0} in the store was an earlier image, and lost its name: layers of the new one are in registries \
                         alone; `fluyt pull {0}` fetches it whole",
                        name.familiar()
                    ),
                }),
            }
        }
        pushed
    }

    /// Gives the image its names in the store, where it is whole: under a name stands nothing else. Gives whether it is.
    async fn name(&self) -> Result<bool, BuildError> {
        let (request, store) = (self.request, &self.workshop.store);
        let is_whole = self.root.layers.iter().all(|layer| store.contains(&layer.digest));
        for name in request.tags.iter().filter(|_| is_whole) {
            if !request.form.by_digest {
                self.tag(&name.to_string()).await?;
            }
            if request.form.by_digest || request.form.canonical_name {
                self.tag(&format!("{}@{}", name.name(), self.image.manifest.digest())).await?;
            }
        }
        Ok(is_whole)
    }

    async fn tag(&self, name: &str) -> Result<(), BuildError> {
        let tag = async || self.workshop.store.tag(name, self.image.manifest.clone());
        Ok(self.pruner.with_room("the name of the image", tag).await?)
    }

    async fn fetch_missing(&self) -> Result<(), BuildError> {
        let store = &self.workshop.store;
        let missing: Vec<_> = self.root.layers.iter().filter(|layer| !store.contains(&layer.digest)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let step = self.begin("fetch the base image's layers".to_owned());
        let blob = |layer: &&BuiltLayer| {
            let blob = Blob { digest: layer.digest.clone(), size_bytes: layer.size_bytes };
            Some((layer.origin.clone()?, blob))
        };
        let fetch = async || self.remote.fetch_blobs(missing.iter().filter_map(blob), step).await;
        let fetched = async {
            let fetched = self.pruner.with_room("fetching the base image's layers", fetch).await;
            fetched.map_err(|error| BuildError::Layers { source: Box::new(error) })
        };
        self.end(step, self.workshop.cancel.until(fetched).await)
    }

    fn begin(&self, name: String) -> StepId {
        self.steps.begin(self.events, name)
    }

    fn end<T>(&self, step: StepId, result: Result<T, BuildError>) -> Result<T, BuildError> {
        self.events.ended(step, &result);
        result
    }

    async fn push(&self, name: &Reference) -> Result<(), BuildError> {
        let step = self.begin(format!("push {name}"));
        let push = async {
            let pushed = self.uploads.push(&self.image.manifest, name, self.origins, step).await;
            pushed.map(|_| ()).map_err(|error| BuildError::Push {
                reference: name.to_string(),
                is_kept: false,
                source: Box::new(error),
            })
        };
        self.end(step, self.workshop.cancel.until(push).await)
    }

    async fn export(&self, destination: &Destination) -> Result<(), BuildError> {
        let (step, cancel) = (self.begin(format!("export to {}", destination.describe())), &self.workshop.cancel);
        let write = async || {
            let order = Order {
                store: self.workshop.store.until(cancel),
                manifest: self.image.manifest.clone(),
                names: self.request.tags.iter().map(ToString::to_string).collect(),
                destination: destination.clone(),
                times: self.times,
                stdout: self.workshop.stdout,
            };
            blocking(move || write(&order)).await
        };
        // Only on the store's own disk is there more room when the store is pruned; and what went to a pipe is gone.
        let result = match is_beside(destination, self.workshop.store.root()) {
            true => self.pruner.with_room(&format!("the export to {}", destination.describe()), write).await,
            false => write().await,
        };
        let result = match result {
            // Whatever it says: it was stopped.
            _ if cancel.is_cancelled() => Err(BuildError::Cancelled),
            Err(source) => Err(BuildError::Export { destination: destination.describe(), source: Box::new(source) }),
            Ok(said) => Ok(said),
        };
        let said = self.end(step, result)?;
        said.into_iter().for_each(|text| self.events.hear(Event::Note { text }));
        Ok(())
    }
}

/// Whether a destination is on the same file system as a folder.
fn is_beside(destination: &Destination, folder: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
    let absolute = destination.path().and_then(|path| std::path::absolute(path).ok());
    // It may not be there yet, nor the folders above.
    let there = absolute.as_deref().and_then(|path| path.ancestors().find_map(device));
    there.is_some() && there == device(folder)
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
            let skipped = export::local(store, manifest, *times, folder)?;
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
