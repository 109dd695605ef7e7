//! One slice of the data: what no link of its digests names. One list of the data, one of the links to blobs of the same
//! slice; only data whose digest its id does not tell is asked for one by one.

use std::collections::{BTreeMap, HashSet};

use super::batch::{Allowed, Candidate};
use super::pass::Pass;
use super::{CollectError, Why};
use crate::protocol::{DataId, Link, Object, RepoHash};
use crate::spec::Digest;
use crate::storage::{AuditCounts, DataSlice, Dated};

/// Looks at a slice. `known`: all repositories; a link of any other one belongs to no manifest.
pub(super) async fn pass(
    pass: &mut Pass<'_>,
    data: DataSlice,
    known: &HashSet<RepoHash>,
) -> Result<AuditCounts, CollectError> {
    let old = pass.now.minus(pass.settings.grace);
    let seen = data.data.len() + data.adopted.len();
    pass.report.looked_at("data objects", seen);
    pass.report.looked_at("links", data.links.len());
    pass.brake.see(seen as u64);

    let linked: HashSet<&DataId> = data.links.iter().map(|link| &link.item.data).collect();
    let mut digests: BTreeMap<&DataId, Vec<&Digest>> = BTreeMap::new();
    for of in &data.digests {
        digests.entry(&of.item.0).or_default().push(&of.item.1);
    }
    let mut candidates = Vec::new();
    for (id, stored) in data.data.iter().filter(|(_, stored)| stored.written < old) {
        if linked.contains(id) {
            continue;
        }
        let others = digests.get(id).into_iter().flatten().copied();
        if is_linked_elsewhere(pass, id, others).await? {
            continue;
        }
        let digest = digests.get(id).and_then(|digests| digests.first()).map(|digest| (*digest).clone());
        candidates
            .push(Candidate::new(stored.clone().map(|()| Object::Data(id.clone())), Why::Unlinked).known_as(digest));
    }
    candidates.extend(adopted(pass, &data.adopted, &linked).await?);
    let found = candidates.len() as u64;
    let allowed = pass.brake.allows(found, pass.storage, pass.now).await?;
    if allowed {
        pass.batch(candidates, Allowed::default()).await?;
    } else {
        pass.keep_waiting(&candidates);
    }

    // What says the digests of data that is gone. It was there before them, so it does not come any more.
    let orphans = data.digests.iter().filter(|of| of.written < old && !data.data.contains_key(&of.item.0));
    let orphans = orphans.map(|of| (Object::DataOf(of.item.0.clone(), of.item.1.clone()), Why::Orphaned));
    pass.remove_leftovers(orphans.collect()).await?;
    strangers(pass, &data.links, known).await?;
    Ok(AuditCounts {
        seen: seen as u64,
        removed: if allowed { found } else { 0 },
        held: if allowed { 0 } else { found },
    })
}

/// Adopted data that no link names any more. What was never taken over has no link either, and stays: the manifests (ours
/// are copies), and all that something needs which could not be taken over.
async fn adopted(
    pass: &Pass<'_>,
    data: &[Dated<DataId>],
    linked: &HashSet<&DataId>,
) -> Result<Vec<Candidate>, CollectError> {
    let mut unlinked = Vec::new();
    for stored in data.iter().filter(|stored| !linked.contains(&stored.item)) {
        let digests = pass.storage.digests_of(&stored.item).await?;
        if !is_linked_elsewhere(pass, &stored.item, digests.iter()).await? {
            unlinked.push((stored, digests));
        }
    }
    if unlinked.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = unlinked.iter().flat_map(|(_, digests)| digests).map(Digest::to_string).collect();
    let taken = pass.storage.taken_over(&wanted).await?;
    let goes = unlinked.into_iter().filter(|(_, digests)| digests.iter().any(|d| taken.contains(&d.to_string())));
    Ok(goes.map(|(stored, _)| Candidate::new(stored.clone().map(Object::Data), Why::Unlinked)).collect())
}

/// Whether a link of another slice names the data.
async fn is_linked_elsewhere(
    pass: &Pass<'_>,
    id: &DataId,
    digests: impl Iterator<Item = &Digest>,
) -> Result<bool, CollectError> {
    for digest in digests {
        if pass.storage.links_of_all(digest).await?.iter().any(|link| link.data == *id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Links of repositories that never had a manifest: nothing else looks at them.
async fn strangers(pass: &mut Pass<'_>, links: &[Dated<Link>], known: &HashSet<RepoHash>) -> Result<(), CollectError> {
    let old = pass.now.minus(pass.settings.grace);
    let mut candidates = Vec::new();
    for link in links.iter().filter(|link| link.written < old && !known.contains(&link.item.repo)) {
        // One that is gone, or that does not say whose it is, is left alone.
        let Some(owner) = pass.storage.owner_of(&link.item).await? else { continue };
        candidates.push(Candidate::new(link.clone().map(|link| Object::Link(link, owner)), Why::Unnamed));
    }
    pass.batch(candidates, Allowed::default()).await
}
