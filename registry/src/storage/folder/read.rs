//! Reading objects in pieces large enough to be cheap and small enough to be many.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};

use super::io_error;

/// The first piece is small, so that the client's first byte comes soon.
const FIRST_PIECE_BYTES: u64 = 64 * 1024;
/// The others: below this, system calls and frames cost more than copying.
const PIECE_BYTES: u64 = 256 * 1024;

pub(super) fn meta(metadata: &Metadata, location: Path) -> io::Result<ObjectMeta> {
    let e_tag = format!("\"{:x}-{:x}-{:x}\"", metadata.ino(), metadata.mtime_nsec(), metadata.len());
    Ok(ObjectMeta {
        location,
        last_modified: metadata.modified()?.into(),
        size: metadata.len(),
        e_tag: Some(e_tag),
        version: None,
    })
}

pub(super) fn get(path: &FilePath, key: &Path, options: &GetOptions) -> Result<GetResult> {
    let failed = |error| io_error(key.as_ref(), error);
    let file = match File::open(path) {
        // A folder where a file should be, or a file where a folder should be: no such object either way.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(failed(io::Error::from(io::ErrorKind::NotFound)));
        }
        opened => opened.map_err(failed)?,
    };
    let meta = file.metadata().and_then(|metadata| meta(&metadata, key.clone())).map_err(failed)?;
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        None => 0..meta.size,
        Some(range) => part(range, meta.size).ok_or_else(|| {
            let message = format!("the range {range:?} is not within its {} bytes", meta.size);
            failed(io::Error::new(io::ErrorKind::InvalidInput, message))
        })?,
    };
    let pieces = if options.head { stream::empty().boxed() } else { pieces(file, key, range.clone()).boxed() };
    Ok(GetResult {
        payload: GetResultPayload::Stream(pieces),
        meta,
        range,
        attributes: Default::default(),
        extensions: Default::default(),
    })
}

fn part(range: &GetRange, size: u64) -> Option<Range<u64>> {
    let part = match range {
        GetRange::Bounded(range) => range.start..range.end.min(size),
        GetRange::Offset(start) => *start..size,
        GetRange::Suffix(count) => size.saturating_sub(*count)..size,
    };
    (part.start < part.end).then_some(part)
}

/// Reads on the worker's own thread: for a file in the page cache, handing each piece over costs more than reading it.
fn pieces(file: File, key: &Path, range: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes>> + use<> {
    let (file, key, first) = (Arc::new(file), key.clone(), range.start);
    stream::try_unfold(range, move |rest| {
        let (file, key) = (file.clone(), key.clone());
        async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let want = if rest.start == first { FIRST_PIECE_BYTES } else { PIECE_BYTES };
            let piece = read_at(&file, rest.start, want.min(rest.end - rest.start));
            let piece = piece.map_err(|error| io_error(key.as_ref(), error))?;
            let next = rest.start + piece.len() as u64..rest.end;
            Ok(Some((piece, next)))
        }
    })
}

fn read_at(file: &File, offset: u64, want: u64) -> io::Result<Bytes> {
    let want = usize::try_from(want).map_err(io::Error::other)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(want);
    while buffer.len() < want {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => {
                let message = format!("it ends at byte {at}, before its end");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(want);
    Ok(buffer.into())
}
