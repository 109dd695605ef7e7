//! The specification tests: one binary, a module for each block of `spec-tests/run`.
#![expect(
    clippy::unwrap_used,
    reason = "what these tests unwrap is their own doing: a panic is a failed test and says where"
)]

mod access;
mod adopt;
mod bad_input;
mod dockerfiles;
mod examples;
mod http;
mod image_spec;
mod kill;
mod memory;
mod mounts;
mod odd_layers;
mod packages;
mod replicas;
mod requirements;
mod round_trip;
mod rungs;
mod sample;
mod store_faults;
mod stores;
mod traps;
mod whole_programs;
