//! The registry from outside: its router without a socket, and its binary with one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod adopt;
mod app;
mod backup;
mod binary;
mod blobs;
mod budget;
mod clocked;
mod collect;
mod crash;
mod credentials;
mod explain;
mod fsck;
mod fuzz_seeds;
mod harbor;
mod history;
mod hostile;
mod layering;
mod manifests;
mod marks;
mod names;
mod object_store;
mod on_stores;
mod operate;
mod redirects;
mod referrers;
mod replicas;
mod small_disk;
mod sparse;
mod tls;
mod undo;
mod uploads;
mod watched;
mod wire;
