//! One repository: its blobs, then its manifests, then its tags, then the record of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Remark, Report, Spell, TagsBy, nonce};
use crate::protocol::{DataId, FindCopies, Link, Nonces, Object, PutManifest, PutOutcome, PutPlan, RepoHash, TagItems};
use crate::spec::{Digest, Manifest, ManifestError, RepoName, Tag};
use crate::storage::{
    AdoptedBlobs, AdoptedLink, AdoptedTag, AdoptionRecord, Attachments, Stamp, Storage, StorageError, StoredManifest,
};

const SIDE_BY_SIDE: usize = 16;

/// Takes over what is new in one repository.
pub(super) async fn adopt(
    storage: &Storage,
    repo: &RepoName,
    blobs: &AdoptedBlobs,
    told: Option<&TagsBy>,
    spell: Spell,
) -> Result<Report, StorageError> {
    let manifests = storage.adopted_manifests(repo).await?;
    let tags = match told.map(|told| told.get(repo.as_str())) {
        None => storage.adopted_tags(repo).await?,
        Some(Some(tags)) => tags.clone(),
        Some(None) if manifests.is_empty() => Vec::new(),
        // Taken over without tags it would look like images that nobody wants any more.
        Some(None) => {
            let why = "is left out: it was deleted in Harbor, or the user that asks there may not see it".into();
            let problems = vec![Remark { repository: repo.to_string(), what: None, why }];
            return Ok(Report { problems, ..Report::default() });
        }
    };
    let (record, number) = storage.adoption_record(repo).await?;
    let before = record.clone();
    let mut work = Work { storage, repo, blobs, spell, record, report: Report::default() };
    work.blobs().await?;
    let tags = work.new_tags(tags).await?;
    work.manifests(manifests, tags).await?;
    if work.record != before {
        let number = number + 1;
        let nonce = nonce(&["record", repo.as_str(), &number.to_string()]);
        storage.record_adoption(repo, &work.record, number, &nonce).await?;
    }
    Ok(work.report)
}

struct Work<'a> {
    storage: &'a Storage,
    repo: &'a RepoName,
    blobs: &'a AdoptedBlobs,
    spell: Spell,
    record: AdoptionRecord,
    report: Report,
}

/// Tags by the manifest that they name and the time at which they came to name it.
type NewTags = BTreeMap<Digest, BTreeMap<String, Vec<Tag>>>;

/// A manifest to be taken over.
struct Found {
    digest: Digest,
    since: SystemTime,
    bytes: Bytes,
    manifest: Manifest,
}

