//! What the images of the store's names need.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use oci_spec::image::Digest;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::PruneError;
use crate::blob::Store;
use crate::image::DOCUMENT_SIZE_MAX_BYTES;

/// The digests that the images of all names mention: manifests, configurations, layers, and the diff ids of layers.
pub(super) fn needed(store: &Store) -> Result<BTreeSet<String>, PruneError> {
    Ok(Documents::default().needed_by(store, store.roots()?))
}

/// Documents, each read once.
#[derive(Default)]
pub(super) struct Documents(HashMap<Digest, Named>);

/// What a document names.
#[derive(Default)]
struct Named {
    documents: Vec<Digest>,
    layers: BTreeSet<String>,
}

impl Documents {
    /// The digests that these roots mention, they themselves included.
    pub(super) fn needed_by(&mut self, store: &Store, roots: Vec<Digest>) -> BTreeSet<String> {
        let (mut needed, mut ahead) = (BTreeSet::new(), roots);
        while let Some(digest) = ahead.pop() {
            if !needed.insert(digest.as_ref().to_owned()) {
                continue;
            }
            let named = self.0.entry(digest).or_insert_with_key(|digest| {
                let mut named = Named::default();
                if let Some(document) = document(store, digest) {
                    descriptors(&document, &mut named.documents, &mut named.layers);
                }
                named
            });
            needed.extend(named.layers.iter().cloned());
            ahead.extend(named.documents.iter().cloned());
        }
        needed
    }
}

/// A manifest, an index or a configuration, read without holding it: whoever prunes uses nothing.
fn document(store: &Store, digest: &Digest) -> Option<Value> {
    let path = store.path(digest);
    // Whatever is larger is a layer.
    if fs::metadata(&path).ok()?.len() > DOCUMENT_SIZE_MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    unnoticed(&path)?.read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Opens a file so that reading it leaves the time of its last use as it is.
fn unnoticed(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // Refused to who owns neither the file nor the right to it.
    let quiet = rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty());
    quiet.or_else(|_| rustix::fs::open(path, flags, Mode::empty())).ok().map(File::from)
}

/// What a document names. Layers are told from documents by being no JSON.
fn descriptors(document: &Value, found: &mut Vec<Digest>, needed: &mut BTreeSet<String>) {
    let digest = |value: &Value| value.get("digest")?.as_str()?.parse::<Digest>().ok();
    for list in ["manifests", "blobs"] {
        found.extend(document.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(digest));
    }
    found.extend(["config", "subject"].iter().filter_map(|name| document.get(name)).filter_map(digest));
    let layers = document.get("layers").and_then(Value::as_array).into_iter().flatten();
    needed.extend(layers.filter_map(digest).map(|digest| digest.as_ref().to_owned()));
    let diff_ids = document.pointer("/rootfs/diff_ids").and_then(Value::as_array).into_iter().flatten();
    needed.extend(diff_ids.filter_map(Value::as_str).map(ToOwned::to_owned));
}

/// All digests that a record mentions, whatever its form.
pub(super) fn digests_of(record: &Value, found: &mut Vec<String>) {
    match record {
        Value::String(text) if text.starts_with("sha256:") || text.starts_with("sha512:") => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| digests_of(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| digests_of(value, found)),
        _ => {}
    }
}
