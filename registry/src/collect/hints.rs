//! Hints: what somebody knew to be garbage when they left it. Looked at often, once a hint is older than the grace time.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{Allowed, Candidate};
use super::log::Removal;
use super::pass::Pass;
use super::{CollectError, Why, repository};
use crate::protocol::{Copy, Object};
use crate::spec::{Digest, RepoName};
use crate::storage::{Dated, Stamp};

/// How many hints are taken up together.
const TOGETHER: usize = 200;

/// Looks at what these hints name, and removes the hints.
pub(super) async fn pass(pass: &mut Pass<'_>, hints: Vec<Dated<Object>>) -> Result<(), CollectError> {
    pass.report.looked_at("hints", hints.len());
    let (settings, now) = (pass.settings, pass.now);
    let is_ripe = |hint: &Dated<Object>| hint.written < now.minus(settings.patience(&hint.item));
    let ripe: Vec<_> = hints.into_iter().filter(is_ripe).collect();
    for together in ripe.chunks(TOGETHER) {
        let mut found = Found::default();
        for hint in together {
            let Some(objects) = pass.storage.named_in(&hint.item).await? else { continue };
            match &hint.item {
                Object::DeletedHint(..) => {
                    found.deleted.extend(deleted(&objects, &pass.storage.stamp_of(&hint.item).await?));
                    found.deleted_before(pass, objects).await?;
                }
                _ => found.unneeded(pass, objects).await?,
            }
        }
        found.settle(pass).await?;
        let done = together.iter().map(|hint| (hint.item.clone(), Why::Done));
        pass.remove_leftovers(done.collect()).await?;
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    data: Vec<Candidate>,
    others: Vec<Candidate>,
    allowed: Allowed,
    leftovers: Vec<(Object, Why)>,
    /// What users deleted: the hint that knows it goes, and the log keeps it.
    deleted: Vec<Removal>,
    /// Entries of referrers that were deleted.
    referrers: Vec<Object>,
    /// Blobs whose index entries are to go, if the repository still does not have them.
    index: BTreeMap<(RepoName, Digest), Vec<Object>>,
}

impl Found {
    /// What nothing seemed to need.
    async fn unneeded(&mut self, pass: &Pass<'_>, objects: Vec<Object>) -> Result<(), CollectError> {
        let old = pass.now.minus(pass.settings.grace);
        for object in objects {
            if let Object::BlobIndex(repo, digest, _) = &object {
                self.index.entry((repo.clone(), digest.clone())).or_default().push(object);
                continue;
            }
            if !matches!(object, Object::Data(_) | Object::Link(..) | Object::Copy(_)) {
                continue;
            }
            // Gone already, or written by somebody else's later request.
            let Some(seen) = pass.storage.seen(&object).await?.filter(|seen| seen.written < old) else { continue };
            let candidate = |why| Candidate::new(seen.map(|()| object.clone()), why);
            match &object {
                Object::Data(_) => self.data.push(candidate(Why::Unlinked)),
                Object::Link(..) => self.others.push(candidate(Why::Unnamed)),
                Object::Copy(copy) if is_broken(pass, copy).await? => self.others.push(candidate(Why::Broken)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What a user deleted, and a late request may have brought back.
    async fn deleted_before(&mut self, pass: &Pass<'_>, objects: Vec<Object>) -> Result<(), CollectError> {
        let copies: BTreeSet<Copy> = objects
            .iter()
            .filter_map(|object| match object {
                Object::Copy(copy) => Some(copy.clone()),
                _ => None,
            })
            .collect();
        for copy in &copies {
            let object = Object::Copy(copy.clone());
            let Some(seen) = pass.storage.seen(&object).await? else { continue };
            self.others.push(Candidate::new(seen.map(|()| object), Why::DeletedBefore));
            self.allowed.expired.insert(copy.clone());
        }
        // They name what was deleted: a push that came after has its own.
        self.allowed.disregarded.extend(objects.iter().filter_map(|object| match object {
            Object::History(entry) => Some(entry.clone()),
            _ => None,
        }));
        self.referrers.extend(objects.into_iter().filter(|object| matches!(object, Object::Referrer { .. })));
        Ok(())
    }

    async fn settle(self, pass: &mut Pass<'_>) -> Result<(), CollectError> {
        let Self { data, others, allowed, mut leftovers, deleted, referrers, index } = self;
        pass.write_down(deleted).await?;
        pass.batch(others, allowed).await?;
        for object in referrers {
            let Object::Referrer { copy, .. } = &object else { continue };
            // Where the copy stays, somebody pushed it again and has it listed.
            if pass.storage.has_object(&object).await? && !pass.storage.has_object(&Object::Copy(copy.clone())).await? {
                leftovers.push((object, Why::DeletedBefore));
            }
        }
        if pass.brake.allows(data.len() as u64, pass.storage, pass.now).await? {
            pass.batch(data, Allowed::default()).await?;
        } else {
            pass.keep_waiting(&data);
        }
        for ((repo, digest), entries) in index {
            if pass.storage.links_in(&repo, &digest).await?.is_empty() {
                leftovers.extend(entries.into_iter().map(|entry| (entry, Why::Unindexed)));
            }
        }
        pass.remove_leftovers(leftovers).await
    }
}

/// The manifest of which a user's DELETE removed these: one entry, however many copies it had.
fn deleted(objects: &[Object], stamp: &Stamp) -> Option<Removal> {
    let copy = objects.iter().find(|object| matches!(object, Object::Copy(_)))?;
    Some(Removal::deleted(copy, stamp))
}

async fn is_broken(pass: &Pass<'_>, copy: &Copy) -> Result<bool, CollectError> {
    let Some((_, named)) = pass.storage.named(&copy.repo, vec![copy.clone()]).await?.pop() else { return Ok(false) };
    repository::is_broken(pass, &copy.repo, &named, &mut BTreeMap::new()).await
}
