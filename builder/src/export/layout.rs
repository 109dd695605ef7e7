//! An image as an OCI image layout (image specification, image-layout.md): a folder or a tar of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use oci_spec::image::Descriptor;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use super::whole::Neighbour;
use super::writable::{is_folder, is_layout, make_above};
use super::{ExportError, contents};
use crate::blob::Store;
use crate::layer::{Entry, FileTime, Kind, LayerPath, TarWriter};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Writes `image` as a layout folder at `path`, under `names`.
///
/// A new folder appears whole or not at all. Into one that is empty (which may be a file system of its own), or a layout, the
/// image is added: its blobs first, then its names, and a name that was there moves.
///
/// # Errors
/// [`ExportError::NotALayout`] when the folder has other content.
pub fn layout_folder(store: &Store, image: &Descriptor, names: &[String], path: &Path) -> Result<(), ExportError> {
    let blobs = contents::blobs(store, image)?;
    if is_layout(path)? {
        return add(store, &blobs, image, names, path);
    }
    if is_folder(path)? {
        // First, so that the next build adds to it if this one dies; without an index it is nobody's image.
        write_new(&path.join("oci-layout"), &mut &LAYOUT[..])?;
        return add(store, &blobs, image, names, path);
    }
    make_above(path)?;
    let temporary = Neighbour::of(path)?;
    fs::create_dir(&temporary.path).map_err(ExportError::at("creating", &temporary.path))?;
    write_blobs(store, &blobs, &temporary.path)?;
    write_new(&temporary.path.join("index.json"), &mut &index(None, image, names)?[..])?;
    write_new(&temporary.path.join("oci-layout"), &mut &LAYOUT[..])?;
    fs::rename(&temporary.path, path).map_err(ExportError::at("renaming the finished folder to", path))
}

/// Adds an image to a layout.
fn add(
    store: &Store,
    blobs: &BTreeMap<String, Descriptor>,
    image: &Descriptor,
    names: &[String],
    path: &Path,
) -> Result<(), ExportError> {
    write_blobs(store, blobs, path)?;
    // Of two builds that add at the same time, neither loses the other's names. Some file systems have no locks.
    let folder = File::open(path).map_err(ExportError::at("opening", path))?;
    let _ = rustix::fs::flock(&folder, FlockOperation::LockExclusive);
    let place = path.join("index.json");
    let before = match fs::read(&place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(ExportError::io("reading", &place, error)),
    };
    write_new(&place, &mut &index(before.as_deref(), image, names)?[..])
}

/// Writes `image` as a tar of a layout into `sink`. The same image and names give the same bytes.
pub fn layout_tar(
    store: &Store,
    image: &Descriptor,
    names: &[String],
    sink: &mut dyn Write,
) -> Result<(), ExportError> {
    write_tar(store, image, names, &[], sink)
}

/// A layout with `others` beside its own files at the top.
pub(super) fn write_tar(
    store: &Store,
    image: &Descriptor,
    names: &[String],
    others: &[(&str, Vec<u8>)],
    sink: &mut dyn Write,
) -> Result<(), ExportError> {
    let blobs = contents::blobs(store, image)?;
    let mut tar = TarWriter::new(sink);
    let mut folders = Vec::from(["blobs".to_owned()]);
    for place in blobs.keys() {
        let algorithm = place.split('/').next().unwrap_or_default();
        folders.push(format!("blobs/{algorithm}"));
    }
    folders.dedup();
    for folder in folders {
        tar.append(&entry(&folder, Kind::Directory, 0o755), &mut io::empty())?;
    }
    for (place, blob) in &blobs {
        let mut content = store.open_verified(blob.digest())?;
        let size_bytes = store.size(blob.digest())?.unwrap_or_default();
        let head = entry(&format!("blobs/{place}"), Kind::File { size_bytes }, 0o444);
        tar.append(&head, &mut content).map_err(store_failure)?;
    }
    let mut files = Vec::from(others);
    files.push(("index.json", index(None, image, names)?));
    files.push(("oci-layout", LAYOUT.to_vec()));
    files.sort();
    for (name, bytes) in files {
        let head = entry(name, Kind::File { size_bytes: bytes.len() as u64 }, 0o444);
        tar.append(&head, &mut &bytes[..])?;
    }
    tar.finish()?.flush().map_err(ExportError::Write)
}

