//! The specifications as numbered requirements, and both products against real clients.
//!
//! The products are driven by their binaries and over HTTP, as their users drive them; no crate of theirs is used.
//!
//! - [`requirement`]: the table of requirements, each with the tests that hold it.
//! - [`target`], [`samples`], [`http`]: what any registry can be asked over HTTP. The `spec-tests` binary runs these cases
//!   against any URL, `cargo test` against a registry that it starts.
//! - [`program`], [`registry`], [`docker`], [`client`], [`folder`]: the binaries and the clients that the tests drive.
//! - [`stores`]: object stores to test against; [`proxy`]: what makes them fail.
//! - [`dockerfiles`]: the corpus of Dockerfiles, and the checklist of the language.
//! - [`grounds`]: where they are run: as root, as ordinary users, in containers of every kind.
//! - [`image`]: an independent reader of OCI layouts and layers, for comparing what was built with what came back.

pub mod client;
pub mod docker;
pub mod dockerfiles;
pub mod folder;
pub mod grounds;
pub mod http;
pub mod image;
pub mod program;
pub mod proxy;
pub mod registry;
pub mod requirement;
pub mod samples;
pub mod stores;
pub mod target;
