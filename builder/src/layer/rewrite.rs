//! A layer that is there, made again in another form: other compression, or other times. One pass, from blob to blob.

use std::io::{self, Read, Write as _};

use oci_spec::image::Digest;

use super::compress::Compressor;
use super::decode::Decoded;
use super::{Entry, Layer, LayerBuilder, LayerError, LayerIndex, LayerOptions, LayerPath, Limits, Times, read_layer};
use crate::blob::{HashingWriter, Store, StoreError};

/// Bytes of the tar that are passed on at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// A blob that holds the tar of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Hash of the tar.
    pub diff_id: Digest,
    /// Hash of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size_bytes: u64,
    /// The OCI media type of the blob.
    pub media_type: String,
}

/// Compresses the tar in `blob` in another way. The tar keeps its bytes, whoever wrote it.
///
/// # Errors
/// Those of the source, and of the store; [`LayerError::DiffId`] when the tar is not the one that it should be. The store has no new blob then.
pub fn recompress(
    store: &Store,
    blob: impl Read,
    diff_id: &Digest,
    options: LayerOptions,
) -> Result<Rewritten, LayerError> {
    let failed = |error| LayerError::from(StoreError::io("writing a blob into", store.root(), error));
    let mut source = Decoded::new(blob)?;
    let compressor = Compressor::new(store.writer()?, options.compression, options.threads).map_err(failed)?;
    let mut sink = HashingWriter::new(compressor);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sink.write_all(&buffer[..count]).map_err(failed)?;
    }
    source.finish()?;
    let (compressor, found, _) = sink.finish();
    if found != *diff_id {
        return Err(LayerError::DiffId { expected: diff_id.clone(), found });
    }
    let info = compressor.finish().map_err(failed)?.commit(None)?;
    Ok(Rewritten {
        diff_id: found,
        digest: info.digest,
        size_bytes: info.size_bytes,
        media_type: options.compression.media_type().to_owned(),
    })
}

/// Writes a layer that was written here once more, with the times and the compression of `options`.
///
/// `times` says those of each entry, in place of the one in `options`. `index` is the layer's own, and has the times that its entries really had, whatever the blob says. The result is the layer,
/// byte for byte, that would have been written at first with these options.
///
/// # Errors
/// Those of [`recompress`]; [`LayerError::DiffId`] also when blob and index are not of one layer.
pub fn restamp(
    store: &Store,
    blob: impl Read,
    media_type: &str,
    diff_id: &Digest,
    index: &LayerIndex,
    options: LayerOptions,
    times: &dyn Fn(&LayerPath) -> Times,
) -> Result<Layer, LayerError> {
    let mut builder = LayerBuilder::new(store, options)?;
    let mut rows = index.entries.iter();
    let mut fits = true;
    let scan = read_layer::<LayerError>(blob, media_type, &Limits::DEFAULT, &mut |entry, content| match rows
        .next()
        .filter(|row| row.entry.path == entry.path && row.entry.kind == entry.kind)
    {
        Some(row) => {
            builder.set_times(times(&entry.path));
            builder.append(&Entry { modified: row.entry.modified, ..entry.clone() }, content)
        }
        None => {
            fits = false;
            io::copy(content, &mut io::sink()).map_err(LayerError::Read).map(drop)
        }
    })?;
    if scan.diff_id != *diff_id || !fits || rows.next().is_some() {
        return Err(LayerError::DiffId { expected: diff_id.clone(), found: scan.diff_id });
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Compression, sample, write_layer};

    fn options(compression: Compression, times: Times) -> LayerOptions {
        LayerOptions { compression, threads: NonZeroUsize::MIN, times }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_rewritten_layer_is_the_one_that_would_have_been_written(changes in sample::changes(true)) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            let forms = [
                options(Compression::default(), Times::Real),
                options(Compression::GzipMembers { level: 1 }, Times::Clamp(1_000_000_000)),
                options(Compression::Zstd { level: 3 }, Times::Fixed(7)),
                options(Compression::Uncompressed, Times::Clamp(3)),
            ];
            let direct: Vec<Layer> = forms.iter().map(|form| write_layer(&store, *form, &changes).unwrap()).collect();
            for from in &direct {
                for (form, to) in forms.iter().zip(&direct) {
                    let blob = store.open_verified(&from.digest).unwrap();
                    let again = restamp(&store, blob, &from.media_type, &from.diff_id, &from.index, *form, &|_| form.times).unwrap();
                    prop_assert_eq!(&again, to);
                    let blob = store.open_verified(&from.digest).unwrap();
                    let packed = recompress(&store, blob, &from.diff_id, *form).unwrap();
                    prop_assert_eq!(&packed.diff_id, &from.diff_id);
                    if from.diff_id == to.diff_id {
                        prop_assert_eq!(&packed.digest, &to.digest);
                    }
                }
            }
        }
    }

    #[test]
    fn another_tar_than_expected_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let layer =
            write_layer(&store, LayerOptions::default(), &[sample::file("a", b"1"), sample::file("b", b"2")]).unwrap();
        let before = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap().count();
        let other = crate::blob::sha256(b"other");
        let form = options(Compression::Uncompressed, Times::Fixed(3));
        let blob = || store.open_verified(&layer.digest).unwrap();
        assert!(matches!(recompress(&store, blob(), &other, form), Err(LayerError::DiffId { .. })));
        let restamped = restamp(&store, blob(), &layer.media_type, &other, &layer.index, form, &|_| form.times);
        assert!(matches!(restamped, Err(LayerError::DiffId { .. })));
        let mut short = layer.index.clone();
        short.entries.pop();
        let restamped = restamp(&store, blob(), &layer.media_type, &layer.diff_id, &short, form, &|_| form.times);
        assert!(matches!(restamped, Err(LayerError::DiffId { .. })));
        assert_eq!(std::fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), before);
    }
}
