//! Records on disk: what a step made, found again by its key.
//!
//! ```text
//! <store>/records/1/<key>.json            a step's layer
//! <store>/records/1/<key>-<form>.json     the same layer in another compression, or with other times
//! <store>/records/1/plan-<key>.json       a step's layer and all those below it that steps made, as one build had them
//! <store>/records/1/preimages-<place>.json  what the steps of a Dockerfile and context were made of (see `explain`)
//! <store>/records/1/preimages-of-<place>.json  the plan that these are of
//! <store>/records/1/converted-<key>.json  another image's layer in another compression
//! <store>/records/1/searched-<key>.json   which secrets a layer does not hold, plain or packed, by id and mark
//! <store>/records/1/base-<key>.json       what a base image's name meant when its registry last answered
//! ```
//!
//! A record appears by rename, whole or not at all, after what it names was synced. It is not synced itself: a step has
//! several, and one that is lost with the machine's power costs a miss. The number in the path is the
//! schema's; a store may hold records of several. What cannot be read counts as absent: a cache never fails a build.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::explain::Preimages;
use super::key::{Content, Key, LayerContent};
use super::plan::PlanKey;
use crate::blob::{Store, StoreError};
use crate::sandbox::Fidelity;
use crate::secrets::{Mark, Marks, Search};

/// Whose times a layer's entries have, which tells what becomes of them where the result may depend on inputs alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stamps {
    /// Of what a command made, of another image or of an archive: none is later than the epoch.
    #[default]
    Made,
    /// Of a check-out of the context, which say nothing of its content, or of the builder itself: all are the epoch.
    Context,
}

/// What [`LayerRecord::times`] says of times that were left as they are.
pub const REAL_TIMES: &str = "real";

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Hash of the layer's uncompressed tar.
    pub diff_id: Digest,
    /// Hash of the layer's blob.
    pub digest: Digest,
    /// Length of the blob.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: String,
    /// How it was compressed, with the compressor's version: a blob is taken only by a build that wants the same.
    pub compression: String,
    /// How times were treated when it was written ([`REAL_TIMES`], or the epoch that they were clamped to or that all have).
    pub times: String,
    /// Whose times they are, which tells how they are treated.
    #[serde(default)]
    pub stamps: Stamps,
    /// Entries that are treated as [`Stamps::Context`] says all the same: folders that are named only for what is in them,
    /// files of the context beside an archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<String>,
    /// What is in it.
    pub content: LayerContent,
    /// What made it.
    pub fidelity: Fidelity,
    /// When it was made, in seconds since 1970: an image that is found whole in the cache keeps its times, and so its digest.
    pub made_at: i64,
    /// What the layer was written on, as far as it may have been made of sources; no record of an older build says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
}

impl LayerRecord {
    /// Whether the blob has the times that a command sees. Of any other the layer's index alone has them.
    #[must_use]
    pub fn has_real_times(&self) -> bool {
        self.times == REAL_TIMES
    }
}

/// A step's layer and all those below it that steps made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The layers above the base image's, bottom first.
    pub layers: Vec<PlannedLayer>,
}

/// A layer of a plan's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// Key of the record that it was found or kept under.
    pub key: Key,
    /// That record, as it was then.
    pub record: LayerRecord,
    /// What was in the other roots that the step took files of or mounted, in its order: the chain stands only in a build
    /// that has those roots so, or has nothing else of them.
    pub took: Vec<Content>,
}

/// A layer of somebody else's image in another compression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvertedRecord {
    /// Hash of the blob that was converted.
    pub source: Digest,
    /// How the new one is compressed.
    pub compression: String,
    /// Hash of the new blob.
    pub digest: Digest,
    /// Length of the new blob.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: String,
}

/// What a base image's name meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The name.
    pub reference: String,
    /// The platform asked for.
    pub platform: String,
    /// Digest of the manifest for that platform.
    pub manifest_digest: Digest,
    /// Media type of that manifest.
    pub media_type: String,
    /// Length of that manifest.
    pub size_bytes: u64,
}

