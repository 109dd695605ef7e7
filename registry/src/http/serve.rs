//! Connections: accept, TLS, HTTP/1.1 or HTTP/2, and an end that lets running requests finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::client::Peer;
use super::idle::{Busy, Clock, HEAD_TIMEOUT, IDLE_TIMEOUT, Places};
use super::patient::Patient;
use super::tls::Tls;
use crate::metrics::Metrics;

/// How long a client may take to agree on an encryption.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an HTTP/2 client that says nothing is asked whether it is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a connection may hold of a body that is not read yet, and what its request's head may have at most.
const BUFFER_BYTES: usize = 64 * 1024;
/// The same while there are few connections. It comes to be so much only where a body comes faster than it is stored, and then
/// each read costs as much as some ten KiB more of it.
const ROOMY_BUFFER_BYTES: usize = 256 * 1024;
/// So many are few: their buffers are a small part of what all bodies may hold.
pub const ROOMY_CONNECTIONS: usize = 8;
/// How long to wait when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection: a record of a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// What a client reads that speaks HTTP where HTTPS is spoken.
const WRONG_SCHEME: &str = "HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n\
    this port speaks HTTPS: use https://, and give the client the certificate's issuer where it does not know it\n";

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

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// The certificate; without one, in plain HTTP.
    pub tls: Option<Tls>,
    /// Most connections at a time; more wait in the system's queue until one ends.
    pub connections_max: usize,
    /// Up to how many connections each may read much at once: [`ROOMY_CONNECTIONS`] on a folder, which keeps up with them. A
    /// cloud's store does not, and its parts need the memory.
    pub roomy_connections: usize,
    /// How long running requests may take to finish once the end was asked for.
    pub drain: Duration,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

impl Default for ServeSettings {
    fn default() -> Self {
        let drain = Duration::from_secs(30);
        Self { tls: None, connections_max: 10_000, roomy_connections: 0, drain, metrics: Arc::default() }
    }
}

/// Serves until `stop` is ready; then accepts no more, and waits for what runs until a bound, or until `stop_at_once`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServeSettings,
    stop: impl Future<Output = ()>,
    stop_at_once: impl Future<Output = ()>,
) -> Ended {
    let running = GracefulShutdown::new();
    let places = Places::new(settings.connections_max);
    let roomy_connections = settings.roomy_connections;
    let (stopping, stopped) = watch::channel(());
    let connection = Connection {
        http: http(BUFFER_BYTES),
        tls: settings.tls,
        router,
        metrics: settings.metrics,
        places: places.clone(),
        stopped,
    };
    let roomy = Connection { http: http(ROOMY_BUFFER_BYTES), ..connection.clone() };
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let permit = places.free.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
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
        let few = running.count() < roomy_connections;
        let connection = if few { roomy.clone() } else { connection.clone() };
        let watcher = running.watcher();
        tokio::spawn(async move {
            let _permit = permit;
            connection.metrics.requests.connections.inc();
            connection.run(stream, peer, watcher).await;
            connection.metrics.requests.connections.dec();
        });
    }
    drop(listener);
    drop(stopping);
    tokio::select! {
        () = running.shutdown() => Ended::Finished,
        () = tokio::time::sleep(settings.drain) => Ended::TimedOut,
        () = stop_at_once => Ended::AtOnce,
    }
}

fn http(buffer_bytes: usize) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // A client that sends no more may still read, and what it asked for is finished either way: half an operation only
    // leaves garbage.
    http.http1().header_read_timeout(IDLE_TIMEOUT).half_close(true);
    // Without a bound each connection that brings a body comes to hold 400 KiB.
    http.http1().max_buf_size(buffer_bytes);
    http.http2()
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// What every connection needs.
#[derive(Clone)]
struct Connection {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
    router: Router,
    metrics: Arc<Metrics>,
    places: Places,
    stopped: watch::Receiver<()>,
}

