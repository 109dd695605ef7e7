//! `fluyt`: turns a Dockerfile into a content-addressed, layered image.
//!
//! ```text
//! Dockerfile text -> syntax tree -> build graph -> cache keys -> (hit: records) -> steps on snapshots
//!     -> layer changes -> tar -> {diff id, compress, digest} -> blob store -> config + manifest -> push / load / files
//! ```
//!
//! What is built otherwise than by `BuildKit`, and why, stands in `DIFFERENCES.md` beside this crate's manifest.
//!
//! Rooms, lowest first; each uses only the rooms above it in this list (`tests/layering.rs` holds the exact table):

pub mod event;
pub mod notation;

pub mod blob;
pub mod dockerfile;
pub mod owners;
pub mod sandbox;
pub mod secrets;
pub mod snapshot;
pub mod ssh_agent;
pub mod stop;
pub mod suspects;
pub mod task;

pub mod context;
pub mod image;
pub mod layer;

pub mod fetch;
pub mod graph;
pub mod remote;

pub mod cache;
pub mod cache_mount;
pub mod execute;
pub mod export;
pub mod prune;

pub mod pipeline;

pub mod cli;
