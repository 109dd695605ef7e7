//! The objects that the protocol speaks of. How their keys are spelled is `storage`'s business.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::mutation::{Mutation, mutated};
use crate::spec::{Algorithm, Digest, RepoName, Tag, UploadId};

/// Makes a key unique: 24 hex digits, or that and one letter for a further object of the same operation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(Box<str>);

impl Nonce {
    /// A nonce made of these random bits.
    pub fn from_bits(bits: [u8; 12]) -> Self {
        Self(hex::encode(bits).into())
    }

    /// As text: never empty, never with a `.`, `-` or `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits { Ok(Self(text.into())) } else { Err(()) }
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The nonces of one operation: one random part, and a count. So an operation is still a pure function of its
/// arguments however many objects it comes to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nonces {
    base: Nonce,
    used: u32,
}

impl Nonces {
    /// Nonces that begin with `base`.
    pub fn new(base: Nonce) -> Self {
        Self { base, used: 0 }
    }

    /// The next one.
    pub fn take(&mut self) -> Nonce {
        self.used += 1;
        let mut text = String::from(&*self.base.0);
        // `g` is no hex digit, so that no nonce of one operation begins another's.
        if self.used > 1 {
            text.push_str(&format!("g{}", self.used - 1));
        }
        Nonce(text.into())
    }

    /// Nonces for a part of this operation that counts for itself.
    pub fn split(&mut self) -> Self {
        Self { base: self.take(), used: 0 }
    }
}

/// The first 128 bits of the sha256 of a repository's name: names are too long to stand inside a key's component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoHash(Box<str>);

impl RepoHash {
    /// The hash of this name.
    pub fn of(repo: &RepoName) -> Self {
        let digest = Digest::of(Algorithm::Sha256, repo.as_str().as_bytes());
        Self(digest.hex().chars().take(32).collect::<String>().into())
    }

    /// As text: 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoHash {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fits { Ok(Self(text.into())) } else { Err(()) }
    }
}

/// Names the bytes of one blob. Several may hold the same bytes; none is ever written twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataId {
    /// The digest was known before the first byte was stored.
    Known(Digest, Nonce),
    /// It was not; an object beside the data says it.
    Unknown(Nonce),
    /// Data of another registry's store that was adopted, under the key that it has there. Never shared by dedupe, and
    /// no collector's business before that registry is off for good.
    Adopted(Digest),
}

/// A repository's right to a blob, and where its data is. The truth about existence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Of which blob.
    pub digest: Digest,
    /// Whose.
    pub repo: RepoHash,
    /// Where the bytes are.
    pub data: DataId,
    /// How many they are.
    pub size_bytes: u64,
    /// Makes it unique.
    pub nonce: Nonce,
}

/// One copy of a manifest: its bytes and media type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Copy {
    /// Where.
    pub repo: RepoName,
    /// Of what.
    pub digest: Digest,
    /// Makes it unique.
    pub nonce: Nonce,
}

/// A value of a tag. The greatest by (order, nonce) counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagEntry {
    /// Counts up with each value of the tag.
    pub order: u64,
    /// Makes it unique.
    pub nonce: Nonce,
    /// Where.
    pub repo: RepoName,
    /// Of which tag.
    pub tag: Tag,
    /// The value.
    pub digest: Digest,
    /// Which copy of the value.
    pub copy: Nonce,
}

impl TagEntry {
    /// The copy that the entry names.
    pub fn named(&self) -> Copy {
        Copy { repo: self.repo.clone(), digest: self.digest.clone(), nonce: self.copy.clone() }
    }

    /// What ends this entry and everything below it, and nothing else of its order.
    pub fn end(&self) -> TagEnd {
        let mut end =
            TagEnd { order: self.order, nonce: self.nonce.clone(), repo: self.repo.clone(), tag: self.tag.clone() };
        if mutated(Mutation::EndAtNextOrder) {
            end.order += 1;
        }
        if mutated(Mutation::EndAtNextOrder) || mutated(Mutation::EndWholeOrder) {
            end.nonce = Nonce("zzzz".into());
        }
        end
    }
}

