//! Who may do what. Every operation of the service takes a proof, and only this room can make one, so no handler reaches
//! the store without having asked here.

use std::fmt;

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

/// What a client shows of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// What proves it.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password stays out of every log.
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Who asks: made by [`Authorizer::identify`], or, for the commands, by [`Caller::operator`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Identity);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    Anonymous,
    Operator,
}

impl Caller {
    /// Whoever runs a command on the machine of the registry. May do everything.
    pub fn operator() -> Self {
        Self(Identity::Operator)
    }

    /// Somebody who showed nothing.
    pub fn anonymous() -> Self {
        Self(Identity::Anonymous)
    }

    /// The name to put down in logs and histories.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Identity::Anonymous => None,
            Identity::Operator => Some("operator"),
        }
    }
}

/// Why nobody was identified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The credentials are wrong, or are needed and missing.
    #[error("the user or the password is wrong: log in again")]
    Wrong,
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
    /// Who is it? Asked once for each request, before any proof.
    pub async fn identify(&self, _given: Option<Credentials>) -> Result<Caller, AuthError> {
        match self {
            Self::Everyone => Ok(Caller::anonymous()),
        }
    }

    /// May the caller read from `repo`?
    pub fn pull(&self, _caller: &Caller, repo: &RepoName) -> Result<MayPull, Denied> {
        match self {
            Self::Everyone => Ok(MayPull(repo.clone())),
        }
    }

    /// May the caller write to `repo`?
    pub fn push(&self, _caller: &Caller, repo: &RepoName) -> Result<MayPush, Denied> {
        match self {
            Self::Everyone => Ok(MayPush(repo.clone())),
        }
    }

    /// May the caller delete from `repo`?
    pub fn delete(&self, _caller: &Caller, repo: &RepoName) -> Result<MayDelete, Denied> {
        match self {
            Self::Everyone => Ok(MayDelete(repo.clone())),
        }
    }

    /// May the caller see names of repositories?
    pub fn list(&self, _caller: &Caller) -> Result<MayList, Denied> {
        match self {
            Self::Everyone => Ok(MayList(())),
        }
    }
}
