//! Git repositories, fetched by the git program.
//!
//! # Why the program
//!
//! What is needed of git is all of its outside: four transports, protocol versions, shallow fetches with their fall-backs,
//! submodules, line ends and filters of a check-out, ssh with its agents and known hosts. `libgit2` does not fetch shallowly
//! over every transport and brings C code and a second TLS stack; `gitoxide` fetches over HTTP well, has no submodule update
//! and its check-out is young. The program is what the reference runs, is wherever repositories are built, and is run so that
//! nothing of the machine's configuration changes what comes (see `program`).

mod address;
mod error;
mod program;
mod repository;

pub(super) use address::is_repository;
pub use address::{AddressError, GitAddress};
pub use error::GitError;
pub use repository::{GitRequest, git, last_of_git};