impl Work<'_> {
    fn remark(&self, what: impl ToString, why: impl Into<String>) -> Remark {
        Remark { repository: self.repo.to_string(), what: Some(what.to_string()), why: why.into() }
    }

    fn problem(&mut self, what: impl ToString, why: impl Into<String>) {
        let remark = self.remark(what, why);
        self.report.problems.push(remark);
    }

    async fn blobs(&mut self) -> Result<(), StorageError> {
        let mut links = Vec::new();
        for AdoptedLink { digest, data, .. } in self.storage.adopted_layers(self.repo).await? {
            if digest != data {
                // Before any link: a collector finds the links of data by the digests that it has.
                self.storage.leave(&Object::DataOf(DataId::Adopted(data.clone()), digest.clone())).await?;
            }
            if self.record.layers.contains(&digest.to_string()) {
                self.report.known += 1;
            } else if let Some(size_bytes) = self.blobs.size_bytes(&data) {
                let nonce = nonce(&["link", self.repo.as_str(), &digest.to_string()]);
                let repo = RepoHash::of(self.repo);
                links.push(Link { digest, repo, data: DataId::Adopted(data), size_bytes, nonce });
            } else {
                self.problem(&digest, "its data is not in the store any more");
            }
        }
        let (storage, repo) = (self.storage, self.repo);
        let mut written = stream::iter(links)
            .map(|link| async move {
                // The entry first: no link is to be without one. Old data cannot go meanwhile, so there is nothing to confirm.
                let index = Object::BlobIndex(repo.clone(), link.digest.clone(), link.nonce.clone());
                storage.leave(&index).await?;
                storage.leave(&Object::Link(link.clone(), repo.clone())).await?;
                Ok::<_, StorageError>(link)
            })
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some(link) = written.try_next().await? {
            self.record.layers.insert(link.digest.to_string());
            self.report.blobs += 1;
            self.report.blob_bytes += link.size_bytes;
        }
        Ok(())
    }

    /// The tags that are to be set here.
    async fn new_tags(&mut self, tags: Vec<AdoptedTag>) -> Result<NewTags, StorageError> {
        let mut new = NewTags::new();
        for AdoptedTag { name, digest, since } in tags {
            let Ok(tag) = name.parse::<Tag>() else {
                self.problem(&name, "is no name that a tag can have");
                continue;
            };
            let imported = self.record.tags.get(&name).and_then(|value| value.parse::<Digest>().ok());
            if imported.as_ref() == Some(&digest) {
                self.report.known += 1;
                continue;
            }
            let ours = self.storage.tag_of(self.repo, &tag).await?;
            match decide(imported.as_ref(), &digest, &ours) {
                Decision::Set => new.entry(digest).or_default().entry((self.spell)(since)).or_default().push(tag),
                Decision::Agrees => _ = self.record.tags.insert(name, digest.to_string()),
                Decision::Keep(why) => {
                    let remark = self.remark(&name, why);
                    self.report.kept.push(remark);
                }
            }
        }
        Ok(new)
    }

    async fn manifests(&mut self, links: Vec<AdoptedLink>, mut tags: NewTags) -> Result<(), StorageError> {
        self.record.left_behind.clear();
        let here: BTreeSet<Digest> = links.iter().map(|link| link.digest.clone()).collect();
        let mut indexes = Vec::new();
        for link in links {
            if self.record.manifests.contains(&link.digest.to_string()) {
                self.report.known += 1;
                // A tag that has moved to what was taken over before.
                if let Some(groups) = tags.remove(&link.digest) {
                    self.move_tags(&link, groups).await?;
                }
                continue;
            }
            let Some(found) = self.read(&link).await? else { continue };
            if found.manifest.children.is_empty() {
                self.put(found, &mut tags).await?;
            } else {
                indexes.push((link, found.manifest.children));
            }
        }
        // Indexes of indexes after these; ones that name each other, which cannot be, in any order.
        while !indexes.is_empty() {
            let waiting: BTreeSet<Digest> = indexes.iter().map(|(link, _)| link.digest.clone()).collect();
            let is_ready = |children: &[Digest]| !children.iter().any(|c| here.contains(c) && waiting.contains(c));
            let (mut ready, mut rest): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|(_, c)| is_ready(c));
            if ready.is_empty() {
                std::mem::swap(&mut ready, &mut rest);
            }
            for (link, _) in ready {
                if let Some(found) = self.read(&link).await? {
                    self.put(found, &mut tags).await?;
                }
            }
            indexes = rest;
        }
        for (digest, groups) in tags {
            for tag in groups.into_values().flatten() {
                self.problem(&tag, format!("names {digest}, which its repository does not have"));
            }
        }
        Ok(())
    }

    async fn read(&mut self, link: &AdoptedLink) -> Result<Option<Found>, StorageError> {
        let digest = link.digest.clone();
        let Some(bytes) = self.storage.adopted_manifest(&link.data).await? else {
            self.problem(&digest, "the manifest is not in the store any more");
            return Ok(None);
        };
        if Digest::of(digest.algorithm(), &bytes) != digest {
            self.record.left_behind.insert(digest.to_string());
            self.problem(&digest, "the manifest's bytes do not have this digest");
            return Ok(None);
        }
        match Manifest::parse(&bytes, None) {
            Ok(manifest) => Ok(Some(Found { digest, since: link.since, bytes, manifest })),
            Err(error) => {
                let schema_one = serde_json::from_slice::<serde_json::Value>(&bytes)
                    .is_ok_and(|body| body.get("schemaVersion").is_some_and(|version| *version == 1));
                self.record.left_behind.insert(digest.to_string());
                let why = if schema_one { ManifestError::SchemaOne.to_string() } else { error.to_string() };
                self.problem(&digest, why);
                Ok(None)
            }
        }
    }

    /// Puts a manifest, with the tags that name it.
    async fn put(&mut self, found: Found, tags: &mut NewTags) -> Result<(), StorageError> {
        let mut groups = tags.remove(&found.digest).unwrap_or_default();
        let untagged = || ((self.spell)(found.since), Vec::new());
        let (time, tagged) = groups.pop_first().unwrap_or_else(untagged);
        if !self.put_with(&found, &time, &tagged, true).await? {
            return Ok(());
        }
        self.record.manifests.insert(found.digest.to_string());
        self.report.manifests += 1;
        for (time, tags) in groups {
            self.put_with(&found, &time, &tags, false).await?;
        }
        Ok(())
    }

    /// Sets tags to a manifest that an earlier run took over.
    async fn move_tags(&mut self, link: &AdoptedLink, groups: BTreeMap<String, Vec<Tag>>) -> Result<(), StorageError> {
        let find = FindCopies::new(self.repo.clone(), link.digest.clone());
        if self.storage.run(find, &Attachments::default()).await?.is_empty() {
            for tag in groups.into_values().flatten() {
                let remark = self.remark(&tag, format!("names {}, which was deleted here", link.digest));
                self.report.kept.push(remark);
            }
            return Ok(());
        }
        let Some(found) = self.read(link).await? else { return Ok(()) };
        for (time, tags) in groups {
            self.put_with(&found, &time, &tags, false).await?;
        }
        Ok(())
    }

    /// Whether it was put.
    async fn put_with(&mut self, found: &Found, time: &str, tags: &[Tag], first: bool) -> Result<bool, StorageError> {
        let Found { digest, bytes, manifest, .. } = found;
        let media_type = manifest.media_type.clone();
        let mut stored = StoredManifest { media_type, bytes: bytes.clone(), absent: Vec::new() };
        loop {
            let descriptor = manifest.descriptor(digest, bytes.len());
            let attachments = Attachments {
                copy: stored.encode(&(self.spell)(found.since), None),
                // A descriptor always becomes JSON.
                referrer: serde_json::to_vec(&descriptor).unwrap_or_default().into(),
                stamp: Stamp { time: time.to_owned(), by: None }.encode(),
            };
            let present = manifest.blobs.iter().filter(|blob| !stored.absent.contains(blob));
            let plan = PutPlan {
                repo: self.repo.clone(),
                digest: digest.clone(),
                blobs: present.cloned().collect(),
                children: manifest.children.clone(),
                subject: manifest.subject.clone(),
                tags: tags.to_vec(),
                in_catalog: self.storage.is_catalogued(self.repo),
                fresh: first,
                immutable: BTreeSet::new(),
            };
            let nonces = match first {
                // With tags or without: after a run that broke off there may be fewer to set, and the copy is the same.
                true => nonce(&["manifest", self.repo.as_str(), &digest.to_string()]),
                false => {
                    let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                    nonce(&["tags", self.repo.as_str(), &digest.to_string(), time, &names.join(" ")])
                }
            };
            match self.storage.run(PutManifest::new(plan, Nonces::new(nonces)), &attachments).await? {
                PutOutcome::Stored { superseded } => {
                    self.storage.remove(&superseded).await?;
                    for tag in tags {
                        self.record.tags.insert(tag.to_string(), digest.to_string());
                        self.report.tags += 1;
                    }
                    if first && !stored.absent.is_empty() {
                        let absent: Vec<String> = stored.absent.iter().map(Digest::to_string).collect();
                        self.problem(digest, format!("was not whole there either: without {}", absent.join(", ")));
                    }
                    return Ok(true);
                }
                // It is served as it was: without them.
                PutOutcome::BlobsUnknown(absent) if stored.absent.is_empty() => stored.absent = absent,
                _ => {
                    self.record.left_behind.insert(digest.to_string());
                    self.problem(digest, "kept being deleted while it was taken over: repeat the command");
                    return Ok(false);
                }
            }
        }
    }
}

/// What becomes of a tag.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It gets the other registry's value.
    Set,
    /// It has that value already.
    Agrees,
    /// It stays as it is.
    Keep(&'static str),
}

/// `imported`: the value that the tag was last taken over with; `theirs`: the value that it has there now.
fn decide(imported: Option<&Digest>, theirs: &Digest, ours: &TagItems) -> Decision {
    match ours.standing().first() {
        Some(entry) if entry.digest == *theirs => Decision::Agrees,
        Some(entry) if Some(&entry.digest) == imported => Decision::Set,
        Some(_) => Decision::Keep("was pushed to this registry too: its value here stands"),
        None if imported.is_some() || !ours.ends.is_empty() => Decision::Keep("was deleted here, and stays deleted"),
        None => Decision::Set,
    }
}
