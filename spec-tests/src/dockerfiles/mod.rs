//! The corpus: small Dockerfiles, each with what it must come to, and the checklist of the language that they show.
//!
//! `dockerfiles/README.md` says what a case consists of. A case is built by `fluyt` and compared with its expectation, and,
//! by the differential runner, with what `BuildKit` makes of it.

mod build;
mod buildkit;
mod case;
mod differential;
mod listing;
mod rig;
mod rungs;

pub use build::{Built, bless, check, differing, fluyt, fluyt_on};
pub use buildkit::Buildkit;
pub use case::{Case, Checklist};
pub use differential::{Difference, Listed, compare};
pub use listing::{Description, describe, tree};
pub use rig::Rig;
pub use rungs::{Exception, Exceptions};
