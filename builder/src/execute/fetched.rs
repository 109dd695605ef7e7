//! What a step takes of contexts other than the build's own, and of what was fetched.

use std::sync::Arc;

use super::item::Content;
use super::select::{Selected, SelectedEntry};
use super::{Executor, StepError};
use crate::context::Context;
use crate::fetch::FetchedFile;
use crate::graph::{FetchOp, FolderId};
use crate::layer::{FileTime, Kind, Source};

/// Permission bits of a fetched file, as the reference gives them.
const MODE: u32 = 0o600;

impl Executor {
    /// The folder of a named context.
    pub(super) fn folder(&self, id: FolderId) -> Result<&Arc<Context>, StepError> {
        self.folders.get(id.0).ok_or_else(|| StepError::NotFetched { what: format!("named context {}", id.0) })
    }
}

/// What a step takes of a file that was fetched.
pub(super) fn selected_file(fetch: &FetchOp, file: &FetchedFile) -> Selected {
    let entry = SelectedEntry {
        relative: Vec::new(),
        kind: Kind::File { size_bytes: file.size_bytes },
        mode: MODE,
        owner: (0, 0),
        modified: FileTime { seconds: file.modified_seconds, nanoseconds: 0 },
        capability: None,
        content: Content::Source(Source::File { path: file.path.clone(), expected: None }),
        digest: None,
        same_file: None,
        is_way: false,
    };
    let name = match fetch {
        FetchOp::Url { file_name, .. } => file_name.clone().into_bytes(),
        FetchOp::Git { .. } | FetchOp::Given { .. } => b"context".to_vec(),
    };
    Selected { name, entries: vec![entry] }
}
