//! The rules of the image specification that an image can be checked for.

use std::collections::BTreeSet;

use serde_json::Value;
use tar::{Archive, EntryType};

use super::layout::Image;
use crate::samples;

/// What of the image specification `image` breaks, in words; empty when it keeps all that is checked here.
#[must_use]
pub fn violations(image: &Image) -> Vec<String> {
    let mut found = Vec::new();
    manifest(image, &mut found);
    config(image, &mut found);
    for number in 0..image.layers.len() {
        layer(image, number, &mut found);
    }
    found
}

fn descriptor(name: &str, descriptor: &Value, bytes: &[u8], found: &mut Vec<String>) {
    if descriptor["digest"] != samples::digest(bytes).as_str() {
        found.push(format!("{name}: its digest is not that of its bytes"));
    }
    if descriptor["size"] != bytes.len() {
        found.push(format!("{name}: size {} for {} bytes", descriptor["size"], bytes.len()));
    }
    if descriptor["mediaType"].as_str().is_none_or(|media_type| !media_type.contains('/')) {
        found.push(format!("{name}: no media type"));
    }
}

/// "OCI Image Manifest Specification"
fn manifest(image: &Image, found: &mut Vec<String>) {
    if image.manifest["schemaVersion"] != 2 {
        found.push("manifest: schemaVersion is not 2".to_owned());
    }
    if image.manifest["mediaType"] != samples::MANIFEST {
        found.push(format!("manifest: mediaType is {}", image.manifest["mediaType"]));
    }
    descriptor("config", &image.manifest["config"], &image.config_bytes, found);
    if image.manifest["config"]["mediaType"] != samples::CONFIG {
        found.push(format!("config: mediaType is {}", image.manifest["config"]["mediaType"]));
    }
    if samples::digest(&image.manifest_bytes) != image.digest {
        found.push("manifest: its digest is not that of its bytes".to_owned());
    }
    for (number, layer) in image.layers.iter().enumerate() {
        descriptor(&format!("layer {number}"), &layer.descriptor, &layer.bytes, found);
        let media_type = layer.descriptor["mediaType"].as_str().unwrap_or_default();
        let known = ["", "+gzip", "+zstd"].map(|suffix| format!("{}{suffix}", samples::LAYER));
        if !known.iter().any(|one| one == media_type) {
            found.push(format!("layer {number}: mediaType is {media_type}"));
        }
    }
}

/// "OCI Image Configuration"
fn config(image: &Image, found: &mut Vec<String>) {
    for key in ["architecture", "os"] {
        if image.config[key].as_str().is_none_or(str::is_empty) {
            found.push(format!("config: no {key}"));
        }
    }
    if image.config["rootfs"]["type"] != "layers" {
        found.push("config: rootfs.type is not `layers`".to_owned());
    }
    let ids = image.config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    if ids.len() != image.layers.len() {
        found.push(format!("config: {} diff ids for {} layers", ids.len(), image.layers.len()));
    }
    for (number, (id, layer)) in ids.iter().zip(&image.layers).enumerate() {
        if *id != samples::digest(&layer.tar()).as_str() {
            found.push(format!("layer {number}: its diff id is not the digest of its tar"));
        }
    }
    if let Some(history) = image.config["history"].as_array() {
        let with_layer = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        if with_layer != image.layers.len() {
            found.push(format!(
                "config: history has {with_layer} entries with a layer, there are {}",
                image.layers.len()
            ));
        }
    }
    for entry in image.runtime()["Env"].as_array().cloned().unwrap_or_default() {
        if !entry.as_str().is_some_and(|entry| entry.contains('=')) {
            found.push(format!("config: Env entry {entry} is not NAME=VALUE"));
        }
    }
    for key in ["Volumes", "ExposedPorts"] {
        let set = &image.runtime()[key];
        let empty = set
            .as_object()
            .is_none_or(|set| set.values().all(|value| value.as_object().is_some_and(|value| value.is_empty())));
        if !set.is_null() && !empty {
            found.push(format!("config: {key} is not a set of empty objects"));
        }
    }
}

/// "Image Layer Filesystem Changeset"
fn layer(image: &Image, number: usize, found: &mut Vec<String>) {
    let tar = image.layers[number].tar();
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    for entry in Archive::new(&tar[..]).entries().expect("a layer is a tar") {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                found.push(format!("layer {number}: it is no tar: {error}"));
                return;
            }
        };
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let folder = entry.header().entry_type() == EntryType::Directory;
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            found.push(format!("layer {number}: the path `{path}` is not relative to the root"));
        }
        if folder && !path.ends_with('/') {
            found.push(format!("layer {number}: the folder `{path}` has no slash at its end"));
        }
        let name = path.trim_matches('/').to_owned();
        if !seen.insert(name.clone()) {
            found.push(format!("layer {number}: `{path}` is there twice"));
        }
        // Not asked for by the specification: ours, so that the same files give the same bytes.
        let key = name.replace('/', "\0");
        if key < last {
            found.push(format!("layer {number}: `{path}` is out of order"));
        }
        last = key;
        let base = name.rsplit('/').next().unwrap_or_default();
        if base.starts_with(".wh.") && !matches!(entry.size(), 0) {
            found.push(format!("layer {number}: the whiteout `{path}` is not empty"));
        }
        if base.starts_with(".wh.") && number == 0 {
            found.push(format!("layer {number}: the whiteout `{path}` hides nothing in the first layer"));
        }
    }
}