/// Which secrets a layer was searched for, and does not hold: by id, and by the byte that tells most other values apart, for no
/// more of a value is ever kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SearchedRecord {
    /// The layer.
    diff_id: String,
    /// Ids of secrets, each with its value's mark.
    secrets: Marks,
    /// Those of them that were looked for in archives and compressed files too. Earlier versions did not tell.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    packed: Marks,
}

/// The records of one store.
#[derive(Clone, Debug)]
pub struct Records {
    store: Store,
    search: Arc<Search>,
}

impl Records {
    /// The records of `store`, in which none of the secrets of `search` will stand.
    #[must_use]
    pub fn new(store: Store, search: Arc<Search>) -> Self {
        Self { store, search }
    }

    /// The layer that a step of this key made.
    #[must_use]
    pub fn layer(&self, key: Key) -> Option<LayerRecord> {
        self.read(&key.to_string())
    }

    /// Keeps what a step of this key made; the newest record wins.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is there that was not there before.
    pub fn keep_layer(&self, key: Key, record: &LayerRecord) -> Result<(), StoreError> {
        self.write(&key.to_string(), record)
    }

    /// The chain of layers that one build had for a plan.
    #[must_use]
    pub fn plan(&self, key: PlanKey) -> Option<PlanRecord> {
        self.read(&plan_name(key))
    }

    /// Keeps the chain of layers that this build has for a plan; the newest wins.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_plan(&self, key: PlanKey, record: &PlanRecord) -> Result<(), StoreError> {
        self.write(&plan_name(key), record)
    }

    /// What the steps of this place were made of in its last build.
    #[must_use]
    pub fn preimages(&self, of: &str) -> Preimages {
        self.read(&preimages_name(of)).unwrap_or_default()
    }

    /// Keeps what the steps of this place were made of.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_preimages(&self, of: &str, preimages: &Preimages) -> Result<(), StoreError> {
        self.write(&preimages_name(of), preimages)
    }

    /// The plan of the last build of this place, which its preimages are of.
    #[must_use]
    pub fn last_plan(&self, of: &str) -> Option<PlanKey> {
        self.read::<Option<PlanKey>>(&last_plan_name(of)).flatten()
    }

    /// Keeps of which plan the preimages of this place are; of none where that cannot be told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_last_plan(&self, of: &str, plan: Option<PlanKey>) -> Result<(), StoreError> {
        self.write(&last_plan_name(of), &plan)
    }

    /// The layer of `newest` in another form, when one was made of it before.
    #[must_use]
    pub fn variant(&self, key: Key, newest: &LayerRecord, compression: &str, times: &str) -> Option<LayerRecord> {
        let found: LayerRecord = self.read(&variant_name(key, compression, times))?;
        // One of an earlier run of the step is another layer.
        let same = found.content == newest.content && found.made_at == newest.made_at && found.stamps == newest.stamps;
        (same && found.compression == compression && found.times == times).then_some(found)
    }

    /// Keeps another form of the newest record of this key beside it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_variant(&self, key: Key, record: &LayerRecord) -> Result<(), StoreError> {
        self.write(&variant_name(key, &record.compression, &record.times), record)
    }

    /// The blob of this digest in another compression, when it was converted before.
    #[must_use]
    pub fn converted(&self, source: &Digest, compression: &str) -> Option<ConvertedRecord> {
        let found: ConvertedRecord = self.read(&converted_name(source, compression))?;
        (found.source == *source && found.compression == compression).then_some(found)
    }

    /// Keeps what a blob became in another compression.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_converted(&self, record: &ConvertedRecord) -> Result<(), StoreError> {
        self.write(&converted_name(&record.source, &record.compression), record)
    }

    /// The secrets that the layer of this diff id was searched for, and does not hold; with `packed`, those that were looked
    /// for in its archives too.
    #[must_use]
    pub fn searched(&self, diff_id: &str, packed: bool) -> Marks {
        let found = self.search_of(diff_id);
        if packed { found.packed } else { found.secrets }
    }

    /// Keeps that the layer of this diff id holds none of these secrets; with `packed`, in no archive either.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_searched(&self, diff_id: &str, secrets: &[(String, Mark)], packed: bool) -> Result<(), StoreError> {
        let mut record = self.search_of(diff_id);
        record.secrets.extend(secrets.iter().cloned());
        if packed {
            record.packed.extend(secrets.iter().cloned());
        }
        self.write(&searched_name(diff_id), &record)
    }

    fn search_of(&self, diff_id: &str) -> SearchedRecord {
        let found: Option<SearchedRecord> = self.read(&searched_name(diff_id));
        let none = || SearchedRecord { diff_id: diff_id.to_owned(), secrets: Marks::new(), packed: Marks::new() };
        found.filter(|found| found.diff_id == diff_id).unwrap_or_else(none)
    }

    /// What a base image's name meant when its registry last answered.
    #[must_use]
    pub fn base(&self, reference: &str, platform: &str) -> Option<BaseRecord> {
        let record: BaseRecord = self.read(&base_name(reference, platform))?;
        (record.reference == reference && record.platform == platform).then_some(record)
    }

    /// Keeps what a base image's name means now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_base(&self, record: &BaseRecord) -> Result<(), StoreError> {
        self.write(&base_name(&record.reference, &record.platform), record)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&self.store.read_entry(&place(name)).ok()??).ok()
    }

    fn write<T: Serialize>(&self, name: &str, record: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record).expect("strings and numbers always have a JSON form");
        // One that is not there costs a miss, and one that holds a secret costs the secret.
        if self.search.find(&bytes).is_some() {
            return Ok(());
        }
        // Unsynced: what it names was synced, and a record that a power cut left empty counts as absent.
        self.store.write_hint(&place(name), &bytes)
    }
}

