//! A store as a set of objects, and what clients were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use crate::protocol::*;
use crate::spec::{Algorithm, Digest, RepoName, Tag, UploadId};

/// What clients were told, or did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fact {
    /// A blob was uploaded or mounted.
    Blob {
        by: &'static str,
    },
    /// A push by digest was acknowledged.
    Manifest {
        repo: RepoName,
        digest: Digest,
    },
    /// A push by tag, or an undo, was acknowledged.
    Tagged {
        by: &'static str,
        digest: Digest,
    },
    /// A user began to delete a manifest, and is told that it is done.
    Deleting(Digest),
    Deleted(Digest),
    /// A tag was deleted.
    Untagged,
    /// A blob was deleted.
    BlobDeleted,
    /// A push saw the child of its index.
    ChildSeen,
    /// An immutable tag was refused.
    Refused {
        by: &'static str,
    },
    /// Somebody whose failure counts did not come to an end.
    Failed {
        by: &'static str,
    },
    /// A PATCH goes on with the session.
    GoesOn {
        by: &'static str,
    },
    /// A reader saw the value that it waited for.
    Saw,
}

/// An object and its hash, which is made once: states are hashed millions of times.
#[derive(Clone, Debug)]
pub(super) struct Item(u64, Arc<Object>);

impl Item {
    fn new(object: Object) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        Self(hasher.finish(), Arc::new(object))
    }
}

impl Hash for Item {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.1, &other.1) || self.0 == other.0 && self.1 == other.1
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct World {
    items: BTreeSet<Item>,
    pub(super) facts: BTreeSet<Fact>,
}

pub(super) fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

pub(super) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub(super) fn digest(name: &str) -> Digest {
    static DIGESTS: LazyLock<HashMap<&'static str, Digest>> = LazyLock::new(|| {
        let names = ["blob", "m", "m0", "m2", "m3", "kid", "index"];
        names.map(|name| (name, Digest::of(Algorithm::Sha256, name.as_bytes()))).into()
    });
    DIGESTS[name].clone()
}

pub(super) fn nonce(name: &str) -> Nonce {
    name.parse().unwrap()
}

pub(super) fn upload_id() -> UploadId {
    UploadId::from_bits(7)
}

/// What a manifest names: every one the same blob, but for the index, which has one child.
pub(super) fn named_by(manifest: &Digest) -> Arc<Named> {
    static IMAGE: LazyLock<Arc<Named>> =
        LazyLock::new(|| Arc::new(Named { blobs: [digest("blob")].into(), ..Default::default() }));
    static INDEX: LazyLock<Arc<Named>> =
        LazyLock::new(|| Arc::new(Named { children: [digest("kid")].into(), ..Default::default() }));
    if *manifest == digest("index") { INDEX.clone() } else { IMAGE.clone() }
}

/// Whether nothing in the model depends on when it is done: it is not a step of its own.
pub(super) fn is_silent(request: &Request) -> bool {
    match request {
        Request::Write(object) => {
            matches!(object, Object::Hint(..) | Object::BlobIndex(..) | Object::Catalog(_) | Object::Referrer { .. })
        }
        // No `.of` is ever written beside data whose id says the digest.
        Request::DigestsOf(DataId::Known(..)) => true,
        _ => false,
    }
}

