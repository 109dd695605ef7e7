//! `fluyt push` and `fluyt pull`.

use std::collections::HashMap;
use std::path::Path;

use fluyt_client::Client;
use oci_spec::image::Descriptor;

use super::args::{Progress, PullArguments, PushArguments, RegistryArguments};
use super::build::{open_store, unwritable, write_file};
use super::failure::{Blame, Failure};
use super::interrupt::Interrupt;
use super::progress::Shown;
use super::settings::Surroundings;
use super::{image, settings};
use crate::event::{Event, StepId};
use crate::export;
use crate::image::{Platform, PlatformError};
use crate::pipeline::{PULLED_FROM, host_platform, remote_fault};
use crate::remote::{Origins, Remote, RemoteError};
use crate::task::blocking;

/// The step of a command that is one step.
const ONLY: StepId = StepId(1);

fn show(quiet: bool) -> Shown {
    Shown::begin(if quiet { Progress::Quiet } else { Progress::Auto }, &Surroundings::from_process(), None)
}

pub(super) fn client(typed: &RegistryArguments) -> Result<Client, Failure> {
    // One that was named and is not there is a slip; the usual places need not exist.
    if let Some(file) = typed.authfile.as_ref().filter(|file| !file.is_file()) {
        return Err(Failure::new(Blame::User, format!("there is no file {} to read credentials from", file.display()))
            .hint("`fluyt login --authfile FILE` makes one"));
    }
    for (host, file) in &typed.registry_certificate {
        std::fs::File::open(file).map_err(|error| {
            Failure::usage(format!("`--registry-certificate {host}={}`: the file cannot be read", file))
                .caused_by(&error)
        })?;
    }
    Client::new(settings::registries(typed)).map_err(|error| Failure::from_error(Blame::Usage, &error))
}

/// A failed transfer as the user reads it.
pub(super) fn failure(doing: String, error: &RemoteError) -> Failure {
    let hint = matches!(error, RemoteError::Incomplete { .. })
        .then(|| "building the image again makes what is missing, and `fluyt pull` fetches it".to_owned());
    Failure::new(remote_fault(error).into(), doing).caused_by(error).hints(hint)
}

/// A platform as typed.
pub(super) fn parse_platform(text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|error: PlatformError| Failure::from_error(Blame::Usage, &error))
}

/// The platform typed, or this machine's.
pub(super) fn platform(typed: Option<&str>) -> Result<Platform, Failure> {
    match typed {
        None | Some("local") => Ok(host_platform()),
        Some(text) => parse_platform(text),
    }
}

pub(super) async fn push(store: Option<&Path>, typed: PushArguments) -> Result<(), Failure> {
    if let Some(path) = &typed.digest_file {
        unwritable(path, export::check_file(path))?;
    }
    let store = open_store(store)?;
    let (reference, image) = image::asked(&store, &typed.reference)?;
    let shown = show(typed.quiet);
    let events = shown.events();
    let remote = Remote::new(client(&typed.registries)?, store, events.clone());
    events.hear(Event::Started { step: ONLY, name: format!("push {reference}") });
    let interrupt = Interrupt::listen(shown.say());
    let push = async {
        let pushed = remote.push(&image, &reference, &Origins::new(), ONLY).await;
        pushed.map_err(|error| failure(format!("cannot push {reference}"), &error))
    };
    let pushed = interrupt.cancel.until(push).await;
    events.ended(ONLY, &pushed);
    let digest = pushed?;
    shown.end();
    if let Some(path) = &typed.digest_file {
        write_file(path, digest.to_string().as_bytes())?;
    }
    super::print(format!("{digest}\n").as_bytes())
}

pub(super) async fn pull(store: Option<&Path>, typed: PullArguments) -> Result<(), Failure> {
    let reference = settings::reference(&typed.reference)?;
    let platform = platform(typed.platform.as_deref())?;
    if let Some(path) = &typed.output {
        // Before anything is fetched.
        unwritable(path, if is_archive(path) { export::check_file(path) } else { export::check_layout(path) })?;
    }
    let store = open_store(store)?;
    let shown = show(typed.quiet);
    let events = shown.events();
    let remote = Remote::new(client(&typed.registries)?, store.clone(), events.clone());
    events.hear(Event::Started { step: ONLY, name: format!("pull {reference}") });
    let cannot = |error: &RemoteError| failure(format!("cannot pull {reference}"), error);
    let interrupt = Interrupt::listen(shown.say());
    let pull = async {
        let arriving = async {
            let image = remote.image(&reference, &platform).await.map_err(|error| cannot(&error))?;
            remote.fetch_layers(&image, ONLY).await.map_err(|error| cannot(&error))?;
            Ok::<_, Failure>(image)
        };
        let image = interrupt.cancel.until(arriving).await?;
        if let Some(found) = image.config.platform().filter(|found| !platform.is_served_by(found)) {
            events.hear(Event::Warning { text: format!("{reference} is for {found}, not for {platform}") });
        }
        let descriptor = image::descriptor(&image.media_type, image.size_bytes, image.digest.clone());
        let Some(path) = typed.output else {
            let tagged = store.tag(&reference.to_string(), pulled_from(descriptor, reference.host()));
            return tagged.map(|()| image.digest).map_err(|error| Failure::from_error(Blame::Environment, &error));
        };
        let (store, names) = (store.until(&interrupt.cancel), [reference.to_string()]);
        let write = move || {
            let written = match is_archive(&path) {
                true => export::write_file(&path, |sink| export::layout_tar(&store, &descriptor, &names, sink)),
                false => export::layout_folder(&store, &descriptor, &names, &path),
            };
            unwritable(&path, written)
        };
        // Not `until`: it is over when nothing half written is left.
        interrupt.cancel.overrides(blocking(write).await)?;
        Ok(image.digest)
    };
    let pulled = interrupt.guard(pull).await;
    events.ended(ONLY, &pulled);
    let digest = pulled?;
    shown.end();
    super::print(format!("{digest}\n").as_bytes())
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// Marks a name as pulled, so that a later build asks its registry again.
fn pulled_from(mut descriptor: Descriptor, host: &str) -> Descriptor {
    descriptor.set_annotations(Some(HashMap::from([(PULLED_FROM.to_owned(), host.to_owned())])));
    descriptor
}
