//! Files out of layers, into one temporary file of the step.
//!
//! A layer is a stream, and the entries of a copy stand in another order than in it; so what is wanted of each layer is
//! read in one pass and kept beside, back to back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::item::{Content, Items};
use super::{Executor, RootState, StepError};
use crate::blob::Store;
use crate::event::StepId;
use crate::layer::{Entry, Kind, LayerPath, Limits, Part, read_layer};
use crate::stop::Cancel;

/// Length of what is copied at once, in bytes: some hundredths of a second on a slow disk.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A temporary file that holds contents back to back. It has no name: it goes with its handle.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    path: PathBuf,
}

impl Spool {
    pub(super) fn create(store: &Store) -> Result<Self, StepError> {
        let path = store.temporary()?.join("spool");
        let make = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = make().map_err(|source| StepError::Temporary { path: path.clone(), source })?;
        Ok(Self { file, path })
    }

    /// Keeps all that `content` gives; says where it starts.
    ///
    /// # Errors
    /// When the content cannot be read or the file not written; the two cannot be told apart here, and a full disk is
    /// by far the more common.
    pub(super) fn keep(&mut self, content: &mut dyn Read) -> Result<u64, StepError> {
        let failed = |source| StepError::Temporary { path: self.path.clone(), source };
        let offset = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        io::copy(content, &mut self.file).map_err(failed)?;
        Ok(offset)
    }

    /// A part of what was kept.
    pub(super) fn part(&self, offset_bytes: u64, size_bytes: u64) -> Part<'_> {
        Part::of(&self.file, offset_bytes, size_bytes)
    }

    /// Copies a part into a file. The kernel does it where it can, in pieces, so that the build can be stopped in between.
    ///
    /// # Errors
    /// Those of both files; any once the build is stopped.
    pub(super) fn copy(&self, offset_bytes: u64, size_bytes: u64, mut to: &File, cancel: &Cancel) -> io::Result<()> {
        let (mut from, mut left_bytes) = (&self.file, size_bytes);
        from.seek(SeekFrom::Start(offset_bytes))?;
        while left_bytes > 0 {
            cancel.check()?;
            match io::copy(&mut from.take(left_bytes.min(PIECE_BYTES)), &mut to)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left_bytes -= count,
            }
        }
        Ok(())
    }

    /// Where it was, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Executor {
    /// Replaces contents that lie in layers of `state` by parts of `spool`.
    pub(super) fn extract(
        &self,
        step: StepId,
        mut items: Items,
        state: &RootState,
        spool: &mut Spool,
    ) -> Result<Items, StepError> {
        for layer in &state.layers {
            let mut wanted: BTreeMap<LayerPath, Option<u64>> = items
                .iter()
                .filter_map(|item| match &item.content {
                    Content::Layer { diff_id, path } if *diff_id == layer.diff_id => Some((path.clone(), None)),
                    _ => None,
                })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            self.ensure_blob(step, layer)?;
            let blob = self.store.open_verified(&layer.digest)?;
            let mut keep = |entry: &Entry, content: &mut dyn Read| -> Result<(), StepError> {
                // The last entry of a path counts, as it does when a layer is unpacked.
                if let Some(place) = wanted.get_mut(&entry.path)
                    && matches!(entry.kind, Kind::File { .. })
                {
                    *place = Some(spool.keep(content)?);
                }
                Ok(())
            };
            read_layer(blob, &layer.media_type, &Limits::DEFAULT, &mut keep)?;
            for item in items.iter_mut() {
                let Content::Layer { diff_id, path } = &item.content else { continue };
                if *diff_id != layer.diff_id {
                    continue;
                }
                let Some(offset_bytes) = wanted.get(path).copied().flatten() else {
                    return Err(StepError::IndexMismatch { diff_id: diff_id.to_string(), path: path.to_string() });
                };
                item.content = Content::Spooled { offset_bytes };
            }
        }
        Ok(items)
    }
}