/// A damaged blob comes out of a stream as a failed read.
fn store_failure(error: crate::layer::LayerError) -> ExportError {
    match error {
        crate::layer::LayerError::Read(source) => match source.downcast() {
            Ok(error) => ExportError::Store(error),
            Err(source) => ExportError::Layer(crate::layer::LayerError::Read(source)),
        },
        other => other.into(),
    }
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    Entry {
        path: LayerPath::clean(path.as_bytes()).expect("names of a layout are clean"),
        kind,
        mode,
        uid: 0,
        gid: 0,
        modified: FileTime::default(),
        xattrs: BTreeMap::new(),
    }
}

fn write_blobs(store: &Store, blobs: &BTreeMap<String, Descriptor>, layout: &Path) -> Result<(), ExportError> {
    for (place, blob) in blobs {
        let target = layout.join("blobs").join(place);
        if fs::metadata(&target).is_ok_and(|there| there.is_file() && there.len() == blob.size()) {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(ExportError::at("creating", folder))?;
        }
        write_new(&target, &mut store.open_verified(blob.digest())?)?;
    }
    Ok(())
}

/// Writes a file whole or not at all.
fn write_new(path: &Path, content: &mut dyn Read) -> Result<(), ExportError> {
    let temporary = Neighbour::of(path)?;
    let mut file = File::create_new(&temporary.path).map_err(ExportError::at("creating", &temporary.path))?;
    io::copy(content, &mut file).map_err(|error| match error.downcast() {
        Ok(damaged) => ExportError::Store(damaged),
        Err(error) => ExportError::io("writing", path, error),
    })?;
    temporary.reveal(&file, path)
}

/// `index.json` with a row for each name, or one without a name; rows of `before` that have none of the names stay.
fn index(before: Option<&[u8]>, image: &Descriptor, names: &[String]) -> Result<Vec<u8>, ExportError> {
    let unreadable =
        |error: serde_json::Error| crate::image::ImageError::Unreadable { what: "index", reason: error.to_string() };
    let mut index: Map<String, Value> = match before {
        Some(bytes) => serde_json::from_slice(bytes).map_err(unreadable)?,
        None => Map::from_iter([
            ("schemaVersion".to_owned(), json!(2)),
            ("mediaType".to_owned(), json!("application/vnd.oci.image.index.v1+json")),
        ]),
    };
    let mut rows = match index.remove("manifests") {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    };
    let mut plain = image.clone();
    let own = image.annotations().iter().flatten().filter(|(key, _)| !is_of_a_name(key));
    let own: HashMap<String, String> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    plain.set_annotations((!own.is_empty()).then_some(own));
    let plain = serde_json::to_value(&plain).map_err(unreadable)?;
    if names.is_empty() {
        rows.retain(|row| *row != plain);
        rows.push(plain);
    } else {
        for name in names {
            rows.retain(|row| row["annotations"][CONTAINERD_NAME] != json!(name));
            let mut row = plain.clone();
            row["annotations"][CONTAINERD_NAME] = json!(name);
            if let Some(tag) = tag(name) {
                // Readers that know no full names find the last image of a tag under it.
                for other in &mut rows {
                    if let Some(annotations) = other.get_mut("annotations").and_then(Value::as_object_mut)
                        && annotations.get(REF_NAME) == Some(&json!(tag))
                    {
                        annotations.remove(REF_NAME);
                    }
                }
                row["annotations"][REF_NAME] = json!(tag);
            }
            rows.push(row);
        }
    }
    index.insert("manifests".to_owned(), Value::Array(rows));
    Ok(serde_json::to_vec(&index).map_err(unreadable)?)
}

/// Whether an annotation in the store is about one name of the image: the name itself, or where it came from.
fn is_of_a_name(key: &str) -> bool {
    [REF_NAME, CONTAINERD_NAME].contains(&key) || key.starts_with("dev.fluyt.")
}

/// The tag of a name: what stands behind the last `:`, unless that is a port.
fn tag(name: &str) -> Option<&str> {
    let name = name.split('@').next().unwrap_or(name);
    let (_, tag) = name.rsplit_once(':')?;
    (!tag.contains('/') && !tag.is_empty()).then_some(tag)
}
