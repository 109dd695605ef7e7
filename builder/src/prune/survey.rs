//! Listing what the store holds.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::PruneError;
use super::entry::{Entry, Kind, place_of};
use super::needed::{digests_of, needed};
use super::trees::{on_disk, size_of};
use crate::blob::{Room, Store};

/// The file in an unpacked layer's folder that tells what it takes: no layer changes, and walking one takes long.
const SIZE: &str = "size";

/// What the names of records begin with that say what keys were made of: `--explain` compares with them. They name nothing
/// that is here, and what was pruned is what the next `--explain` will be asked about.
const PREIMAGES: &str = "preimages-";

/// How long they are kept after the last build of their Dockerfile.
const PREIMAGE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a store holds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Its entries, in no order.
    pub entries: Vec<Entry>,
    /// Bytes that are free on its disk.
    pub free_bytes: u64,
    /// Bytes that its disk has.
    pub disk_bytes: u64,
}

impl Survey {
    /// What all entries take.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size_bytes).sum()
    }
}

/// Lists what the store holds.
///
/// # Errors
/// When a folder of the store cannot be read.
pub fn survey(store: &Store) -> Result<Survey, PruneError> {
    let needed = needed(store)?;
    let mut found = Found { store, needed, entries: Vec::new(), blobs_of: HashMap::new() };
    found.blobs()?;
    found.layers()?;
    found.indexes()?;
    found.records()?;
    found.age_indexes();
    found.cache_mounts()?;
    found.logs()?;
    found.others();
    let Room { free_bytes, disk_bytes, .. } =
        Room::of(store.root()).map_err(PruneError::at("asking for the free space of", store.root()))?;
    Ok(Survey { entries: found.entries, free_bytes, disk_bytes })
}

struct Found<'s> {
    store: &'s Store,
    needed: BTreeSet<String>,
    entries: Vec<Entry>,
    /// The blobs of layers, by diff id, as records tell.
    blobs_of: HashMap<String, Vec<String>>,
}

