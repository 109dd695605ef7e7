//! Lists of names: tags and repositories.

use super::Registry;
use super::error::RegistryError;
use crate::auth::{MayList, MayPull};
use crate::spec::{RepoName, Tag};
use crate::storage::Page;

impl Registry {
    /// Tags of a repository, in order.
    pub async fn tags(&self, pull: &MayPull, last: Option<&str>, max: usize) -> Result<Page<Tag>, RegistryError> {
        let page = self.storage.tag_names(pull.repo(), last, max).await?;
        if page.items.is_empty() && !self.storage.exists(pull.repo()).await? {
            return Err(RegistryError::NameUnknown { repo: pull.repo().clone() });
        }
        Ok(page)
    }

    /// Repositories, in order.
    pub async fn repositories(
        &self,
        list: &MayList,
        last: Option<&str>,
        max: usize,
    ) -> Result<Page<RepoName>, RegistryError> {
        Ok(self.storage.repo_names(last, max, |repo| list.shows(repo)).await?)
    }
}
