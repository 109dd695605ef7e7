//! What base images' names mean, asked again in every build, once for each name, and for all names at the same time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::Arc;
use std::task::Poll;

use fluyt_client::Reference;
use oci_spec::image::{Digest, ImageManifest};

use super::room::Pruner;
use super::shown::Shown;
use super::{BuildError, Built, Request, Workshop, layout};
use crate::blob::Store;
use crate::cache::{BaseRecord, Records};
use crate::event::{Event, Events};
use crate::execute::{BaseImage, BuiltLayer, StepCounter};
use crate::export::{StoredImage, read_image};
use crate::graph::{ImageRequest, ResolvedBase};
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, ImageConfig, Platform};
use crate::remote::{Remote, RemoteError, RemoteImage};
use crate::task::blocking;

/// Annotation of a name in the store that `fluyt pull` gave: the registry's name.
pub const PULLED_FROM: &str = "dev.fluyt.pulled-from";

/// How many images are asked for at the same time. Each answer is small, and a registry that is asked for more at once says
/// that it is asked too often.
const AT_A_TIME: usize = 8;

/// What lowering wants to know of a base.
pub(super) fn as_resolved(base: &BaseImage) -> ResolvedBase {
    ResolvedBase { config: base.config.clone(), digest: base.manifest_digest.to_string() }
}

/// Waits for all of these, a bounded number at a time; gives what came of each, in their order.
pub(super) async fn together<T>(work: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = work.iter().map(|_| None).collect();
    let mut waiting = work.into_iter().map(Box::pin).enumerate();
    let mut running: Vec<(usize, Pin<Box<_>>)> = waiting.by_ref().take(AT_A_TIME).collect();
    poll_fn(|context| {
        let mut position = 0;
        while let Some((number, one)) = running.get_mut(position) {
            let Poll::Ready(outcome) = one.as_mut().poll(context) else {
                position += 1;
                continue;
            };
            done[*number] = Some(outcome);
            match waiting.next() {
                Some(next) => running[position] = next,
                None => drop(running.remove(position)),
            }
        }
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Finds a base image: as it was built here under that name (unless `--pull`), in its registry, or, where that cannot be
/// reached, as it was when the registry last answered.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another part of the build; a struct would be taken apart at once"
)]
pub(super) async fn resolve(
    wanted: &ImageRequest,
    place: &Shown,
    near: Option<String>,
    request: &Request,
    remote: &Remote,
    records: &Records,
    workshop: &Workshop,
    events: &Events,
    steps: &StepCounter,
    pruner: &Arc<Pruner>,
) -> Result<BaseImage, BuildError> {
    let Workshop { store, cancel, .. } = workshop;
    if wanted.reference.starts_with(layout::SCHEME) {
        let step = steps.begin(events, format!("[internal] load {}", wanted.reference));
        let store = store.until(cancel);
        let read = async || {
            let (address, platform, store) = (wanted.reference.clone(), wanted.platform.clone(), store.clone());
            blocking(move || layout::resolve(&address, &platform, &store)).await
        };
        let base = cancel.until(pruner.with_room(&wanted.reference, read)).await;
        events.ended(step, &base);
        return base;
    }
    let reference = Reference::parse(&wanted.reference).map_err(|source| BuildError::BaseName {
        text: wanted.reference.clone(),
        place: place.clone(),
        source,
    })?;
    let platform = &wanted.platform;
    let step = steps.begin(events, format!("[internal] load metadata for {reference}"));
    let resolving = async {
        let local = in_store(&reference, platform, store, events)?;
        // What was built here under that name is what its builder means by it; what was only pulled may have moved on.
        if !request.pull
            && let Some((base, Origin::Built)) = &local
        {
            events.hear(Event::Note {
                text: format!("{} is taken from the store; --pull asks its registry", reference.familiar()),
            });
            return Ok(base.clone());
        }
        let error = match pruner.with_room(&wanted.reference, async || remote.image(&reference, platform).await).await {
            Ok(image) => {
                let record = BaseRecord {
                    reference: reference.to_string(),
                    platform: platform.to_string(),
                    manifest_digest: image.digest.clone(),
                    media_type: image.media_type.clone(),
                    size_bytes: image.size_bytes,
                };
                pruner.with_room(&wanted.reference, async || records.keep_base(&record)).await?;
                return Ok(from_remote(&image));
            }
            Err(error) => error,
        };
        let pulled = local.map(|(base, _)| base);
        if error.is_unreachable()
            && !request.pull
            && let Some(base) = last_answer(&reference, platform, records, store).or(pulled)
        {
            let text = format!("{error}; {reference} is taken as its registry last had it, {}", base.manifest_digest);
            events.hear(Event::Warning { text });
            return Ok(base);
        }
        Err(not_had(&reference, place, near, error))
    };
    let base = cancel.until(resolving).await;
    events.ended(step, &base);
    base
}

fn not_had(reference: &Reference, place: &Shown, near: Option<String>, error: RemoteError) -> BuildError {
    BuildError::Base { reference: reference.to_string(), place: place.clone(), near, source: Box::new(error) }
}

fn from_remote(image: &RemoteImage) -> BaseImage {
    BaseImage {
        reference: Some(image.reference.clone()),
        manifest_digest: image.digest.clone(),
        layers: layers(&image.manifest, &image.config, Some(&image.reference)),
        config: image.config.clone(),
    }
}

/// The layers of a manifest, whose number is that of the configuration's diff ids.
pub(super) fn layers(manifest: &ImageManifest, config: &ImageConfig, origin: Option<&Reference>) -> Vec<BuiltLayer> {
    let ids = config.rootfs.diff_ids.iter().filter_map(|id| Digest::from_str(id).ok());
    let described = manifest.layers().iter().zip(ids);
    described
        .map(|(descriptor, diff_id)| BuiltLayer {
            diff_id,
            digest: descriptor.digest().clone(),
            size_bytes: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            origin: origin.cloned(),
            made_at: None,
            planned: None,
        })
        .collect()
}

/// How a name came into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Built,
    Pulled,
}

