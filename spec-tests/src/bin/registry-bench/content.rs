//! What is pushed: blobs that no registry can know already, made without hashing them again for every run.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::wire::{Body, Connection, Outcome};

/// Bytes at the end of a blob that make it one of its own.
const TAIL_BYTES: u64 = 64;

/// Blobs of one size that differ in their last bytes.
pub(crate) struct Blobs {
    file: File,
    common_bytes: u64,
    hasher: Sha256,
}

/// One of them.
pub(crate) struct Blob {
    pub(crate) digest: String,
    tail: Vec<u8>,
}

impl Blobs {
    /// Writes what they have in common below `folder`.
    pub(crate) fn new(folder: &Path, size_bytes: u64) -> Outcome<Self> {
        let said = |error: std::io::Error| format!("cannot write below {}: {error}", folder.display());
        let path = folder.join(format!("blob-{size_bytes}"));
        let mut file = File::create(&path).map_err(said)?;
        let common_bytes = size_bytes - TAIL_BYTES;
        let (mut hasher, mut left, mut state) = (Sha256::new(), common_bytes, size_bytes);
        let mut piece = Vec::with_capacity(1 << 20);
        while left > 0 {
            piece.clear();
            while piece.len() < 1 << 20 && (piece.len() as u64) < left {
                // Xorshift: no file system or network makes less of it.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                piece.extend_from_slice(&state.to_le_bytes());
            }
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            hasher.update(&piece);
            file.write_all(&piece).map_err(said)?;
            left -= piece.len() as u64;
        }
        let file = File::open(&path).map_err(said)?;
        Ok(Self { file, common_bytes, hasher })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.common_bytes + TAIL_BYTES
    }

    /// The blob of this name.
    pub(crate) fn blob(&self, name: &str) -> Blob {
        let tail = format!("{name:>width$.width$}", width = TAIL_BYTES as usize).into_bytes();
        let digest = self.hasher.clone().chain_update(&tail).finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Blob { digest: format!("sha256:{hex}"), tail }
    }

    /// Pushes one as Docker does: HEAD, POST, PATCH, PUT.
    pub(crate) fn push(&self, connection: &mut Connection, repo: &str, blob: &Blob) -> Outcome<()> {
        let (head, _) = connection.ask("HEAD", &format!("/v2/{repo}/blobs/{}", blob.digest), "", None)?;
        expect("HEAD", head.status, 404)?;
        let (head, _) = connection.ask("POST", &format!("/v2/{repo}/blobs/uploads/"), "", None)?;
        expect("POST", head.status, 202)?;
        let place = target(head.location)?;
        let body = Body { common: &self.file, common_bytes: self.common_bytes, tail: &blob.tail };
        let (head, _) = connection.ask("PATCH", &place, "Content-Type: application/octet-stream\r\n", Some(&body))?;
        expect("PATCH", head.status, 202)?;
        let place = target(head.location)?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let (head, _) = connection.ask("PUT", &format!("{place}{joint}digest={}", blob.digest), "", None)?;
        expect("PUT", head.status, 201)
    }

    /// Writes one to a file, for a server of files.
    pub(crate) fn write(&self, blob: &Blob, path: &Path) -> Outcome<()> {
        let said = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        let mut from = self.file.try_clone().map_err(said)?;
        std::io::Seek::rewind(&mut from).map_err(said)?;
        let mut file = File::create(path).map_err(said)?;
        std::io::copy(&mut from, &mut file).map_err(said)?;
        file.write_all(&blob.tail).map_err(said)
    }
}

pub(crate) fn expect(what: &str, found: u16, expected: u16) -> Outcome<()> {
    if found == expected { Ok(()) } else { Err(format!("{what}: status {found}, expected {expected}")) }
}

/// A Location without scheme and host.
fn target(location: Option<String>) -> Outcome<String> {
    let location = location.ok_or("a reply without Location")?;
    match location
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|slash| rest.split_at(slash).1.to_owned()))
    {
        Some(path) => Ok(path),
        None => Ok(location),
    }
}

/// The media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest of two layers and a config, about 1 KB.
pub(crate) fn manifest(config: (&str, u64), layers: &[(&str, u64)]) -> Vec<u8> {
    let descriptor = |media: &str, (digest, size): (&str, u64)| serde_json::json!({ "mediaType": media, "digest": digest, "size": size });
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", *layer)).collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
        "annotations": { "org.opencontainers.image.description": "What the registries are timed with. ".repeat(8) },
    })
    .to_string()
    .into_bytes()
}

/// Puts a manifest by tag.
pub(crate) fn put_manifest(address: SocketAddr, repo: &str, tag: &str, bytes: &[u8], folder: &Path) -> Outcome<String> {
    let said = |error: std::io::Error| format!("cannot write below {}: {error}", folder.display());
    let path = folder.join("manifest");
    std::fs::write(&path, bytes).map_err(said)?;
    let file = File::open(&path).map_err(said)?;
    let body = Body { common: &file, common_bytes: bytes.len() as u64, tail: b"" };
    let headers = format!("Content-Type: {MANIFEST}\r\n");
    let target = format!("/v2/{repo}/manifests/{tag}");
    let (head, _) = Connection::open(address)?.ask("PUT", &target, &headers, Some(&body))?;
    expect("PUT of a manifest", head.status, 201)?;
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}