fn place(name: &str) -> PathBuf {
    PathBuf::from("records").join("1").join(format!("{name}.json"))
}

fn preimages_name(place: &str) -> String {
    format!("preimages-{}", hex::encode(Sha256::digest(place)))
}

fn last_plan_name(place: &str) -> String {
    format!("preimages-of-{}", hex::encode(Sha256::digest(place)))
}

fn plan_name(key: PlanKey) -> String {
    format!("plan-{}", key.key())
}

fn variant_name(key: Key, compression: &str, times: &str) -> String {
    format!("{key}-{}", &hex::encode(Sha256::digest(format!("{compression}\n{times}")))[..16])
}

fn converted_name(source: &Digest, compression: &str) -> String {
    format!("converted-{}", hex::encode(Sha256::digest(format!("{source}\n{compression}"))))
}

fn searched_name(diff_id: &str) -> String {
    format!("searched-{}", hex::encode(Sha256::digest(diff_id)))
}

fn base_name(reference: &str, platform: &str) -> String {
    format!("base-{}", hex::encode(Sha256::digest(format!("{reference}\n{platform}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_and_a_broken_one_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let records = Records::new(store.clone(), Arc::default());
        let record = BaseRecord {
            reference: "docker.io/library/debian:12".to_owned(),
            platform: "linux/amd64".to_owned(),
            manifest_digest: crate::blob::sha256(b""),
            media_type: "m".to_owned(),
            size_bytes: 3,
        };
        assert_eq!(records.base(&record.reference, &record.platform), None);
        records.keep_base(&record).unwrap();
        assert_eq!(records.base(&record.reference, &record.platform), Some(record.clone()));
        assert_eq!(records.base(&record.reference, "linux/arm64"), None);

        let path = store.root().join(place(&base_name(&record.reference, &record.platform)));
        // What later versions must still read.
        let written = std::fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(written, @r#"{"reference":"docker.io/library/debian:12","platform":"linux/amd64","manifest_digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","media_type":"m","size_bytes":3}"#);
        for broken in [written.replace("sha256:e", "sha256:x"), written[..10].to_owned()] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(records.base(&record.reference, &record.platform), None);
        }
    }
}
