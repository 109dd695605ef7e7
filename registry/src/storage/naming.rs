//! What refers to what, as collectors ask it: what copies name, what histories hold, what digests data has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::keys::{self, TagItem};
use super::perform::SIDE_BY_SIDE;
use super::{Storage, StorageError, StoredManifest};
use crate::protocol::{Copy, DataId, HistoryItem, Named, Nonce, Object, TagEntry};
use crate::spec::{Digest, Manifest, RepoName, Tag};

/// A repository, and what each of its copies names, as far as they were read.
pub(super) type Contents = (RepoName, HashMap<Copy, Arc<Named>>);
/// A place in the order of a tag's values.
type Place = (u64, Nonce);
/// Something with a place, whether it is an end, and when it was written.
type Event = (Place, bool, SystemTime);

impl Storage {
    /// Sets where the history window begins, by the store's own timestamps: an entry that was replaced or deleted before
    /// refers to nothing any more. Without it every entry does.
    pub fn set_history_since(&self, since: Option<SystemTime>) {
        if let Ok(mut current) = self.history_since.lock() {
            *current = since;
        }
    }

    /// The history of one tag, or of all, in the order of keys.
    pub async fn history(&self, repo: &RepoName, tag: Option<&Tag>) -> Result<Vec<HistoryItem>, StorageError> {
        let since = self.history_since.lock().ok().and_then(|since| *since);
        let mut items: Vec<(HistoryItem, SystemTime)> = Vec::new();
        for (key, written) in self.list_dated(&keys::history(repo, tag)).await? {
            match keys::parse_history(&key) {
                Some((entry, false)) => {
                    items.push((HistoryItem { entry, void: false, in_window: true }, written));
                }
                // `<name>.void` sorts right behind `<name>`.
                Some((entry, true)) => match items.last_mut() {
                    Some((item, _)) if item.entry == entry => item.void = true,
                    _ => {}
                },
                None => {}
            }
        }
        let Some(since) = since else { return Ok(items.into_iter().map(|(item, _)| item).collect()) };
        let mut replaced = self.replacements(repo, tag).await?;
        for (item, written) in &items {
            replaced.entry(item.entry.tag.clone()).or_default().push((place(&item.entry), false, *written));
        }
        // To each, when the first of all that come after it was written.
        for events in replaced.values_mut() {
            events.sort();
            let mut first: Option<SystemTime> = None;
            for (_, _, written) in events.iter_mut().rev() {
                *written = first.map_or(*written, |first| first.min(*written));
                first = Some(*written);
            }
        }
        for (item, _) in &mut items {
            let events = replaced.get(&item.entry.tag).map_or(&[][..], Vec::as_slice);
            // An end has the place of the last entry that it ends.
            let this = (place(&item.entry), false);
            let after = events.partition_point(|(place, end, _)| (place, *end) <= (&this.0, this.1));
            item.in_window = events.get(after).is_none_or(|(_, _, written)| *written >= since);
        }
        Ok(items.into_iter().map(|(item, _)| item).collect())
    }

    /// The ends of each tag, and when they were written.
    async fn replacements(
        &self,
        repo: &RepoName,
        tag: Option<&Tag>,
    ) -> Result<BTreeMap<Tag, Vec<Event>>, StorageError> {
        let mut ends: BTreeMap<Tag, Vec<Event>> = BTreeMap::new();
        let prefix = tag.map_or_else(|| keys::tags(repo), |tag| keys::tag(repo, tag));
        for (key, written) in self.list_dated(&prefix).await? {
            if let Some(TagItem::End(end)) = keys::parse_tag_item(&key) {
                ends.entry(end.tag).or_default().push(((end.order, end.nonce), true, written));
            }
        }
        Ok(ends)
    }

    /// Every copy in a repository and what it names. One that goes between the list and the read is left out.
    pub async fn contents(&self, repo: &RepoName) -> Result<Vec<(Copy, Arc<Named>)>, StorageError> {
        let keys = self.list_all(&keys::manifests(repo)).await?;
        self.named(repo, keys.iter().filter_map(|key| keys::parse_copy(key)).collect()).await
    }

