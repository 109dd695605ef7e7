//! A layer blob as its tar: the compression is told by the first bytes, as media types are often wrong.

use std::cell::Cell;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::LayerError;
use crate::blob::StoreError;

/// Bytes that are read from the source at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many bytes it takes to tell the formats apart.
const HEAD_BYTES: u64 = 10;

/// The uncompressed tar of a layer.
pub(super) struct Decoded<R: Read> {
    stream: Stream<R>,
    /// Where the source leaves its error, as a decoder may swallow or wrap it.
    failure: Failure,
}

enum Stream<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    Zstd(ZstdDecoder<'static, Whole<R>>),
}

/// The source with the first bytes, that were looked at, put back.
type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, Tapped<R>>>;

type Failure = Rc<Cell<Option<io::Error>>>;

struct Tapped<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Read for Tapped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failure.set(Some(error));
                Err(kind.into())
            }
            other => other,
        }
    }
}

impl<R: Read> Decoded<R> {
    /// Looks at the first bytes of `source`.
    pub(super) fn new(source: R) -> Result<Self, LayerError> {
        let failure = Failure::default();
        let mut source = Tapped { inner: source, failure: Rc::clone(&failure) };
        let mut head = Vec::new();
        source
            .by_ref()
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .map_err(|error| read_failure(failure.take().unwrap_or(error)))?;
        if let Some(found) = unread(&head) {
            return Err(LayerError::UnknownCompression { found });
        }
        let (gzip, zstd) = (head.starts_with(b"\x1F\x8B"), is_zstd(&head));
        let source = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(source));
        let stream = if gzip {
            Stream::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if zstd {
            let decoder =
                ZstdDecoder::with_buffer(source).map_err(|source| LayerError::Compressed { format: "zstd", source })?;
            Stream::Zstd(decoder)
        } else {
            Stream::Plain(source)
        };
        Ok(Self { stream, failure })
    }

    /// Reads some of the tar; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            let (format, outcome) = match &mut self.stream {
                Stream::Plain(stream) => ("tar", stream.read(buffer)),
                Stream::Gzip(stream) => ("gzip", stream.read(buffer)),
                Stream::Zstd(stream) => ("zstd", stream.read(buffer)),
            };
            match outcome {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Some(failure) = self.failure.take() {
                        return Err(read_failure(failure));
                    }
                    // Most often the reason is that the bytes are not what they should be, which is told at their end.
                    return Err(match self.finish() {
                        Err(damage @ LayerError::Store(_)) => damage,
                        _ => LayerError::Compressed { format, source: error },
                    });
                }
            }
        }
    }

    /// Reads the source to its end, as a source that checks its bytes does so there. What is left of the tar is not decoded.
    pub(super) fn finish(&mut self) -> Result<(), LayerError> {
        let source = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Gzip(stream) => stream.get_mut(),
            Stream::Zstd(stream) => stream.get_mut(),
        };
        io::copy(source, &mut io::sink()).map_err(|error| read_failure(self.failure.take().unwrap_or(error)))?;
        Ok(())
    }
}

/// The formats that are not read. A tar begins with a file name, so the signatures are checked as far as they go.
fn unread(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY") {
        Some("bzip2")
    } else if head.starts_with(b"\xFD7zXZ\0") {
        Some("xz")
    } else if head.starts_with(b"\x04\x22\x4D\x18") {
        Some("lz4")
    } else if head.starts_with(b"PK\x03\x04") {
        Some("zip")
    } else {
        None
    }
}

/// A frame of data, or a skippable one (RFC 8878, 3.1), with which zstd:chunked and others begin.
fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(b"\x28\xB5\x2F\xFD")
        || (head.len() >= 4 && head[0] & 0xF0 == 0x50 && head[1..4] == *b"\x2A\x4D\x18")
}

/// A store's own words stay what they are.
fn read_failure(error: io::Error) -> LayerError {
    match error.downcast::<StoreError>() {
        Ok(error) => LayerError::Store(error),
        Err(error) => LayerError::Read(error),
    }
}
