//! The store's protocol, as explicit state machines without I/O.
//!
//! Each operation is a value: `step` takes the replies to the requests it asked for last and returns the next requests,
//! or the outcome. Requests of one step do not depend on each other and go out together. Repository, digests and
//! nonces are arguments; no clock, no randomness, no store. Whoever has a store can drive them: the service does, the
//! tests beside this file do over a set of objects in memory with every step of several operations interleaved.
//!
//! What makes it safe (four rules):
//! 1. Nothing is ever overwritten: every object has a key that nobody else uses.
//! 2. Reference, then confirm: a reference is written first, then the marks are read, *then* what it refers to is seen
//!    to be there. Only then is the client told yes.
//! 3. Only collectors delete what may have content; a failing operation leaves garbage and a hint.
//! 4. A mark belongs to the run of a collector that wrote it.
//!
//! What it does not promise (the model's `s17` shows it): a link that a collector removed comes back by a repetition of its PUT,
//! and a manifest that knew it relies on it while another collector takes the data. A link is removed a grace time (a day)
//! after it was written at the earliest, so that repetition is older than that, and stores refuse requests that were signed a
//! quarter of an hour ago. Reading the marks once more after the links were listed again would close it, at the price of one
//! request and one round trip for each manifest: not worth it.

mod claim;
mod collect;
mod confirm;
mod delete;
mod find;
mod link;
mod machine;
mod manifest;
mod mutation;
mod object;
mod see;
mod tag;
#[cfg(test)]
mod tests;
mod undo;

pub use claim::ClaimUpload;
pub use collect::{Collect, CollectPlan, Collected, Keeper, RemoveMark};
pub use delete::{DeleteBlob, DeleteManifest, DeleteTag};
pub use find::{FindBlob, FindCopies, FindTag};
pub use link::{FinishUpload, LinkTo, Mount};
pub use machine::{Machine, Marks, Next, Replies, Reply, Request};
pub use manifest::{PutManifest, PutOutcome, PutPlan};
pub use object::{Copy, DataId, HistoryItem, Link, Named, Nonce, Nonces, Object, RepoHash, TagEnd, TagEntry, TagItems};
pub use undo::{Undo, UndoOutcome};

/// What the service leaves out in tests.
pub(crate) use mutation::{Mutation, mutated};
/// What the simulation leaves out too.
#[cfg(test)]
pub(crate) use {mutation::with, tests::BREAKS};