    /// What copies of a repository name; one that is not there is left out, unless it was when it was read before. They
    /// never change, so the ones of the repository that was asked for last are not read again.
    pub async fn named(&self, repo: &RepoName, copies: Vec<Copy>) -> Result<Vec<(Copy, Arc<Named>)>, StorageError> {
        let last = self.looked_at.lock().ok().and_then(|mut last| last.take());
        let mut known = last.filter(|(last, _)| last == repo).map(|(_, known)| known).unwrap_or_default();
        let named = stream::iter(copies).map(|copy| {
            let before = known.get(&copy).cloned();
            async move {
                let named = if before.is_some() { before } else { self.named_by(&copy).await? };
                Ok::<_, StorageError>(named.map(|named| (copy, named)))
            }
        });
        let named = named.buffered(SIDE_BY_SIDE).try_filter_map(|found| async move { Ok(found) });
        let named: Vec<(Copy, Arc<Named>)> = named.try_collect().await?;
        known.extend(named.iter().cloned());
        if let Ok(mut last) = self.looked_at.lock() {
            *last = Some((repo.clone(), known));
        }
        Ok(named)
    }

    /// Gives back the memory that looking at repositories took.
    pub fn forget_contents(&self) {
        if let Ok(mut last) = self.looked_at.lock() {
            *last = None;
        }
    }

    /// What a copy names; `None` when it is not there.
    ///
    /// A copy that cannot be read is an error, not one that names nothing: what it names must not go.
    pub async fn named_by(&self, copy: &Copy) -> Result<Option<Arc<Named>>, StorageError> {
        let during = "reading what a manifest names";
        let Some(content) = self.read_small(&keys::copy(copy), during).await? else { return Ok(None) };
        match parse(&content) {
            Some(named) => Ok(Some(Arc::new(named))),
            None => {
                let what = format!("the copy of {} in {} is damaged: delete it, or restore it", copy.digest, copy.repo);
                Err(StorageError::damaged(during, what))
            }
        }
    }

    /// Runs of collectors that have a mark, and when each wrote it.
    pub async fn marking_runs(&self) -> Result<Vec<(Nonce, SystemTime)>, StorageError> {
        let listed = self.list_dated(keys::MARKS).await?;
        Ok(listed.into_iter().filter_map(|(key, written)| Some((keys::parse_mark(&key)?, written))).collect())
    }

    /// The entries of a repository's own index of blobs, and when each was written.
    pub async fn blob_index(&self, repo: &RepoName) -> Result<Vec<(Object, SystemTime)>, StorageError> {
        let listed = self.list_dated(&keys::blob_indexes(repo)).await?;
        let read = |(key, written): (String, _)| {
            let (repo, digest, nonce) = keys::parse_blob_index(&key)?;
            Some((Object::BlobIndex(repo, digest, nonce), written))
        };
        Ok(listed.into_iter().filter_map(read).collect())
    }

    /// The digests that links may know data by.
    pub async fn digests_of(&self, id: &DataId) -> Result<Vec<Digest>, StorageError> {
        let mut digests = match id {
            DataId::Known(digest, _) | DataId::Adopted(digest) => vec![digest.clone()],
            DataId::Unknown(_) => Vec::new(),
        };
        let listed = self.list_all(&keys::data_of(id)).await?;
        digests.extend(listed.iter().filter_map(|key| keys::parse_data_of(key)).map(|(_, digest)| digest));
        Ok(digests)
    }

    /// Whether the repository's own index has an entry for the blob.
    pub async fn has_trace(&self, repo: &RepoName, digest: &Digest) -> Result<bool, StorageError> {
        Ok(!self.list_page(&keys::blob_index(repo, digest), None, 1).await?.0.is_empty())
    }
}

fn place(entry: &TagEntry) -> Place {
    (entry.order, entry.nonce.clone())
}

