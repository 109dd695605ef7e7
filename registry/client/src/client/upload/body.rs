//! The body of an upload: a blocking reader on its own thread, a short queue, and a watch on the flow.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::transport::TOLD_AFTER_A;

/// How much is read at once, in bytes: large enough that a hop between threads does not count.
const PIECE_BYTES: usize = 256 * 1024;
/// How many pieces wait between the reader and the network; bounds the memory of an upload.
const PIECES: usize = 4;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// After the last byte the registry may have to move the whole blob; so many times the usual silence is borne.
const CLOSING_PATIENCE: u32 = 5;

/// What is known of an upload's stream from outside.
#[derive(Debug, Default)]
pub(super) struct Flow {
    sent: AtomicU64,
    ended: AtomicBool,
    error: Mutex<Option<SourceError>>,
}

/// Why the source is no good.
#[derive(Debug)]
pub(super) enum SourceError {
    Io(io::Error),
    Length(String),
}

impl Flow {
    /// Nothing is left to send: what comes now is the registry's work.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Tells the progress, and once of each silence that is long and how long it may last; returns how long that was when
    /// it lasted too long.
    pub(super) async fn watch(
        &self,
        offset: u64,
        patience: Duration,
        progress: &(dyn Fn(u64) + Send + Sync),
        silent: impl Fn(Duration),
    ) -> Duration {
        let mut last = (0, Instant::now());
        let mut told = false;
        loop {
            tokio::time::sleep(TICK.min(patience / 4)).await;
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != last.0 {
                last = (sent, Instant::now());
                progress(offset + sent);
                told = false;
            }
            let is_long = last.1.elapsed() > patience / TOLD_AFTER_A;
            let patience = if self.ended.load(Ordering::Relaxed) { patience * CLOSING_PATIENCE } else { patience };
            if is_long && !told {
                told = true;
                silent(patience);
            }
            if last.1.elapsed() > patience {
                return patience;
            }
        }
    }

    /// The source's error, if it had one.
    pub(super) fn take_error(&self) -> Option<SourceError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_error(&self, error: SourceError) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Exactly as many bytes of a reader as were promised.
pub(super) struct SourceBody {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
    flow: Arc<Flow>,
}

impl SourceBody {
    /// Starts to read `length` bytes on a thread for blocking work; it ends when the body is dropped.
    pub(super) fn start(reader: impl Read + Send + 'static, length: u64, flow: Arc<Flow>) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let told = Arc::clone(&flow);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pump(reader, length, &sender) {
                told.set_error(error);
            }
        });
        Self { pieces, left: length, flow }
    }
}

fn pump(mut reader: impl Read, length: u64, sender: &mpsc::Sender<Bytes>) -> Result<(), SourceError> {
    let mut left = length;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES)));
        let wanted = left.min(PIECE_BYTES as u64);
        let count = reader.by_ref().take(wanted).read_to_end(&mut piece).map_err(SourceError::Io)? as u64;
        if count == 0 {
            return Err(SourceError::Length(format!("it ends {left} bytes too early")));
        }
        left -= count;
        if left == 0 {
            // Asked before the last piece goes out, so that a registry never gets a blob that is cut to size.
            let more = reader.read(&mut [0]).map_err(SourceError::Io)?;
            if more > 0 {
                return Err(SourceError::Length("it is longer than its descriptor says".to_owned()));
            }
        }
        if sender.blocking_send(Bytes::from(piece)).is_err() {
            // Nobody sends any more; whoever stopped has the reason.
            return Ok(());
        }
    }
    Ok(())
}

impl Body for SourceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.pieces.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.flow.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                if self.left == 0 {
                    self.flow.end();
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(io::Error::other("the source cannot be read")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
