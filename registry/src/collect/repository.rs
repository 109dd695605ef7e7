//! One repository: which of its manifests and blobs nothing needs, and what is left over of its tags, history, referrers and
//! index. `Seen` judges purely over what one list showed; only what depends on other keys is asked afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::batch::{Allowed, Candidate};
use super::pass::Pass;
use super::{CollectError, CollectSettings, Why};
use crate::protocol::{Copy, Named, Nonce, Object, TagEntry};
use crate::spec::{Digest, RepoName, Tag};
use crate::storage::{Dated, StoreTime, TagDates, end_place, place};

/// What the list of a repository's keys showed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    tags: BTreeMap<Tag, TagDates>,
    copies: BTreeMap<Digest, Vec<Dated<Copy>>>,
    referrers: Vec<Dated<(Digest, Copy)>>,
    index: BTreeMap<Digest, Vec<Dated<Nonce>>>,
}

/// What was judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// To be removed as they are: their age says that nobody needs them.
    pub(super) leftovers: Vec<(Object, Why)>,
    /// Manifests that nothing refers to, all copies of each: whether they may go depends on their blobs or their age.
    pub(super) untagged: Vec<Untagged>,
    /// Blobs of the index that no manifest names.
    pub(super) unnamed: Vec<Digest>,
}

/// A manifest that no tag, no history in the window and no index of its repository names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untagged {
    pub(super) copies: Vec<Dated<Copy>>,
    pub(super) named: Arc<Named>,
    /// Whether it has been so for longer than it is to be kept.
    pub(super) expired: bool,
}

impl Seen {
    pub(super) fn add(&mut self, found: Dated<Object>) {
        let Dated { item, written, size_bytes } = found;
        match item {
            Object::Tag(item) => {
                self.tags.entry(item.tag.clone()).or_default().entries.push(Dated { item, written, size_bytes });
            }
            Object::End(item) => {
                self.tags.entry(item.tag.clone()).or_default().ends.push(Dated { item, written, size_bytes });
            }
            Object::History(item) => {
                self.tags.entry(item.tag.clone()).or_default().history.push(Dated { item, written, size_bytes });
            }
            Object::Void(item) => drop(self.tags.entry(item.tag.clone()).or_default().voids.insert(item, written)),
            Object::Copy(item) => {
                self.copies.entry(item.digest.clone()).or_default().push(Dated { item, written, size_bytes });
            }
            Object::Referrer { subject, copy } => {
                self.referrers.push(Dated { item: (subject, copy), written, size_bytes });
            }
            Object::BlobIndex(_, digest, item) => {
                self.index.entry(digest).or_default().push(Dated { item, written, size_bytes });
            }
            _ => {}
        }
    }