impl Connection {
    async fn run(&self, stream: TcpStream, address: SocketAddr, watcher: Watcher) {
        let Some(tls) = &self.tls else {
            return self.serve(stream, Peer { address, tls: false }, watcher).await;
        };
        let mut stopped = self.stopped.clone();
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, tls));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            // Nothing was asked yet: it need not be waited for.
            _ = stopped.changed() => return,
        };
        let failure = match shaken {
            Ok(Ok(stream)) => return self.serve(stream, Peer { address, tls: true }, watcher).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not over after {} s", HANDSHAKE_TIMEOUT.as_secs()),
        };
        self.metrics.requests.failed_handshakes.inc();
        tracing::debug!(error = failure, client.address = %address, "a TLS handshake failed");
    }

    async fn serve<S>(&self, stream: S, peer: Peer, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // As long as it is there, this connection is waited for.
        let _watcher = watcher;
        let busy = Busy::new();
        let service = service_fn(|request: http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let router = self.router.clone();
            let working = busy.begin();
            async move {
                let reply = router.oneshot(request).await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(reply.map(|body| working.reply(body)))
            }
        });
        let came = Arc::new(AtomicBool::new(false));
        let mut http = self.http.clone();
        http.http1().timer(Clock::new(came.clone(), self.places.clone(), busy.clone()));
        let connection = http.serve_connection(TokioIo::new(Patient::new(stream, came)), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopped = self.stopped.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = busy.rested(&self.places) => {
                // The client hears which of its requests were not seen, and those that were are finished.
                connection.as_mut().graceful_shutdown();
                loop {
                    match tokio::time::timeout(HEAD_TIMEOUT, connection.as_mut()).await {
                        Ok(ended) => break ended,
                        // It takes no more of a reply: it would stay for ever.
                        Err(_) if busy.is_stuck() => break Ok(()),
                        Err(_) => {}
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, client.address = %peer.address, "a connection ended badly");
        }
    }
}

