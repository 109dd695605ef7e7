//! What a request of the protocol means on the store, and the loop that drives a machine over it.

use tokio::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload};

use super::keys::{self, TagItem};
use super::{RECENT, Storage, StorageError, cache};
use crate::protocol::{Copy, Link, Machine, Marks, Next, Nonce, Object, Replies, Reply, Request, TagItems};
use crate::spec::{Digest, RepoName};

/// How many requests of one step are under way at once.
pub(super) const SIDE_BY_SIDE: usize = 16;
/// Keys asked for in one page of a list.
pub(super) const PAGE_KEYS: usize = 1000;

/// How old an answer about names may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Age {
    /// Not older than the question.
    Now,
    /// As old as the settings allow for those who read.
    Older,
}

/// The content of what an operation writes, where its key does not say everything.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    /// The manifest put, as [`super::StoredManifest::encode`] writes it.
    pub copy: Bytes,
    /// Its descriptor, for the referrers list.
    pub referrer: Bytes,
    /// When and by whom, as JSON: goes into entries of tags and of their history.
    pub stamp: Bytes,
}

/// Who hears of what a collector is about to remove.
#[async_trait::async_trait]
pub trait Witness: Send + Sync {
    /// These go once this has returned; on an error they do not.
    async fn going(&self, objects: &[Object]) -> Result<(), StorageError>;
}

impl Storage {
    /// Runs an operation to its end. Dropped in between, or failing, it leaves garbage for a collector and nothing else.
    pub async fn run<M: Machine>(&self, machine: M, attachments: &Attachments) -> Result<M::Output, StorageError> {
        self.drive(machine, attachments, Age::Now).await
    }

    /// Runs an operation that only reads, for a client: it may hear older answers, where the settings allow them.
    pub async fn read<M: Machine>(&self, machine: M) -> Result<M::Output, StorageError> {
        self.drive(machine, &Attachments::default(), Age::Older).await
    }

    async fn drive<M: Machine>(
        &self,
        mut machine: M,
        attachments: &Attachments,
        age: Age,
    ) -> Result<M::Output, StorageError> {
        let mut replies = Replies::default();
        loop {
            let requests = match machine.step(replies) {
                Next::Done(output) => return Ok(output),
                Next::Ask(requests) => requests,
            };
            let answers: Vec<Reply> = stream::iter(requests)
                .map(|request| self.perform(request, attachments, age))
                .buffered(SIDE_BY_SIDE)
                .try_collect()
                .await?;
            replies = answers.into();
        }
    }

