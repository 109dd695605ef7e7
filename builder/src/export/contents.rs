//! The blobs that make an image.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, Digest, ImageManifest};

use super::ExportError;
use crate::blob::Store;
use crate::image::{ImageConfig, Manifest, manifest, media_type};

/// Largest manifest or index, in bytes. Registries take at least 4 MiB (distribution specification, "Pushing Manifests").
const MANIFEST_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Largest configuration, in bytes. It grows by a row a step; real ones have some kilobytes.
const CONFIG_SIZE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How deep indexes may name indexes. Real ones do not; the bound ends a circle of foreign ones early.
const DEPTH_MAX: usize = 4;

/// Reads a manifest or an index of the store.
pub(super) fn read_manifest(store: &Store, digest: &Digest) -> Result<Manifest, ExportError> {
    Ok(manifest::parse(&store.read(digest, MANIFEST_SIZE_MAX_BYTES)?)?)
}

/// Everything that `image` names, itself included, each blob once, by its path in a layout (`sha256/<hex>`).
pub(super) fn blobs(store: &Store, image: &Descriptor) -> Result<BTreeMap<String, Descriptor>, ExportError> {
    let mut found = BTreeMap::new();
    collect(store, image, DEPTH_MAX, &mut found)?;
    Ok(found)
}

fn collect(
    store: &Store,
    image: &Descriptor,
    depth: usize,
    found: &mut BTreeMap<String, Descriptor>,
) -> Result<(), ExportError> {
    if found.insert(place(image.digest()), image.clone()).is_some() {
        return Ok(());
    }
    match read_manifest(store, image.digest())? {
        Manifest::Image(manifest) => {
            for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
                // Layers that may not be passed on are fetched from their own place by whoever needs them.
                if media_type::is_foreign(part.media_type()) && !store.contains(part.digest()) {
                    continue;
                }
                found.insert(place(part.digest()), part.clone());
            }
        }
        Manifest::Index(index) if depth > 0 => {
            for row in index.manifests() {
                collect(store, row, depth - 1, found)?;
            }
        }
        Manifest::Index(_) => {
            let reason = format!("more than {DEPTH_MAX} indexes stand in each other");
            return Err(crate::image::ImageError::Ambiguous { reason }.into());
        }
    }
    Ok(())
}

fn place(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.digest())
}

/// One image with what its manifest and configuration say.
pub(super) struct OneImage {
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) config: ImageConfig,
}

/// The one image that `image` is, or that is in the index that it is, attestations left aside.
pub(super) fn one_image(store: &Store, image: &Descriptor, what: &'static str) -> Result<OneImage, ExportError> {
    let (descriptor, manifest) = match read_manifest(store, image.digest())? {
        Manifest::Image(manifest) => (image.clone(), *manifest),
        Manifest::Index(index) => {
            let images: Vec<_> = index.manifests().iter().filter(|row| is_image(row)).collect();
            let [only] = images[..] else { return Err(ExportError::SeveralImages { count: images.len(), what }) };
            let Manifest::Image(manifest) = read_manifest(store, only.digest())? else {
                return Err(ExportError::SeveralImages { count: 2, what });
            };
            (only.clone(), *manifest)
        }
    };
    let config = manifest::parse_config(&store.read(manifest.config().digest(), CONFIG_SIZE_MAX_BYTES)?)?;
    Ok(OneImage { descriptor, manifest, config })
}

/// Attestations stand in an index as manifests for the platform `unknown/unknown`.
fn is_image(row: &Descriptor) -> bool {
    let known = |platform: &oci_spec::image::Platform| platform.os().to_string() != "unknown";
    media_type::is_manifest(row.media_type()) && row.platform().as_ref().is_none_or(known)
}
