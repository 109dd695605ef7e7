//! What each repository holds: manifests and their blobs, tags, referrers lists, indexes.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::finding::{Finding, Kind};
use super::{Run, SIDE_BY_SIDE, remember};
use crate::admin::error::AdminError;
use crate::protocol::{Copy, Object, TagItems};
use crate::spec::{Digest, Manifest, RepoName, Tag};
use crate::storage::{Part, Place, Storage, StorageError, StoredManifest};

/// How young something may be to be under way still, by this machine's clock: an entry that its push has yet to write
/// is no finding.
const UNDER_WAY: Duration = Duration::from_secs(60 * 60);
/// How old a manifest that no tag names and whose blobs are missing has to be to count: until then it may be what a
/// push left that was refused, and a collector takes it.
const LEFT_OVER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// What is known of the repository at hand.
#[derive(Default)]
struct Seen {
    /// Blobs that it has, with usable data and an entry in its index.
    whole: HashSet<Digest>,
    /// Copies that are there.
    copies: HashSet<Copy>,
    /// Manifests that a tag names.
    tagged: HashSet<Digest>,
    /// Whether all tags could be remembered.
    all_tagged: bool,
}

/// Whether a repository has a blob.
enum Blob {
    Whole,
    /// It has, without an entry in its index.
    Unindexed,
    Missing,
}

