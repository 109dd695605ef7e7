//! Every link has its data, in the size that the link says.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::finding::{Finding, Kind};
use super::{Run, SIDE_BY_SIDE, remember};
use crate::admin::error::AdminError;
use crate::protocol::{DataId, Link, Object};
use crate::spec::{Algorithm, RepoName};
use crate::storage::{DataItem, Place, Storage, StorageError};

/// What is wrong with the data of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Gone,
    Damaged,
    Size(u64),
}

impl Run<'_> {
    pub(super) async fn check_links(&mut self) -> Result<(), AdminError> {
        for slice in 0..=u8::MAX {
            self.progress.say(format!("links: slice {slice} of 256, {} links so far", self.report.checked.links));
            let data = self.data_of(slice).await?;
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut place = Place::default();
                while let Some(page) = self.admin.storage().links_page(algorithm, slice, &mut place).await? {
                    self.report.checked.lists += 1;
                    self.report.checked.links += page.len() as u64;
                    self.check_page(slice, &data, page).await?;
                }
            }
        }
        Ok(())
    }

    /// The data of a slice, by id, and its sizes.
    async fn data_of(&mut self, slice: u8) -> Result<HashMap<DataId, u64>, AdminError> {
        let mut data = HashMap::new();
        let mut place = Place::default();
        while let Some(page) = self.admin.storage().data_page(slice, &mut place).await? {
            self.report.checked.lists += 1;
            for item in page {
                match item {
                    DataItem::Data(id, size_bytes) => drop(data.insert(id, size_bytes)),
                    DataItem::Foreign(_) if !self.plan.rehash => self.report.noted.foreign_keys += 1,
                    DataItem::Of(..) | DataItem::Foreign(_) => {}
                }
            }
        }
        if !self.plan.rehash {
            self.report.checked.data += data.len() as u64;
        }
        Ok(data)
    }

    async fn check_page(&mut self, slice: u8, data: &HashMap<DataId, u64>, page: Vec<Link>) -> Result<(), AdminError> {
        let here = format!("{slice:02x}");
        let (mut wrong, mut elsewhere) = (Vec::new(), Vec::new());
        for link in page {
            // Data that was stored in parts is in a slice of its own nonce.
            let is_here = matches!(&link.data, DataId::Known(digest, _) if digest.hex().starts_with(&here));
            match data.get(&link.data) {
                found @ Some(_) => wrong.extend(self.weigh(&link, found.copied()).map(|what| (link, what))),
                None if is_here => wrong.push((link, Wrong::Gone)),
                None => elsewhere.push(link),
            }
        }
        let storage = self.admin.storage();
        let sizes: Vec<(Link, Option<u64>)> = stream::iter(elsewhere)
            .map(|link| async move {
                let size = storage.data_size(&link.data).await?;
                Ok::<_, StorageError>((link, size))
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        self.report.checked.looks += sizes.len() as u64;
        for (link, size) in sizes {
            wrong.extend(self.weigh(&link, size).map(|what| (link, what)));
        }
        for (link, what) in wrong {
            self.broken_link(link, what).await?;
        }
        Ok(())
    }

    fn weigh(&self, link: &Link, size_bytes: Option<u64>) -> Option<Wrong> {
        match size_bytes {
            None => Some(Wrong::Gone),
            Some(_) if self.damaged.contains(&link.data) => Some(Wrong::Damaged),
            Some(size_bytes) if size_bytes != link.size_bytes => Some(Wrong::Size(size_bytes)),
            Some(_) => None,
        }
    }

    async fn broken_link(&mut self, link: Link, what: Wrong) -> Result<(), AdminError> {
        let storage = self.admin.storage();
        // Looked at once more: a collector may have taken both since they were listed.
        self.report.checked.looks += 1;
        let again = storage.data_size(&link.data).await?;
        self.report.checked.reads += 1;
        let Some(repo) = storage.link_owner(&link).await? else { return Ok(()) };
        let Some(what) = self.weigh(&link, again).or((what == Wrong::Damaged).then_some(what)) else { return Ok(()) };
        self.forgetful |= !remember(&mut self.broken, link.clone());
        if what == Wrong::Gone && self.has_other(&link, &repo).await? {
            self.report.noted.dangling_links += 1;
            return Ok(());
        }
        let message = match what {
            Wrong::Gone => "its data is not there".to_owned(),
            Wrong::Damaged => "its data is damaged".to_owned(),
            Wrong::Size(found) => format!("expected data of {} bytes, found {found}", link.size_bytes),
        };
        let digest = link.digest.to_string();
        let mut finding = Finding {
            kind: Kind::BrokenLink,
            repo: Some(repo.to_string()),
            digest: Some(digest.clone()),
            key: Storage::key_of(&Object::Link(link.clone(), repo.clone())),
            message,
            repaired: false,
            advice: String::new(),
        };
        match self.relinked(&link, &repo).await? {
            Some(done) => {
                self.broken.remove(&link);
                (finding.repaired, finding.advice) = (true, done);
            }
            None if what == Wrong::Gone => {
                finding.advice = "restore the data, or push the image again: clients upload what is missing".to_owned();
            }
            None => {
                finding.advice = format!(
                    "restore the data, or DELETE /v2/{repo}/blobs/{digest} and push the image again: clients upload only what the registry says it lacks"
                );
            }
        }
        self.find(finding);
        Ok(())
    }

    /// Whether the repository has the blob by another link as well.
    async fn has_other(&mut self, link: &Link, repo: &RepoName) -> Result<bool, AdminError> {
        self.report.checked.lists += 1;
        for other in self.admin.storage().links_in(repo, &link.digest).await? {
            if other.data == link.data {
                continue;
            }
            self.report.checked.looks += 1;
            let size = self.admin.storage().data_size(&other.data).await?;
            if self.weigh(&other, size).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