impl Found<'_> {
    fn blobs(&mut self) -> Result<(), PruneError> {
        let blobs = self.store.root().join("blobs");
        for algorithm in list(&blobs)? {
            let prefix = algorithm.file_name().to_string_lossy().into_owned();
            for blob in list(&algorithm.path())? {
                let hex = blob.file_name().to_string_lossy().into_owned();
                let Ok(metadata) = blob.metadata() else { continue };
                let used = metadata.accessed().ok().max(metadata.modified().ok()).unwrap_or(SystemTime::UNIX_EPOCH);
                self.add(Kind::Blob, format!("blobs/{prefix}/{hex}"), on_disk(&metadata), used, false);
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<(), PruneError> {
        for layer in list(&self.store.root().join("layers"))? {
            let path = layer.path();
            let used = modified(&path.join("meta.json")).unwrap_or(SystemTime::UNIX_EPOCH);
            let size_bytes = self.size_of_layer(&path);
            // Whatever image it belongs to: it can be made again.
            self.add(Kind::Layer, below("layers", &layer), size_bytes, used, false);
        }
        Ok(())
    }

    /// What an unpacked layer takes, as it was found the first time.
    fn size_of_layer(&self, layer: &Path) -> u64 {
        let kept = fs::read_to_string(layer.join(SIZE)).ok().and_then(|text| text.parse().ok());
        if let Some(kept) = kept {
            return kept;
        }
        let size_bytes = size_of(layer);
        if let Ok(relative) = layer.strip_prefix(self.store.root()) {
            let _ = self.store.write_hint(&relative.join(SIZE), size_bytes.to_string().as_bytes());
        }
        size_bytes
    }

    fn indexes(&mut self) -> Result<(), PruneError> {
        for index in list(&self.store.root().join("indexes"))? {
            let Ok(metadata) = index.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            self.add(Kind::Index, below("indexes", &index), on_disk(&metadata), used, false);
        }
        Ok(())
    }

    /// Records of all schemas. One whose blobs are all needed, as far as they are here, is needed too: it makes the next
    /// build of a named image quick, and weighs nothing.
    fn records(&mut self) -> Result<(), PruneError> {
        for schema in list(&self.store.root().join("records"))? {
            let folder = below("records", &schema);
            for record in list(&schema.path())? {
                let Ok(metadata) = record.metadata() else { continue };
                let read = fs::read(record.path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                let mut names = Vec::new();
                if let Some(value) = read {
                    layers_of(&value, &mut self.blobs_of);
                    digests_of(&value, &mut names);
                }
                names.retain(|name| name.parse().is_ok_and(|digest| self.store.path(&digest).is_file()));
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let needed = match is_preimage(&record.file_name()) {
                    true => !used.elapsed().is_ok_and(|ago| ago >= PREIMAGE_AGE),
                    false => !names.is_empty() && names.iter().all(|name| self.needed.contains(name)),
                };
                self.add(Kind::Record, below(&folder, &record), on_disk(&metadata), used, needed);
                if let Some(entry) = self.entries.last_mut() {
                    entry.names = names;
                }
            }
        }
        Ok(())
    }

    /// A layer's index is kept as long as its blob: to make it again, the whole blob is read.
    fn age_indexes(&mut self) {
        let blobs: HashMap<&str, (SystemTime, bool, bool)> = self
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::Blob)
            .map(|entry| (entry.name.as_str(), (entry.used, entry.needed, entry.held)))
            .collect();
        let mut ages = HashMap::new();
        for (diff_id, digests) in &self.blobs_of {
            let found = digests.iter().filter_map(|digest| blobs.get(place_of(digest).as_str()));
            let age = found.fold((SystemTime::UNIX_EPOCH, false, false), |(used, needed, held), blob| {
                (used.max(blob.0), needed || blob.1, held || blob.2)
            });
            ages.insert(format!("indexes/{}.json", diff_id.trim_start_matches("sha256:")), age);
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == Kind::Index) {
            if let Some((used, needed, held)) = ages.get(&entry.name) {
                // Of one time, blobs go before indexes.
                entry.used = entry.used.max(*used);
                entry.needed |= needed;
                entry.held |= held;
            }
        }
    }

    /// The logs of builds go only when they are asked for, or for want of room: nothing makes them again.
    fn logs(&mut self) -> Result<(), PruneError> {
        for log in list(&self.store.root().join("logs"))? {
            let Ok(metadata) = log.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            self.add(Kind::Log, below("logs", &log), on_disk(&metadata), used, true);
        }
        Ok(())
    }

    fn cache_mounts(&mut self) -> Result<(), PruneError> {
        for mount in list(&self.store.root().join("cache-mounts"))? {
            let (path, name) = (mount.path(), below("cache-mounts", &mount));
            // A RUN that may write to it touches the memory or the lock; the folder itself is as old as the mount.
            let copies = list(&path)?;
            let touched =
                copies.iter().flat_map(|copy| [copy.path().join("lock"), copy.path().join("memory"), copy.path()]);
            let used = touched.chain([path.clone()]).filter_map(|path| modified(&path)).max();
            let size_bytes = size_of(&path);
            self.add(Kind::CacheMount, name, size_bytes, used.unwrap_or(SystemTime::UNIX_EPOCH), false);
        }
        Ok(())
    }

    fn others(&mut self) {
        let path = self.store.root().join("mutable");
        if let Some(used) = modified(&path) {
            self.add(Kind::MutableRoot, "mutable".to_owned(), size_of(&path), used, false);
        }
        let (tmp, own) = (self.store.root().join("tmp"), self.store.scratch().to_owned());
        for folder in list(&tmp).unwrap_or_default() {
            if folder.path() != own {
                let used = modified(&folder.path()).unwrap_or(SystemTime::UNIX_EPOCH);
                self.add(Kind::Temporary, below("tmp", &folder), size_of(&folder.path()), used, false);
            }
        }
    }

    fn add(&mut self, kind: Kind, name: String, size_bytes: u64, used: SystemTime, needed: bool) {
        let held = super::remove::is_held(self.store, kind, &name);
        let mut entry = Entry { kind, name, size_bytes, used, needed, held, names: Vec::new() };
        entry.needed |= entry.digest().is_some_and(|digest| self.needed.contains(&digest));
        self.entries.push(entry);
    }
}

fn is_preimage(file_name: &OsStr) -> bool {
    file_name.as_encoded_bytes().starts_with(PREIMAGES.as_bytes())
}

/// The layers that a record tells of: all that has both a diff id and a digest.
fn layers_of(value: &Value, found: &mut HashMap<String, Vec<String>>) {
    match value {
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            if let (Some(diff_id), Some(digest)) = (text("diff_id"), text("digest")) {
                found.entry(diff_id.to_owned()).or_default().push(digest.to_owned());
            }
            fields.values().for_each(|value| layers_of(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| layers_of(value, found)),
        _ => {}
    }
}

fn below(folder: &str, entry: &DirEntry) -> String {
    format!("{folder}/{}", entry.file_name().to_string_lossy())
}

/// What is in a folder; nothing when it is not there.
fn list(folder: &Path) -> Result<Vec<DirEntry>, PruneError> {
    let absent = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
    };
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().collect()),
        Err(error) if absent(&error) => Ok(Vec::new()),
        Err(error) => Err(PruneError::at("listing", folder)(error)),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()
}
