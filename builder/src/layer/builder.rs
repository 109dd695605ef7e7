//! Entries to a finished layer, in one pass: tar, its hash, compression, the blob and its hash, and the index.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::compress::Compressor;
use super::tap::IndexTap;
use super::{
    Change, Entry, Kind, Layer, LayerError, LayerIndex, LayerOptions, LayerPath, LayerSearch, Part, Source, TarWriter,
    Times,
};
use crate::blob::{BlobWriter, ContentHash, HashingWriter, Store, StoreError};

/// Writes one layer into a store. Dropping it before [`LayerBuilder::finish`] leaves nothing.
///
/// Entries come sorted by path, each path once, so that the bytes do not depend on chance; a folder of the layer comes
/// before what is in it. The index keeps the entries as they were given: where [`Times`] cuts or clamps what the layer
/// carries, the index still has the real times, from which snapshots are restored.
pub struct LayerBuilder {
    tar: TarWriter<HashingWriter<Compressor<BlobWriter>>>,
    store: Store,
    options: LayerOptions,
    tap: IndexTap,
    /// What looks for secrets.
    search: Option<LayerSearch>,
    /// Set while an entry is half written.
    broken: bool,
}

impl std::fmt::Debug for LayerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.tap.index().entries.len();
        f.debug_struct("LayerBuilder")
            .field("options", &self.options)
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl LayerBuilder {
    /// Starts a layer.
    pub fn new(store: &Store, options: LayerOptions) -> Result<Self, LayerError> {
        let blob = store.writer()?;
        let compressor = Compressor::new(blob, options.compression, options.threads)
            .map_err(|error| placed(store)(LayerError::Write(error)))?;
        Ok(Self {
            tar: TarWriter::new(HashingWriter::new(compressor)),
            store: store.clone(),
            options,
            tap: IndexTap::default(),
            search: None,
            broken: false,
        })
    }

    /// Which times the entries carry that are added from now on.
    pub fn set_times(&mut self, times: Times) {
        self.options.times = times;
    }

    /// Looks for secrets in all that is added from now on.
    pub fn set_search(&mut self, search: LayerSearch) {
        self.search = Some(search);
    }

    /// Ends the search, and gives what it came to.
    pub fn take_search(&mut self) -> Option<LayerSearch> {
        self.search.take()
    }

    /// Adds an entry with content from where `change` says.
    ///
    /// # Errors
    /// [`LayerError::Changed`] when a file is not what its entry and its expected hash say.
    pub fn add(&mut self, change: &Change) -> Result<(), LayerError> {
        match &change.source {
            Source::None => self.append(&change.entry, &mut io::empty()),
            Source::Bytes(bytes) => self.append(&change.entry, &mut &bytes[..]),
            Source::File { path, expected } => self.add_file(&change.entry, path, *expected),
        }
    }

    fn add_file(&mut self, entry: &Entry, path: &Path, expected: Option<ContentHash>) -> Result<(), LayerError> {
        let Kind::File { .. } = entry.kind else { return self.append(entry, &mut io::empty()) };
        let content = |source| LayerError::Content { path: path.to_owned(), source };
        let changed = |found| LayerError::Changed { path: path.to_owned(), expected, found };
        // A pipe that took the file's place must not be waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
        let file =
            opened.map_err(|error| LayerError::change_by(path, expected, &error).unwrap_or_else(|| content(error)))?;
        if !file.metadata().map_err(content)?.is_file() {
            return Err(changed("no regular file".to_owned()));
        }
        if let Some(search) = &mut self.search {
            search.look_into(entry, Part::all(&file), path)?;
        }
        let mut failing = Failing { inner: file, failure: None };
        let outcome = self.append(entry, &mut failing);
        if let Some(source) = failing.failure {
            return Err(content(source));
        }
        match outcome {
            Err(LayerError::Size { expected, found, .. }) => {
                let how = if found > expected { "more" } else { "fewer" };
                Err(changed(format!("{how} than its {expected} bytes")))
            }
            Err(error) => Err(error),
            Ok(()) => {
                let found = self.tap.index().entries.last().and_then(|last| last.content);
                if expected.is_some() && found != expected {
                    self.broken = true;
                    return Err(changed(found.map_or_else(String::new, |found| found.to_string())));
                }
                Ok(())
            }
        }
    }

    /// Adds a regular file whose content is a part of the file at `path`.
    ///
    /// # Errors
    /// As those of [`LayerBuilder::append`].
    pub fn append_part(&mut self, entry: &Entry, mut part: Part<'_>, path: &Path) -> Result<(), LayerError> {
        if let Some(search) = &mut self.search {
            search.look_into(entry, part, path)?;
        }
        self.append(entry, &mut part)
    }

    /// Adds an entry. A regular file's `content` must have exactly the bytes that its kind says; other kinds have none.
    ///
    /// # Errors
    /// After any error the layer cannot be finished.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), LayerError> {
        self.check_place(entry)?;
        if std::mem::replace(&mut self.broken, true) {
            return Err(LayerError::Unfinished);
        }
        let mut written = entry.clone();
        written.modified = self.options.times.apply(entry.modified);
        let Self { tar, store, tap, search, .. } = self;
        tar.header(&written).map_err(placed(store))?;
        let mut write = |content: &mut dyn Read| {
            tap.pass(entry, content, &mut |entry, content| tar.content(entry, content)).map_err(placed(store))
        };
        match search {
            None => write(content)?,
            Some(search) => search.entry(entry, content, &mut write)?,
        }
        self.broken = false;
        Ok(())
    }

    /// Whether `entry` may follow what is there.
    fn check_place(&self, entry: &Entry) -> Result<(), LayerError> {
        let entries = &self.tap.index().entries;
        if let Some(last) = entries.last()
            && last.entry.path >= entry.path
        {
            return Err(LayerError::Unsorted { path: entry.path.clone(), after: last.entry.path.clone() });
        }
        let parent = entry.path.parent();
        // Most entries follow another of the same folder.
        let is_checked = |last: &super::IndexEntry| last.entry.path.parent() == parent;
        if !entries.last().is_some_and(is_checked)
            && let Some(parent) = parent
            && let Some(folder) = find(self.tap.index(), &parent)
            && folder.kind != Kind::Directory
        {
            let reason = format!("{parent} is no folder in the same layer");
            return Err(LayerError::Unwritable { path: entry.path.clone(), reason });
        }
        if let Kind::Hardlink(target) = &entry.kind
            && !find(self.tap.index(), target).is_some_and(|first| matches!(first.kind, Kind::File { .. }))
        {
            return Err(LayerError::DanglingHardlink { path: entry.path.clone(), target: target.clone() });
        }
        Ok(())
    }

    /// Ends the layer and makes its blob visible.
    ///
    /// # Errors
    /// [`LayerError::Unfinished`] after an entry that failed.
    pub fn finish(self) -> Result<Layer, LayerError> {
        let Self { tar, store, options, tap, broken, .. } = self;
        if broken {
            return Err(LayerError::Unfinished);
        }
        let (compressor, diff_id, _) = tar.finish().map_err(placed(&store))?.finish();
        let blob = compressor.finish().map_err(|error| placed(&store)(LayerError::Write(error)))?;
        let info = blob.commit(None)?;
        Ok(Layer {
            diff_id,
            digest: info.digest,
            size_bytes: info.size_bytes,
            media_type: options.compression.media_type().to_owned(),
            index: tap.finish(),
        })
    }
}

/// Writes a whole layer. `changes` must be sorted by path.
pub fn write_layer<'a>(
    store: &Store,
    options: LayerOptions,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<Layer, LayerError> {
    let mut builder = LayerBuilder::new(store, options)?;
    for change in changes {
        builder.add(change)?;
    }
    builder.finish()
}

fn find<'a>(index: &'a LayerIndex, path: &LayerPath) -> Option<&'a Entry> {
    let at = index.entries.binary_search_by(|row| row.entry.path.cmp(path)).ok()?;
    Some(&index.entries[at].entry)
}

/// Gives a failure to write its place in the store.
fn placed(store: &Store) -> impl Fn(LayerError) -> LayerError {
    move |error| match error {
        LayerError::Write(source) => StoreError::io("writing a blob into", store.root(), source).into(),
        other => other,
    }
}

/// Keeps the error of a read, as the layer only knows that its content failed.
struct Failing<R> {
    inner: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failure = Some(error);
            }
            kind.into()
        })
    }
}

#[cfg(test)]
mod tests;
