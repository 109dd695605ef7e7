//! A JSON document of an image with its exact bytes.

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Largest configuration, manifest or index, in bytes, whether made, read or pushed. It is held in memory. Registries take
/// manifests of at least 4 MiB (distribution specification, "Pushing Manifests"), ours twice as much; a configuration repeats its
/// layers with a row of history each, and real ones have some 10 kB.
pub const DOCUMENT_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The bytes of a configuration, manifest or index. They are what its digest is over, and are never written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they are.
    pub media_type: MediaType,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

impl Document {
    pub(super) fn new(bytes: Vec<u8>, media_type: MediaType) -> Self {
        let text = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let digest = Digest::try_from(text).expect("an algorithm and its hexadecimal digits are a digest");
        Self { bytes, media_type, digest }
    }

    /// The plain descriptor of these bytes.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.bytes.len() as u64, self.digest.clone())
    }
}

/// `value` as JSON in the order of its fields, with the keys of every `annotations` sorted: `oci-spec` keeps them in a map
/// without order, and the same image must have the same bytes.
///
/// Indented by two spaces, as BuildKit writes manifests: people look at them raw.
pub(super) fn exact(value: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("strings, numbers and maps with string keys have a JSON form");
    sort_annotations(&mut value);
    serde_json::to_vec_pretty(&value).expect("a JSON value can be written")
}

fn sort_annotations(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::Object(annotations) if name == "annotations" => annotations.sort_keys(),
                    value => sort_annotations(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(sort_annotations),
        _ => {}
    }
}
