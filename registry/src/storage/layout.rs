//! The store's own papers: which layout it has, and the key that seals the Locations of uploads.

use serde::{Deserialize, Serialize};

use super::listing::list_all;
use super::{Handle, StorageError, keys, put};
use crate::protocol::Nonce;
use crate::spec::{Algorithm, Digest};
use object_store::ObjectStoreExt;

/// The layout that this version writes: the keys of `keys.rs`.
const LAYOUT: u32 = 1;
const KEY_BYTES: usize = 32;

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Written by a later version, in a way that this one must not touch.
    #[error(
        "the store has layout {found}, which needs layout {needed} to be understood; this version understands layout {LAYOUT}: use a newer fluyt-registry, or another store"
    )]
    Newer {
        /// The store's layout.
        found: u32,
        /// The least that may read and write it.
        needed: u32,
    },
    /// `store.json` is not what it should be.
    #[error("the store's `{key}` is damaged: {reason}: restore it from a backup, or use another store")]
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The content of `store.json.<version>`.
#[derive(Debug, Serialize, Deserialize)]
struct Layout {
    layout: u32,
    /// The least layout that a version has to understand to read, write, and collect here.
    read: u32,
    write: u32,
    collect: u32,
}

/// Checks the layout, sets an empty store up, and returns the keys for Locations: the first seals, any opens.
pub(super) async fn open(port: &Handle, random: [u8; KEY_BYTES]) -> Result<Vec<Vec<u8>>, LayoutError> {
    let layouts = list_all(port, keys::STORE).await?;
    let newest = layouts.iter().filter_map(|key| Some((keys::parse_version(keys::STORE, key)?, key))).max();
    if let Some((_, key)) = newest {
        check(port, key).await?;
    }
    let nonce = nonce(&random).ok_or_else(|| StorageError::damaged("opening the store", "no nonce"))?;
    if newest.is_none_or(|(version, _)| version < LAYOUT) {
        let layout = Layout { layout: LAYOUT, read: LAYOUT, write: LAYOUT, collect: LAYOUT };
        let content =
            serde_json::to_vec(&layout).map_err(|error| StorageError::damaged("writing the layout", error))?;
        put(port, &keys::versioned(keys::STORE, LAYOUT, &nonce), content.into(), "writing the layout").await?;
    }
    if list_all(port, keys::UPLOAD_KEY).await?.is_empty() {
        let content = hex::encode(random);
        put(port, &keys::versioned(keys::UPLOAD_KEY, 1, &nonce), content.into(), "writing the upload key").await?;
    }
    // Listed again: of two replicas that start on an empty store at once, at least one sees both keys. The other reads them
    // again when it is shown what it cannot open.
    upload_keys(port).await
}

/// The keys for Locations that there are by now.
pub(super) async fn upload_keys(port: &Handle) -> Result<Vec<Vec<u8>>, LayoutError> {
    let mut upload_keys = Vec::new();
    for key in list_all(port, keys::UPLOAD_KEY).await? {
        let damaged = |reason: String| LayoutError::Damaged { key: key.clone(), reason };
        let content = read(port, &key).await?;
        let bytes = hex::decode(content.trim_ascii()).map_err(|error| damaged(error.to_string()))?;
        if bytes.len() != KEY_BYTES {
            return Err(damaged(format!("expected {KEY_BYTES} bytes in hex, found {}", bytes.len())));
        }
        upload_keys.push(bytes);
    }
    Ok(upload_keys)
}

/// Of the randomness that makes the key, but not to be told from it. Hex digits always make a nonce.
fn nonce(random: &[u8; KEY_BYTES]) -> Option<Nonce> {
    let digest = Digest::of(Algorithm::Sha256, &[b"nonce", &random[..]].concat());
    digest.hex().get(..24)?.parse().ok()
}

/// The least layout that a collector has to understand, where this version does not. Asked again before each batch: an
/// upgrade of another replica may have come in between.
pub(super) async fn collecting_needs(port: &Handle) -> Result<Option<u32>, StorageError> {
    let layouts = list_all(port, keys::STORE).await?;
    let newest = layouts.iter().filter_map(|key| Some((keys::parse_version(keys::STORE, key)?, key))).max();
    let Some((_, key)) = newest else {
        return Err(StorageError::damaged("reading the store's layout", "`store.json` is gone: nothing is collected"));
    };
    let content = read(port, key).await?;
    let layout: Layout = serde_json::from_slice(&content)
        .map_err(|error| StorageError::damaged("reading the store's layout", format!("`{key}` is damaged: {error}")))?;
    let needed = layout.read.max(layout.write).max(layout.collect);
    Ok((needed > LAYOUT).then_some(needed))
}

async fn check(port: &Handle, key: &str) -> Result<(), LayoutError> {
    let content = read(port, key).await?;
    let layout: Layout = serde_json::from_slice(&content)
        .map_err(|error| LayoutError::Damaged { key: key.to_owned(), reason: error.to_string() })?;
    let needed = layout.read.max(layout.write);
    if needed > LAYOUT {
        return Err(LayoutError::Newer { found: layout.layout, needed });
    }
    Ok(())
}

async fn read(port: &Handle, key: &str) -> Result<bytes::Bytes, StorageError> {
    let during = "reading the store's layout";
    let error = |source| StorageError::new(during, source);
    let path = keys::path(key).map_err(error)?;
    port.0.get(&path).await.map_err(error)?.bytes().await.map_err(error)
}
