//! The blobs that make an image.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, Digest, ImageManifest};

use super::ExportError;
use crate::blob::Store;
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, ImageConfig, ImageError, Manifest, manifest, media_type};

/// How deep indexes may name indexes. Real ones do not; the bound ends a circle of foreign ones early.
const DEPTH_MAX: usize = 4;

/// Reads a manifest or an index of the store.
pub(super) fn read_manifest(store: &Store, digest: &Digest) -> Result<Manifest, ExportError> {
    Ok(manifest::parse(&store.read(digest, DOCUMENT_SIZE_MAX_BYTES)?)?)
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
            return Err(ImageError::Ambiguous { reason }.into());
        }
    }
    Ok(())
}

fn place(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.digest())
}

/// What the manifest and the configuration of an image in the store say.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl StoredImage {
    fn of(store: &Store, manifest: ImageManifest) -> Result<Self, ExportError> {
        let config = store.read(manifest.config().digest(), DOCUMENT_SIZE_MAX_BYTES)?;
        Ok(Self { manifest, config: manifest::parse_config(&config)? })
    }
}

/// Reads the image with this manifest.
///
/// # Errors
/// When its manifest or configuration is not there or is damaged, and when there is an index in the manifest's place.
pub fn read_image(store: &Store, digest: &Digest) -> Result<StoredImage, ExportError> {
    match read_manifest(store, digest)? {
        Manifest::Image(manifest) => StoredImage::of(store, *manifest),
        Manifest::Index(_) => {
            Err(ImageError::Unreadable { what: "manifest", reason: "it is an index".to_owned() }.into())
        }
    }
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
    let StoredImage { manifest, config } = StoredImage::of(store, manifest)?;
    Ok(OneImage { descriptor, manifest, config })
}

/// Attestations stand in an index as manifests for the platform `unknown/unknown`.
fn is_image(row: &Descriptor) -> bool {
    let known = |platform: &oci_spec::image::Platform| platform.os().to_string() != "unknown";
    media_type::is_manifest(row.media_type()) && row.platform().as_ref().is_none_or(known)
}
