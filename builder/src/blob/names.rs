//! `index.json`: the names (`-t`) of images in the store, as an OCI image layout has them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use oci_spec::image::{Descriptor, Digest};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};

use super::{Store, StoreError};

/// The image specification's annotation for a name (annotations.md); `skopeo copy oci:STORE:NAME` looks here.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's annotation for a full name; `ctr image import` looks here.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Writes `oci-layout` and an empty `index.json` where they are missing.
pub(super) fn prepare(store: &Store) -> Result<(), StoreError> {
    if !store.root().join("oci-layout").exists() {
        store.write_entry(Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    }
    if !store.root().join("index.json").exists() {
        let _lock = lock(store)?;
        if !store.root().join("index.json").exists() {
            write(store, &empty())?;
        }
    }
    Ok(())
}

impl Store {
    /// Gives `descriptor` the name `name`; a descriptor that had it loses it. Where it has the name already nothing is
    /// written: a disk at work makes whoever waits for a sync wait for all that others wrote.
    pub fn tag(&self, name: &str, descriptor: Descriptor) -> Result<(), StoreError> {
        let mut descriptor = descriptor;
        let mut annotations = descriptor.annotations().clone().unwrap_or_default();
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
        annotations.insert(CONTAINERD_NAME.to_owned(), name.to_owned());
        descriptor.set_annotations(Some(annotations));
        let row = serde_json::to_value(&descriptor).map_err(|error| damaged(self, &error.to_string()))?;
        let written = self.change(|rows| {
            let mut named = rows.iter().filter(|row| name_of(row) == Some(name));
            if named.next() == Some(&row) && named.next().is_none() {
                return false;
            }
            rows.retain(|row| name_of(row) != Some(name));
            rows.push(sorted_annotations(row));
            true
        })?;
        // What it names may have been removed and made again since.
        if written { Ok(()) } else { self.settle() }
    }

    /// Takes the name away; `false` when nothing had it. The content stays.
    pub fn untag(&self, name: &str) -> Result<bool, StoreError> {
        self.untag_all(&BTreeSet::from([name]))
    }

    /// Takes these names away at once; `false` when nothing had any of them.
    pub fn untag_all(&self, names: &BTreeSet<&str>) -> Result<bool, StoreError> {
        self.change(|rows| {
            let before = rows.len();
            rows.retain(|row| !name_of(row).is_some_and(|name| names.contains(name)));
            rows.len() != before
        })
    }

    /// All names and what they stand for, sorted by name. The descriptors carry their annotations.
    pub fn tags(&self) -> Result<Vec<(String, Descriptor)>, StoreError> {
        let index = read(self)?;
        let mut tags = Vec::new();
        for row in rows(&index) {
            if let Some(name) = name_of(row) {
                tags.push((name.to_owned(), descriptor(self, row)?));
            }
        }
        tags.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(tags)
    }

    /// Digests of all that stands in `index.json`, rows without a name too: another tool may have written them.
    pub fn roots(&self) -> Result<Vec<Digest>, StoreError> {
        let index = read(self)?;
        let digests = rows(&index).iter().filter_map(|row| row.get("digest")?.as_str()?.parse().ok());
        Ok(digests.collect())
    }

    /// What `name` stands for.
    pub fn resolve(&self, name: &str) -> Result<Option<Descriptor>, StoreError> {
        let index = read(self)?;
        rows(&index).iter().find(|row| name_of(row) == Some(name)).map(|row| descriptor(self, row)).transpose()
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Value>) -> bool) -> Result<bool, StoreError> {
        let _lock = lock(self)?;
        let mut index = read(self)?;
        let manifests = index.entry("manifests").or_insert_with(|| json!([]));
        let rows = manifests.as_array_mut().ok_or_else(|| damaged(self, "`manifests` is not a list"))?;
        let changed = edit(rows);
        if changed {
            write(self, &index)?;
        }
        Ok(changed)
    }
}

fn empty() -> Map<String, Value> {
    let mut index = Map::new();
    index.insert("schemaVersion".to_owned(), json!(2));
    index.insert("mediaType".to_owned(), json!(INDEX_MEDIA_TYPE));
    index.insert("manifests".to_owned(), json!([]));
    index
}

/// The index is edited as plain JSON, so that rows and fields which another tool wrote stay as they are.
fn read(store: &Store) -> Result<Map<String, Value>, StoreError> {
    let path = store.root().join("index.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        // Removing a damaged file is what the message asks for.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty()),
        Err(error) => return Err(StoreError::io("reading", &path, error)),
    };
    serde_json::from_slice(&bytes).map_err(|error| damaged(store, &error.to_string()))
}

fn write(store: &Store, index: &Map<String, Value>) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(index).map_err(|error| damaged(store, &error.to_string()))?;
    // No name outlives what it names.
    store.settle()?;
    store.write_entry(Path::new("index.json"), &bytes)
}