impl Run<'_> {
    pub(super) async fn check_repositories(&mut self) -> Result<(), AdminError> {
        let mut last: Option<RepoName> = None;
        loop {
            self.report.checked.lists += 1;
            let Some(repo) = self.admin.storage().next_repository(last.as_ref()).await? else { return Ok(()) };
            self.progress.say(format!(
                "repositories: {} and {} manifests so far, at {repo}",
                self.report.checked.repositories, self.report.checked.manifests
            ));
            self.check_repository(&repo).await?;
            self.report.checked.repositories += 1;
            last = Some(repo);
        }
    }

    async fn check_repository(&mut self, repo: &RepoName) -> Result<(), AdminError> {
        let mut seen = Seen { all_tagged: true, ..Default::default() };
        self.check_index(repo, &mut seen).await?;
        self.note_tags(repo, &mut seen).await?;
        let holds = self.check_manifests(repo, &mut seen).await?;
        self.check_catalog(repo, holds).await?;
        self.check_tags(repo, &seen).await?;
        self.check_referrers(repo, &seen).await
    }

    /// Blobs that the index lists and that are there need no further look.
    async fn check_index(&mut self, repo: &RepoName, seen: &mut Seen) -> Result<(), AdminError> {
        let mut last: Option<Digest> = None;
        loop {
            self.report.checked.lists += 1;
            let page = self.admin.storage().indexed_blobs(repo, last.as_ref(), 1000).await?;
            last = page.items.last().cloned();
            let storage = self.admin.storage();
            let links: Vec<_> = stream::iter(page.items)
                .map(|digest| async move {
                    let links = storage.links_in(repo, &digest).await?;
                    Ok::<_, StorageError>((digest, links))
                })
                .buffered(SIDE_BY_SIDE)
                .try_collect()
                .await?;
            for (digest, links) in links {
                self.report.checked.lists += 1;
                if links.is_empty() {
                    self.report.noted.stale_index_entries += 1;
                } else if self.is_usable(&links).await? {
                    remember(&mut seen.whole, digest);
                }
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn is_usable(&mut self, links: &[crate::protocol::Link]) -> Result<bool, AdminError> {
        for link in links.iter().filter(|link| !self.broken.contains(link)) {
            if !self.forgetful {
                return Ok(true);
            }
            self.report.checked.looks += 1;
            if self.admin.storage().data_size(&link.data).await? == Some(link.size_bytes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn note_tags(&mut self, repo: &RepoName, seen: &mut Seen) -> Result<(), AdminError> {
        let mut place = Place::default();
        while let Some(page) = self.admin.storage().repository_page(repo, Part::Tags, &mut place).await? {
            self.report.checked.lists += 1;
            for (object, _) in page {
                if let Object::Tag(entry) = object {
                    seen.all_tagged &= remember(&mut seen.tagged, entry.digest);
                }
            }
        }
        Ok(())
    }

    /// Whether there is any.
    async fn check_manifests(&mut self, repo: &RepoName, seen: &mut Seen) -> Result<bool, AdminError> {
        let mut place = Place::default();
        let mut any = false;
        while let Some(page) = self.admin.storage().repository_page(repo, Part::Manifests, &mut place).await? {
            self.report.checked.lists += 1;
            let storage = self.admin.storage();
            let page = page.into_iter().filter_map(|(object, written)| match object {
                Object::Copy(copy) => Some((copy, written)),
                _ => None,
            });
            let mut copies = stream::iter(page)
                .map(|(copy, written)| async move {
                    let stored = storage.read_copy(&copy).await;
                    (copy, written, stored)
                })
                // Each may be 8 MiB.
                .buffered(4);
            while let Some((copy, written, stored)) = copies.next().await {
                self.report.checked.reads += 1;
                match stored {
                    Ok(None) => {}
                    Ok(Some(stored)) => {
                        any = true;
                        self.report.checked.manifests += 1;
                        remember(&mut seen.copies, copy.clone());
                        self.check_manifest(&copy, written, &stored, seen).await?;
                    }
                    Err(error) if error.is_damage() => {
                        any = true;
                        self.report.checked.manifests += 1;
                        self.damaged_manifest(&copy, error.to_string());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(any)
    }

    async fn check_manifest(
        &mut self,
        copy: &Copy,
        written: SystemTime,
        stored: &StoredManifest,
        seen: &Seen,
    ) -> Result<(), AdminError> {
        let actual = Digest::of(copy.digest.algorithm(), &stored.bytes);
        if actual != copy.digest {
            self.damaged_manifest(copy, format!("expected bytes of {}, found bytes of {actual}", copy.digest));
            return Ok(());
        }
        let manifest = match Manifest::parse(&stored.bytes, Some(&stored.media_type)) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.damaged_manifest(copy, error.to_string());
                return Ok(());
            }
        };
        let mut sparse = false;
        for blob in &manifest.blobs {
            if seen.whole.contains(blob) {
                continue;
            }
            match self.look_for(&copy.repo, blob).await? {
                Blob::Whole => {}
                Blob::Unindexed => self.missing_index_entry(&copy.repo, blob).await?,
                Blob::Missing if stored.absent.contains(blob) => sparse = true,
                Blob::Missing => self.missing_blob(copy, written, blob, seen).await?,
            }
        }
        self.report.noted.sparse_images += u64::from(sparse);
        let mut sparse = false;
        for child in &manifest.children {
            self.report.checked.lists += 1;
            let page = self.admin.storage().has_manifest(&copy.repo, child).await?;
            sparse |= !page;
        }
        self.report.noted.sparse_indexes += u64::from(sparse);
        if let Some(subject) = &manifest.subject {
            let referrer = Object::Referrer { subject: subject.clone(), copy: copy.clone() };
            self.report.checked.looks += 1;
            let is_young = written.elapsed().is_ok_and(|age| age < UNDER_WAY);
            if !self.admin.storage().is_object_there(&referrer).await? && !is_young && self.is_still_there(copy).await?
            {
                let descriptor = manifest.descriptor(&copy.digest, stored.bytes.len());
                let repaired = self.written(referrer.clone(), Some(&descriptor)).await?;
                self.find(Finding {
                    kind: Kind::MissingReferrer,
                    repo: Some(copy.repo.to_string()),
                    digest: Some(copy.digest.to_string()),
                    key: Storage::key_of(&referrer),
                    message: format!("the referrers list of {subject} does not show it"),
                    repaired,
                    advice: or_repair(repaired, "written again"),
                });
            }
        }
        Ok(())
    }

    async fn is_still_there(&mut self, copy: &Copy) -> Result<bool, AdminError> {
        self.report.checked.looks += 1;
        Ok(self.admin.storage().has_copy(copy).await?)
    }

    async fn look_for(&mut self, repo: &RepoName, blob: &Digest) -> Result<Blob, AdminError> {
        self.report.checked.lists += 1;
        let links = self.admin.storage().links_in(repo, blob).await?;
        if links.is_empty() || !self.is_usable(&links).await? {
            return Ok(Blob::Missing);
        }
        self.report.checked.lists += 1;
        let page = self.admin.storage().has_index_entry(repo, blob).await?;
        Ok(if page { Blob::Whole } else { Blob::Unindexed })
    }

    fn damaged_manifest(&mut self, copy: &Copy, message: String) {
        self.find(Finding {
            kind: Kind::DamagedManifest,
            repo: Some(copy.repo.to_string()),
            digest: Some(copy.digest.to_string()),
            key: Storage::key_of(&Object::Copy(copy.clone())),
            message,
            repaired: false,
            advice: "restore the object from a backup; or delete the manifest by its digest and push it again"
                .to_owned(),
        });
    }

    async fn missing_index_entry(&mut self, repo: &RepoName, blob: &Digest) -> Result<(), AdminError> {
        let entry = Object::BlobIndex(repo.clone(), blob.clone(), self.admin.nonces().take());
        let repaired = self.written(entry.clone(), None).await?;
        self.find(Finding {
            kind: Kind::MissingIndexEntry,
            repo: Some(repo.to_string()),
            digest: Some(blob.to_string()),
            key: Storage::key_of(&entry),
            message: "the repository has the blob, and its index has no entry of it".to_owned(),
            repaired,
            advice: or_repair(repaired, "written again"),
        });
        Ok(())
    }

    async fn missing_blob(
        &mut self,
        copy: &Copy,
        written: SystemTime,
        blob: &Digest,
        seen: &Seen,
    ) -> Result<(), AdminError> {
        let is_named = !seen.all_tagged || seen.tagged.contains(&copy.digest);
        if !is_named && written.elapsed().is_ok_and(|age| age < LEFT_OVER) {
            self.report.noted.refused += 1;
            return Ok(());
        }
        // Deleted, or pushed again, since it was read.
        if !self.is_still_there(copy).await? || matches!(self.look_for(&copy.repo, blob).await?, Blob::Whole) {
            return Ok(());
        }
        let named = if is_named { "a tag names it" } else { "no tag names it" };
        self.find(Finding {
            kind: Kind::MissingBlob,
            repo: Some(copy.repo.to_string()),
            digest: Some(copy.digest.to_string()),
            key: Storage::key_of(&Object::Copy(copy.clone())),
            message: format!("the manifest names blob {blob}, which its repository does not have ({named})"),
            repaired: false,
            advice: "push the image again; or delete the manifest by its digest".to_owned(),
        });
        Ok(())
    }

    async fn check_catalog(&mut self, repo: &RepoName, holds: bool) -> Result<(), AdminError> {
        let entry = Object::Catalog(repo.clone());
        self.report.checked.looks += 1;
        if !holds || self.admin.storage().is_object_there(&entry).await? {
            return Ok(());
        }
        let repaired = self.written(entry.clone(), None).await?;
        self.find(Finding {
            kind: Kind::MissingCatalogEntry,
            repo: Some(repo.to_string()),
            digest: None,
            key: Storage::key_of(&entry),
            message: "it holds manifests, and the catalog does not list it".to_owned(),
            repaired,
            advice: or_repair(repaired, "written again"),
        });
        Ok(())
    }

    async fn check_tags(&mut self, repo: &RepoName, seen: &Seen) -> Result<(), AdminError> {
        let mut place = Place::default();
        let mut current: Option<(Tag, TagItems)> = None;
        while let Some(page) = self.admin.storage().repository_page(repo, Part::Tags, &mut place).await? {
            self.report.checked.lists += 1;
            for (object, _) in page {
                let tag = match &object {
                    Object::Tag(entry) => &entry.tag,
                    Object::End(end) => &end.tag,
                    _ => continue,
                };
                if current.as_ref().is_none_or(|(current, _)| current != tag)
                    && let Some((tag, items)) = current.replace((tag.clone(), TagItems::default()))
                {
                    self.check_tag(repo, &tag, &items, seen).await?;
                }
                if let Some((_, items)) = &mut current {
                    match object {
                        Object::Tag(entry) => items.entries.push(entry),
                        Object::End(end) => items.ends.push(end),
                        _ => {}
                    }
                }
            }
        }
        if let Some((tag, items)) = current {
            self.check_tag(repo, &tag, &items, seen).await?;
        }
        Ok(())
    }

    async fn check_tag(&mut self, repo: &RepoName, tag: &Tag, items: &TagItems, seen: &Seen) -> Result<(), AdminError> {
        let standing = items.standing();
        let Some(top) = standing.first().map(|entry| (*entry).clone()) else { return Ok(()) };
        self.report.checked.tags += 1;
        for entry in standing {
            let copy = entry.named();
            if seen.copies.contains(&copy) || self.is_still_there(&copy).await? {
                return Ok(());
            }
        }
        // Moved or ended since it was listed.
        self.report.checked.looks += 1;
        let key = Object::Tag(top.clone());
        if !self.admin.storage().is_object_there(&key).await? || self.has_value(repo, tag).await? {
            return Ok(());
        }
        self.find(Finding {
            kind: Kind::DeadTag,
            repo: Some(repo.to_string()),
            digest: Some(top.digest.to_string()),
            key: Storage::key_of(&key),
            message: format!("tag {tag} is listed, and its manifest is not there"),
            repaired: false,
            advice: format!("`undo {repo}:{tag} --to ID`, push it again, or delete the tag"),
        });
        Ok(())
    }

    async fn has_value(&mut self, repo: &RepoName, tag: &Tag) -> Result<bool, AdminError> {
        self.report.checked.lists += 1;
        let items = self.admin.storage().past(repo, tag).await?.items();
        let standing = items.standing();
        if standing.is_empty() {
            return Ok(true);
        }
        for entry in standing {
            if self.is_still_there(&entry.named()).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn check_referrers(&mut self, repo: &RepoName, seen: &Seen) -> Result<(), AdminError> {
        let mut place = Place::default();
        while let Some(page) = self.admin.storage().repository_page(repo, Part::Referrers, &mut place).await? {
            self.report.checked.lists += 1;
            for (object, _) in page {
                let Object::Referrer { subject, copy } = &object else { continue };
                self.report.checked.referrers += 1;
                // The copy is always written first and goes first.
                if seen.copies.contains(copy) || self.is_still_there(copy).await? {
                    continue;
                }
                self.report.checked.looks += 1;
                if !self.admin.storage().is_object_there(&object).await? {
                    continue;
                }
                let repaired = self.hinted(object.clone()).await?;
                let advice = match repaired {
                    true => "told the collector, which removes it".to_owned(),
                    false => or_repair(false, ""),
                };
                self.find(Finding {
                    kind: Kind::DeadReferrer,
                    repo: Some(repo.to_string()),
                    digest: Some(copy.digest.to_string()),
                    key: Storage::key_of(&object),
                    message: format!("the referrers list of {subject} shows a manifest that is not there"),
                    repaired,
                    advice,
                });
            }
        }
        Ok(())
    }
}

fn or_repair(repaired: bool, done: &str) -> String {
    if repaired { done.to_owned() } else { "`fsck --repair` mends it".to_owned() }
}
