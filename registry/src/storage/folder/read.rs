//! Reading objects in pieces large enough to be cheap and small enough to be many.
//!
//! Pieces are read on the worker's own thread: for a file in the page cache, handing each piece over costs more than reading
//! it. They come from a few buffers that are used again and again, which stay in the processor's cache, where new memory
//! would have to be given out and zeroed by the system for each piece.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};

use super::index::Stat;
use super::io_error;
use super::list::stat_of;

/// The first piece is small, so that the client's first byte comes soon.
const FIRST_PIECE_BYTES: usize = 64 * 1024;
/// The others: below this, system calls and frames cost more than copying.
const PIECE_BYTES: usize = 256 * 1024;
/// How many buffers are kept for the next piece: as many as are in use at once by some ten readers.
const BUFFERS_MAX: usize = 24;

/// Buffers of [`PIECE_BYTES`] that are free.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
    }
}

/// A buffer that goes back when nobody reads it any more.
struct Lent {
    buffer: Vec<u8>,
    to: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut kept = self.to.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_MAX {
            kept.push(buffer);
        }
    }
}

/// There is no ETag: no key is ever written twice.
pub(super) fn meta(stat: Stat, location: Path) -> ObjectMeta {
    ObjectMeta { location, last_modified: stat.modified.into(), size: stat.size, e_tag: None, version: None }
}

/// The answer to a question about an object that is known.
pub(super) fn known(stat: Stat, key: &Path) -> GetResult {
    result(stream::empty().boxed(), meta(stat, key.clone()), 0..stat.size)
}

fn result(pieces: stream::BoxStream<'static, Result<Bytes>>, meta: ObjectMeta, range: Range<u64>) -> GetResult {
    let payload = GetResultPayload::Stream(pieces);
    GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() }
}

pub(super) fn get(path: &FilePath, key: &Path, options: &GetOptions, buffers: &Buffers) -> Result<GetResult> {
    let failed = |error| io_error(key.as_ref(), error);
    let file = match File::open(path) {
        // A folder where a file should be, or a file where a folder should be: no such object either way.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(failed(io::Error::from(io::ErrorKind::NotFound)));
        }
        opened => opened.map_err(failed)?,
    };
    let meta = meta(stat_of(&file).map_err(failed)?, key.clone());
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        None => 0..meta.size,
        Some(range) => part(range, meta.size).ok_or_else(|| {
            let message = format!("the range {range:?} is not within its {} bytes", meta.size);
            failed(io::Error::new(io::ErrorKind::InvalidInput, message))
        })?,
    };
    let size = range.end - range.start;
    let pieces = if options.head || size == 0 {
        stream::empty().boxed()
    } else if size <= FIRST_PIECE_BYTES as u64 {
        // Small objects are many: one read, nothing kept open.
        let mut whole = Vec::with_capacity(size as usize);
        read_at(&file, range.start, size as usize, &mut whole).map_err(failed)?;
        stream::iter([Ok(Bytes::from(whole))]).boxed()
    } else {
        pieces(file, key, range.clone(), buffers.clone()).boxed()
    };
    Ok(result(pieces, meta, range))
}

fn part(range: &GetRange, size: u64) -> Option<Range<u64>> {
    let part = match range {
        GetRange::Bounded(range) => range.start..range.end.min(size),
        GetRange::Offset(start) => *start..size,
        GetRange::Suffix(count) => size.saturating_sub(*count)..size,
    };
    (part.start < part.end).then_some(part)
}

fn pieces(
    file: File,
    key: &Path,
    range: Range<u64>,
    buffers: Buffers,
) -> impl futures_util::Stream<Item = Result<Bytes>> + use<> {
    let (key, mut rest, mut want) = (key.clone(), range, FIRST_PIECE_BYTES);
    stream::iter(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let most = usize::try_from(rest.end - rest.start).unwrap_or(usize::MAX).min(want);
        want = PIECE_BYTES;
        let mut lent = Lent { buffer: buffers.take(), to: buffers.clone() };
        match read_at(&file, rest.start, most, &mut lent.buffer) {
            Ok(()) => {
                rest.start += most as u64;
                Some(Ok(Bytes::from_owner(lent)))
            }
            Err(error) => {
                rest = rest.end..rest.end;
                Some(Err(io_error(key.as_ref(), error)))
            }
        }
    }))
}

/// Reads exactly so many bytes into an empty buffer that has room for them.
fn read_at(file: &File, offset: u64, want: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.reserve(want);
    while buffer.len() < want {
        let at = offset + buffer.len() as u64;
        // The buffer may have room for more than is wanted: what is behind the end is cut off below.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(buffer), at) {
            Ok(0) => {
                let message = format!("it ends at byte {at}, before its end");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(want);
    Ok(())
}
