//! The keys of data and links, slice by slice: as few requests as the keys fill pages, whether one slice is wanted or all.

use std::collections::VecDeque;

use object_store::ObjectMeta;
use object_store::list::PaginatedListOptions;

use super::{DataSlice, dated};
use crate::spec::Algorithm;
use crate::storage::keys;
use crate::storage::perform::PAGE_KEYS;
use crate::storage::{Storage, StorageError};

/// Slices in their order. What is listed for one may have been so while an earlier one was asked for.
#[derive(Debug)]
pub struct Slices {
    data: Cursor,
    links: [Cursor; 2],
    adopted: Option<Cursor>,
}

/// Goes through the keys below a prefix, a page at a time.
#[derive(Debug)]
struct Cursor {
    prefix: String,
    page: VecDeque<ObjectMeta>,
    after: Option<String>,
    ended: bool,
}

impl Cursor {
    fn new(prefix: String) -> Self {
        Self { prefix, page: VecDeque::new(), after: None, ended: false }
    }

    /// The keys that begin with `prefix`, and are behind those taken before.
    async fn take(&mut self, storage: &Storage, prefix: &str) -> Result<Vec<ObjectMeta>, StorageError> {
        let mut taken = Vec::new();
        loop {
            while let Some(next) = self.page.pop_front() {
                let key = next.location.as_ref();
                if key.starts_with(prefix) {
                    taken.push(next);
                } else if key > prefix {
                    self.page.push_front(next);
                    return Ok(taken);
                }
            }
            if self.ended {
                return Ok(taken);
            }
            self.fill(storage).await?;
        }
    }

    /// The slice of the next key. What is in none is passed over.
    async fn slice(&mut self, storage: &Storage) -> Result<Option<u8>, StorageError> {
        loop {
            while let Some(next) = self.page.front() {
                if let Some(slice) = keys::slice_after(&self.prefix, next.location.as_ref()) {
                    return Ok(Some(slice));
                }
                self.page.pop_front();
            }
            if self.ended {
                return Ok(None);
            }
            self.fill(storage).await?;
        }
    }

    async fn fill(&mut self, storage: &Storage) -> Result<(), StorageError> {
        let options =
            PaginatedListOptions { offset: self.after.take(), max_keys: Some(PAGE_KEYS), ..Default::default() };
        let page = storage.port.0.list_paginated(Some(&self.prefix), options).await;
        let page = page.map_err(|source| StorageError::new("listing objects", source))?;
        let mut objects = page.result.objects;
        // The port's contract leaves the order within a page open.
        objects.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        self.after = objects.last().map(|last| last.location.to_string());
        self.ended = page.page_token.is_none() || objects.is_empty();
        self.page = objects.into();
        Ok(())
    }
}

impl Slices {
    /// All, from the first. `adopted`: with the data of another registry.
    pub fn all(adopted: bool) -> Self {
        Self {
            data: Cursor::new(keys::DATA.to_owned()),
            links: [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Cursor::new(keys::links_by(algorithm))),
            adopted: adopted.then(|| Cursor::new(keys::ADOPTED_DATA.to_owned())),
        }
    }

    /// One only.
    pub fn one(slice: u8, adopted: bool) -> Self {
        Self {
            data: Cursor::new(keys::data_slice(slice)),
            links: keys::links_slices(slice).map(Cursor::new),
            adopted: adopted.then(|| Cursor::new(keys::adopted_slice(slice))),
        }
    }

    /// Of all, the next one that holds anything.
    pub async fn next(&mut self, storage: &Storage) -> Result<Option<(u8, DataSlice)>, StorageError> {
        let mut next: Option<u8> = None;
        for cursor in std::iter::once(&mut self.data).chain(&mut self.adopted).chain(&mut self.links) {
            let slice = cursor.slice(storage).await?;
            next = next.into_iter().chain(slice).min();
        }
        let Some(slice) = next else { return Ok(None) };
        Ok(Some((slice, self.take(storage, slice).await?)))
    }

    /// What there is in a slice that is not before those asked for before.
    pub async fn take(&mut self, storage: &Storage, slice: u8) -> Result<DataSlice, StorageError> {
        let mut found = DataSlice::default();
        // The data first: a link that is written meanwhile is seen.
        for meta in self.data.take(storage, &keys::data_slice(slice)).await? {
            let key = meta.location.as_ref();
            if let Some(of) = keys::parse_data_of(key) {
                found.digests.push(dated(of, &meta));
            } else if let Some(id) = keys::parse_data(key) {
                found.data.insert(id, dated((), &meta));
            }
        }
        if let Some(adopted) = &mut self.adopted {
            for meta in adopted.take(storage, &keys::adopted_slice(slice)).await? {
                found.adopted.extend(keys::parse_data(meta.location.as_ref()).map(|id| dated(id, &meta)));
            }
        }
        for (cursor, prefix) in self.links.iter_mut().zip(keys::links_slices(slice)) {
            let links = cursor.take(storage, &prefix).await?;
            let read = |meta: &ObjectMeta| keys::parse_link(meta.location.as_ref()).map(|link| dated(link, meta));
            found.links.extend(links.iter().filter_map(read));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::protocol::{DataId, Link, Nonce, Object, RepoHash};
    use crate::spec::Digest;
    use crate::storage::Memory;

    #[tokio::test]
    async fn all_slices_at_once_are_what_each_is_alone() {
        let storage = Storage::open(Memory::default(), [7; 32]).await.unwrap();
        let nonce: Nonce = "0a".parse().unwrap();
        for number in 0..1500u32 {
            let algorithm = if number % 7 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &number.to_be_bytes());
            let data = DataId::Known(digest.clone(), nonce.clone());
            storage.put_data(&data, Vec::new()).await.unwrap();
            let repo = "a".parse().unwrap();
            let link = Link { digest, repo: RepoHash::of(&repo), data, size_bytes: 0, nonce: nonce.clone() };
            storage.leave(&Object::Link(link, repo)).await.unwrap();
        }
        // Keys that are in no slice keep nobody from going on.
        for stranger in ["data/+1/a", "data/AB/a", "data/abc/a", "data/zz", "links/sha256/ab"] {
            storage.port.0.put(&stranger.into(), Vec::new().into()).await.unwrap();
        }
        let mut all = Slices::all(true);
        let (mut data, mut links) = (0, 0);
        let mut slices = Vec::new();
        while let Some((slice, found)) = all.next(&storage).await.unwrap() {
            slices.push(slice);
            let alone = Slices::one(slice, true).take(&storage, slice).await.unwrap();
            assert_eq!((&found.data, &found.links), (&alone.data, &alone.links), "slice {slice}");
            data += found.data.len();
            links += found.links.len();
        }
        assert_eq!((data, links), (1500, 1500));
        assert!(slices.is_sorted_by(|a, b| a < b), "{slices:?}");
    }
}
