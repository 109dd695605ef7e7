//! Git repositories.

mod address;

pub(super) use address::is_repository;
pub use address::{AddressError, GitAddress};
