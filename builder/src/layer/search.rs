//! Looks for secrets in the entries of a layer, in the pass that writes or reads it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{Entry, Kind, LayerError, Limits, Part, read_layer};
use crate::secrets::{Found, Nested, Search, Stream, holds_others, search_nested};

/// The search in one layer.
#[derive(Debug)]
pub struct LayerSearch {
    search: Arc<Search>,
    nested: bool,
    refuses: bool,
    held: Option<LayerError>,
    not_searched: Vec<String>,
}

impl LayerSearch {
    /// With `nested`, files are looked into that are archives or compressed, and what tools broke into lines is put
    /// together. With `refuses`, an entry that holds a secret fails the layer; otherwise it is only told at the end.
    #[must_use]
    pub fn new(search: Arc<Search>, nested: bool, refuses: bool) -> Self {
        Self { search, nested, refuses, held: None, not_searched: Vec::new() }
    }

    /// The first entry that holds a secret, as the error that it would have been.
    #[must_use]
    pub fn held(&self) -> Option<&LayerError> {
        self.held.as_ref()
    }

    /// What could not be looked into, and why: a sentence each.
    #[must_use]
    pub fn not_searched(&self) -> &[String] {
        &self.not_searched
    }

    fn meet(
        &mut self,
        entry: &Entry,
        part: &'static str,
        inside: Option<String>,
        found: Found,
    ) -> Result<(), LayerError> {
        let error = LayerError::Secret { path: entry.path.clone(), part, inside, found };
        if self.refuses {
            return Err(error);
        }
        self.held.get_or_insert(error);
        Ok(())
    }

    /// Looks at an entry, and at its content while `pass` reads that.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        pass: &mut dyn FnMut(&mut dyn Read) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        if let Some((part, found)) = in_header(&self.search, entry) {
            self.meet(entry, part, None, found)?;
        }
        let search = self.search.clone();
        let mut searched = Searched { inner: content, stream: search.stream(self.nested), found: None };
        pass(&mut searched)?;
        match searched.found {
            Some(found) => self.meet(entry, "", None, found),
            None => Ok(()),
        }
    }

    /// Looks into the content of an entry, where it is an archive or compressed. It lies in the file at `path`.
    pub(super) fn look_into(&mut self, entry: &Entry, mut file: Part<'_>, path: &Path) -> Result<(), LayerError> {
        let content = |source| LayerError::Content { path: path.to_owned(), source };
        if !self.nested {
            return Ok(());
        }
        let (mut head, mut begin) = ([0; 512], file);
        let count = begin.read(&mut head).map_err(content)?;
        if !holds_others(&head[..count]) {
            return Ok(());
        }
        self.unpacked(entry, &mut file)
    }

    fn unpacked(&mut self, entry: &Entry, file: &mut dyn Read) -> Result<(), LayerError> {
        match search_nested(&self.search, file) {
            Nested::Clean => Ok(()),
            Nested::Not { inside, why } => {
                let inside = if inside.is_empty() { String::new() } else { format!(" (in it {inside})") };
                self.not_searched.push(format!("{}{inside} {why}: no secrets were looked for in it", entry.path));
                Ok(())
            }
            Nested::Held { inside, found } => {
                let inside = if inside.is_empty() { "unpacked".to_owned() } else { format!("in it {inside}") };
                self.meet(entry, "", Some(inside), found)
            }
        }
    }

    /// Looks at all entries of a layer that is there.
    ///
    /// # Errors
    /// [`LayerError::Secret`] where it refuses; what reading a layer fails with.
    pub fn layer(&mut self, blob: impl Read, media_type: &str) -> Result<(), LayerError> {
        read_layer(blob, media_type, &Limits::DEFAULT, &mut |entry, content| {
            let mut unpacked = Ok(());
            let mut inside = Self::new(self.search.clone(), true, true);
            let nested = self.nested;
            self.entry(entry, content, &mut |content| {
                if nested {
                    unpacked = inside.unpacked(entry, content);
                }
                io::copy(content, &mut io::sink()).map_err(LayerError::Read).map(drop)
            })?;
            self.not_searched.append(&mut inside.not_searched);
            match unpacked {
                Err(LayerError::Secret { path: _, part, inside, found }) => self.meet(entry, part, inside, found),
                outcome => outcome,
            }
        })
        .map(drop)
    }
}

