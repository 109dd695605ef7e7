//! What is left of a request's body when nobody reads on.
//!
//! A refusal often comes before the body was read: a chunk out of order, a name that is none. A server that closes the
//! connection with unread bytes on it resets it, and the client loses the answer (a proxy in between says 502). So the
//! rest is read and thrown away while the answer goes out, up to a bound; then the connection may go on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

/// How much is thrown away. Chunks of clients are smaller; whoever sends more than this to be refused is cut off.
const REST_MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long it may take to come.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// A body whose rest is read when it is dropped.
struct Drained(Option<Body>);

/// The same body, but for what happens to a rest of it.
pub(super) fn drained(body: Body) -> Body {
    if body.is_end_stream() { body } else { Body::new(Drained(Some(body))) }
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.0 else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        // Whole, or broken: there is no rest.
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let rest = async move {
            let mut left = REST_MAX_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let size = frame.data_ref().map_or(0, Bytes::len);
                let Some(fewer) = left.checked_sub(size) else { return };
                left = fewer;
            }
        };
        runtime.spawn(async move {
            // Late or too much: the connection ends without it.
            let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
        });
    }
}
