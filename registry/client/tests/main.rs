//! The client against registries that misbehave on demand, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;
mod layering;
mod pull;
mod push;
