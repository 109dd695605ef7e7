//! What refers to a manifest: entries that pushes wrote, and what a client listed under the fallback tag.
//!
//! A client of a registry without this list keeps an index of its own under the tag `<algorithm>-<hex>`. What such an
//! index names has to be listed too ("Enabling the Referrers API"), where it is here and says itself that it refers to
//! the subject: content that was adopted or copied as it is comes without entries.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Registry;
use super::error::RegistryError;
use crate::auth::MayPull;
use crate::protocol::FindCopies;
use crate::spec::{Descriptor, Digest, Manifest, Reference, RepoName, Tag};
use crate::storage::{Attachments, ReferrerName, StorageError};

/// Most entries of one page of referrers.
pub const REFERRERS_PAGE: usize = 1000;
/// Most bytes of one page: clients read no more than this of a manifest, which such a list is to them. One descriptor may
/// be larger.
pub const REFERRERS_PAGE_BYTES: usize = 3 * 1024 * 1024;
/// How many entries are read at once.
const SIDE_BY_SIDE: usize = 16;

/// A page of referrers.
#[derive(Clone, Debug, PartialEq)]
pub struct Referrers {
    /// The descriptors that were asked for.
    pub descriptors: Vec<Descriptor>,
    /// The last manifest looked at, when more follow.
    pub next: Option<Digest>,
}

impl Registry {
    /// Manifests that refer to `subject`, which itself need not be there.
    pub async fn referrers(
        &self,
        pull: &MayPull,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
    ) -> Result<Referrers, RegistryError> {
        let repo = pull.repo();
        let (page, listed) = futures_util::future::try_join(
            async { Ok::<_, RegistryError>(self.storage.referrer_names(repo, subject, last, REFERRERS_PAGE).await?) },
            self.listed_by_tag(pull, subject),
        )
        .await?;
        let end = page.items.last().filter(|_| page.more).map(|name| name.digest.clone());
        let in_page =
            |digest: &Digest| last.is_none_or(|last| digest > last) && end.as_ref().is_none_or(|end| digest <= end);
        let mut found: BTreeMap<Digest, Option<ReferrerName>> =
            listed.into_iter().filter(in_page).map(|digest| (digest, None)).collect();
        found.extend(page.items.into_iter().map(|name| (name.digest.clone(), Some(name))));

        let more = page.more || found.len() > REFERRERS_PAGE;
        let entries = found.into_iter().take(REFERRERS_PAGE);
        let mut read = stream::iter(entries)
            .map(|(digest, name)| async move {
                let descriptor = match name {
                    Some(name) => self.entry(repo, subject, &name).await?,
                    None => self.listed(repo, subject, &digest).await?,
                };
                Ok::<_, RegistryError>((digest, descriptor))
            })
            .buffered(SIDE_BY_SIDE);
        let (mut descriptors, mut size_bytes, mut looked_at) = (Vec::new(), 0, None);
        while let Some((digest, descriptor)) = read.try_next().await? {
            let wanted = descriptor
                .filter(|one| artifact_type.is_none_or(|wanted| one.artifact_type.as_deref() == Some(wanted)));
            if let Some(descriptor) = wanted {
                size_bytes += serde_json::to_vec(&descriptor).map_or(0, |text| text.len());
                if size_bytes > REFERRERS_PAGE_BYTES && !descriptors.is_empty() {
                    return Ok(Referrers { descriptors, next: looked_at });
                }
                descriptors.push(descriptor);
            }
            looked_at = Some(digest);
        }
        Ok(Referrers { descriptors, next: looked_at.filter(|_| more) })
    }

    /// What a push wrote; `None` when it went meanwhile.
    async fn entry(
        &self,
        repo: &RepoName,
        subject: &Digest,
        name: &ReferrerName,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let Some(entry) = self.storage.referrer(repo, subject, name).await? else { return Ok(None) };
        let descriptor = serde_json::from_slice(&entry);
        Ok(Some(descriptor.map_err(|error| StorageError::damaged("reading a referrer", error))?))
    }

    /// What the index under the fallback tag names.
    async fn listed_by_tag(&self, pull: &MayPull, subject: &Digest) -> Result<Vec<Digest>, RegistryError> {
        let stored = match self.manifest(pull, &Reference::Tag(Tag::of_referrers(subject))).await {
            Ok((_, stored)) => stored,
            Err(RegistryError::ManifestUnknown { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Something else may stand under that tag: it then lists nothing.
        let manifest = Manifest::parse(&stored.bytes, Some(&stored.media_type));
        Ok(manifest.map(|manifest| manifest.children).unwrap_or_default())
    }

    /// The descriptor of a manifest that a client listed; `None` when it is not here, or refers to something else.
    async fn listed(
        &self,
        repo: &RepoName,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let find = FindCopies::new(repo.clone(), digest.clone());
        for copy in self.storage.run(find, &Attachments::default()).await? {
            let Some(stored) = self.storage.read_copy(&copy).await? else { continue };
            let manifest = Manifest::parse(&stored.bytes, Some(&stored.media_type)).ok();
            let refers = manifest.filter(|manifest| manifest.subject.as_ref() == Some(subject));
            return Ok(refers.map(|manifest| manifest.descriptor(digest, stored.bytes.len())));
        }
        Ok(None)
    }
}
