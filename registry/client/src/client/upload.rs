//! Uploads: a session, the bytes in one stream, the digest that closes it.
//!
//! `POST` opens a session; a large blob goes into it by one `PATCH` that streams all of it, and an empty `PUT` with the
//! digest closes it; a small one goes with the `PUT` itself. Every registry takes both, since all clients use the one or
//! the other. A session whose stream was cut is asked how far it came (`GET`) and gone on with from there; when it
//! cannot be asked, a new one is opened and the source read again from its start.
//!
//! The digest is checked by the registry, as the specification demands, and not here once more, which would cost a
//! third of the sender's work; when the registry says that it does not match, the source is read again to tell which
//! side is wrong. The source's length is checked on the way.

mod body;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use http::{Method, StatusCode};
use oci_spec::image::Digest;
use reqwest::{Response, Url};

use super::endpoint::Endpoint;
use super::exchange::{Purpose, Streak, authorize, is_ours};
use super::{Blob, Client, blob_subject};
use crate::challenge::ScopeSet;
use crate::error::{ClientError, Subject};
use crate::hash::Hasher;
use crate::reference::Reference;
use crate::retry::Failure;
use crate::transport::Request;
use body::{Flow, SourceBody};

/// Up to this size a blob is sent with the closing `PUT`, which saves a round trip, in bytes.
const SMALL_BYTES: u64 = 1024 * 1024;
/// So much has to be taken between two failures for the second not to count as one more in a row, in bytes.
const PROGRESS_MIN_BYTES: u64 = 256 * 1024;

/// How a blob came to be in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

/// A blob on its way.
struct Upload<'a, S> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    purpose: &'a Purpose<'a>,
    blob: &'a Blob,
    source: &'a S,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

/// What became of an attempt that did not end in an error.
enum Step {
    Done,
    /// The session goes on at that place, from that byte.
    At(Url, u64),
}

impl Client {
    /// Asks the registry to take a blob from another of its repositories; `false` when it does not.
    ///
    /// # Errors
    ///
    /// Those of every request. That reading the other repository is not allowed is no error but `false`.
    pub async fn mount(&self, target: &Reference, digest: &Digest, from_repository: &str) -> Result<bool, ClientError> {
        let endpoint = self.shared.endpoints.origin(target, &self.shared.transport)?;
        let subject = blob_subject(target, digest);
        match self.start(&endpoint, target, &subject, Some((digest, from_repository))).await? {
            None => Ok(true),
            Some(session) => {
                self.cancel(&endpoint, target, &subject, session).await;
                Ok(false)
            }
        }
    }

    /// Whether the registry would take a blob into the reference's repository: opens a session and gives it back.
    ///
    /// # Errors
    ///
    /// Those of every request: what a push to there would end with.
    pub async fn check_push(&self, reference: &Reference) -> Result<(), ClientError> {
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        let what = format!("an upload to {}", reference.name());
        let subject = Subject { registry: reference.host().to_owned(), what };
        if let Some(session) = self.start(&endpoint, reference, &subject, None).await? {
            self.cancel(&endpoint, reference, &subject, session).await;
        }
        Ok(())
    }

