//! The client against registries that misbehave on demand, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod credentials;
mod fixture;
mod hostile;
mod layering;
mod mirrors;
mod outages;
mod proxy;
mod pull;
mod push;
mod relay;
mod trust;
