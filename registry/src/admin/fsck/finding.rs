//! What a check finds, and what it looked at.

use serde::{Deserialize, Serialize};

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is amiss; at most 10,000, the rest is only counted.
    pub findings: Vec<Finding>,
    /// How many findings were repaired.
    pub repaired: u64,
    /// How many were not.
    pub left: u64,
    /// What was looked at.
    pub checked: Checked,
    /// What is as it may be, and worth knowing.
    pub noted: Noted,
}

/// Something amiss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// In which repository, where it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The blob or manifest that is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The object of the store that shows it.
    pub key: String,
    /// In words: what was expected, and what was found.
    pub message: String,
    /// Whether it was repaired.
    pub repaired: bool,
    /// What to do about it, or what was done.
    pub advice: String,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Data whose bytes have another digest.
    DamagedData,
    /// A link whose data is not there, is damaged, or has another size.
    BrokenLink,
    /// A copy of a manifest that cannot be read, or has another digest.
    DamagedManifest,
    /// A manifest that names a blob which its repository does not have.
    MissingBlob,
    /// A link without an entry in its repository's index.
    MissingIndexEntry,
    /// A repository that the catalog does not list.
    MissingCatalogEntry,
    /// A manifest that the referrers list of its subject does not show.
    MissingReferrer,
    /// An entry of a referrers list whose manifest is not there.
    DeadReferrer,
    /// A tag that is listed, and whose manifest is not there.
    DeadTag,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Data objects.
    pub data: u64,
    /// Links.
    pub links: u64,
    /// Repositories.
    pub repositories: u64,
    /// Copies of manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Entries of referrers lists.
    pub referrers: u64,
    /// Bytes that were read to hash them.
    pub hashed_bytes: u64,
    /// Requests that list keys.
    pub lists: u64,
    /// Requests that look whether something is there.
    pub looks: u64,
    /// Requests that read.
    pub reads: u64,
}

/// What is as it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Images that were accepted without some of their blobs.
    pub sparse_images: u64,
    /// Indexes that list manifests which are not here.
    pub sparse_indexes: u64,
    /// Manifests that no tag names and whose blobs are missing: pushes that were refused leave them. A collector's.
    pub refused: u64,
    /// Index entries of blobs that the repository has no more. A collector's.
    pub stale_index_entries: u64,
    /// Links whose data is gone, of blobs that the repository has by another link: uploads that met a collection leave
    /// them. They harm nobody.
    pub dangling_links: u64,
    /// Data that nothing says the digest of, so that it cannot be compared.
    pub digest_unknown: u64,
    /// Keys that are none of this layout.
    pub foreign_keys: u64,
}
