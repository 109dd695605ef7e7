//! Between object_store and the network: what a request may cost in time, and answers that say something about the store
//! rather than about the object turned into errors with a type of their own.
//!
//! object_store does not let its callers see the status behind an error, only the errors of its HTTP client. So a 5xx or
//! a 429 becomes one of these here ([`Trouble::Refused`], in a kind that object_store retries, as it would have), and so
//! does a redirect, which says that the bucket is elsewhere.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use tokio::time::{Sleep, sleep, timeout};

/// How long the answer to a question may take to begin.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a write may take to begin, once its body was sent. Stores put long uploads together meanwhile.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// What a body is given time for.
const SLOWEST_BYTES_PER_SECOND: u32 = 256 * 1024;
/// How long a body that comes in may pause.
const STALL_PATIENCE: Duration = Duration::from_secs(30);
/// How much of an error's body is kept.
const SHOWN_BYTES: usize = 1024;

/// What the store said of itself.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::storage) enum Trouble {
    /// Not now.
    #[error("the store answers {status}{}{body}", if body.is_empty() { "" } else { ": " })]
    Refused {
        /// 429 or 5xx.
        status: StatusCode,
        /// What it said besides.
        body: String,
    },
    /// No answer.
    #[error("the store gave no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer stopped.
    #[error("the store stopped in the middle of its answer for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Look elsewhere.
    #[error("the store answers {status} and sends us to {}", .region.as_ref().or(.location.as_ref()).map_or("another place", |place| place))]
    Moved {
        /// 301, 302, 307 or 308.
        status: StatusCode,
        /// The bucket's region, where S3 says it.
        region: Option<String>,
        /// Where else.
        location: Option<String>,
    },
}

/// Makes the clients.
#[derive(Debug, Default)]
pub(super) struct Connector {
    pub(super) reqwest: ReqwestConnector,
    /// Takes off what says who asks.
    pub(super) anonymous: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service { client: self.reqwest.connect(options)?, anonymous: self.anonymous }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    anonymous: bool,
}

/// Whether a request deletes many objects. Deleting twice is deleting once, which a POST does not say by itself.
fn is_bulk_deletion(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    *request.method() == Method::POST
        && query.split('&').any(|pair| matches!(pair, "delete" | "delete=" | "comp=batch"))
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.anonymous {
            request.headers_mut().remove(AUTHORIZATION);
        }
        let repeatable = is_bulk_deletion(&request);
        let patience = match *request.method() {
            Method::GET | Method::HEAD => READ_PATIENCE,
            _ => {
                let size_bytes = u32::try_from(request.body().content_length()).unwrap_or(u32::MAX);
                WRITE_PATIENCE + Duration::from_secs(u64::from(size_bytes / SLOWEST_BYTES_PER_SECOND))
            }
        };
        let response = match timeout(patience, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if repeatable && error.kind() == HttpErrorKind::Interrupted => {
                return Err(HttpError::new(HttpErrorKind::Request, error));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let kind = if repeatable { HttpErrorKind::Request } else { HttpErrorKind::Timeout };
                return Err(HttpError::new(kind, Trouble::Silent(patience)));
            }
        };
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let trouble =
                Trouble::Moved { status, region: header("x-amz-bucket-region"), location: header("location") };
            return Err(HttpError::new(HttpErrorKind::Unknown, trouble));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let body = timeout(READ_PATIENCE, response.into_body().bytes()).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            let body = String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(&body)).trim().to_owned();
            return Err(HttpError::new(HttpErrorKind::Request, Trouble::Refused { status, body }));
        }
        let (head, body) = response.into_parts();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(Watched { body, pause: None })))
    }
}

/// A body that may not pause for longer than [`STALL_PATIENCE`]. What its reader takes is not counted.
#[derive(Debug)]
struct Watched {
    body: HttpResponseBody,
    /// Set while it is waited for.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.pause = None;
            return Poll::Ready(frame);
        }
        let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(STALL_PATIENCE)));
        std::task::ready!(pause.as_mut().poll(context));
        this.pause = None;
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, Trouble::Stalled(STALL_PATIENCE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
