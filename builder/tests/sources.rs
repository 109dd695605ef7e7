//! Where contexts, Dockerfiles and fetched files come from: standard input, named contexts, servers of the test's own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "sources/arriving.rs"]
mod arriving;
#[path = "sources/at_once.rs"]
mod at_once;
#[path = "sources/contexts.rs"]
mod contexts;
#[path = "sources/git.rs"]
mod git;
#[path = "sources/http.rs"]
mod http;
#[path = "sources/indexes.rs"]
mod indexes;
#[path = "sources/interrupted.rs"]
mod interrupted;
#[path = "sources/late.rs"]
mod late;
#[path = "sources/named.rs"]
mod named;
#[path = "sources/place.rs"]
mod place;
#[path = "sources/pushed.rs"]
mod pushed;
#[path = "sources/repositories.rs"]
mod repositories;
#[path = "sources/server.rs"]
mod server;
#[path = "common/terminal.rs"]
mod terminal;
#[path = "common/user.rs"]
mod user;