async fn handshake(mut stream: TcpStream, tls: &Tls) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
        // What it speaks instead is HTTP, most likely, and then it can be told.
        let _ = stream.write_all(WRONG_SCHEME.as_bytes()).await;
        let _ = stream.shutdown().await;
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the client did not speak TLS"));
    }
    TlsAcceptor::from(tls.config.clone()).accept(stream).await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    fn connected(places: &Places) -> DuplexStream {
        let (client, server) = duplex(4096);
        let (stopping, stopped) = watch::channel(());
        let connection = Connection {
            http: http(BUFFER_BYTES),
            tls: None,
            router: Router::new()
                .route("/large", get(large))
                .route("/slow", get(|| sleep(2 * IDLE_TIMEOUT)))
                .fallback(|| async { "here\n" }),
            metrics: Arc::default(),
            places: places.clone(),
            stopped,
        };
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), tls: false };
        tokio::spawn(async move {
            connection.serve(server, peer, GracefulShutdown::new().watcher()).await;
            drop(stopping);
        });
        client
    }

    async fn ask(client: &mut DuplexStream) {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"here\n") {
            answer.push(client.read_u8().await.unwrap());
        }
    }

    /// After how long the server ends the connection.
    async fn ended(client: &mut DuplexStream) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        Duration::from_secs(began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_rest_longer_than_a_head_may_take() {
        let mut client = connected(&Places::new(1));
        for _ in 0..2 {
            ask(&mut client).await;
            sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        }
        ask(&mut client).await;
        assert_eq!(ended(&mut client).await, IDLE_TIMEOUT);
        // A head that does not come to its end, the first and a later one.
        let mut client = connected(&Places::new(1));
        client.write_all(&REQUEST[..26]).await.unwrap();
        assert_eq!(ended(&mut client).await, HEAD_TIMEOUT);
        let mut client = connected(&Places::new(1));
        ask(&mut client).await;
        sleep(IDLE_TIMEOUT / 2).await;
        client.write_all(&REQUEST[..5]).await.unwrap();
        assert_eq!(ended(&mut client).await, HEAD_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_gives_its_place_to_who_waits_for_one() {
        for (all, taken) in [(1, 1), (10_000, 1000)] {
            let places = Places::new(all);
            let _taken = places.free.acquire_many(taken).await.unwrap();
            let mut client = connected(&places);
            ask(&mut client).await;
            assert_eq!(ended(&mut client).await, HEAD_TIMEOUT);
        }
    }

    /// More than may be sent before the client takes some, in pieces.
    async fn large() -> Body {
        let pieces = std::iter::repeat_n(Ok::<_, Infallible>(vec![0; 64 * 1024]), 16);
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GO_AWAY: u8 = 7;
    const ACKNOWLEDGED: u8 = 1;
    /// GET of http://x/large, http://x/slow and http://x/, as HPACK has them.
    const ASK_LARGE: &[u8] = b"\x82\x86\x04\x06/large\x41\x01x";
    const ASK_SLOW: &[u8] = b"\x82\x86\x04\x05/slow\x41\x01x";
    const ASK: &[u8] = b"\x82\x86\x84\x41\x01x";

    async fn send(client: &mut DuplexStream, kind: u8, flags: u8, stream: u8, content: &[u8]) {
        let length = u8::try_from(content.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        // Where the server has ended the connection, reading says so.
        let _ = client.write_all(&[&head, content].concat()).await;
    }

    /// Speaks HTTP/2 and answers pings until the server ends the connection; after how long it says that it does, and does.
    /// `asks` on a stream each, a minute after the one before.
    async fn ended_http2(client: &mut DuplexStream, asks: &[&[u8]]) -> [Duration; 2] {
        let began = Instant::now();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        send(client, SETTINGS, 0, 0, &[]).await;
        let mut said = None;
        let mut asked = 0;
        loop {
            let next = began + Duration::from_secs(60) * u32::try_from(asked).unwrap();
            let mut head = [0; 9];
            let read = async {
                if asked < asks.len() {
                    tokio::time::timeout_at(next, client.read_exact(&mut head)).await.ok()
                } else {
                    Some(client.read_exact(&mut head).await)
                }
            };
            match read.await {
                None => {
                    // The bits say that it is the whole head, and that no body comes.
                    send(client, HEADERS, 5, u8::try_from(asked * 2 + 1).unwrap(), asks[asked]).await;
                    asked += 1;
                    continue;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
            }
            let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            client.read_exact(&mut content).await.unwrap();
            match (head[3], head[4]) {
                (PING, 0) => send(client, PING, ACKNOWLEDGED, 0, &content).await,
                (GO_AWAY, _) => said = said.or(Some(began.elapsed())),
                _ => {}
            }
        }
        [said.unwrap(), began.elapsed()].map(|time| Duration::from_secs(time.as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_on_http2_and_answers_pings_is_given_up() {
        let minute = Duration::from_secs(60);
        let long = Places::new(10_000);
        let short = Places::new(1);
        let _taken = short.free.acquire().await.unwrap();
        for (places, asks, rest) in [
            (&short, &[][..], HEAD_TIMEOUT),
            (&short, &[ASK, ASK, ASK], 2 * minute + HEAD_TIMEOUT),
            (&short, &[ASK_SLOW, ASK], 2 * IDLE_TIMEOUT + HEAD_TIMEOUT),
            (&long, &[], IDLE_TIMEOUT),
            (&long, &[ASK, ASK], minute + IDLE_TIMEOUT),
        ] {
            let mut client = connected(places);
            assert_eq!(ended_http2(&mut client, asks).await, [rest; 2]);
        }
        // It takes no more than the first 64 KiB.
        let mut client = connected(&short);
        assert_eq!(ended_http2(&mut client, &[ASK_LARGE]).await, [IDLE_TIMEOUT, IDLE_TIMEOUT + HEAD_TIMEOUT]);
    }
}