/// The image of this name that the store has whole, if it is for this platform.
fn in_store(
    reference: &Reference,
    platform: &Platform,
    store: &Store,
    events: &Events,
) -> Result<Option<(BaseImage, Origin)>, BuildError> {
    let Some(descriptor) = store.resolve(&reference.to_string())? else { return Ok(None) };
    let pulled = descriptor.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(PULLED_FROM));
    let origin = if pulled { Origin::Pulled } else { Origin::Built };
    let whole = |base: &BaseImage| base.layers.iter().all(|layer| store.contains(&layer.digest));
    let Some(base) = image_at(descriptor.digest(), None, store).filter(whole) else { return Ok(None) };
    if let Some(found) = base.config.platform().filter(|found| !platform.is_served_by(found)) {
        if origin == Origin::Built {
            let name = reference.familiar();
            let text = format!("{name} in the store is for {found}, not for {platform}: its registry is asked");
            events.hear(Event::Note { text });
        }
        return Ok(None);
    }
    Ok(Some((base, origin)))
}

/// The image that a registry had under the name when it last answered.
fn last_answer(reference: &Reference, platform: &Platform, records: &Records, store: &Store) -> Option<BaseImage> {
    let record = records.base(&reference.to_string(), &platform.to_string())?;
    image_at(&record.manifest_digest, Some(reference), store)
}

fn image_at(manifest: &Digest, origin: Option<&Reference>, store: &Store) -> Option<BaseImage> {
    let StoredImage { manifest: parsed, config } = read_image(store, manifest).ok()?;
    let layers = layers(&parsed, &config, origin);
    (layers.len() == parsed.layers().len()).then(|| BaseImage {
        reference: origin.cloned(),
        manifest_digest: manifest.clone(),
        config,
        layers,
    })
}

/// Gives another store what a build had of its base images: what their names meant, and the layers that were here.
///
/// # Errors
/// When one of the stores fails.
pub fn lend_bases(built: &Built, from: &Store, to: &Store) -> Result<(), BuildError> {
    let (ours, theirs) = (Records::new(from.clone(), Arc::default()), Records::new(to.clone(), Arc::default()));
    for (wanted, base) in &built.bases {
        lend_image(&base.manifest_digest, from, to)?;
        if let Ok(reference) = Reference::parse(&wanted.reference)
            && let Some(record) = ours.base(&reference.to_string(), &wanted.platform.to_string())
        {
            theirs.keep_base(&record)?;
        }
    }
    for (name, descriptor) in from.tags()? {
        if built.bases.iter().any(|(_, base)| base.manifest_digest == *descriptor.digest()) {
            to.tag(&name, descriptor)?;
        }
    }
    Ok(())
}

/// Gives another store what of an image is here.
///
/// # Errors
/// When one of the stores fails.
pub fn lend_image(manifest: &Digest, from: &Store, to: &Store) -> Result<(), BuildError> {
    let bytes = from.read(manifest, DOCUMENT_SIZE_MAX_BYTES)?;
    let Ok(parsed) = serde_json::from_slice::<ImageManifest>(&bytes) else { return Ok(()) };
    let parts = parsed.layers().iter().chain([parsed.config()]).map(|part| part.digest());
    for digest in parts.chain([manifest]).filter(|digest| from.contains(digest) && !to.contains(digest)) {
        let (mut blob, mut writer) = (from.open_blob(digest)?, to.writer_for(digest)?);
        if let Err(error) = io::copy(&mut blob, &mut writer) {
            return Err(writer.failure(error).into());
        }
        writer.commit(Some(digest))?;
    }
    Ok(())
}
