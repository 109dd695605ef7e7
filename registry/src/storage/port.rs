//! What a store has to offer: object_store's traits, and the few questions that these leave open.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Url;
use object_store::{MultipartId, ObjectStore, Result};

/// A store. `storage::conformance` says in tests what the registry relies on.
///
/// A driver that wraps another one passes all of these on; the defaults are those of a store that has none of it.
#[async_trait]
pub trait Port: ObjectStore + MultipartStore + PaginatedListStore {
    /// How many bytes each part of a multipart upload has at least, the last one excepted.
    fn least_part_bytes(&self) -> u64 {
        0
    }

    /// Whether a part of any size, at any time, costs next to nothing.
    fn takes_any_parts(&self) -> bool {
        false
    }

    /// One part in place of two that follow each other, where the store can name it so. It keeps the state of a long upload
    /// short that is written in small steps.
    fn join_parts(&self, _first: &str, _second: &str) -> Option<String> {
        None
    }

    /// Whether a collector may delete here. Not on a folder of a file system that other machines write to too.
    fn may_collect(&self) -> bool {
        true
    }

    /// Whether lists and heads are answered from this process' memory, exactly, so that nothing is gained by keeping their
    /// answers.
    fn answers_from_memory(&self) -> bool {
        false
    }

    /// An address from which anyone can GET the object until `expires` is over; `None` where the store cannot sign.
    /// Whether the object is there is not looked at.
    async fn presign(&self, _path: &Path, _expires: Duration) -> Result<Option<Url>> {
        Ok(None)
    }

    /// Whether [`Port::presign`] names the provider's own address, which every client can be expected to reach.
    fn endpoint_is_public(&self) -> bool {
        false
    }

    /// Multipart uploads below a raw prefix that were begun and neither completed nor given up, in the store's own order:
    /// a page of those after `after`, none when there are no more. `None` where the store does not tell.
    ///
    /// [`MultipartStore::abort_multipart`] ends one.
    async fn unfinished_multiparts(
        &self,
        _prefix: &str,
        _after: Option<&Unfinished>,
    ) -> Result<Option<Vec<Unfinished>>> {
        Ok(None)
    }

    /// Removes what processes that died before this moment left of objects that they were writing, and nobody can see. The
    /// names of what was removed, for people.
    async fn sweep_temporary(&self, _before: SystemTime) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// How much room is left; `None` where there is no end to it.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// How much room a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// All bytes.
    pub total_bytes: u64,
    /// Objects that can still be written; as many as all where the file system does not count them.
    pub free_objects: u64,
    /// All objects.
    pub total_objects: u64,
}

/// A multipart upload that was begun and neither completed nor given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The object that it would become. A folder does not know it, and names one below `data/` that is none.
    pub path: Path,
    /// Its id.
    pub id: MultipartId,
    /// When it was begun (on a folder: last written to), by the store's own clock.
    pub since: SystemTime,
}
