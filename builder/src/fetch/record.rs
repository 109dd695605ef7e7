//! What was fetched from an address last, in the store: `records/1/fetched-<hash of the address>.json`.

use std::path::PathBuf;

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{FetchError, FetchedFile};
use crate::blob::Store;

/// What was fetched from an address last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The hash of the address: it may hold a password.
    pub(super) url: String,
    pub(super) etag: Option<String>,
    pub(super) digest: String,
    pub(super) size_bytes: u64,
    pub(super) modified_seconds: i64,
}

impl Record {
    /// What is known of an address; what cannot be read counts as nothing.
    pub(super) fn read(store: &Store, address: &str) -> Option<Self> {
        let record: Self = serde_json::from_slice(&store.read_entry(&place(address)).ok()??).ok()?;
        (record.url == hash(address)).then_some(record)
    }

    /// Keeps it; the newest wins. It is read again only if it is whole, and then what it names is looked for.
    pub(super) fn keep(&self, store: &Store, address: &str) -> Result<(), FetchError> {
        let record = Self { url: hash(address), ..self.clone() };
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        Ok(store.write_hint(&place(address), &bytes)?)
    }

    /// Whether the file is still there; if so, it is held until the build ends.
    pub(super) fn is_there(&self, store: &Store) -> bool {
        let size = |digest: Digest| store.size(&digest).ok().flatten();
        self.digest.parse().ok().and_then(size) == Some(self.size_bytes)
    }

    pub(super) fn file(&self, store: &Store) -> Result<FetchedFile, FetchError> {
        let digest: Digest = self
            .digest
            .parse()
            .map_err(|_| FetchError::Unasked { url: format!("the file with the digest `{}`", self.digest) })?;
        Ok(FetchedFile {
            path: store.path(&digest),
            digest,
            size_bytes: self.size_bytes,
            modified_seconds: self.modified_seconds,
        })
    }
}

fn hash(address: &str) -> String {
    hex::encode(Sha256::digest(address))
}

fn place(address: &str) -> PathBuf {
    PathBuf::from("records").join("1").join(format!("fetched-{}.json", hash(address)))
}