fn parse(content: &Bytes) -> Option<Named> {
    let stored = StoredManifest::decode(content)?;
    let manifest = Manifest::parse(&stored.bytes, Some(&stored.media_type)).ok()?;
    let absent = stored.absent.into_iter().chain(manifest.elsewhere.iter().cloned());
    let blobs: BTreeSet<Digest> = manifest.blobs.into_iter().chain(manifest.elsewhere.iter().cloned()).collect();
    Some(Named {
        // What an index lists and does not have breaks it no more than an absent manifest does.
        absent: absent.filter(|digest| blobs.contains(digest)).collect(),
        blobs,
        children: manifest.children.into_iter().collect(),
        subject: manifest.subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Algorithm;
    use crate::storage::Memory;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn nonce(text: &str) -> Nonce {
        text.parse().unwrap()
    }

    fn entry(order: u64) -> TagEntry {
        TagEntry {
            order,
            nonce: nonce("e"),
            repo: "a".parse().unwrap(),
            tag: "t".parse().unwrap(),
            digest: digest("m"),
            copy: nonce("c"),
        }
    }

    async fn storage() -> Storage {
        Storage::open(Memory::default(), [7; 32]).await.unwrap()
    }

    #[tokio::test]
    async fn a_history_says_what_is_void_and_what_is_past_the_window() {
        let storage = storage().await;
        let repo: RepoName = "a".parse().unwrap();
        for object in [Object::History(entry(1)), Object::History(entry(2)), Object::Void(entry(2))] {
            storage.leave(&object).await.unwrap();
        }
        let window = || async {
            let items = storage.history(&repo, None).await.unwrap();
            items.iter().map(|item| (item.entry.order, item.void, item.in_window)).collect::<Vec<_>>()
        };
        assert_eq!(window().await, [(1, false, true), (2, true, true)]);
        // Nothing followed the second, so it stays however old it is; the first was replaced when the second came.
        storage.set_history_since(Some(SystemTime::now() + std::time::Duration::from_secs(60)));
        assert_eq!(window().await, [(1, false, false), (2, true, true)]);
        storage.leave(&Object::End(entry(2).end())).await.unwrap();
        assert_eq!(window().await, [(1, false, false), (2, true, false)]);
        storage.set_history_since(Some(SystemTime::UNIX_EPOCH));
        assert_eq!(window().await, [(1, false, true), (2, true, true)]);
    }

    #[tokio::test]
    async fn contents_name_blobs_children_subject_and_what_may_be_absent() {
        let storage = storage().await;
        let repo: RepoName = "a".parse().unwrap();
        let (config, layer, foreign, subject) = (digest("config"), digest("layer"), digest("foreign"), digest("s"));
        let body = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "digest": config.to_string() },
            "layers": [
                { "digest": layer.to_string() },
                { "digest": foreign.to_string(), "urls": ["https://elsewhere.example"] },
            ],
            "subject": { "digest": subject.to_string() },
        });
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let stored = StoredManifest { media_type, bytes: body.to_string().into(), absent: vec![layer.clone()] };
        let copy = Copy { repo: repo.clone(), digest: digest("m"), nonce: nonce("c") };
        storage.put(&keys::copy(&copy), stored.encode("now", None), "storing").await.unwrap();

        let contents = storage.contents(&repo).await.unwrap();
        assert_eq!(contents.len(), 1);
        assert_eq!(contents[0].0, copy);
        let expected = Named {
            blobs: [config, layer.clone(), foreign.clone()].into(),
            absent: [layer, foreign].into(),
            children: [].into(),
            subject: Some(subject),
        };
        assert_eq!(*contents[0].1, expected);
        // The bytes are the ones that were put.
        let read = storage.read_copy(&copy).await.unwrap().unwrap();
        assert_eq!(read.bytes, body.to_string());
    }

    #[tokio::test]
    async fn a_damaged_copy_is_no_copy_that_names_nothing() {
        let storage = storage().await;
        let copy = Copy { repo: "a".parse().unwrap(), digest: digest("m"), nonce: nonce("c") };
        storage.put(&keys::copy(&copy), Bytes::from("no header"), "storing").await.unwrap();
        let error = storage.contents(&copy.repo).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[tokio::test]
    async fn data_is_known_by_every_digest_that_was_written_beside_it() {
        let storage = storage().await;
        let (known, unknown) = (DataId::Known(digest("x"), nonce("k")), DataId::Unknown(nonce("uu")));
        assert_eq!(storage.digests_of(&known).await.unwrap(), [digest("x")]);
        assert_eq!(storage.digests_of(&unknown).await.unwrap(), []);
        let other = Digest::of(Algorithm::Sha512, b"x");
        for id in [&known, &unknown] {
            storage.leave(&Object::DataOf(id.clone(), other.clone())).await.unwrap();
        }
        assert_eq!(storage.digests_of(&known).await.unwrap(), [digest("x"), other.clone()]);
        assert_eq!(storage.digests_of(&unknown).await.unwrap(), [other]);
    }

    #[tokio::test]
    async fn a_repository_has_a_trace_of_what_it_has_an_index_entry_of() {
        let storage = storage().await;
        let repo: RepoName = "a".parse().unwrap();
        assert!(!storage.has_trace(&repo, &digest("x")).await.unwrap());
        storage.leave(&Object::BlobIndex(repo.clone(), digest("x"), nonce("i"))).await.unwrap();
        assert!(storage.has_trace(&repo, &digest("x")).await.unwrap());
    }
}
