//! Who may do what. Every operation of the service takes a proof, and only this room can make one, so no handler reaches
//! the store without having asked here.

use crate::spec::RepoName;

/// Leave to read from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayPull(RepoName);

/// Leave to write to one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayPush(RepoName);

/// Leave to delete from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayDelete(RepoName);

/// Leave to see the names of repositories, of those that [`MayList::shows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayList(());

macro_rules! of_one_repository {
    ($($proof:ty),*) => {$(
        impl $proof {
            /// The repository that it is for.
            pub fn repo(&self) -> &RepoName { &self.0 }
        }
    )*};
}
of_one_repository!(MayPull, MayPush, MayDelete);

impl MayList {
    /// Whether whoever asked may know of this repository.
    pub fn shows(&self, _repo: &RepoName) -> bool {
        true
    }
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} is not allowed{}", repo.as_ref().map(|repo| format!(" in repository {repo}")).unwrap_or_default())]
pub struct Denied {
    /// pull, push, delete, or list.
    pub action: &'static str,
    /// Where.
    pub repo: Option<RepoName>,
}

/// Decides. There is one policy so far: everybody may do everything.
#[derive(Clone, Debug)]
pub enum Authorizer {
    /// Whoever reaches the port.
    Everyone,
}

impl Authorizer {
    /// May the caller read from `repo`?
    pub fn pull(&self, repo: &RepoName) -> Result<MayPull, Denied> {
        match self {
            Self::Everyone => Ok(MayPull(repo.clone())),
        }
    }

    /// May the caller write to `repo`?
    pub fn push(&self, repo: &RepoName) -> Result<MayPush, Denied> {
        match self {
            Self::Everyone => Ok(MayPush(repo.clone())),
        }
    }

    /// May the caller delete from `repo`?
    pub fn delete(&self, repo: &RepoName) -> Result<MayDelete, Denied> {
        match self {
            Self::Everyone => Ok(MayDelete(repo.clone())),
        }
    }

    /// May the caller see names of repositories?
    pub fn list(&self) -> Result<MayList, Denied> {
        match self {
            Self::Everyone => Ok(MayList(())),
        }
    }
}
