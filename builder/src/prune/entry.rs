//! One thing in the store that can be removed on its own.

use std::time::SystemTime;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An unpacked layer: it can be made again from its blob.
    Layer,
    /// The root folder of machines that can only `chroot`.
    MutableRoot,
    /// A layer, a configuration or a manifest as registries have it.
    Blob,
    /// What a layer holds, in words.
    Index,
    /// What a step made, by its key.
    Record,
    /// A folder of `RUN --mount=type=cache`.
    CacheMount,
    /// What a process that died left behind.
    Temporary,
    /// What a build said.
    Log,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Blob,
        Self::Layer,
        Self::Record,
        Self::Index,
        Self::CacheMount,
        Self::MutableRoot,
        Self::Temporary,
        Self::Log,
    ];

    /// Its name in filters and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::MutableRoot => "mutable-root",
            Self::Blob => "blob",
            Self::Index => "index",
            Self::Record => "record",
            Self::CacheMount => "cache-mount",
            Self::Temporary => "temporary",
            Self::Log => "log",
        }
    }

    /// Its name in a table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Layer => "unpacked layers",
            Self::MutableRoot => "mutable root",
            Self::Blob => "blobs",
            Self::Index => "layer indexes",
            Self::Record => "records",
            Self::CacheMount => "cache mounts",
            Self::Temporary => "temporary",
            Self::Log => "logs",
        }
    }

    /// The kinds of a `type=` filter: our names, and what they are in buildx's.
    #[must_use]
    pub fn of_filter(name: &str) -> Option<Vec<Self>> {
        match name {
            "exec.cachemount" => Some(vec![Self::CacheMount]),
            "regular" => Some(vec![Self::Blob, Self::Layer, Self::MutableRoot, Self::Record, Self::Index]),
            "internal" => Some(vec![Self::Temporary]),
            own => Self::ALL.into_iter().find(|kind| kind.name() == own).map(|kind| vec![kind]),
        }
    }
}

/// One entry of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its path below the store.
    pub name: String,
    /// What it takes on the disk.
    pub size_bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// Whether the image of a name needs it.
    pub needed: bool,
    /// Whether somebody uses it now.
    pub held: bool,
    /// What a record names, of what is here.
    pub(super) names: Vec<String>,
}

/// Where the blob of a digest is, below the store.
pub(super) fn place_of(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

impl Entry {
    /// The digest of a blob, or the diff id of an index's layer.
    pub(super) fn digest(&self) -> Option<String> {
        match self.kind {
            Kind::Blob => Some(self.name.strip_prefix("blobs/")?.replacen('/', ":", 1)),
            Kind::Index => Some(format!("sha256:{}", self.name.strip_prefix("indexes/")?.strip_suffix(".json")?)),
            _ => None,
        }
    }

    /// Whether it is kept for its own sake, not for that of an image's name.
    pub(super) fn is_of_no_name(&self) -> bool {
        match self.kind {
            Kind::Log => true,
            Kind::Record => self.names.is_empty(),
            _ => false,
        }
    }

    /// Whether it goes when all that can be had again, or is not used, is to go.
    #[must_use]
    pub fn reclaimable(&self) -> bool {
        !self.needed && !self.held
    }
}
