//! An image as `docker load` and `podman load` take it: an OCI image layout with Docker's `manifest.json` beside it.
//!
//! That is what `docker save` writes since version 25. Older readers follow `manifest.json` to the same blobs; they
//! decompress layers themselves.

use std::io::Write;

use oci_spec::image::{Descriptor, Digest};
use serde::Serialize;

use super::{ExportError, contents, layout};
use crate::blob::Store;

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    config: String,
    repo_tags: &'a [String],
    layers: Vec<String>,
}

/// Writes `image`, which must be for one platform, as an archive into `sink`. The same image and names give the same bytes.
///
/// # Errors
/// [`ExportError::SeveralImages`].
pub fn docker_archive(
    store: &Store,
    image: &Descriptor,
    names: &[String],
    sink: &mut dyn Write,
) -> Result<(), ExportError> {
    let one = contents::one_image(store, image, "a Docker archive")?;
    let row = Row {
        config: place(one.manifest.config().digest()),
        repo_tags: names,
        layers: one.manifest.layers().iter().map(|layer| place(layer.digest())).collect(),
    };
    let manifest = serde_json::to_vec(&[row]).expect("strings have a JSON form");
    layout::write_tar(store, &one.descriptor, names, &[("manifest.json", manifest)], sink)
}

fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}