    /// Puts a blob into the reference's repository, unless it is there: by a mount from one of `mount_from` (other
    /// repositories of the same registry), or by sending it.
    ///
    /// `source` opens the content at an offset in bytes; it is called again when an upload was cut. `progress` hears the
    /// number of bytes sent so far, which falls when a part has to be sent again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Damaged`] when the source does not have the blob's size or digest; [`ClientError::Source`] when
    /// it cannot be read; those of every request.
    pub async fn push_blob<R, S>(
        &self,
        reference: &Reference,
        blob: &Blob,
        mount_from: &[String],
        source: S,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, ClientError>
    where
        R: Read + Send + 'static,
        S: Fn(u64) -> io::Result<R> + Send + Sync,
    {
        // Fails only for a closed semaphore, which this one never is.
        let _place = Arc::clone(&self.shared.uploads).acquire_owned().await.ok();
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        let scopes = ScopeSet::push(reference.repository());
        let is_to_go_on = self.shared.is_under_way(&endpoint);
        if self.has_blob_at(&endpoint, reference, &blob.digest, scopes.clone(), is_to_go_on).await? {
            return Ok(Pushed::Present);
        }
        let subject = blob_subject(reference, &blob.digest);
        let mut session = None;
        for from in mount_from.iter().filter(|from| *from != reference.repository()) {
            if let Some(unused) = session.take() {
                self.cancel(&endpoint, reference, &subject, unused).await;
            }
            session = match self.start(&endpoint, reference, &subject, Some((&blob.digest, from))).await? {
                None => return Ok(Pushed::Mounted { from: from.clone() }),
                session => session,
            };
        }
        let purpose = Purpose { reference, scopes, subject, also: &[], is_to_go_on: true };
        let upload = Upload { client: self, endpoint: &endpoint, purpose: &purpose, blob, source: &source, progress };
        upload.run(session).await?;
        progress(blob.size_bytes);
        Ok(Pushed::Uploaded)
    }

    /// Opens a session, or mounts (`None`).
    async fn start(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        subject: &Subject,
        mount: Option<(&Digest, &str)>,
    ) -> Result<Option<Url>, ClientError> {
        let mut url = endpoint.url(&format!("{}/blobs/uploads/", reference.repository()));
        let mut scopes = ScopeSet::push(reference.repository());
        if let Some((digest, from)) = mount {
            url.query_pairs_mut().append_pair("mount", digest.as_ref()).append_pair("from", from);
            scopes = scopes.and_pull(from);
        }
        let mut request = Request::new(Method::POST, url);
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let is_under_way = self.shared.is_under_way(endpoint);
        // A mount that fails is no loss.
        let is_to_go_on = is_under_way && mount.is_none();
        let purpose = Purpose { reference, scopes, subject: subject.clone(), also: &[], is_to_go_on };
        // Sent again after a failure like any other: what it may leave behind is an empty session, which registries sweep.
        let response = match self.shared.exchange(endpoint, request, &purpose).await {
            Ok(response) => response,
            // A registry that stumbles over a mount may well take the bytes.
            Err(error) if mount.is_some() && (is_under_way || !matches!(error, ClientError::Connect { .. })) => {
                tracing::debug!(%error, "no mount; a session without one is opened");
                return Box::pin(self.start(endpoint, reference, subject, None)).await;
            }
            Err(error) => return Err(error),
        };
        match response.status() {
            StatusCode::CREATED if mount.is_some() => Ok(None),
            StatusCode::ACCEPTED => {
                self.shared.transport.next_location(response.url(), response.headers(), &purpose.subject).map(Some)
            }
            status => {
                Err(purpose.subject.answer(format!("it has the status {status} for a new upload; 202 was expected")))
            }
        }
    }

    /// Gives a session back; that it cannot be is the registry's sweeper's work.
    async fn cancel(&self, endpoint: &Endpoint, reference: &Reference, subject: &Subject, session: Url) {
        let scopes = ScopeSet::push(reference.repository());
        let purpose = Purpose { reference, scopes, subject: subject.clone(), also: &[404, 405], is_to_go_on: false };
        if let Err(error) = self.shared.attempt(endpoint, Request::new(Method::DELETE, session), &purpose).await {
            tracing::debug!(%error, "an unused upload stays behind");
        }
    }
}

impl<R, S> Upload<'_, S>
where
    R: Read + Send + 'static,
    S: Fn(u64) -> io::Result<R> + Send + Sync,
{
    /// Sends until the blob is there, or the policy gives up.
    async fn run(&self, session: Option<Url>) -> Result<(), ClientError> {
        let mut place = session.map(|session| (session, 0));
        let (mut streak, mut failed_at, mut resumed) = (Streak::of_transfer(true), 0, false);
        loop {
            let (mut session, offset) = match place.take() {
                Some(place) => place,
                None => {
                    resumed = false;
                    let (client, reference) = (self.client, self.purpose.reference);
                    match client.start(self.endpoint, reference, self.subject(), None).await? {
                        Some(session) => (session, 0),
                        None => return Ok(()),
                    }
                }
            };
            let error = match self.send(&session, offset).await {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::At(next, taken)) if taken == self.blob.size_bytes => {
                    place = Some((next, taken));
                    continue;
                }
                Ok(Step::At(next, taken)) => {
                    session = next;
                    self.subject().answer(format!("it took {taken} bytes of {}", self.blob.size_bytes))
                }
                Err(error) => error,
            };
            // A session that was gone on with and is refused now is not what we think it is: another one may be.
            let spoilt = resumed && matches!(error, ClientError::Protocol { status: 400..=499, .. });
            let failure = if spoilt { Some(Failure::Wrong) } else { self.failure(&error) };
            let Some(failure) = failure else { return Err(self.explain(error).await) };
            if !self.client.shared.pause_after(self.endpoint, &mut streak, Some(failure), &error).await {
                return Err(error);
            }
            // The closing request may have been carried out, and only its answer lost.
            if self.is_there().await? {
                return Ok(());
            }
            place = if spoilt { None } else { self.ask(&session).await };
            resumed = place.is_some();
            let reached = place.as_ref().map_or(0, |(_, offset)| *offset);
            if reached >= failed_at + PROGRESS_MIN_BYTES {
                streak.end();
            }
            failed_at = failed_at.max(reached);
        }
    }

