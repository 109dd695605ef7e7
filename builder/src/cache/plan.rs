//! Plan keys: what an operation does and, by their own plan keys, what it does it to.
//!
//! They are known for the whole graph before anything is fetched or run, and find the *whole* chain of layers that one
//! build made. That is more and less than a result key says (see `key`): a base that only grew a file below an untouched
//! `COPY` changes its plan key, and not its result key. A chain comes from one plan record or is put together by result
//! keys; parts of two plan records need not fit each other.

use serde::{Deserialize, Serialize};

use crate::blob::ContentHash;
use crate::graph::{Chmod, CopyOp, RunOp};
use crate::layer::Kind;

use super::key::{Fields, Key, Mode, run_fields};

/// The key of an operation's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanKey(Key);

impl PlanKey {
    /// Its form as a plain key.
    #[must_use]
    pub fn key(self) -> Key {
        self.0
    }

    /// Nothing (`FROM scratch`).
    #[must_use]
    pub fn scratch() -> Self {
        Self(Fields::new("plan/scratch/1").finish())
    }

    /// A base image, by its layers: which name it had does not matter.
    #[must_use]
    pub fn base(diff_ids: &[String]) -> Self {
        let mut fields = Fields::new("plan/base/1");
        fields.list(diff_ids);
        Self(fields.finish())
    }

    /// A `COPY`, `ADD` or `WORKDIR` of `source` on `below`.
    #[must_use]
    pub fn copy(op: &CopyOp, below: Self, source: &SourceKey) -> Self {
        let mut fields = Fields::new("plan/copy/5");
        fields.bytes(&below.0.bytes());
        match source {
            SourceKey::Nothing => fields.bytes(b"nothing"),
            SourceKey::Content(content) => fields.bytes(b"content").bytes(&content.bytes()),
            SourceKey::Root(root) => fields.bytes(b"root").bytes(&root.0.bytes()).list(&op.sources),
        };
        fields.bytes(op.destination.as_bytes()).number(u64::from(op.destination_is_directory));
        fields.bytes(op.chown.as_deref().unwrap_or_default().as_bytes()).number(u64::from(op.chown.is_some()));
        match &op.chmod {
            None => fields.number(0),
            Some(Chmod::Bits(bits)) => fields.number(1).number((*bits).into()),
            Some(Chmod::Symbolic(mode)) => fields.number(2).bytes(mode.text().as_bytes()),
        };
        fields.number(u64::from(op.link)).number(u64::from(op.parents)).number(u64::from(op.unpack));
        fields.list(&op.exclude).number(op.inline.len() as u64);
        for file in &op.inline {
            fields.bytes(file.name.as_bytes()).bytes(&file.content).number(file.mode.into());
        }
        Self(fields.finish())
    }

    /// A `RUN` on `below`. `mounted` are the roots that it mounts, in order; `before` are the earlier steps that wrote to a
    /// cache mount which it sees too.
    #[must_use]
    pub fn run(op: &RunOp, below: Self, mounted: &[SourceKey], before: &[Self], mode: Mode) -> Self {
        let mut fields = Fields::new("plan/run/3");
        fields.bytes(&below.0.bytes());
        run_fields(&mut fields, op, mode);
        fields.number(mounted.len() as u64);
        for source in mounted {
            match source {
                SourceKey::Nothing => fields.bytes(b"nothing"),
                SourceKey::Content(content) => fields.bytes(b"content").bytes(&content.bytes()),
                SourceKey::Root(root) => fields.bytes(b"root").bytes(&root.0.bytes()),
            };
        }
        fields.number(before.len() as u64);
        for earlier in before {
            fields.bytes(&earlier.0.bytes());
        }
        Self(fields.finish())
    }
}

/// Where a step takes files from, as far as its plan can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKey {
    /// Nowhere.
    Nothing,
    /// Files whose content is known.
    Content(Key),
    /// Another root file system.
    Root(PlanKey),
}

/// Hashes what a step selected from the context or holds itself: names, kinds, modes, link targets, capabilities, bytes and
/// which names are one file; never times.
#[derive(Clone, Debug)]
pub struct SelectionHasher(Fields);

impl Default for SelectionHasher {
    fn default() -> Self {
        Self(Fields::new("selection/2"))
    }
}

impl SelectionHasher {
    /// One more source, of so many entries.
    pub fn source(&mut self, name: &[u8], entries: usize) {
        self.0.bytes(name).number(entries as u64);
    }

    /// One more entry of the last source. `content` is that of a file; `same_file` numbers the files that have several
    /// names.
    pub fn entry(
        &mut self,
        relative: &[u8],
        kind: &Kind,
        mode: u32,
        capability: Option<&[u8]>,
        content: Option<ContentHash>,
        same_file: Option<u64>,
    ) {
        let fields = self.0.bytes(relative).kind(kind);
        fields.number(mode.into()).bytes(capability.unwrap_or_default());
        fields.content(content).number(same_file.map_or(0, |number| number + 1));
    }

    /// One more archive that the step unpacks, after so many of its other sources.
    pub fn archive(&mut self, content: ContentHash, after: usize) {
        self.0.bytes(b"archive").content(Some(content)).number(after as u64);
    }

    /// The key of it all.
    #[must_use]
    pub fn finish(self) -> Key {
        self.0.finish()
    }
}
