//! What operators are told when something cannot be done.

use super::control::Refusal;
use crate::service::RegistryError;
use crate::spec::{Digest, RepoName, Tag};
use crate::storage::StorageError;

/// Why an operator's order was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No such repository.
    #[error("there is no repository {repo}: nothing was ever pushed to it{}", suggestion(near))]
    NoRepository {
        /// Which.
        repo: RepoName,
        /// Names like it.
        near: Vec<String>,
    },
    /// No such tag, now or in the past.
    #[error("repository {repo} has no tag {tag}, and its history knows of none{}", suggestion(near))]
    NoTag {
        /// Where.
        repo: RepoName,
        /// Which.
        tag: Tag,
        /// Names like it.
        near: Vec<String>,
    },
    /// No value with this id or digest.
    #[error("{repo}:{tag} never had a value `{wanted}`: `history {repo}:{tag}` shows its values and their ids")]
    NoValue {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// The id or digest.
        wanted: String,
    },
    /// Several values with this id.
    #[error("`{wanted}` names several values of {repo}:{tag}: use one of {}", ids.join(", "))]
    SeveralValues {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// What was given.
        wanted: String,
        /// What names one.
        ids: Vec<String>,
    },
    /// There is only one value.
    #[error("{repo}:{tag} has no earlier value to go back to: {digest} is the only one that its history knows")]
    NothingBefore {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// The value it has.
        digest: Digest,
    },
    /// The value's manifest is gone.
    #[error(
        "value {id} of {repo}:{tag} cannot come back: its manifest {digest} was deleted{}",
        others(repo, tag, there)
    )]
    ValueGone {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// The value's id.
        id: String,
        /// The value.
        digest: Digest,
        /// Ids of values that can come back.
        there: Vec<String>,
    },
    /// The tag has this value.
    #[error("{repo}:{tag} is {digest} already: nothing was changed")]
    AlreadySo {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// The value.
        digest: Digest,
    },
    /// Nothing by this digest is known.
    #[error("repository {repo} has nothing by the digest {digest}, and no record tells that it ever had")]
    NothingKnown {
        /// Where.
        repo: RepoName,
        /// What.
        digest: Digest,
    },
    /// The value's manifest is there, and something that it names is not.
    #[error(
        "value {id} of {repo}:{tag} cannot come back: its manifest {digest} is there, and {} is not: push {repo}:{tag} again",
        missing.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
    )]
    ValueBroken {
        /// Where.
        repo: RepoName,
        /// Which tag.
        tag: Tag,
        /// The value's id.
        id: String,
        /// The value.
        digest: Digest,
        /// What is missing.
        missing: Vec<Digest>,
    },
    /// The service refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Storage(error) | AdminError::Registry(RegistryError::Storage(error)) => {
                Self::environment(error)
            }
            error => Self::user(error),
        }
    }
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}

fn others(repo: &RepoName, tag: &Tag, there: &[String]) -> String {
    match there {
        [] => format!(", and no other value of it is left: push {repo}:{tag} again"),
        there => format!("; still there: {} (choose one with --to)", there.join(", ")),
    }
}