/// The end of every entry of a tag up to and including (order, nonce).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagEnd {
    /// The order of the greatest entry ended.
    pub order: u64,
    /// Its nonce.
    pub nonce: Nonce,
    /// Where.
    pub repo: RepoName,
    /// Of which tag.
    pub tag: Tag,
}

/// Everything listed of one tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagItems {
    /// Its entries, in any order.
    pub entries: Vec<TagEntry>,
    /// Its ends, in any order.
    pub ends: Vec<TagEnd>,
}

impl TagItems {
    /// The entries that no end ends, greatest first. The first whose copy is there is the tag's value; one whose copy is
    /// gone is dead and hides nothing.
    pub fn standing(&self) -> Vec<&TagEntry> {
        let end = self.ends.iter().map(|e| (e.order, &e.nonce)).max();
        let mut standing: Vec<_> =
            self.entries.iter().filter(|e| end.is_none_or(|end| (e.order, &e.nonce) > end)).collect();
        standing.sort_by(|a, b| (b.order, &b.nonce).cmp(&(a.order, &a.nonce)));
        if mutated(Mutation::DeadEntryHides) {
            standing.truncate(1);
        }
        standing
    }

    /// The order that the next value gets: a counter, not a clock.
    pub fn next_order(&self) -> u64 {
        let orders = self.entries.iter().map(|e| e.order).chain(self.ends.iter().map(|e| e.order));
        orders.max().unwrap_or(0).saturating_add(1)
    }
}

/// An object of the store that the protocol writes, removes or marks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The bytes of a blob.
    Data(DataId),
    /// Says which digest data of an unknown one has.
    DataOf(DataId, Digest),
    /// A link; its content is the repository's name.
    Link(Link, RepoName),
    /// The entry of a blob in its repository's own index, which is never trusted for existence.
    BlobIndex(RepoName, Digest, Nonce),
    /// A copy of a manifest.
    Copy(Copy),
    /// A published value of a tag.
    Tag(TagEntry),
    /// A value that a tag was about to get, written before it.
    History(TagEntry),
    /// The end of values of a tag.
    End(TagEnd),
    /// A value that an immutable tag was not to get after all; its history entry counts no more.
    Void(TagEntry),
    /// `copy` refers to `subject`.
    Referrer {
        /// What is referred to.
        subject: Digest,
        /// The copy of the manifest that refers.
        copy: Copy,
    },
    /// The repository exists.
    Catalog(RepoName),
    /// Who goes on with an upload is about to write its state of this number.
    UploadClaim(UploadId, u32, Nonce),
    /// Objects that a collector should look at: nothing seemed to need them.
    Hint(Nonce, Vec<Object>),
    /// Objects that a user's DELETE removed, which a collector has to remove again where a late request brought one back.
    DeletedHint(Nonce, Vec<Object>),
    /// Index entries of blobs whose last links a collector removed. They stay for long: they say that the blob was here.
    TraceHint(Nonce, Vec<Object>),
    /// Everything that one run of a collector may be about to delete.
    Mark(Nonce, Vec<Object>),
}

/// An entry of a tag's history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryItem {
    /// The value.
    pub entry: TagEntry,
    /// Whether it was refused after all.
    pub void: bool,
    /// Whether it counts as a reference still: it was not replaced or deleted before the history window began.
    pub in_window: bool,
}

/// What a copy of a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// Config and layers, also those that are not here.
    pub blobs: BTreeSet<Digest>,
    /// Of these, the ones that need not be here: layers with a place of their own, and what was absent when a sparse
    /// image was put.
    pub absent: BTreeSet<Digest>,
    /// The manifests of an index.
    pub children: BTreeSet<Digest>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
}
