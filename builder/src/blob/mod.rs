//! The store on disk: content by digest, every entry whole or not at all.
//!
//! ```text
//! <store>/format            {"layout":1}: what this tree looks like; a newer number is refused
//!         oci-layout        these three make the store an OCI image layout that other tools read in place
//!         index.json        names (`-t`) to descriptors; changed by rename under `index.lock`
//!         blobs/<algorithm>/<hex>
//!         locks             a byte an entry, locked by who uses the entry; see `holds`
//!         tmp/<process>/    what is being written; one locked folder a process, so that leftovers of a dead one are known
//!                      trash/   what is being removed; see `trash`
//! ```
//!
//! Other rooms keep their own folders beside these (`layers`, `records`, `indexes`) and write them with
//! [`Store::write_entry`]. An entry is written and synced under `tmp/` and then renamed, so a process that is killed at
//! any moment leaves only `tmp/` behind. What is cheaply made again, and looked at before it is believed, is not synced
//! ([`Store::write_hint`]), and the folders of blobs are synced before a name is written, not for each blob. Writers of the
//! same digest do not disturb each other: the last rename wins and the bytes are the same.

mod arrival;
mod content;
mod digest;
mod error;
mod holds;
mod names;
mod place;
mod range_lock;
mod removal;
mod room;
mod scratch;
mod store;
mod trash;
mod writer;

pub use arrival::{Arrival, Arriving, ArrivingBlob};
pub use content::{ContentHash, ContentHasher};
pub use digest::{Hasher, HashingReader, HashingWriter, sha256};
pub use error::StoreError;
pub use removal::remove_tree;
pub use room::{Room, is_about_the_path, is_disk_full, is_quota_exceeded};
pub use scratch::lock_leftover;
pub use store::{Store, VerifiedBlob};
pub use trash::{Temporary, Trash};
pub use writer::{BlobInfo, BlobWriter};
