//! Manifests and tags: put, read, delete.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Registry;
use super::error::RegistryError;
use crate::auth::{MayDelete, MayPull, MayPush};
use crate::protocol::{Copy, DeleteManifest, DeleteTag, FindCopies, FindTag, Object, PutManifest, PutOutcome, PutPlan};
use crate::spec::{Algorithm, Digest, MANIFEST_SIZE_MAX_BYTES, Manifest, PastTag, Reference, RepoName, Tag};
use crate::storage::{Attachments, Stamp, StoredManifest};

/// How many manifests are looked at at once.
const SIDE_BY_SIDE: usize = 16;

/// A manifest to be put.
#[derive(Clone, Debug)]
pub struct PutManifestRequest {
    /// Under which name.
    pub reference: Reference,
    /// Further tags, of a push by digest.
    pub tags: Vec<Tag>,
    /// The hash of a push by tag (`?digest-algorithm=`).
    pub algorithm: Option<Algorithm>,
    /// The header.
    pub content_type: Option<String>,
    /// The bytes.
    pub bytes: Bytes,
}

/// A manifest that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReference {
    /// Its digest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// The tags that it got.
    pub tags: Vec<Tag>,
    /// Blobs that it names and that are not in the repository: a sparse image.
    pub absent: Vec<Digest>,
}

impl Registry {
    /// Puts a manifest; its blobs have to be there.
    pub async fn put_manifest(
        &self,
        push: &MayPush,
        request: PutManifestRequest,
    ) -> Result<StoredReference, RegistryError> {
        let PutManifestRequest { reference, mut tags, algorithm, content_type, bytes } = request;
        if bytes.len() > MANIFEST_SIZE_MAX_BYTES {
            return Err(RegistryError::ManifestTooLarge { found_bytes: bytes.len() as u64 });
        }
        let digest = match reference {
            Reference::Digest(declared) => {
                let actual = Digest::of(declared.algorithm(), &bytes);
                if actual != declared {
                    return Err(RegistryError::DigestMismatch { declared, actual });
                }
                declared
            }
            Reference::Tag(tag) => {
                tags.insert(0, tag);
                Digest::of(algorithm.unwrap_or(Algorithm::Sha256), &bytes)
            }
        };
        let mut seen = std::collections::HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        if let Some(past) = tags.iter().find_map(PastTag::of) {
            return Err(RegistryError::TagOfThePast { tag: past.tag });
        }
        let manifest = Manifest::parse(&bytes, content_type.as_deref())?;
        let repo = push.repo().clone();
        self.check_children(&repo, &manifest).await?;
        let mut stored = StoredManifest { media_type: manifest.media_type.clone(), bytes, absent: Vec::new() };
        loop {
            match self.put_stored(push, &digest, &tags, &manifest, &stored).await? {
                PutOutcome::Stored { superseded } => {
                    self.forget(&repo, &superseded).await;
                    let absent = stored.absent;
                    if !absent.is_empty() {
                        tracing::warn!(
                            repo.name = %repo,
                            manifest.digest = %digest,
                            absent = absent.len(),
                            "a sparse image was put: some of its blobs are not in the repository"
                        );
                    }
                    return Ok(StoredReference { digest, subject: manifest.subject, tags, absent });
                }
                PutOutcome::BlobsUnknown(digests)
                    if stored.absent.is_empty() && self.may_lack(&repo, &manifest, &digests).await? =>
                {
                    stored.absent = digests;
                }
                PutOutcome::BlobsUnknown(digests) | PutOutcome::ManifestsUnknown(digests) => {
                    return Err(RegistryError::ManifestBlobUnknown { repo, digests });
                }
                PutOutcome::Immutable { tag } => return Err(RegistryError::TagImmutable { repo, tag }),
                PutOutcome::Contended => return Err(RegistryError::Contended),
            }
        }
    }

    /// Puts a manifest whose blobs have to be there, but for those that are known to be absent.
    async fn put_stored(
        &self,
        push: &MayPush,
        digest: &Digest,
        tags: &[Tag],
        manifest: &Manifest,
        stored: &StoredManifest,
    ) -> Result<PutOutcome, RegistryError> {
        let (repo, by) = (push.repo(), push.by());
        let time = (self.surroundings.now)();
        let attachments = Attachments {
            copy: stored.encode(&time, by),
            referrer: self.referrer_entry(manifest, digest, stored.bytes.len()),
            stamp: Stamp { time, by: by.map(str::to_owned) }.encode(),
        };
        // What an index lists as blobs is looked for as blobs: a client that was told that they are there relies on them.
        let present = manifest.blobs.iter().chain(&manifest.listed).filter(|blob| !stored.absent.contains(blob));
        let children = manifest.children.iter().filter(|child| !manifest.listed.contains(child));
        let plan = PutPlan {
            repo: repo.clone(),
            digest: digest.clone(),
            blobs: present.cloned().collect(),
            children: children.cloned().collect(),
            subject: manifest.subject.clone(),
            tags: tags.to_vec(),
            in_catalog: self.storage.is_catalogued(repo),
            immutable: tags.iter().filter(|tag| self.is_immutable(repo, tag)).cloned().collect(),
            fresh: !stored.absent.is_empty(),
        };
        Ok(self.storage.run(PutManifest::new(plan, self.nonces()), &attachments).await?)
    }

