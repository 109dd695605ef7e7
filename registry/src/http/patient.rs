//! A connection that is not waited for without end: a client that sends nothing at first, or does not take what is sent.
//!
//! Between the two, hyper bounds how long a request's head may take, and each handler how long a body may.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long the first bytes may take.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// So many first bytes: as long as HTTP/2's preface, which has to be whole before hyper's own clocks run.
const FIRST_BYTES: usize = 24;
/// How long not one byte of a reply may be taken.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A stream with these bounds.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    read_bytes: usize,
    /// Set with each byte that comes.
    came: Arc<AtomicBool>,
    clock: Pin<Box<Sleep>>,
    /// Whether `clock` measures how long a write takes.
    writing: bool,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, came: Arc<AtomicBool>) -> Self {
        Self { stream, read_bytes: 0, came, clock: Box::pin(sleep(FIRST_BYTES_TIMEOUT)), writing: false }
    }

    /// What came of a write or a flush, and whether it takes too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = false;
            return polled;
        }
        if !self.writing {
            self.writing = true;
            self.clock.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        match self.clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.came.store(true, Ordering::Relaxed);
        }
        if this.read_bytes >= FIRST_BYTES || this.writing {
            return polled;
        }
        if polled.is_ready() {
            this.read_bytes += buffer.filled().len() - before;
            return polled;
        }
        match this.clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent no request"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_given_up() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::new(server, Arc::default());
        client.write_all(b"PRI * HTTP/2.").await.unwrap();
        let began = Instant::now();
        let mut bytes = [0; FIRST_BYTES];
        assert_eq!(server.read_exact(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), FIRST_BYTES_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_took_its_time_once_may_be_slow() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::new(server, Arc::default());
        client.write_all(&[b'x'; FIRST_BYTES]).await.unwrap();
        server.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
        let late = async {
            sleep(FIRST_BYTES_TIMEOUT * 10).await;
            client.write_all(b"x").await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_u8(), late);
        assert_eq!(read.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut client, server) = tokio::io::duplex(1);
        let mut server = Patient::new(server, Arc::default());
        let slow = async {
            for _ in 0..5 {
                sleep(STALL_TIMEOUT - Duration::from_secs(1)).await;
                client.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(b"12345"), slow);
        written.unwrap();
        let began = Instant::now();
        assert_eq!(server.write_all(b"12345").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), STALL_TIMEOUT.as_secs());
    }
}
