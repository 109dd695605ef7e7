//! An OCI layout on disk, or as a tar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::Files;
use crate::samples;

/// A folder as "OCI Image Layout Specification" describes it.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout in `folder`.
    ///
    /// # Panics
    /// When the folder has no `oci-layout` of version 1.0.0.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let layout = Self { folder: folder.to_owned() };
        let marker = layout.json("oci-layout");
        assert_eq!(marker["imageLayoutVersion"], "1.0.0", "{} is no OCI layout", folder.display());
        layout
    }

    /// Unpacks the tar of a layout into `folder` and opens it.
    ///
    /// # Panics
    /// When the tar cannot be read.
    #[must_use]
    pub fn unpack(tar: &Path, folder: &Path) -> Self {
        let file = File::open(tar).unwrap_or_else(|error| panic!("cannot open {}: {error}", tar.display()));
        tar::Archive::new(file)
            .unpack(folder)
            .unwrap_or_else(|error| panic!("cannot unpack {}: {error}", tar.display()));
        Self::open(folder)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.folder.join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap_or_else(|error| panic!("{name} is no JSON: {error}"))
    }

    /// `index.json`.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn index(&self) -> Value {
        self.json("index.json")
    }

    /// The bytes of a blob, whose digest is checked.
    ///
    /// # Panics
    /// When it is absent or has another digest.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let bytes = self.bytes(&format!("blobs/{}", digest.replacen(':', "/", 1)));
        assert_eq!(samples::digest(&bytes), digest, "the blob holds something else");
        bytes
    }

    /// The image that `index.json` names under `reference`, or its only entry. Of an index the entry for this machine.
    ///
    /// # Panics
    /// When there is none, or when a blob of it is absent or damaged.
    #[must_use]
    pub fn image(&self, reference: Option<&str>) -> Image {
        let index = self.index();
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        let descriptor = match reference {
            None => {
                assert_eq!(entries.len(), 1, "expected one entry in index.json: {index}");
                entries[0].clone()
            }
            Some(name) => entries
                .iter()
                .find(|entry| {
                    let annotations = &entry["annotations"];
                    annotations["org.opencontainers.image.ref.name"] == name
                        || annotations["io.containerd.image.name"] == name
                })
                .cloned()
                .unwrap_or_else(|| panic!("index.json has no `{name}`: {index}")),
        };
        self.image_of(&descriptor)
    }

    fn image_of(&self, descriptor: &Value) -> Image {
        let digest = descriptor["digest"].as_str().expect("a digest in a descriptor").to_owned();
        let manifest_bytes = self.blob(&digest);
        let manifest: Value = serde_json::from_slice(&manifest_bytes).expect("a manifest is JSON");
        if let Some(entries) = manifest["manifests"].as_array() {
            let platform = entries
                .iter()
                .find(|entry| entry["platform"]["os"] == "linux" && entry["platform"]["architecture"] != "unknown")
                .unwrap_or_else(|| panic!("the index has no image for Linux: {manifest}"));
            return self.image_of(platform);
        }
        Image::read(digest, manifest_bytes, |digest| self.blob(digest))
    }
}

/// A layer as it is stored.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// Its descriptor in the manifest.
    pub descriptor: Value,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl LayerBlob {
    /// The tar in it, uncompressed by its media type.
    ///
    /// # Panics
    /// When the bytes are not what the media type says.
    #[must_use]
    pub fn tar(&self) -> Vec<u8> {
        let media_type = self.descriptor["mediaType"].as_str().unwrap_or_default();
        let mut tar = Vec::new();
        if media_type.ends_with("gzip") {
            flate2::read::MultiGzDecoder::new(&self.bytes[..]).read_to_end(&mut tar).expect("a layer in gzip");
        } else if media_type.ends_with("zstd") {
            zstd::stream::copy_decode(&self.bytes[..], &mut tar).expect("a layer in zstd");
        } else {
            tar.extend_from_slice(&self.bytes);
        }
        tar
    }
}

/// An image with all its parts in memory.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: String,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Value,
    /// The configuration's bytes.
    pub config_bytes: Vec<u8>,
    /// The configuration.
    pub config: Value,
    /// The layers, bottom first.
    pub layers: Vec<LayerBlob>,
}

impl Image {
    /// The image of a manifest whose blobs `blob` gives.
    ///
    /// # Panics
    /// When manifest or configuration are no JSON.
    pub fn read(digest: String, manifest_bytes: Vec<u8>, blob: impl Fn(&str) -> Vec<u8>) -> Self {
        let manifest: Value = serde_json::from_slice(&manifest_bytes).expect("a manifest is JSON");
        let config_bytes = blob(manifest["config"]["digest"].as_str().expect("the digest of the configuration"));
        let config = serde_json::from_slice(&config_bytes).expect("a configuration is JSON");
        let layers = manifest["layers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .map(|descriptor| LayerBlob {
                bytes: blob(descriptor["digest"].as_str().expect("the digest of a layer")),
                descriptor,
            })
            .collect();
        Self { digest, manifest_bytes, manifest, config_bytes, config, layers }
    }

    /// The merged file system: what a container sees.
    ///
    /// # Panics
    /// When a layer is no tar.
    #[must_use]
    pub fn files(&self) -> Files {
        let mut files = BTreeMap::new();
        for layer in &self.layers {
            super::files::apply(&layer.tar(), &mut files);
        }
        files
    }

    /// The part of the configuration that a container runs by.
    #[must_use]
    pub fn runtime(&self) -> &Value {
        &self.config["config"]
    }
}
