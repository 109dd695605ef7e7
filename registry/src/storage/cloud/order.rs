//! Stores that list in another order than that of bytes.
//!
//! S3, GCS and Azure list `a!` before `a/b`, as bytes compare. Servers that keep a folder for each segment of a key
//! (SeaweedFS, some that store on a file system) list the folder `a` first, with all that is in it. Pages that begin after a
//! key would then leave keys out. Which of the two a server is cannot be told from lists that happen to be sorted, so on
//! servers that are not the providers' own two small objects stay in the store for it, `order-probe/a!` and
//! `order-probe/a/b`, and are listed at each start.
//!
//! On such a server every page is cut from the whole list, which costs a request for each 1,000 keys below the prefix. Most
//! of the registry's lists are shorter than that; the catalog of a large registry is not.

use object_store::list::{PaginatedListOptions, PaginatedListResult};
use object_store::{ObjectMeta, ObjectStoreExt, Result};

use super::Cloud;
use crate::storage::keys;

/// How a server's lists are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Order {
    /// By the bytes of keys.
    Bytes,
    /// By the bytes of the first segment, then of the second, and so on; or in a way that is not known.
    Other,
}

impl Cloud {
    /// Finds out how the store sorts, by what an earlier start left for it, or by leaving it.
    pub(super) async fn find_order(&self) -> Result<Order> {
        let mut found = self.probes().await?;
        if found.len() < keys::ORDER_PROBES.len() {
            for key in keys::ORDER_PROBES {
                // Whoever may not write need not know: taking the order for unknown is right on every store.
                if self.put(&keys::path(key)?, "x".into()).await.is_err() {
                    return Ok(Order::Other);
                }
            }
            found = self.probes().await?;
        }
        Ok(if found == keys::ORDER_PROBES { Order::Bytes } else { Order::Other })
    }

    async fn probes(&self) -> Result<Vec<String>> {
        let page = self.driver().list_paginated(Some(&self.full(keys::ORDER_PROBE)), Default::default()).await?;
        page.result.objects.iter().map(|object| self.outside(&object.location).map(String::from)).collect()
    }

    /// A page in the order of bytes from a store that has another. Its token is its last key.
    pub(super) async fn sorted_page(
        &self,
        prefix: &str,
        after: Option<String>,
        max: usize,
    ) -> Result<PaginatedListResult> {
        let mut all: Vec<ObjectMeta> = Vec::new();
        let mut token = None;
        let mut page = loop {
            let options = PaginatedListOptions { page_token: token, ..Default::default() };
            let mut page = self.driver().list_paginated(Some(prefix), options).await?;
            let ours = |object: &ObjectMeta| after.as_deref().is_none_or(|after| object.location.as_ref() > after);
            all.extend(page.result.objects.drain(..).filter(ours));
            match page.page_token.take() {
                Some(next) => token = Some(next),
                None => break page,
            }
        };
        // Pages of such a store may overlap at the file that has a folder's name.
        all.sort_by(|a, b| a.location.cmp(&b.location));
        all.dedup_by(|a, b| a.location == b.location);
        let more = all.len() > max;
        all.truncate(max);
        page.page_token = all.last().filter(|_| more).map(|last| last.location.to_string());
        page.result.objects = all;
        Ok(page)
    }
}
