//! The specification tests: one binary, a module for each block of `spec-tests/run`.

mod http;
mod requirements;
