//! Operators' orders: which tag, manifest or repository they are about.

use clap::Args;
use fluyt_registry::spec::{Digest, RepoName, Tag};

use super::StoreSettings;

/// A tag of a repository, as `REPO:TAG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagOf {
    /// The repository.
    pub(crate) repo: RepoName,
    /// The tag.
    pub(crate) tag: Tag,
}

impl TagOf {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((repo, tag)) = text.rsplit_once(':') else {
            return Err("expected REPO:TAG, such as team/app:v1".into());
        };
        Ok(Self { repo: repo_name(repo)?, tag: tag.parse().map_err(|error| format!("{error}"))? })
    }
}

fn repo_name(text: &str) -> Result<RepoName, String> {
    text.parse().map_err(|error| match text.contains(':') {
        true => format!("{error}; leave the registry's address away: the store is named by --store"),
        false => format!("{error}"),
    })
}

/// What a command about a tag's history takes.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The tag whose values are listed, as REPO:TAG.
    #[arg(value_name = "REPO:TAG", value_parser = TagOf::parse)]
    pub(crate) of: TagOf,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

/// Which tag goes back, and to what.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The tag, as REPO:TAG.
    #[arg(value_name = "REPO:TAG", value_parser = TagOf::parse)]
    pub(crate) of: TagOf,

    /// The value to go back to: an id of `history`, a digest, or the first six digits of one or more.
    #[arg(long, value_name = "ID")]
    pub(crate) to: Option<String>,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

/// A manifest or blob of a repository, as `REPO@DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentOf {
    /// The repository.
    pub(crate) repo: RepoName,
    /// The manifest or blob.
    pub(crate) digest: Digest,
}

impl ContentOf {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((repo, digest)) = text.split_once('@') else {
            return Err("expected REPO@DIGEST, such as team/app@sha256:<64 hex digits>".into());
        };
        Ok(Self { repo: repo_name(repo)?, digest: digest.parse().map_err(|error| format!("{error}"))? })
    }
}

/// What is to be explained.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The manifest or blob, as REPO@DIGEST.
    #[arg(value_name = "REPO@DIGEST", value_parser = ContentOf::parse)]
    pub(crate) of: ContentOf,

    /// How many days the value of a tag is kept after it was replaced.
    #[arg(long, env = "FLUYT_REGISTRY_HISTORY_DAYS", value_name = "DAYS", default_value_t = 30)]
    pub(crate) history_days: u32,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

/// How a store is checked.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Read all data too, and compare its digests.
    #[arg(long)]
    pub(crate) rehash: bool,

    /// Repair what can be repaired safely.
    #[arg(long)]
    pub(crate) repair: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

/// What is to be emptied.
#[derive(Debug, Args)]
pub(crate) struct DeleteRepository {
    /// The repository.
    #[arg(value_name = "REPO", value_parser = repo_name)]
    pub(crate) repo: RepoName,

    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_repositories() {
        let of = TagOf::parse("team/app:v1").unwrap();
        assert_eq!((of.repo.as_str(), of.tag.as_str()), ("team/app", "v1"));
        assert!(TagOf::parse("team/app").unwrap_err().contains("expected REPO:TAG"));
        assert!(TagOf::parse("localhost:5000/team/app:v1").unwrap_err().contains("leave the registry's address away"));
        assert!(TagOf::parse("app:.x").unwrap_err().contains("is not a tag"));
    }
}
