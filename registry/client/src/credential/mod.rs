//! Credentials: where they are found, and how they are stored and removed.
//!
//! Looked for in this order; the first place that has an entry for the registry wins:
//! 1. the file given by `--authfile`, and then nowhere else;
//! 2. the text of `DOCKER_AUTH_CONFIG`, which has the form of a `config.json`, and of which only `auths` counts;
//! 3. the file named by `REGISTRY_AUTH_FILE`, and then nowhere else;
//! 4. Docker's `config.json` in `DOCKER_CONFIG` or `~/.docker`;
//! 5. podman's `auth.json`: of the session (`$XDG_RUNTIME_DIR/containers`), then of the user (`~/.config/containers`).
//!
//! Within a file, a helper named for the registry (`credHelpers`) wins over the one for all (`credsStore`), and that
//! over the entries in the file (`auths`). A helper that is missing or fails is a note, not an end: a public image can
//! be pulled all the same, and if the registry does ask for credentials, the note is part of the error.

pub(crate) mod cloud;
mod file;
mod keyring;
mod program;

use std::fmt;
use std::path::PathBuf;

pub use keyring::{Erased, Found, Keyring, Lookup, Stored};

/// What proves who we are. `Debug` shows the user name only.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password (or an access token in its place).
    Password {
        /// The user's name.
        username: String,
        /// The secret.
        password: String,
    },
    /// A refresh token, to be exchanged at the token service by `POST`.
    IdentityToken(String),
    /// A token to be sent to the registry as it is.
    RegistryToken(String),
}

impl Credential {
    /// Who it is, in words without a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Password { username, .. } => format!("user `{}`", crate::quote::clean(username)),
            Self::IdentityToken(_) => "an identity token".to_owned(),
            Self::RegistryToken(_) => "a registry token".to_owned(),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.shown())
    }
}

/// Why credentials could not be read, stored or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file cannot be read or written.
    #[error("cannot {doing} the credentials file {}: {source}", .path.display())]
    File {
        /// `read`, `write`, ..
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("the credentials file {} cannot be used: {problem}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A helper program failed.
    #[error("the credential helper `{program}` named in {} failed: {problem}", .path.display())]
    Helper {
        /// The program.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no place to store credentials.
    #[error("there is no place for credentials: set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE, or give --authfile")]
    NoPlace,
    /// Only user name and password can be stored.
    #[error("only a user name with a password or token can be stored")]
    NotStorable,
}
