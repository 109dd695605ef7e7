//! Connections: accept, HTTP/1.1 or h2c, and an end that lets running requests finish.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::access_log::Peer;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long running requests may take to finish once the end was asked for.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request finished.
    Finished,
    /// The bound came first; what ran was cut off.
    TimedOut,
    /// The end was asked for again, and not waited for.
    AtOnce,
}

/// Serves until `stop` is ready; then accepts no more, and waits for what runs until a bound, or until `stop_at_once`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    stop_at_once: impl Future<Output = ()>,
) -> Ended {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A client that sends no more may still read, and what it asked for is finished either way: half an operation only
    // leaves garbage.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).half_close(true);
    builder.http2().timer(TokioTimer::new()).adaptive_window(true);
    let running = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Replies are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let router = router.clone();
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = running.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, client.address = %peer, "a connection ended badly");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = running.shutdown() => Ended::Finished,
        () = tokio::time::sleep(FINISH_TIMEOUT) => Ended::TimedOut,
        () = stop_at_once => Ended::AtOnce,
    }
}
