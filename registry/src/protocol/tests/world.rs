//! A store as a set of objects, and what clients were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use crate::protocol::{Copy, HistoryItem, Link, Marks, Nonce, Object, Reply, RepoHash, Request, TagItems};
use crate::spec::{Algorithm, Digest, RepoName, Tag};

/// What is left out or lied about, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    None,
    NoMarks,
    AlwaysThere,
    LooksBeforeMarking,
    EndsAreLost,
}

/// What clients were told, or did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fact {
    /// A push by digest was acknowledged.
    Manifest {
        repo: RepoName,
        digest: Digest,
    },
    /// A push by tag was acknowledged.
    Tagged {
        by: &'static str,
        digest: Digest,
    },
    /// A user began to delete, and is told that it is done.
    Deleting(Digest),
    Deleted(Digest),
    Untagged,
    DeletingBlob,
    DeletedBlob,
    Mounted,
    /// A push saw the child of its index.
    ChildSeen,
    /// A reader saw the value that it waited for.
    Saw,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) objects: BTreeSet<Object>,
    pub(super) marks: BTreeMap<&'static str, Vec<Object>>,
    pub(super) facts: BTreeSet<Fact>,
    /// Copies that retention allows to go.
    pub(super) expired: BTreeSet<Nonce>,
    pub(super) fault: Fault,
}

pub(super) fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

pub(super) fn tag() -> Tag {
    "t".parse().unwrap()
}

pub(super) fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

pub(super) fn nonce(name: &str) -> Nonce {
    name.parse().unwrap()
}

/// What a manifest names: blobs, and children.
pub(super) type Named = (Vec<Digest>, Vec<Digest>);

pub(super) fn named_by(manifest: &Digest) -> &'static Named {
    static NAMED: LazyLock<HashMap<Digest, Named>> = LazyLock::new(|| {
        let image = || (vec![digest("blob")], vec![]);
        let images = ["m", "m2", "m3", "kid"].map(|name| (digest(name), image()));
        images.into_iter().chain([(digest("index"), (vec![], vec![digest("kid")]))]).collect()
    });
    &NAMED[manifest]
}

fn named(manifest: &Digest) -> Arc<crate::protocol::Named> {
    let (blobs, children) = named_by(manifest).clone();
    Arc::new(crate::protocol::Named {
        blobs: blobs.into_iter().collect(),
        children: children.into_iter().collect(),
        ..Default::default()
    })
}

impl World {
    pub(super) fn new(fault: Fault) -> Self {
        let (objects, marks) = (BTreeSet::new(), BTreeMap::new());
        Self { objects, marks, facts: BTreeSet::new(), expired: BTreeSet::new(), fault }
    }

    fn links(&self, blob: &Digest, of: Option<&RepoName>) -> Vec<Link> {
        let of = of.map(RepoHash::of);
        let links = self.objects.iter().filter_map(|object| match object {
            Object::Link(link, _) => Some(link.clone()),
            _ => None,
        });
        links.filter(|l| l.digest == *blob && of.as_ref().is_none_or(|of| l.repo == *of)).collect()
    }

    pub(super) fn copies(&self, of: &RepoName, manifest: &Digest) -> Vec<Copy> {
        let copies = self.objects.iter().filter_map(|object| match object {
            Object::Copy(copy) => Some(copy.clone()),
            _ => None,
        });
        copies.filter(|copy| copy.repo == *of && copy.digest == *manifest).collect()
    }

    fn tags(&self, of: &RepoName) -> Vec<TagItems> {
        let mut tags: BTreeMap<Tag, TagItems> = BTreeMap::new();
        for object in &self.objects {
            match object {
                Object::Tag(entry) if entry.repo == *of => {
                    tags.entry(entry.tag.clone()).or_default().entries.push(entry.clone());
                }
                Object::End(end) if end.repo == *of => tags.entry(end.tag.clone()).or_default().ends.push(end.clone()),
                _ => {}
            }
        }
        tags.into_values().collect()
    }

    /// What a pull of the tag gets.
    pub(super) fn value(&self) -> Option<Digest> {
        let tags = self.tags(&repo("a"));
        let standing = tags.first()?.standing();
        let live = standing.iter().find(|entry| self.objects.contains(&Object::Copy(entry.named())));
        live.map(|entry| entry.digest.clone())
    }