    /// Removes older entries of a tag. They count no more; what fails to go is a collector's. What replaced them is
    /// acknowledged either way.
    pub(crate) async fn forget(&self, repo: &RepoName, superseded: &[Object]) {
        if !superseded.is_empty()
            && let Err(error) = self.storage.remove(superseded).await
        {
            tracing::warn!(repo.name = %repo, error = %error, "older entries of a tag could not be removed");
        }
    }

    fn referrer_entry(&self, manifest: &Manifest, digest: &Digest, size_bytes: usize) -> Bytes {
        if manifest.subject.is_none() {
            return Bytes::new();
        }
        // A descriptor always becomes JSON.
        serde_json::to_vec(&manifest.descriptor(digest, size_bytes)).unwrap_or_default().into()
    }

    /// Reads a manifest, by tag or digest.
    pub async fn manifest(
        &self,
        pull: &MayPull,
        reference: &Reference,
    ) -> Result<(Digest, StoredManifest), RegistryError> {
        let repo = pull.repo();
        let copies = match reference {
            Reference::Digest(digest) => self.storage.read(FindCopies::new(repo.clone(), digest.clone())).await?,
            Reference::Tag(tag) => {
                let entries = self.storage.read(FindTag::new(repo.clone(), tag.clone())).await?;
                entries.iter().map(|entry| entry.named()).collect()
            }
        };
        for copy in copies {
            if let Some(manifest) = self.storage.read_copy(&copy).await? {
                return Ok((copy.digest, manifest));
            }
        }
        // A tag of that very name wins.
        if let Reference::Tag(tag) = reference
            && let Some(past) = PastTag::of(tag)
            && let Some(entry) = self.value_at(repo, &past).await?
            && let Some(manifest) = self.storage.read_copy(&entry.named()).await?
        {
            return Ok((entry.digest, manifest));
        }
        Err(RegistryError::ManifestUnknown { repo: repo.clone(), reference: reference.clone() })
    }

    /// Ends a tag, or removes a manifest with every tag that names it.
    pub async fn delete_manifest(&self, delete: &MayDelete, reference: &Reference) -> Result<(), RegistryError> {
        let repo = delete.repo().clone();
        let stamp = Stamp { time: self.now(), by: delete.by().map(str::to_owned) }.encode();
        let attachments = Attachments { stamp, ..Default::default() };
        let was_there = match reference {
            Reference::Tag(tag) => self.storage.run(DeleteTag::new(repo.clone(), tag.clone()), &attachments).await?,
            Reference::Digest(digest) => {
                let operation = FindCopies::new(repo.clone(), digest.clone());
                let copies = self.storage.run(operation, &Attachments::default()).await?;
                let subject = self.subject_of(&copies).await?;
                let operation = DeleteManifest::new(repo.clone(), copies, subject, self.nonces());
                self.storage.run(operation, &attachments).await?
            }
        };
        if was_there { Ok(()) } else { Err(RegistryError::ManifestUnknown { repo, reference: reference.clone() }) }
    }

    /// Removes manifests, with every tag that names one of them; how many were there. What each costs does not grow with
    /// the number of tags, as it does one by one.
    pub(crate) async fn delete_manifests(
        &self,
        delete: &MayDelete,
        digests: Vec<Digest>,
    ) -> Result<u64, RegistryError> {
        let repo = delete.repo();
        let found: Vec<Vec<(Copy, Option<Digest>)>> = stream::iter(digests)
            .map(|digest| async move {
                let copies = self.storage.run(FindCopies::new(repo.clone(), digest), &Attachments::default()).await?;
                let subject = self.subject_of(&copies).await?;
                let with_subject = copies.into_iter().map(|copy| (copy, subject.clone()));
                Ok::<_, RegistryError>(with_subject.collect())
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        let count = found.iter().filter(|copies| !copies.is_empty()).count();
        let stamp = Stamp { time: self.now(), by: delete.by().map(str::to_owned) }.encode();
        let attachments = Attachments { stamp, ..Default::default() };
        let copies = found.into_iter().flatten().collect();
        self.storage.run(DeleteManifest::several(repo.clone(), copies, self.nonces()), &attachments).await?;
        Ok(count as u64)
    }

    /// What a manifest refers to, read from one of its copies.
    async fn subject_of(&self, copies: &[Copy]) -> Result<Option<Digest>, RegistryError> {
        for copy in copies {
            if let Some(stored) = self.storage.read_copy(copy).await? {
                // It was checked when it was put.
                let manifest = Manifest::parse(&stored.bytes, Some(&stored.media_type));
                return Ok(manifest.ok().and_then(|manifest| manifest.subject));
            }
        }
        Ok(None)
    }
}
