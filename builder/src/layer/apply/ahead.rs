//! Inflating and hashing in one thread, writing files in another: both take about as long.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;

use oci_spec::image::Digest;

use super::ApplyError;
use crate::blob::Hasher;
use crate::layer::decode::Decoded;
use crate::layer::read::read_entries;
use crate::layer::tar_reader::Source;
use crate::layer::{Entry, LayerError, Limits, Scan};

/// Bytes that are handed over at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// How many chunks may wait: 4 MiB in all, enough for one side to go on while the other makes a thousand small files.
const CHUNKS: usize = 16;

type Chunk = Result<Vec<u8>, LayerError>;

/// Reads a layer as [`read_layer`](crate::layer::read_layer) does, with another thread ahead of `visit`.
pub(super) fn read_ahead(
    blob: impl Read + Send,
    limits: &Limits,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), ApplyError>,
) -> Result<Scan, ApplyError> {
    thread::scope(|scope| {
        let (sender, chunks) = sync_channel(CHUNKS);
        let (used, spares) = channel();
        let thread = thread::Builder::new().name("inflate".to_owned());
        let reader = thread.spawn_scoped(scope, move || send(blob, &sender, &spares)).map_err(LayerError::Read)?;
        let source = Chunks { chunks, used: Some(used), current: Vec::new(), taken: 0 };
        // After an error the chunks go with the source, and the thread ends when it finds nobody to send to.
        let (uncompressed_bytes, source) = read_entries(source, limits, visit)?;
        drop(source);
        match reader.join() {
            Ok(Some(diff_id)) => Ok(Scan { diff_id, uncompressed_bytes }),
            // All chunks were read to the end, so that the thread came to it.
            Ok(None) => Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into()).into()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sends the layer's tar, and at its end an empty chunk. Returns the tar's hash; `None` when it was not read to its end.
fn send(blob: impl Read, chunks: &SyncSender<Chunk>, spares: &Receiver<Vec<u8>>) -> Option<Digest> {
    let mut hasher = Hasher::sha256();
    let sent = (|| {
        let mut decoded = Decoded::new(blob)?;
        loop {
            // New memory would have to be cleared by the kernel for each.
            let mut chunk = match spares.try_recv() {
                Err(TryRecvError::Disconnected) => {
                    // No more of the tar is wanted. Whoever still listens waits to hear whether its bytes were what they should be.
                    if chunks.send(Ok(Vec::new())).is_ok() {
                        decoded.finish()?;
                    }
                    return Ok(false);
                }
                spare => spare.unwrap_or_default(),
            };
            chunk.resize(CHUNK_BYTES, 0);
            let mut filled = 0;
            while filled < chunk.len() {
                let count = decoded.read(&mut chunk[filled..])?;
                if count == 0 {
                    break;
                }
                filled += count;
            }
            chunk.truncate(filled);
            hasher.update(&chunk);
            if filled == 0 {
                decoded.finish()?;
                return Ok(chunks.send(Ok(Vec::new())).is_ok());
            }
            if chunks.send(Ok(chunk)).is_err() {
                return Ok(false);
            }
        }
    })();
    match sent {
        Ok(finished) => finished.then(|| hasher.finish()),
        Err(error) => {
            // Nobody listens any more when the other side failed first.
            let _ = chunks.send(Err(error));
            None
        }
    }
}

/// The other end.
struct Chunks {
    /// The first to be dropped: with `used` alone gone, the other thread goes on.
    chunks: Receiver<Chunk>,
    /// Where chunks go back to; none when no more of the tar is wanted.
    used: Option<Sender<Vec<u8>>>,
    current: Vec<u8>,
    /// Bytes of `current` that are used up.
    taken: usize,
}

impl Source for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        if self.taken == self.current.len() {
            // A thread that is gone has said why before, or sent the end.
            let next = self.chunks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            let used = std::mem::replace(&mut self.current, next);
            // Nobody takes it once all is sent.
            let _ = self.used.as_ref().map(|spares| spares.send(used));
            self.taken = 0;
        }
        let count = buffer.len().min(self.current.len() - self.taken);
        buffer[..count].copy_from_slice(&self.current[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        self.used = None;
        // What was inflated before the other thread saw that; it ends then.
        while let Ok(chunk) = self.chunks.recv() {
            chunk?;
        }
        Ok(())
    }
}