    /// One stream into the session from `offset` on, or the request that closes it.
    async fn send(&self, session: &Url, offset: u64) -> Result<Step, ClientError> {
        let left = self.blob.size_bytes - offset;
        if left > SMALL_BYTES {
            let mut request = Request::new(Method::PATCH, session.clone());
            if offset > 0 {
                let range = format!("{offset}-{}", self.blob.size_bytes - 1);
                request.headers.insert(CONTENT_RANGE, self.header(range)?);
            }
            let response = self.stream(request, offset).await?;
            let next = match response.headers().get(LOCATION) {
                Some(_) => self.client.shared.transport.next_location(session, response.headers(), self.subject())?,
                None => session.clone(),
            };
            let taken = taken(response.headers()).map_or(self.blob.size_bytes, |taken| taken.min(self.blob.size_bytes));
            return Ok(Step::At(next, taken));
        }
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", self.blob.digest.as_ref());
        let request = Request::new(Method::PUT, url);
        let response = self.stream(request, offset).await?;
        match response.status() {
            // 204 is what some old registries answer.
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(Step::Done),
            status => Err(self
                .subject()
                .answer(format!("it has the status {status} for the end of an upload; 201 was expected"))),
        }
    }

    /// Sends a request with the source's bytes from `offset` on.
    async fn stream(&self, mut request: Request, offset: u64) -> Result<Response, ClientError> {
        let claim = self.purpose.claim(self.endpoint);
        let left = self.blob.size_bytes - offset;
        let flow = Arc::new(Flow::default());
        let body = if left == 0 {
            flow.end();
            reqwest::Body::from(Bytes::new())
        } else {
            let reader = (self.source)(offset).map_err(|source| self.unreadable(source))?;
            reqwest::Body::wrap(SourceBody::start(reader, left, Arc::clone(&flow)))
        };
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request.headers.insert(CONTENT_LENGTH, self.header(left.to_string())?);
        // A place on another host is no business of the registry's token.
        let ours = is_ours(self.endpoint, &request.url);
        let sent = if ours { self.client.shared.auth.header(&claim).await? } else { None };
        authorize(&mut request, sent.as_ref());
        let transport = &self.client.shared.transport;
        let url = request.url.clone();
        let silent = |limit| transport.tell_of(&url, self.subject(), limit);
        let watch = flow.watch(offset, transport.idle_timeout(), self.progress, silent);
        let outcome = transport.send_stream(&request, body, watch, self.subject()).await;
        if let Some(error) = flow.take_error() {
            return Err(match error {
                body::SourceError::Io(source) => self.unreadable(source),
                body::SourceError::Length(problem) => {
                    ClientError::Damaged { what: self.subject().what.clone(), problem }
                }
            });
        }
        let response = outcome?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED if ours => {
                // The body is gone, but the next attempt will have a new token.
                self.client.shared.auth.answer(&claim, response, sent.as_ref()).await?;
                Err(ClientError::Cut {
                    host: self.endpoint.host.clone(),
                    what: self.subject().what.clone(),
                    problem: "the token ran out".to_owned(),
                })
            }
            _ => Err(transport.refusal(response, self.subject()).await),
        }
    }

    /// The kind of failure after which the upload may be gone on with.
    fn failure(&self, error: &ClientError) -> Option<Failure> {
        match error {
            // The session is gone, or not where we think it is, or took less than was sent.
            ClientError::NotFound { .. } | ClientError::Protocol { status: 416, .. } | ClientError::Answer { .. } => {
                Some(Failure::Wrong)
            }
            error => self.client.shared.failure(error),
        }
    }

    async fn is_there(&self) -> Result<bool, ClientError> {
        let scopes = self.purpose.scopes.clone();
        self.client.has_blob_at(self.endpoint, self.purpose.reference, &self.blob.digest, scopes, true).await
    }

    /// How far a session came; `None` when it has to be begun again.
    async fn ask(&self, session: &Url) -> Option<(Url, u64)> {
        let response = match self
            .client
            .shared
            .attempt(self.endpoint, Request::new(Method::GET, session.clone()), self.purpose)
            .await
        {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "the upload cannot be gone on with");
                return None;
            }
        };
        let taken = taken(response.headers())?;
        let next = match response.headers().get(LOCATION) {
            Some(_) => self.client.shared.transport.next_location(session, response.headers(), self.subject()).ok()?,
            None => session.clone(),
        };
        (taken <= self.blob.size_bytes).then_some((next, taken))
    }

    /// After a refusal: is it the source that is wrong?
    async fn explain(&self, error: ClientError) -> ClientError {
        let suspicious = matches!(&error, ClientError::Protocol { status: 400, said, .. } if said.has_code("DIGEST_INVALID") || said.has_code("SIZE_INVALID"));
        if !suspicious {
            return error;
        }
        let reader = match (self.source)(0) {
            Ok(reader) => reader,
            Err(source) => return self.unreadable(source),
        };
        let (blob, subject) = (self.blob.clone(), self.subject().clone());
        match tokio::task::spawn_blocking(move || check(reader, &blob, &subject)).await {
            Ok(Some(found)) => found,
            _ => error,
        }
    }

    fn unreadable(&self, source: io::Error) -> ClientError {
        ClientError::Source { what: self.subject().what.clone(), source }
    }

    fn header(&self, text: String) -> Result<HeaderValue, ClientError> {
        HeaderValue::try_from(text).map_err(|error| self.subject().answer(error.to_string()))
    }

    fn subject(&self) -> &Subject {
        &self.purpose.subject
    }
}

/// How many bytes a session has, by its `Range: 0-N`, of which both ends count. `0-0` may be one byte or none: not known.
fn taken(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (start, end) = text.split_once('-')?;
    let end: u64 = end.trim().parse().ok()?;
    (start.trim() == "0" && end > 0).then_some(end.checked_add(1)?)
}

/// What is wrong with the local copy, if anything.
fn check(mut reader: impl Read, blob: &Blob, subject: &Subject) -> Option<ClientError> {
    let damaged = |problem: String| ClientError::Damaged { what: subject.what.clone(), problem };
    let mut hasher = Hasher::new(blob.digest.algorithm(), subject).ok()?;
    let mut buffer = vec![0; 256 * 1024];
    let mut length: u64 = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Some(ClientError::Source { what: subject.what.clone(), source }),
        }
    }
    if length != blob.size_bytes {
        return Some(damaged(format!("expected {} bytes, found {length}", blob.size_bytes)));
    }
    let found = hasher.finish(subject).ok()?;
    (found != blob.digest).then(|| damaged(format!("expected digest {}, found {found}", blob.digest)))
}
