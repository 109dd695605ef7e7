//! Reads all data and compares its digests.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::finding::{Finding, Kind};
use super::{Run, remember};
use crate::admin::error::AdminError;
use crate::protocol::{DataId, Object};
use crate::spec::{Digest, Hasher};
use crate::storage::{DataItem, Place, Storage, StorageError};

/// How much data is read at once. Each piece is as long as the store hands it out.
const READ_AT_ONCE: usize = 4;

/// Data, and the digests that it should have.
type Expected = (DataId, u64, Vec<Digest>);

/// What reading data came to.
pub(super) struct Hashed {
    /// What does not fit: expected, found.
    pub(super) differs: Option<(Digest, Digest)>,
    pub(super) read_bytes: u64,
}

impl Run<'_> {
    pub(super) async fn hash_all(&mut self) -> Result<(), AdminError> {
        for slice in 0..=u8::MAX {
            self.progress.say(format!(
                "reading data: slice {slice} of 256, {} objects and {} bytes so far",
                self.report.checked.data, self.report.checked.hashed_bytes
            ));
            let mut place = Place::default();
            // What says its digest sorts right behind data.
            let mut pending: Option<Expected> = None;
            while let Some(page) = self.admin.storage().data_page(slice, &mut place).await? {
                self.report.checked.lists += 1;
                let mut whole = Vec::new();
                for item in page {
                    match item {
                        DataItem::Data(id, size_bytes) => {
                            let digests = match &id {
                                DataId::Known(digest, _) | DataId::Adopted(digest) => vec![digest.clone()],
                                DataId::Unknown(_) => Vec::new(),
                            };
                            whole.extend(pending.replace((id, size_bytes, digests)));
                        }
                        DataItem::Of(id, digest) => match &mut pending {
                            Some((data, _, digests)) if *data == id => digests.push(digest),
                            // Its data is gone; a collector's.
                            _ => {}
                        },
                        DataItem::Foreign(_) => self.report.noted.foreign_keys += 1,
                    }
                }
                self.hash_each(whole).await?;
            }
            self.hash_each(pending.into_iter().collect()).await?;
        }
        let mut place = Place::default();
        while let Some(page) = self.admin.storage().adopted_page(&mut place).await? {
            self.report.checked.lists += 1;
            let adopted = page.into_iter().filter_map(|item| match item {
                DataItem::Data(DataId::Adopted(digest), size_bytes) => {
                    Some((DataId::Adopted(digest.clone()), size_bytes, vec![digest]))
                }
                _ => None,
            });
            self.hash_each(adopted.collect()).await?;
        }
        Ok(())
    }

    async fn hash_each(&mut self, data: Vec<Expected>) -> Result<(), AdminError> {
        let storage = self.admin.storage();
        let mut hashing = stream::iter(data)
            .map(|(id, _, digests)| async move {
                let hashed = hash(storage, &id, &digests).await?;
                Ok::<_, StorageError>((id, digests, hashed))
            })
            .buffer_unordered(READ_AT_ONCE);
        let mut found = Vec::new();
        while let Some((id, digests, hashed)) = hashing.try_next().await? {
            // Gone since it was listed.
            let Some(hashed) = hashed else { continue };
            self.report.checked.data += 1;
            self.report.checked.reads += 1;
            self.report.checked.hashed_bytes += hashed.read_bytes;
            self.report.noted.digest_unknown += u64::from(digests.is_empty());
            if let Some(differs) = hashed.differs {
                found.push((id, differs));
            }
            self.progress.say(format!(
                "reading data: {} objects and {} bytes so far",
                self.report.checked.data, self.report.checked.hashed_bytes
            ));
        }
        drop(hashing);
        for (id, (expected, actual)) in found {
            self.forgetful |= !remember(&mut self.damaged, id.clone());
            self.find(Finding {
                kind: Kind::DamagedData,
                repo: None,
                digest: Some(expected.to_string()),
                key: Storage::key_of(&Object::Data(id)),
                message: format!("expected bytes of {expected}, found bytes of {actual}"),
                repaired: false,
                advice: "restore the object from a backup; or see the links to it below".to_owned(),
            });
        }
        Ok(())
    }
}

/// Reads data once, whatever its size, and hashes it as often as it has digests; `None` when it is not there.
pub(super) async fn hash(storage: &Storage, id: &DataId, digests: &[Digest]) -> Result<Option<Hashed>, StorageError> {
    let mut hashers: Vec<Hasher> = Vec::new();
    for digest in digests {
        if !hashers.iter().any(|hasher| hasher.algorithm() == digest.algorithm()) {
            hashers.push(Hasher::new(digest.algorithm()));
        }
    }
    let Some(mut pieces) = storage.read_data(id, None).await? else { return Ok(None) };
    let mut read_bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        read_bytes += piece.len() as u64;
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
    }
    let actual: Vec<Digest> = hashers.into_iter().map(Hasher::finish).collect();
    let differs = digests.iter().find_map(|expected| {
        let actual = actual.iter().find(|actual| actual.algorithm() == expected.algorithm())?;
        (actual != expected).then(|| (expected.clone(), actual.clone()))
    });
    Ok(Some(Hashed { differs, read_bytes }))
}
