//! Images made from a seed: small, whole, and different from those of any other seed.

use http::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha512};

use crate::target::{Answer, Target};

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of the empty configuration of an artifact.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// `sha256:` and the hash of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// `sha512:` and the hash of `bytes`.
#[must_use]
pub fn sha512(bytes: &[u8]) -> String {
    let mut text = String::from("sha512:");
    for byte in Sha512::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// `length` bytes that follow from `seed` and do not compress.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64: any sequence will do that differs from seed to seed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The layer's bytes: an uncompressed tar with one file.
    pub layer: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

impl Sample {
    /// The image of `seed`.
    ///
    /// # Panics
    /// Never: a tar of one small file can be written.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let content = bytes(seed, 100);
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, "file", &content[..]).expect("a tar in memory");
        Self::of_layer(tar.into_inner().expect("a tar in memory"))
    }

    /// An image of that layer, whether or not it is a tar.
    #[must_use]
    pub fn of_layer(layer: Vec<u8>) -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": digest(&layer), "size": layer.len()}],
        })
        .to_string()
        .into_bytes();
        Self { config, layer, manifest }
    }

    /// Digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Pushes blobs and manifest; the manifest under `reference`.
    ///
    /// # Panics
    /// When the registry does not take them.
    pub fn push(&self, target: &Target, repository: &str, reference: &str) {
        push_blob(target, repository, &self.config);
        push_blob(target, repository, &self.layer);
        let _ = put_manifest(target, repository, reference, MANIFEST, &self.manifest).expect_status(201);
    }
}

/// An artifact manifest of no layers whose `subject` is `subject`.
#[must_use]
pub fn referrer(kind: &str, subject: &Sample) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2}],
        "subject": {"mediaType": MANIFEST, "digest": subject.digest(), "size": subject.manifest.len()},
        "annotations": {"org.example.kind": kind},
    })
    .to_string()
    .into_bytes()
}

/// An artifact manifest of no layers, with the empty configuration.
#[must_use]
pub fn artifact(kind: &str) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2}],
    })
    .to_string()
    .into_bytes()
}

/// A manifest of `length` bytes or a few more, all of them in annotations.
#[must_use]
pub fn padded(length: usize) -> Vec<u8> {
    const ANNOTATION: usize = 10_000;
    let annotations: serde_json::Map<String, serde_json::Value> = (0..length / ANNOTATION)
        .map(|number| (format!("org.example.{number}"), "x".repeat(ANNOTATION).into()))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2},
        "layers": [],
        "annotations": annotations,
    })
    .to_string()
    .into_bytes()
}

/// Deletes what is at `path`; `false`, and noted as unsupported, where the registry does not delete.
///
/// # Panics
/// When it answers neither 202 nor what says that it does not delete.
#[must_use]
pub fn is_deleted(target: &Target, path: &str) -> bool {
    let answer = target.delete(path).expect_one_of(&[202, 400, 405]);
    if answer.status != 202 {
        target.unsupported("deletion");
    }
    answer.status == 202
}

/// Whether the registry has a referrers list; noted as unsupported where it has none.
#[must_use]
pub fn has_referrers(target: &Target, path: &str) -> bool {
    let there = target.get(path).status != 404;
    if !there {
        target.unsupported("referrers");
    }
    there
}

/// What `ask` comes to give, asked again and again for a while.
pub fn patiently<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        if let Some(found) = ask() {
            return Some(found);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    None
}

/// Opens an upload session: its location.
///
/// # Panics
/// When the registry opens none.
#[must_use]
pub fn open_upload(target: &Target, repository: &str) -> String {
    target
        .request(Method::POST, &format!("/v2/{repository}/blobs/uploads/"))
        .send()
        .expect_status(202)
        .location()
        .to_owned()
}

/// `location` with `digest` as a query parameter, whether or not it has others.
#[must_use]
pub fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

/// Pushes a blob by POST and PUT.
///
/// # Panics
/// When the registry does not take it.
pub fn push_blob(target: &Target, repository: &str, blob: &[u8]) {
    let location = open_upload(target, repository);
    let _ = target
        .request(Method::PUT, &with_digest(&location, &digest(blob)))
        .header("content-type", "application/octet-stream")
        .body(blob)
        .send()
        .expect_status(201);
}

/// Puts a manifest.
#[must_use]
pub fn put_manifest(target: &Target, repository: &str, reference: &str, media_type: &str, manifest: &[u8]) -> Answer {
    target
        .request(Method::PUT, &format!("/v2/{repository}/manifests/{reference}"))
        .header("content-type", media_type)
        .body(manifest)
        .send()
}
