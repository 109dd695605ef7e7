//! Makes the index of a layer while its entries pass by.

use std::io::{self, Read};

use super::{
    ACCOUNTS_SIZE_MAX_BYTES, Entry, IndexEntry, Kind, LayerError, LayerIndex, Limits, Scan, is_account_file, read_layer,
};
use crate::blob::ContentHasher;

/// Collects entries, hashes of their content, and account files.
#[derive(Debug, Default)]
pub struct IndexTap {
    index: LayerIndex,
}

impl IndexTap {
    /// Adds `entry`; `inner` may read as much of its content as it wants, through the tap.
    ///
    /// # Errors
    /// Those of `inner`; and [`LayerError::Read`] when the rest of the content cannot be read.
    pub fn pass<E: From<LayerError>>(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        inner: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let Kind::File { size_bytes } = entry.kind else {
            self.index.entries.push(IndexEntry { entry: entry.clone(), content: None });
            return inner(entry, content);
        };
        let text = is_account_file(&entry.path) && size_bytes <= ACCOUNTS_SIZE_MAX_BYTES;
        let mut tapped = Tapped { content, hasher: ContentHasher::default(), text: text.then(Vec::new) };
        inner(entry, &mut tapped)?;
        io::copy(&mut tapped, &mut io::sink()).map_err(LayerError::Read)?;
        if let Some(text) = tapped.text {
            let text = String::from_utf8_lossy(&text).into_owned();
            self.index.accounts.insert(entry.path.clone(), text);
        }
        let content = Some(tapped.hasher.finish());
        self.index.entries.push(IndexEntry { entry: entry.clone(), content });
        Ok(())
    }

    /// What has been added so far.
    #[must_use]
    pub fn index(&self) -> &LayerIndex {
        &self.index
    }

    /// The index.
    #[must_use]
    pub fn finish(self) -> LayerIndex {
        self.index
    }
}

struct Tapped<'a> {
    content: &'a mut dyn Read,
    hasher: ContentHasher,
    text: Option<Vec<u8>>,
}

impl Read for Tapped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if let Some(text) = &mut self.text {
            text.extend_from_slice(&buffer[..count]);
        }
        Ok(count)
    }
}

/// Reads a layer for its index alone.
pub fn index_layer(reader: impl Read, media_type: &str, limits: &Limits) -> Result<(Scan, LayerIndex), LayerError> {
    let mut tap = IndexTap::default();
    let scan = read_layer(reader, media_type, limits, &mut |entry, content| {
        tap.pass::<LayerError>(entry, content, &mut |_, _| Ok(()))
    })?;
    Ok((scan, tap.finish()))
}