/// The first secret in what stands before an entry's content, and where it stands there.
fn in_header(search: &Search, entry: &Entry) -> Option<(&'static str, Found)> {
    let attributes = entry.xattrs.iter().flat_map(|(name, value)| [name, value]);
    let target = match &entry.kind {
        Kind::Symlink(target) => Some(&target[..]),
        _ => None,
    };
    let mut parts = std::iter::once(("the name of ", entry.path.as_bytes()))
        .chain(target.map(|target| ("the target of the link ", target)))
        .chain(attributes.map(|text| ("an extended attribute of ", &text[..])));
    parts.find_map(|(part, text)| Some((part, search.find(text)?)))
}

/// Looks for secrets in what is read.
struct Searched<'a> {
    inner: &'a mut dyn Read,
    stream: Stream<'a>,
    found: Option<Found>,
}

impl Read for Searched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.found.is_none() {
            self.found = self.stream.push(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Store;
    use crate::layer::{Change, Layer, LayerBuilder, LayerOptions, Source, sample};
    use crate::secrets::Secret;

    const TOKEN: &[u8] = b"tok_0123456789";

    fn search(nested: bool, refuses: bool) -> LayerSearch {
        let secrets = [("npm".to_owned(), Secret::of(TOKEN))].into_iter().collect();
        LayerSearch::new(Arc::new(Search::new(&secrets).unwrap()), nested, refuses)
    }

    fn gzip() -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut writer, TOKEN).unwrap();
        writer.finish().unwrap()
    }

    /// Writes a layer under a search; gives what the search told, or the error.
    fn written(store: &Store, changes: &[Change], search: Option<LayerSearch>) -> Result<(Layer, String), LayerError> {
        let mut builder = LayerBuilder::new(store, LayerOptions::default())?;
        search.into_iter().for_each(|search| builder.set_search(search));
        changes.iter().try_for_each(|change| builder.add(change))?;
        let told = builder.take_search().and_then(|search| search.held().map(ToString::to_string));
        Ok((builder.finish()?, told.unwrap_or_default()))
    }

    #[test]
    fn a_layer_is_refused_or_told_of_when_written_and_when_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut attribute = sample::file("a", b"1");
        attribute.entry.xattrs.insert(b"user.x".to_vec(), TOKEN.to_vec());
        let path = folder.path().join("x.gz");
        std::fs::write(&path, gzip()).unwrap();
        let mut packed = sample::file("x.gz", &gzip());
        packed.source = Source::File { path, expected: None };
        let cases = [
            (sample::file("f", &[&[b'-'; 100_000][..], TOKEN].concat()), "/f holds the secret `npm`"),
            (
                sample::file(std::str::from_utf8(TOKEN).unwrap(), b""),
                "the name of /tok_0123456789 holds the secret `npm`",
            ),
            (attribute, "an extended attribute of /a holds the secret `npm`"),
            (packed, "/x.gz (unpacked) holds the secret `npm`"),
        ];
        for (change, expected) in cases {
            let changes = [change, sample::file("z", b"last")];
            assert_eq!(written(&store, &changes, Some(search(true, true))).unwrap_err().to_string(), expected);
            let (layer, told) = written(&store, &changes, Some(search(true, false))).unwrap();
            assert_eq!((told.as_str(), layer.index.entries.len()), (expected, 2));
            let blob = || store.open_verified(&layer.digest).unwrap();
            let error = search(true, true).layer(blob(), &layer.media_type).unwrap_err();
            assert_eq!(error.to_string(), expected);
            let plain = search(false, true).layer(blob(), &layer.media_type);
            assert_eq!(plain.is_ok(), expected.contains("unpacked"), "{expected}");
            assert_eq!(written(&store, &changes, None).unwrap().0, layer, "a search changes nothing");
        }
    }
}