    /// Whether each blob of the manifest has a link in the repository whose data is there.
    pub(super) fn whole(&self, of: &RepoName, manifest: &Digest) -> bool {
        named_by(manifest).0.iter().all(|blob| {
            self.links(blob, Some(of)).iter().any(|link| self.objects.contains(&Object::Data(link.data.clone())))
        })
    }

    pub(super) fn perform(&mut self, request: &Request) -> Reply {
        match request {
            Request::Marks { .. } => {
                let mut marks = Marks::default();
                if self.fault == Fault::NoMarks {
                    return Reply::Marks(marks);
                }
                for target in self.marks.values().flatten() {
                    match target {
                        Object::Data(id) => _ = marks.data.insert(id.clone()),
                        Object::Link(link, _) => _ = marks.links.insert(link.clone()),
                        Object::Copy(copy) => _ = marks.copies.insert(copy.clone()),
                        _ => {}
                    }
                }
                Reply::Marks(marks)
            }
            Request::Links(blob, of) => Reply::Links(self.links(blob, of.as_ref())),
            Request::HasData(id) => Reply::There(self.is_there(&Object::Data(id.clone()))),
            Request::HasCopy(copy) => Reply::There(self.is_there(&Object::Copy(copy.clone()))),
            Request::HasLink(link) => Reply::There(self.links(&link.digest, None).contains(link)),
            Request::DigestsOf(id) => {
                let digests = self.objects.iter().filter_map(|object| match object {
                    Object::DataOf(of, digest) if of == id => Some(digest.clone()),
                    _ => None,
                });
                Reply::Digests(digests.collect())
            }
            Request::Contents(of) => {
                let copies = self.objects.iter().filter_map(|object| match object {
                    Object::Copy(copy) if copy.repo == *of => Some((copy.clone(), named(&copy.digest))),
                    _ => None,
                });
                Reply::Contents(copies.collect())
            }
            Request::History(of, _) => {
                let items = self.objects.iter().filter_map(|object| match object {
                    Object::History(entry) if entry.repo == *of => Some(HistoryItem {
                        void: self.objects.contains(&Object::Void(entry.clone())),
                        in_window: !self.expired.contains(&entry.nonce),
                        entry: entry.clone(),
                    }),
                    _ => None,
                });
                Reply::History(items.collect())
            }
            Request::Copies(of, manifest) => Reply::Copies(self.copies(of, manifest)),
            Request::Tag(of, _) | Request::Tags(of) => Reply::Tags(self.tags(of)),
            Request::UploadClaims(of) => {
                let claims = self.objects.iter().filter_map(|object| match object {
                    Object::UploadClaim(id, seq, nonce) if id == of => Some((*seq, nonce.clone())),
                    _ => None,
                });
                Reply::UploadClaims(claims.collect())
            }
            Request::Write(Object::End(_)) if self.fault == Fault::EndsAreLost => Reply::Done,
            Request::Write(object) => {
                self.objects.insert(object.clone());
                Reply::Done
            }
            Request::Duplicate { from, to } => {
                let there = self.objects.contains(&Object::Copy(from.clone()));
                if there {
                    self.objects.insert(Object::Copy(to.clone()));
                }
                Reply::There(there)
            }
            Request::Remove(objects) => {
                objects.iter().for_each(|object| _ = self.objects.remove(object));
                Reply::Done
            }
        }
    }

    fn is_there(&self, object: &Object) -> bool {
        self.fault == Fault::AlwaysThere || self.objects.contains(object)
    }

    /// Whether a collector has to keep it.
    pub(super) fn used(&self, target: &Object) -> bool {
        match target {
            Object::Data(id) => {
                self.objects.iter().any(|object| matches!(object, Object::Link(link, _) if link.data == *id))
            }
            Object::Link(link, of) => self.objects.iter().any(|object| match object {
                Object::Copy(copy) => copy.repo == *of && named_by(&copy.digest).0.contains(&link.digest),
                _ => false,
            }),
            Object::Copy(copy) => {
                let named = self.objects.iter().any(|object| match object {
                    Object::Tag(entry) | Object::History(entry) => entry.named() == *copy,
                    Object::Copy(parent) => {
                        parent.repo == copy.repo && named_by(&parent.digest).1.contains(&copy.digest)
                    }
                    _ => false,
                });
                named || !self.expired.contains(&copy.nonce) && self.whole(&copy.repo, &copy.digest)
            }
            _ => true,
        }
    }
}
