//! The registry from outside: its router without a socket, and its binary with one.

mod app;
mod binary;
mod blobs;
mod hostile;
mod layering;
mod manifests;
mod names;
mod uploads;