    pub(super) fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.copies.values().flatten().map(|copy| &copy.item)
    }

    fn has_copy(&self, copy: &Copy) -> bool {
        self.copies.get(&copy.digest).is_some_and(|copies| copies.iter().any(|there| there.item == *copy))
    }

    /// What may go. `named`: what each of the copies names that were there when they were read.
    pub(super) fn judge(
        &self,
        named: &BTreeMap<Digest, Arc<Named>>,
        settings: &CollectSettings,
        now: StoreTime,
    ) -> Judged {
        let old = now.minus(settings.grace);
        let mut judged = Judged::default();
        for dates in self.tags.values() {
            self.judge_tag(dates, settings, now, &mut judged.leftovers);
        }
        for entry in &self.referrers {
            let (subject, copy) = &entry.item;
            if entry.written < old && !self.has_copy(copy) {
                let object = Object::Referrer { subject: subject.clone(), copy: copy.clone() };
                judged.leftovers.push((object, Why::Orphaned));
            }
        }
        let referenced = self.referenced(named, settings, now);
        for (digest, copies) in &self.copies {
            let Some(named) = named.get(digest) else { continue };
            let young = copies.iter().any(|copy| copy.written >= old);
            let lives_with_subject =
                named.subject.as_ref().is_some_and(|subject| self.copies.contains_key(subject) && subject != digest);
            if young || referenced.contains(digest) {
                continue;
            }
            let expired = settings.untagged.is_some_and(|kept| {
                !lives_with_subject && self.untagged_since(copies).is_some_and(|since| now.since(since) > kept)
            });
            judged.untagged.push(Untagged { copies: copies.clone(), named: named.clone(), expired });
        }
        let wanted: BTreeSet<&Digest> =
            named.values().flat_map(|named| named.blobs.iter().chain(&named.children)).collect();
        let all_read = self.copies.keys().all(|digest| named.contains_key(digest));
        if all_read {
            judged.unnamed = self.index.keys().filter(|digest| !wanted.contains(digest)).cloned().collect();
        }
        judged
    }

    /// Manifests that a tag, history in the window, or an index names.
    fn referenced(
        &self,
        named: &BTreeMap<Digest, Arc<Named>>,
        settings: &CollectSettings,
        now: StoreTime,
    ) -> BTreeSet<Digest> {
        let mut referenced: BTreeSet<Digest> =
            named.values().flat_map(|named| named.children.iter().cloned()).collect();
        for dates in self.tags.values() {
            referenced.extend(dates.entries.iter().map(|entry| entry.item.digest.clone()));
            let kept = dates.history.iter().filter(|value| dates.in_window(value, now, settings.window()));
            referenced.extend(kept.map(|value| value.item.digest.clone()));
        }
        referenced
    }

    /// Since when no tag names the manifest: since the last of its values was replaced or deleted, or, where no tag ever
    /// named it, since it was pushed. `None`: a tag still does.
    fn untagged_since(&self, copies: &[Dated<Copy>]) -> Option<StoreTime> {
        let mut since = copies.iter().map(|copy| copy.written).max()?;
        let mut was_tagged = None;
        for dates in self.tags.values() {
            let values = dates.history.iter().filter(|value| !dates.voids.contains_key(&value.item));
            for value in values.filter(|value| copies.iter().any(|copy| copy.item == value.item.named())) {
                was_tagged = was_tagged.max(Some(dates.replaced_at(value)?));
            }
        }
        // A push by digest alone that came later counts for itself.
        if let Some(replaced) = was_tagged {
            since = since.max(replaced);
        }
        Some(since)
    }

    fn judge_tag(
        &self,
        dates: &TagDates,
        settings: &CollectSettings,
        now: StoreTime,
        leftovers: &mut Vec<(Object, Why)>,
    ) {
        let old = now.minus(settings.grace);
        let is_there = |copy: &Copy| self.has_copy(copy);
        let end = dates.ended_up_to();
        let current = dates.current(|entry| is_there(&entry.named()));
        for entry in dates.entries.iter().filter(|entry| entry.written < old) {
            let own = place(&entry.item);
            let why = if end.is_some_and(|end| own < end) {
                Why::Ended
            } else if current.is_some_and(|current| own < place(current)) {
                Why::Superseded
            } else if !is_there(&entry.item.named()) {
                Why::Orphaned
            } else {
                continue;
            };
            leftovers.push((Object::Tag(entry.item.clone()), why));
        }
        for gone in dates.ends.iter().filter(|gone| gone.written < old) {
            let own = end_place(&gone.item);
            let ended_values = dates.entries.iter().any(|entry| place(&entry.item) < own);
            let ended_claims = dates.history.iter().any(|value| place(&value.item) < own);
            let outdone = end.is_some_and(|end| own < end) || current.is_some_and(|current| own < place(current));
            // It also says when a value was deleted, and ends claims of an immutable tag: it goes after them.
            if !ended_values && (outdone || !ended_claims) {
                leftovers.push((Object::End(gone.item.clone()), Why::Superseded));
            }
        }
        self.judge_history(dates, settings, now, leftovers);
    }

    fn judge_history(
        &self,
        dates: &TagDates,
        settings: &CollectSettings,
        now: StoreTime,
        leftovers: &mut Vec<(Object, Why)>,
    ) {
        let (old, out) = (now.minus(settings.grace), now.minus(settings.window()));
        let never: BTreeSet<_> = dates.unpublished().map(|value| &value.item).collect();
        for value in dates.history.iter().filter(|value| value.written < old) {
            let entry = &value.item;
            let published = dates.entries.iter().any(|published| published.item == *entry);
            let why = if published {
                continue;
            } else if dates.voids.get(entry).is_some_and(|since| *since < old) {
                Why::NeverPublished
            } else if dates.in_window(value, now, settings.window()) {
                continue;
            } else if never.contains(entry) && value.written < out {
                Why::NeverPublished
            } else if !self.has_copy(&entry.named()) {
                // What is there still needs it: it says since when no tag names the manifest.
                Why::OutOfWindow
            } else {
                continue;
            };
            leftovers.push((Object::History(entry.clone()), why));
        }
        let alone = |entry: &TagEntry| !dates.history.iter().any(|value| value.item == *entry);
        let voids = dates.voids.iter().filter(|(entry, since)| **since < old && alone(entry));
        leftovers.extend(voids.map(|(entry, _)| (Object::Void(entry.clone()), Why::Orphaned)));
    }
}

