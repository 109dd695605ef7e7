//! `fluyt verify REF`: builds an image again from the commit that its labels name, and compares.

use std::path::Path;
use std::sync::Arc;

use fluyt_client::Reference;
use oci_spec::image::Descriptor;

use super::compare::{self, Difference};
use super::{Builds, Conditions, report};
use crate::blob::Store;
use crate::cli::args::{BuildArguments, VerifyArguments};
use crate::cli::build::{Asked, request};
use crate::cli::failure::{Blame, Failure};
use crate::cli::{image, output, settings, transfer};
use crate::event::{Event, Sink, StepId};
use crate::export::{ExportError, StoredImage, read_image};
use crate::image::Platform;
use crate::pipeline::{self, Built, ContextSource, Destination, Request, Workshop};
use crate::remote::{Remote, RemoteError};

/// Labels and annotations of the OCI image specification (annotations.md), which CI writes from outside the Dockerfile.
const WELL_KNOWN: &str = "org.opencontainers.image.";

/// Where the sources are.
const SOURCE: &str = "org.opencontainers.image.source";

/// Which commit of them.
const REVISION: &str = "org.opencontainers.image.revision";

/// The image that the typed context names, where it is no folder and no address. A bare name is an image's of the store
/// alone: no registry is asked for what was to be a folder.
pub(super) fn named(typed: &VerifyArguments, store: &Store) -> Result<Option<Reference>, Failure> {
    let reference = reference(&typed.build.context);
    Ok(match reference {
        Some((reference, true)) => image::find(store, &reference)?.map(|_| reference),
        Some((reference, false)) => Some(reference),
        None => None,
    })
}

/// The image's name that a context may be, and whether it is a bare one.
fn reference(context: &Path) -> Option<(Reference, bool)> {
    let text = context.to_str()?;
    let is_path = text.starts_with(['/', '.']) || context.exists();
    let is_folder_or_address =
        is_path || ContextSource::parse(context.as_os_str()) != ContextSource::Folder(text.into());
    if is_folder_or_address { None } else { Some((settings::reference(text).ok()?, !text.contains(['/', ':', '@']))) }
}

/// Says of a context that is not there that it could have been an image.
pub(super) fn no_image(typed: &BuildArguments, failure: Failure) -> Failure {
    failure.hints(reference(&typed.context).map(|(reference, _)| {
        format!("nor has the store an image of that name; one of a registry is named with its registry or tag: `{reference}`")
    }))
}

pub(super) async fn run(store: &Store, typed: VerifyArguments, reference: Reference) -> Result<(), Failure> {
    let arguments = typed.build;
    let Asked { request, agents: _agents, .. } = request(&arguments)?;
    let client = transfer::client(&arguments.registries)?;
    let builds = Builds::new(
        &arguments,
        |store, cancel| Workshop {
            store,
            client: client.clone(),
            cancel,
            stdout: output::stdout,
            stdin: output::stdin,
        },
        Some(store),
    );
    let remote = Remote::new(client.clone(), store.clone(), Arc::new(Silent));
    let published = Published::find(store, &remote, &reference, &request.platform).await.map_err(|failure| {
        // With a tag or a digest it was meant as it is.
        let may_be_folder = !arguments.context.to_string_lossy().contains([':', '@']);
        failure.hints(pipeline::no_folder(&arguments.context).filter(|_| may_be_folder))
    })?;
    published.is_for(&request.platform, &reference)?;
    let address = published.address(&reference)?;
    let is_normalized = request.normalize;
    let mut wanted = Request {
        context: ContextSource::Address(address.clone()),
        destinations: vec![Destination::Store],
        tags: Vec::new(),
        no_cache: true,
        reproducible: true,
        ..request
    };
    published.told_from_outside(&mut wanted);
    let (mut best, mut found) =
        builds.compared(&published, wanted.clone(), &format!("building {address}"), store).await?;
    // The image may have been built with an epoch, which it tells as its own time.
    if !found.is_empty()
        && wanted.epoch.is_none()
        && let Some(epoch) = published.created()
    {
        let title = format!("building it again with SOURCE_DATE_EPOCH={epoch}, the image's own time");
        let (again, fewer) =
            builds.compared(&published, Request { epoch: Some(epoch), ..wanted }, &title, store).await?;
        if fewer.len() <= found.len() {
            (best, found) = (again, fewer);
        }
    }
    let conditions = Conditions { changed: vec!["the machine"], same: Vec::new() };
    let times = found.iter().any(Difference::is_time).then(|| {
        "files have the times of the place where the image was built: build it with `--reproducible` or SOURCE_DATE_EPOCH"
            .to_owned()
    });
    report(&published.built, &best, &found, &conditions, is_normalized, typed.json).map_err(|failure| {
        failure.hints(times).hint(format!("first is the image {reference}, second what its sources give"))
    })
}

