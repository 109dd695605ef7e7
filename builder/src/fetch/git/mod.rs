//! Git repositories.

mod address;

pub use address::{AddressError, GitAddress};
pub(super) use address::{hidden, is_repository};
