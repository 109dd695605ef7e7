//! Taking over what a CNCF distribution registry stored, in place: no byte of a blob is copied.
//!
//! For each repository: links that name the old data, a copy of each manifest, the referrers that these make, the tags.
//! Blobs come before the manifests that name them, manifests before indexes, and everything is written by the same
//! operations as a push, so that collectors that run meanwhile take nothing away.
//!
//! **It can be stopped and repeated.** Every nonce is made from what it stands for, so what is written again is the same
//! object again. A record for each repository says what earlier runs took over; the next run takes what is new since,
//! and nothing twice: what was deleted here stays deleted. A tag is moved only when here it still has the value that it was
//! taken over with; where both sides moved it, ours stands and the report says so.
//!
//! **The old data is no collector's target** until the adoption is finished (`adopt --finish`: the other registry is off),
//! since that registry may still come to name it; no upload shares it. Afterwards what was taken over goes as any data does,
//! a day after the last link to it went. What could not be taken over, and what only that needs, stays; and where a whole
//! repository could not be, everything does.

mod repository;

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::protocol::Nonce;
use crate::spec::{Algorithm, Digest, RepoName};
use crate::storage::{AdoptedTag, Adoption, Storage, StorageError};

/// How many repositories are taken over at once.
const SIDE_BY_SIDE: usize = 4;

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is nothing.
    #[error(
        "the store holds no images of a CNCF distribution registry: expected keys that begin with docker/registry/v2/: name the folder, or the bucket and rootdirectory, that it is configured with"
    )]
    Nothing,
    /// GitLab's registry with its database.
    #[error(
        "the store is that of a GitLab registry whose database says what there is (docker/registry/lockfiles/database-in-use): its tags cannot be read from the store; copy the images through both registries instead"
    )]
    Database,
    /// The other registry was said to be off.
    #[error("the adoption of this store is finished: what the other registry has pushed since cannot be taken over")]
    Finished,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Repositories looked at.
    pub repositories: u64,
    /// Blobs newly linked.
    pub blobs: u64,
    /// Their sizes together. A blob of several repositories counts in each.
    pub blob_bytes: u64,
    /// Manifests newly taken over.
    pub manifests: u64,
    /// Tags newly set or moved.
    pub tags: u64,
    /// What was taken over by earlier runs.
    pub known: u64,
    /// What stays as it is here, and why.
    pub kept: Vec<Remark>,
    /// What could not be taken over, or is not whole, and why.
    pub problems: Vec<Remark>,
    /// Whether the adoption is finished now.
    pub finished: bool,
    /// Whether what no image needs any more is collected from now on.
    pub released: bool,
}

/// Something about one thing of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The repository, as the other registry spells it.
    pub repository: String,
    /// A digest or tag; nothing for the repository itself.
    pub what: Option<String>,
    /// What there is to say.
    pub why: String,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.repositories += other.repositories;
        self.blobs += other.blobs;
        self.blob_bytes += other.blob_bytes;
        self.manifests += other.manifests;
        self.tags += other.tags;
        self.known += other.known;
        self.kept.extend(other.kept);
        self.problems.extend(other.problems);
    }
}

/// What has which tags, by repository, where the store does not say: Harbor keeps tags in its database.
pub type TagsBy = BTreeMap<String, Vec<AdoptedTag>>;

/// Writes a moment as RFC 3339 in UTC.
pub type Spell = fn(SystemTime) -> String;

/// Takes over what is new. `finish`: the other registry is off, and this is the last time. `tags`: what the tags are, instead of
/// what the store says; a repository with manifests that is not among them is left alone, and the report says so.
/// `progress` hears of each repository when it is done: how many of how many.
pub async fn adopt(
    storage: &Storage,
    finish: bool,
    tags: Option<&TagsBy>,
    spell: Spell,
    progress: impl Fn(u64, u64),
) -> Result<Report, AdoptError> {
    if !storage.holds_distribution().await? {
        return Err(AdoptError::Nothing);
    }
    if storage.holds_database_lock().await? {
        return Err(AdoptError::Database);
    }
    match storage.adoption().await? {
        Adoption::Finished => return Err(AdoptError::Finished),
        Adoption::Begun => {}
        Adoption::None => storage.note_adoption(false, &nonce(&["begun"])).await?,
    }
    let mut report = Report::default();
    let mut whole = true;
    let blobs = storage.adopted_blobs().await?;
    let names = storage.adopted_repositories().await?;
    let all = names.len() as u64;
    let mut repositories = stream::iter(names)
        .map(|name| {
            let blobs = &blobs;
            async move {
                match name.parse::<RepoName>() {
                    Ok(repo) => repository::adopt(storage, &repo, blobs, tags, spell).await,
                    Err(error) => Ok(Report {
                        problems: vec![Remark { repository: name, what: None, why: error.to_string() }],
                        ..Report::default()
                    }),
                }
            }
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some(done) = repositories.next().await {
        let done = done?;
        whole &= !done.problems.iter().any(|problem| problem.what.is_none());
        report.add(done);
        report.repositories += 1;
        progress(report.repositories, all);
    }
    report.kept.sort();
    report.problems.sort();
    if finish {
        storage.note_adoption(true, &nonce(&["finished"])).await?;
        if whole {
            storage.release_adopted(&nonce(&["released"])).await?;
        }
        (report.finished, report.released) = (true, whole);
    }
    Ok(report)
}

/// Of what it stands for: written twice, it is the same object.
fn nonce(parts: &[&str]) -> Nonce {
    let text = format!("fluyt adopt 1\0{}", parts.join("\0"));
    let digest = hex::decode(Digest::of(Algorithm::Sha256, text.as_bytes()).hex()).unwrap_or_default();
    let mut bits = [0; 12];
    bits.iter_mut().zip(digest).for_each(|(bit, byte)| *bit = byte);
    Nonce::from_bits(bits)
}