impl World {
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.items.iter().map(|item| &*item.1)
    }

    pub(super) fn contains(&self, object: &Object) -> bool {
        self.items.contains(&Item::new(object.clone()))
    }

    pub(super) fn insert(&mut self, object: Object) {
        self.items.insert(Item::new(object));
    }

    fn remove(&mut self, object: &Object) {
        match object {
            // A mark's key is its run.
            Object::Mark(run, _) => self.items.retain(|item| !matches!(&*item.1, Object::Mark(of, _) if of == run)),
            object => _ = self.items.remove(&Item::new(object.clone())),
        }
    }

    pub(super) fn links(&self, blob: &Digest, of: Option<&RepoName>) -> Vec<Link> {
        let of = of.map(RepoHash::of);
        let links = self.objects().filter_map(|object| match object {
            Object::Link(link, _) => Some(link.clone()),
            _ => None,
        });
        let mut links: Vec<_> =
            links.filter(|l| l.digest == *blob && of.as_ref().is_none_or(|of| l.repo == *of)).collect();
        links.sort();
        links
    }

    pub(super) fn copies(&self, of: &RepoName) -> Vec<Copy> {
        let copies = self.objects().filter_map(|object| match object {
            Object::Copy(copy) if copy.repo == *of => Some(copy.clone()),
            _ => None,
        });
        let mut copies: Vec<_> = copies.collect();
        copies.sort();
        copies
    }

    pub(super) fn copies_of(&self, of: &RepoName, manifest: &Digest) -> Vec<Copy> {
        self.copies(of).into_iter().filter(|copy| copy.digest == *manifest).collect()
    }

    fn tags(&self, of: &RepoName) -> BTreeMap<Tag, TagItems> {
        let mut tags: BTreeMap<Tag, TagItems> = BTreeMap::new();
        for object in self.objects() {
            match object {
                Object::Tag(entry) if entry.repo == *of => {
                    tags.entry(entry.tag.clone()).or_default().entries.push(entry.clone());
                }
                Object::End(end) if end.repo == *of => tags.entry(end.tag.clone()).or_default().ends.push(end.clone()),
                _ => {}
            }
        }
        for items in tags.values_mut() {
            items.entries.sort();
            items.ends.sort();
        }
        tags
    }

    /// What a pull of the tag gets.
    pub(super) fn value(&self, name: &str) -> Option<Digest> {
        let tags = self.tags(&repo("a"));
        let standing = tags.get(&tag(name))?.standing();
        let live = standing.iter().find(|entry| self.contains(&Object::Copy(entry.named())));
        live.map(|entry| entry.digest.clone())
    }

    /// Whether each blob of the manifest has a link in the repository whose data is there.
    pub(super) fn whole(&self, of: &RepoName, manifest: &Digest) -> bool {
        named_by(manifest)
            .blobs
            .iter()
            .all(|blob| self.links(blob, Some(of)).iter().any(|link| self.contains(&Object::Data(link.data.clone()))))
    }

    pub(super) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for object in self.objects() {
            let Object::Mark(_, targets) = object else { continue };
            for target in targets {
                match target {
                    Object::Data(id) => _ = marks.data.insert(id.clone()),
                    Object::Link(link, _) => _ = marks.links.insert(link.clone()),
                    Object::Copy(copy) => _ = marks.copies.insert(copy.clone()),
                    _ => {}
                }
            }
        }
        marks
    }

    fn history(&self, of: &RepoName, tag: Option<&Tag>) -> Vec<HistoryItem> {
        let items = self.objects().filter_map(|object| match object {
            Object::History(entry) if entry.repo == *of && tag.is_none_or(|tag| entry.tag == *tag) => {
                Some(HistoryItem {
                    void: self.contains(&Object::Void(entry.clone())),
                    in_window: entry.nonce.as_str() != "exp",
                    entry: entry.clone(),
                })
            }
            _ => None,
        });
        let mut items: Vec<_> = items.collect();
        items.sort();
        items
    }

    /// Answers without changing anything; `None` to an order.
    pub(super) fn answer(&self, request: &Request) -> Option<Reply> {
        Some(match request {
            Request::Marks { .. } => Reply::Marks(self.marks()),
            Request::Links(blob, of) => Reply::Links(self.links(blob, of.as_ref())),
            Request::KnownLinks(blob, of) => Reply::Links(self.links(blob, Some(of))),
            Request::HasData(id) => Reply::There(self.contains(&Object::Data(id.clone()))),
            Request::HasCopy(copy) => Reply::There(self.contains(&Object::Copy(copy.clone()))),
            Request::HasLink(link) => Reply::There(self.links(&link.digest, None).contains(link)),
            Request::Copies(of, manifest) => Reply::Copies(self.copies_of(of, manifest)),
            Request::Tag(of, tag) => Reply::Tags(self.tags(of).remove(tag).into_iter().collect()),
            Request::Tags(of) => Reply::Tags(self.tags(of).into_values().collect()),
            Request::History(of, tag) => Reply::History(self.history(of, tag.as_ref())),
            Request::Contents(of) => {
                let copies = self.copies(of).into_iter();
                Reply::Contents(copies.map(|copy| (copy.clone(), named_by(&copy.digest))).collect())
            }
            Request::DigestsOf(id) => {
                let known = if let DataId::Known(digest, _) = id { Some(digest.clone()) } else { None };
                let written = self.objects().filter_map(|object| match object {
                    Object::DataOf(of, digest) if of == id => Some(digest.clone()),
                    _ => None,
                });
                Reply::Digests(known.into_iter().chain(written).collect())
            }
            Request::UploadClaims(of) => {
                let claims = self.objects().filter_map(|object| match object {
                    Object::UploadClaim(id, seq, nonce) if id == of => Some((*seq, nonce.clone())),
                    _ => None,
                });
                Reply::UploadClaims(claims.collect())
            }
            Request::Write(_) | Request::Duplicate { .. } | Request::Remove(_) => return None,
        })
    }

    pub(super) fn perform(&mut self, request: &Request) -> Reply {
        match request {
            Request::Write(_) if is_silent(request) => Reply::Done,
            Request::Write(object) => {
                self.insert(object.clone());
                Reply::Done
            }
            Request::Duplicate { from, to } => {
                let there = self.contains(&Object::Copy(from.clone()));
                if there {
                    self.insert(Object::Copy(to.clone()));
                }
                Reply::There(there)
            }
            Request::Remove(objects) => {
                objects.iter().for_each(|object| self.remove(object));
                Reply::Done
            }
            question => self.answer(question).unwrap_or(Reply::Done),
        }
    }
}