/// Looks at a repository, and collects what it can.
pub(super) async fn pass(pass: &mut Pass<'_>, repo: &RepoName) -> Result<(), CollectError> {
    let mut seen = Seen::default();
    pass.storage.each_of(repo, |found| seen.add(found)).await?;
    pass.report.looked_at("repositories", 1);
    pass.report.looked_at("manifests", seen.copies().count());
    let contents = match pass.storage.named(repo, seen.copies().cloned().collect()).await {
        Ok(contents) => contents,
        // What a manifest names that cannot be read is not known, so nothing of this repository goes.
        Err(error) => {
            pass.failed(format!("the repository {repo}: {error}"));
            return Ok(());
        }
    };
    let named: BTreeMap<Digest, Arc<Named>> = contents.into_iter().map(|(copy, named)| (copy.digest, named)).collect();
    let Judged { leftovers, untagged, unnamed } = seen.judge(&named, &pass.settings, pass.now);
    pass.remove_leftovers(leftovers).await?;
    manifests(pass, repo, untagged).await?;
    links(pass, repo, &seen, unnamed).await
}

/// Untagged manifests go when a blob of theirs is not there, or retention lets them.
async fn manifests(pass: &mut Pass<'_>, repo: &RepoName, untagged: Vec<Untagged>) -> Result<(), CollectError> {
    let mut there = BTreeMap::new();
    let (mut candidates, mut allowed) = (Vec::new(), Allowed::default());
    for manifest in untagged {
        let why = if manifest.expired {
            allowed.expired.extend(manifest.copies.iter().map(|copy| copy.item.clone()));
            Why::Expired
        } else if is_broken(pass, repo, &manifest.named, &mut there).await? {
            Why::Broken
        } else {
            continue;
        };
        for copy in manifest.copies {
            candidates.push(Candidate::new(copy.map(Object::Copy), why));
        }
    }
    pass.batch(candidates, allowed).await
}

/// Whether a manifest names a blob that has to be here and is not. `there`: what is known of the repository's blobs.
pub(super) async fn is_broken(
    pass: &Pass<'_>,
    repo: &RepoName,
    named: &Named,
    there: &mut BTreeMap<Digest, bool>,
) -> Result<bool, CollectError> {
    // A sparse image has value as long as any of what it came with is there.
    let sparse = !named.absent.is_empty();
    for blob in named.blobs.difference(&named.absent) {
        let usable = match there.get(blob) {
            Some(usable) => *usable,
            None => {
                let usable = has_blob(pass, repo, blob).await?;
                there.insert(blob.clone(), usable);
                usable
            }
        };
        if usable == sparse {
            return Ok(!usable);
        }
    }
    Ok(sparse)
}

async fn has_blob(pass: &Pass<'_>, repo: &RepoName, blob: &Digest) -> Result<bool, CollectError> {
    for link in pass.storage.links_in(repo, blob).await? {
        if pass.storage.has_object(&Object::Data(link.data)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Links of blobs that no manifest names; where there are none left, the index entries follow much later.
async fn links(pass: &mut Pass<'_>, repo: &RepoName, seen: &Seen, unnamed: Vec<Digest>) -> Result<(), CollectError> {
    let old = pass.now.minus(pass.settings.grace);
    // The run that removed the last link left a hint; this is for one that died before.
    let forgotten = pass.now.minus(pass.settings.traces);
    let (mut candidates, mut without) = (Vec::new(), Vec::new());
    for digest in unnamed {
        let links = pass.storage.dated_links(repo, &digest).await?;
        pass.report.looked_at("links", links.len());
        if links.is_empty() {
            let entries = seen.index.get(&digest).into_iter().flatten().filter(|entry| entry.written < forgotten);
            without.extend(entries.map(|entry| Object::BlobIndex(repo.clone(), digest.clone(), entry.item.clone())));
        } else if links.iter().all(|link| link.written < old) {
            let links = links.into_iter().map(|link| link.map(|link| Object::Link(link, repo.clone())));
            candidates.extend(links.map(|link| Candidate::new(link, Why::Unnamed)));
        }
    }
    pass.leave_trace_hint(without).await?;
    pass.batch(candidates, Allowed::default()).await
}