/// Waits for the lock that every change of `index.json` is made under. The lock file itself never goes away, so there is
/// no name to check again.
fn lock(store: &Store) -> Result<File, StoreError> {
    let path = store.root().join("index.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::at("opening", &path))?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StoreError::io("locking", &path, error.into())),
        }
    }
}

fn rows(index: &Map<String, Value>) -> &[Value] {
    index.get("manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name_of(row: &Value) -> Option<&str> {
    row.get("annotations")?.get(REF_NAME)?.as_str()
}

fn descriptor(store: &Store, row: &Value) -> Result<Descriptor, StoreError> {
    serde_json::from_value(row.clone()).map_err(|error| damaged(store, &format!("a row is no descriptor: {error}")))
}

fn damaged(store: &Store, reason: &str) -> StoreError {
    StoreError::Damaged { path: store.root().join("index.json"), reason: reason.to_owned() }
}

/// `oci-spec` keeps annotations in an unordered map; the file must not depend on its mood.
fn sorted_annotations(mut row: Value) -> Value {
    if let Some(annotations) = row.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.sort_keys();
    }
    row
}

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;

    fn open() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn image(content: &[u8]) -> Descriptor {
        Descriptor::new(MediaType::ImageManifest, content.len() as u64, crate::blob::sha256(content))
    }

    #[test]
    fn the_file_is_an_image_index_and_always_the_same_bytes() {
        let (_folder, store) = open();
        store.tag("localhost/app:1", image(b"abc")).unwrap();
        let bytes = fs::read_to_string(store.root().join("index.json")).unwrap();
        assert_eq!(
            bytes,
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#,
                r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3,"#,
                r#""annotations":{"io.containerd.image.name":"localhost/app:1","#,
                r#""org.opencontainers.image.ref.name":"localhost/app:1"}}]}"#
            )
        );
        assert_eq!(fs::read_to_string(store.root().join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    #[test]
    fn names_move_and_go() {
        let (_folder, store) = open();
        store.tag("b", image(b"1")).unwrap();
        store.tag("a", image(b"1")).unwrap();
        store.tag("b", image(b"2")).unwrap();
        let names: Vec<_> = store.tags().unwrap().into_iter().map(|(name, row)| (name, row.digest().clone())).collect();
        let digest = crate::blob::sha256;
        assert_eq!(names, [("a".to_owned(), digest(b"1")), ("b".to_owned(), digest(b"2"))]);
        assert_eq!(store.resolve("b").unwrap().unwrap().size(), 1);
        assert_eq!(store.resolve("c").unwrap(), None);
        assert!(store.untag("a").unwrap());
        assert!(!store.untag("a").unwrap());
        assert_eq!(store.tags().unwrap().len(), 1);
    }

    #[test]
    fn a_name_that_stands_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let (_folder, store) = open();
        let file = || fs::metadata(store.root().join("index.json")).unwrap().ino();
        store.tag("a", image(b"1")).unwrap();
        store.tag("b", image(b"1")).unwrap();
        let written = file();
        store.tag("a", image(b"1")).unwrap();
        assert_eq!(file(), written);
        store.tag("a", image(b"2")).unwrap();
        assert_ne!(file(), written);
        assert_eq!(store.tags().unwrap().len(), 2);
    }

    #[test]
    fn what_another_tool_wrote_stays() {
        let (_folder, store) = open();
        let theirs = r#"{"schemaVersion":2,"annotations":{"who":"them"},"manifests":[{"mediaType":"x/y","digest":"sha256:aa","size":1,"new":true}]}"#;
        fs::write(store.root().join("index.json"), theirs).unwrap();
        store.tag("mine", image(b"abc")).unwrap();
        let bytes = fs::read_to_string(store.root().join("index.json")).unwrap();
        assert!(bytes.starts_with(&theirs[..theirs.len() - 2]), "{bytes}");
        assert_eq!(store.tags().unwrap().len(), 1);
    }

    #[test]
    fn damage_is_named_and_removing_the_file_mends_it() {
        let (_folder, store) = open();
        fs::write(store.root().join("index.json"), "{\"manif").unwrap();
        let text = store.resolve("a").unwrap_err().to_string();
        assert!(text.contains("index.json is damaged"), "{text}");
        fs::remove_file(store.root().join("index.json")).unwrap();
        store.tag("a", image(b"abc")).unwrap();
        assert!(store.resolve("a").unwrap().is_some());
    }

    #[test]
    fn writers_at_once_lose_no_name() {
        let (folder, store) = open();
        let root = folder.path().join("store");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let root = &root;
                scope.spawn(move || {
                    let store = Store::open(root).unwrap();
                    for number in 0..5 {
                        store.tag(&format!("{thread}-{number}"), image(b"abc")).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.tags().unwrap().len(), 40);
    }
}