impl<W: Fn(Store, crate::stop::Cancel) -> Workshop> Builds<W> {
    async fn compared(
        &self,
        published: &Published,
        request: Request,
        title: &str,
        store: &Store,
    ) -> Result<(Built, Vec<Difference>), Failure> {
        let mut built = self.build(title, request, store).await.map_err(|failure| {
            match failure.message.starts_with("no Dockerfile in") {
                true => failure.hint(format!(
                    "an image of a folder of the repository has it in its label: `{SOURCE}=URL#:FOLDER`"
                )),
                false => failure,
            }
        })?;
        // The layers' content is in the configuration: the same image in another compression, or pushed by another program.
        if built.config_digest == published.built.config_digest {
            built.manifest = published.built.manifest.clone();
        }
        let found = compare::images(store, &published.built, &built)?;
        Ok((built, found))
    }
}

/// An image that somebody built.
struct Published {
    built: Built,
    image: StoredImage,
}

impl Published {
    /// What was built or pulled here under that name; else the registry's.
    async fn find(store: &Store, remote: &Remote, reference: &Reference, platform: &Platform) -> Result<Self, Failure> {
        let descriptor = match image::find(store, reference)? {
            Some(descriptor) => descriptor,
            None => {
                let pulled = async {
                    let image = remote.image(reference, platform).await?;
                    remote.fetch_layers(&image, StepId(1)).await?;
                    Ok::<_, RemoteError>(image)
                };
                let image =
                    pulled.await.map_err(|error| transfer::failure(format!("cannot pull {reference}"), &error))?;
                image::descriptor(&image.media_type, image.size_bytes, image.digest)
            }
        };
        Self::read(store, descriptor, reference)
    }

    fn read(store: &Store, descriptor: Descriptor, reference: &Reference) -> Result<Self, Failure> {
        let broken = |error: ExportError| {
            Failure::new(Blame::Environment, format!("the image {reference} cannot be read: {error}"))
        };
        let image = read_image(store, descriptor.digest()).map_err(broken)?;
        let config_digest = image.manifest.config().digest().clone();
        Ok(Self { built: Built { manifest: descriptor, config_digest, bases: Vec::new() }, image })
    }

    /// Refuses the image of another platform than the one that its sources are going to be built for: all would differ.
    fn is_for(&self, platform: &Platform, reference: &Reference) -> Result<(), Failure> {
        match self.image.config.platform().filter(|found| platform.accepts(found) != Some(0)) {
            None => Ok(()),
            Some(found) => Err(Failure::new(
                Blame::User,
                format!("{reference} is for {found}, and its sources would be built for {platform}"),
            )
            .hint(format!("name it: `--platform {found}`"))),
        }
    }

    /// What a label or an annotation says.
    fn says(&self, name: &str) -> Option<&str> {
        let label = self.image.config.config.labels.as_ref().and_then(|labels| labels.get(name));
        label.or_else(|| self.image.manifest.annotations().as_ref()?.get(name)).map(String::as_str)
    }

    /// The commit that it was built from, as a context.
    fn address(&self, reference: &Reference) -> Result<String, Failure> {
        let (Some(source), Some(revision)) = (self.says(SOURCE), self.says(REVISION)) else {
            let missing = if self.says(SOURCE).is_none() { SOURCE } else { REVISION };
            return Err(Failure::new(
                Blame::User,
                format!("{reference} does not say what it was built from: it has no label {missing}"),
            )
            .hint(format!("build it with `--label {SOURCE}=URL --label {REVISION}=COMMIT`, as CI does"))
            .hint("or name the folder that it is built from, to see whether two builds of it are the same"));
        };
        Ok(context(source, revision))
    }

    /// What CI gave the image beside the Dockerfile cannot be found in the sources: it is taken from the image.
    fn told_from_outside(&self, request: &mut Request) {
        for (name, value) in
            self.image.config.config.labels.iter().flatten().filter(|(name, _)| name.starts_with(WELL_KNOWN))
        {
            request.labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for (name, value) in
            self.image.manifest.annotations().iter().flatten().filter(|(name, _)| name.starts_with(WELL_KNOWN))
        {
            request.form.annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// When it says that it was made, in seconds since 1970.
    fn created(&self) -> Option<i64> {
        let time: jiff::Timestamp = self.image.config.created.as_ref()?.parse().ok()?;
        Some(time.as_second())
    }
}

/// A commit of a repository as a context. The source may name a folder of it, as contexts do: `URL#REF:FOLDER`.
fn context(source: &str, revision: &str) -> String {
    let (repository, rest) = source.split_once('#').unwrap_or((source, ""));
    let folder = rest.split_once(':').map(|(_, folder)| folder).filter(|folder| !folder.is_empty());
    let repository = repository.trim_end_matches('/');
    let is_web = repository.starts_with("http://") || repository.starts_with("https://");
    let ending = if is_web && !repository.ends_with(".git") { ".git" } else { "" };
    let below = folder.map(|folder| format!(":{folder}")).unwrap_or_default();
    format!("{repository}{ending}#{revision}{below}")
}

/// A pull is said in one line by whoever asks for it.
pub(super) struct Silent;

impl Sink for Silent {
    fn hear(&self, _: Event) {}
}
