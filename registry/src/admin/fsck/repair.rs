//! Repairs that are safe beside a server and whatever else goes on: entries that were to be written are written, and a
//! link without usable data is replaced by one to other data of the same digest, once that was read and compared.

use super::Run;
use super::data::hash;
use crate::admin::error::AdminError;
use crate::protocol::{DataId, Link, LinkTo, Machine, Next, Object, Replies, Request};
use crate::spec::{Descriptor, RepoName};
use crate::storage::Attachments;

impl Run<'_> {
    /// Replaces a link that has no usable data; what was done, or `None` when there is no other data of the digest.
    pub(super) async fn relinked(&mut self, link: &Link, repo: &RepoName) -> Result<Option<String>, AdminError> {
        if !self.plan.repair {
            return Ok(None);
        }
        let storage = self.admin.storage();
        let mut others: Vec<(DataId, u64)> = Vec::new();
        self.report.checked.lists += 1;
        for other in storage.all_links(&link.digest).await? {
            let is_new = !others.iter().any(|(data, _)| *data == other.data);
            if other.data != link.data && is_new && !self.damaged.contains(&other.data) {
                others.push((other.data, other.size_bytes));
            }
        }
        for (data, size_bytes) in others {
            let Some(hashed) = hash(storage, &data, std::slice::from_ref(&link.digest)).await? else { continue };
            self.report.checked.reads += 1;
            self.report.checked.hashed_bytes += hashed.read_bytes;
            if hashed.differs.is_some() || hashed.read_bytes != size_bytes {
                continue;
            }
            let relink = LinkTo::new(repo, &link.digest, data, size_bytes, &mut self.admin.nonces());
            if storage.run(relink, &Attachments::default()).await?.is_some() {
                // Not before the other one is confirmed: there is always one that counts.
                storage.remove(&[Object::Link(link.clone(), repo.clone())]).await?;
                return Ok(Some("linked other data of the same digest, which was read and compared".to_owned()));
            }
        }
        Ok(None)
    }

    /// Writes an entry that should be there; whether it did.
    pub(super) async fn written(&self, object: Object, descriptor: Option<&Descriptor>) -> Result<bool, AdminError> {
        if !self.plan.repair {
            return Ok(false);
        }
        // A descriptor always becomes JSON.
        let referrer = descriptor.and_then(|descriptor| serde_json::to_vec(descriptor).ok()).unwrap_or_default();
        let attachments = Attachments { referrer: referrer.into(), ..Default::default() };
        self.admin.storage().run(Write(Some(object)), &attachments).await?;
        Ok(true)
    }

    /// Tells a collector of something that counts for nothing; whether it did.
    pub(super) async fn hinted(&self, object: Object) -> Result<bool, AdminError> {
        let hint = Object::Hint(self.admin.nonces().take(), vec![object]);
        self.written(hint, None).await
    }
}

/// Writes one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write(Option<Object>);

impl Machine for Write {
    type Output = ();

    fn step(&mut self, _: Replies) -> Next<()> {
        match self.0.take() {
            Some(object) => Next::Ask(vec![Request::Write(object)]),
            None => Next::Done(()),
        }
    }
}