    /// Runs a collector's operation. `witness` hears of what is about to be removed, before it is.
    ///
    /// One that fails before it removed anything takes its own mark away again; afterwards it cannot be known whether the
    /// removal still comes, and the mark stays.
    pub async fn run_collect<M: Machine>(
        &self,
        mut machine: M,
        witness: &dyn Witness,
    ) -> Result<M::Output, StorageError> {
        let nothing = Attachments::default();
        let mut replies = Replies::default();
        let mut marked = None;
        loop {
            let requests = match machine.step(replies) {
                Next::Done(output) => return Ok(output),
                Next::Ask(requests) => requests,
            };
            let mut heard = Ok(());
            for request in &requests {
                match request {
                    Request::Write(mark @ Object::Mark(..)) => marked = Some(mark.clone()),
                    Request::Remove(objects) if !matches!(objects[..], [Object::Mark(..)]) => {
                        heard = witness.going(objects).await;
                        // From here on the mark has to outlast what was sent.
                        marked = marked.filter(|_| heard.is_err());
                    }
                    _ => {}
                }
            }
            let performed = async {
                heard?;
                stream::iter(requests)
                    .map(|request| self.perform(request, &nothing, Age::Now))
                    .buffered(SIDE_BY_SIDE)
                    .try_collect::<Vec<Reply>>()
                    .await
            };
            match performed.await {
                Ok(answers) => replies = answers.into(),
                Err(error) => {
                    if let Some(mark) = marked {
                        // It failed as it is; a mark that stays costs little.
                        let _ = self.remove(&[mark]).await;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn perform(&self, request: Request, attachments: &Attachments, age: Age) -> Result<Reply, StorageError> {
        Ok(match request {
            Request::Marks { recent } => Reply::Marks(self.marks(recent).await?),
            Request::Links(digest, repo) => Reply::Links(self.links(&digest, repo.as_ref(), age).await?),
            Request::KnownLinks(digest, repo) => Reply::Links(match self.kept.known_links(&digest, &repo) {
                Some(known) => known,
                None => self.links(&digest, Some(&repo), age).await?,
            }),
            Request::HasData(id) => Reply::There(self.is_there(&keys::data(&id)).await?),
            Request::HasCopy(copy) => Reply::There(self.is_there(&keys::copy(&copy)).await?),
            Request::HasLink(link) => Reply::There(self.is_there(&keys::link(&link)).await?),
            Request::Copies(repo, digest) => Reply::Copies(self.copies(&repo, &digest, age).await?),
            Request::Tag(repo, tag) => Reply::Tags(self.tag_items(&keys::tag(&repo, &tag), age).await?),
            Request::Tags(repo) => Reply::Tags(self.tag_items(&keys::tags(&repo), age).await?),
            Request::History(repo, tag) => Reply::History(self.history(&repo, tag.as_ref()).await?),
            Request::Contents(repo) => Reply::Contents(self.contents(&repo).await?),
            Request::DigestsOf(id) => Reply::Digests(self.digests_of(&id).await?),
            Request::UploadClaims(id) => {
                let listing = self.upload_listing(&id).await?;
                let names = listing.claims.into_iter().chain(listing.sessions);
                Reply::UploadClaims(names.map(|name| (name.seq, name.nonce)).collect())
            }
            Request::Write(object) => {
                self.write(&object, attachments).await?;
                Reply::Done
            }
            Request::Duplicate { from, to } => Reply::There(self.duplicate(&from, &to).await?),
            Request::Remove(objects) => {
                self.remove(&objects).await?;
                Reply::Done
            }
        })
    }

    async fn marks(&self, recent: bool) -> Result<Marks, StorageError> {
        if recent
            && let Ok(cached) = self.recent_marks.lock()
            && let Some((at, marks)) = &*cached
            && at.elapsed() < RECENT
        {
            return Ok(marks.clone());
        }
        let asked = Instant::now();
        let mut marks = Marks::default();
        for key in self.list_all(keys::MARKS).await? {
            // A run that ends between the list and the read has deleted what it marked, which is seen afterwards.
            self.read_mark(&key, &mut marks).await?;
        }
        if let Ok(mut cached) = self.recent_marks.lock() {
            *cached = Some((asked, marks.clone()));
        }
        Ok(marks)
    }

    /// What one run has marked; nothing when its mark is gone.
    pub async fn marked_by(&self, run: &Nonce) -> Result<Marks, StorageError> {
        let mut marks = Marks::default();
        self.read_mark(&keys::object(&Object::Mark(run.clone(), Vec::new())), &mut marks).await?;
        Ok(marks)
    }

    async fn read_mark(&self, key: &str, marks: &mut Marks) -> Result<(), StorageError> {
        let during = "reading a mark";
        let Some(content) = self.read_small(key, during).await? else { return Ok(()) };
        for target in String::from_utf8_lossy(&content).lines() {
            if let Some(id) = keys::parse_data(target) {
                marks.data.insert(id);
            } else if let Some(link) = keys::parse_link(target) {
                marks.links.insert(link);
            } else if let Some(copy) = keys::parse_copy(target) {
                marks.copies.insert(copy);
            } else {
                let what = format!("`{key}` names `{target}`, which is no key of this layout");
                return Err(StorageError::damaged(during, what));
            }
        }
        Ok(())
    }

    pub(super) async fn links(
        &self,
        digest: &Digest,
        repo: Option<&RepoName>,
        age: Age,
    ) -> Result<Vec<Link>, StorageError> {
        let prefix = repo.map_or_else(|| keys::links(digest), |repo| keys::links_of(digest, repo));
        let keys = self.list_shared(&prefix, age).await?;
        let links: Vec<Link> = keys.iter().filter_map(|key| keys::parse_link(key)).collect();
        // A port that answers from memory is asked again sooner than this is looked up.
        if let Some(repo) = repo
            && !self.port.0.answers_from_memory()
        {
            self.kept.know_links(digest, repo, &links);
        }
        Ok(links)
    }

    async fn copies(&self, repo: &RepoName, digest: &Digest, age: Age) -> Result<Vec<Copy>, StorageError> {
        let keys = self.list_shared(&keys::copies(repo, digest), age).await?;
        Ok(keys.iter().filter_map(|key| keys::parse_copy(key)).collect())
    }

    /// All keys below a prefix, asked for once by all who ask at the same time. A port that answers from memory does so
    /// faster than this could be arranged.
    async fn list_shared(&self, prefix: &str, age: Age) -> Result<cache::Keys, StorageError> {
        if self.port.0.answers_from_memory() {
            return Ok(self.list_all(prefix).await?.into());
        }
        let ask = || self.kept.list(prefix, || self.list_all(prefix));
        match age {
            Age::Now => ask().await,
            Age::Older => self.kept.older_list(prefix, ask).await,
        }
    }

    /// One `TagItems` for each tag, in the order of tags.
    pub(super) async fn tag_items(&self, prefix: &str, age: Age) -> Result<Vec<TagItems>, StorageError> {
        let mut tags: Vec<(crate::spec::Tag, TagItems)> = Vec::new();
        for item in self.list_shared(prefix, age).await?.iter().filter_map(|key| keys::parse_tag_item(key)) {
            if tags.last().is_none_or(|(tag, _)| tag != item.tag()) {
                tags.push((item.tag().clone(), TagItems::default()));
            }
            if let Some((_, items)) = tags.last_mut() {
                match item {
                    TagItem::Entry(entry) => items.entries.push(entry),
                    TagItem::End(end) => items.ends.push(end),
                }
            }
        }
        Ok(tags.into_iter().map(|(_, items)| items).collect())
    }

    pub(super) async fn is_there(&self, key: &str) -> Result<bool, StorageError> {
        let during = "looking for an object";
        let path = keys::path(key).map_err(|source| StorageError::new(during, source))?;
        match self.port.0.get_opts(&path, GetOptions { head: true, ..Default::default() }).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(StorageError::new(during, source)),
        }
    }

    async fn write(&self, object: &Object, attachments: &Attachments) -> Result<(), StorageError> {
        let (during, content): (_, PutPayload) = match object {
            Object::Data(_) => {
                return Err(StorageError::damaged(
                    "writing data",
                    "data is written as it arrives, not by an operation",
                ));
            }
            Object::DataOf(..) => ("naming the digest of data", PutPayload::new()),
            Object::Link(_, repo) => ("linking a blob", repo.to_string().into()),
            Object::BlobIndex(..) => ("noting a blob", PutPayload::new()),
            Object::Copy(_) => {
                self.check_room("storing a manifest")?;
                ("storing a manifest", attachments.copy.clone().into())
            }
            Object::Tag(_) => ("publishing a tag", attachments.stamp.clone().into()),
            Object::History(_) => ("writing a tag's history", attachments.stamp.clone().into()),
            Object::End(_) => ("ending a tag", attachments.stamp.clone().into()),
            Object::Void(_) => ("voiding a value of a tag", attachments.stamp.clone().into()),
            Object::Referrer { .. } => ("writing a referrer", attachments.referrer.clone().into()),
            Object::Catalog(repo) => ("writing the catalog", repo.to_string().into()),
            Object::UploadClaim(..) => ("claiming an upload", PutPayload::new()),
            Object::Hint(_, objects) | Object::TraceHint(_, objects) => ("leaving a hint", lines(objects).into()),
            // Who deleted it, and when, stands before what it was. It is no key, so that whoever looks for keys passes it over.
            Object::DeletedHint(_, objects) => {
                let mut content = attachments.stamp.to_vec();
                content.push(b'\n');
                content.extend_from_slice(lines(objects).as_bytes());
                ("leaving a hint", content.into())
            }
            Object::Mark(_, targets) => ("marking", lines(targets).into()),
        };
        let key = keys::object(object);
        match object {
            // Collectors and users who delete make room.
            Object::Mark(..) | Object::TraceHint(..) | Object::End(_) | Object::DeletedHint(..) => {
                self.put_freeing(&key, content, during).await?;
            }
            _ => self.put(&key, content, during).await?,
        }
        match object {
            Object::Catalog(repo) => self.remember_catalogued(repo),
            Object::Link(link, repo) if !self.port.0.answers_from_memory() => {
                self.kept.know_links(&link.digest, repo, std::slice::from_ref(link));
            }
            _ => {}
        }
        Ok(())
    }

    async fn duplicate(&self, from: &Copy, to: &Copy) -> Result<bool, StorageError> {
        let during = "copying a manifest";
        let Some(content) = self.read_small(&keys::copy(from), during).await? else { return Ok(false) };
        self.put(&keys::copy(to), content, during).await?;
        Ok(true)
    }

    pub(crate) async fn remove(&self, objects: &[Object]) -> Result<(), StorageError> {
        self.remove_keys(objects.iter().map(keys::object).collect()).await
    }

    pub(super) async fn remove_keys(&self, keys: Vec<String>) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        let during = "removing objects";
        for key in &keys {
            if let Some(copy) = keys::parse_copy(key) {
                self.kept.forget_copy(&copy);
            }
        }
        let paths: Vec<_> = keys.iter().map(|key| keys::path(key)).collect();
        let mut removed = self.port.0.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = removed.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(StorageError::new(during, source)),
            }
        }
        Ok(())
    }

    /// A whole object of ours that is known to be small (a manifest, a session, a mark).
    pub(super) async fn read_small(&self, key: &str, during: &'static str) -> Result<Option<Bytes>, StorageError> {
        let path = keys::path(key).map_err(|source| StorageError::new(during, source))?;
        let result = match self.port.0.get(&path).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(StorageError::new(during, source)),
        };
        result.bytes().await.map(Some).map_err(|source| StorageError::new(during, source))
    }
}

/// Keys, one a line.
fn lines(objects: &[Object]) -> String {
    objects.iter().map(keys::object).collect::<Vec<_>>().join("\n")
}

impl Storage {
    /// A repository's links of a blob, for a client that reads it.
    pub async fn links_in(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Link>, StorageError> {
        self.links(digest, Some(repo), Age::Older).await
    }

    /// Names of some repositories that have a link to the blob.
    pub async fn holders(&self, digest: &Digest, max: usize) -> Result<Vec<RepoName>, StorageError> {
        let mut seen = std::collections::BTreeSet::new();
        let mut holders = Vec::new();
        for key in self.list_all(&keys::links(digest)).await? {
            let Some(link) = keys::parse_link(&key) else { continue };
            if holders.len() < max
                && seen.insert(link.repo)
                && let Some(name) = self.read_small(&key, "reading a link").await?
                && let Ok(repo) = String::from_utf8_lossy(&name).parse()
            {
                holders.push(repo);
            }
        }
        Ok(holders)
    }

    /// Writes an object that needs no attachment.
    pub async fn leave(&self, hint: &Object) -> Result<(), StorageError> {
        self.write(hint, &Attachments::default()).await
    }
}
