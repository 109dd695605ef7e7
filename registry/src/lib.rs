//! `fluyt-registry`: stores and serves images over the OCI distribution API.
//!
//! ```text
//!                           admin (what operators do besides)
//!                             v                       adopt (another registry's store) -> protocol
//! http -> auth (a proof) -> service -> protocol (state machines) -> storage -> a folder, or memory
//!                                      spec (names, digests, manifests), below all
//! ```
//! A request goes down once and its answer comes up once. `spec` and `protocol` are pure; only `storage` knows
//! `object_store`, only `http` knows HTTP, and no handler reaches the store without a proof that `auth` gave it. The test
//! `layering` keeps it so.

pub mod admin;
pub mod adopt;
pub mod auth;
pub mod collect;
pub mod http;
pub mod metrics;
pub mod protocol;
pub mod service;
/// The randomised simulation of all rooms at once. It is here so that it can leave out steps of the protocol, and so that
/// it is built optimised together with the protocol's model.
#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
pub mod spec;
pub mod storage;
