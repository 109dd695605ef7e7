//! Blobs, streamed: hashed on the way, and after a cut gone on with where it broke.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use oci_spec::image::Digest;
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::endpoint::Endpoint;
use super::exchange::{Purpose, Streak, is_ours, no_place};
use super::{Blob, Client, blob_subject};
use crate::challenge::ScopeSet;
use crate::error::{ClientError, Subject};
use crate::hash::Hasher;
use crate::reference::Reference;
use crate::retry::Failure;
use crate::transport::{Request, is_redirect};

/// So much has to come between two failures for the second not to count as one more in a row, in bytes: a registry that
/// gives a byte per connection shall not keep us for ever.
const PROGRESS_MIN_BYTES: u64 = 256 * 1024;

/// A blob that is being received, piece by piece.
///
/// The pieces are not verified until [`Self::chunk`] has given `None`. It holds one of the client's downloads.
pub struct BlobStream {
    client: Client,
    reference: Reference,
    blob: Blob,
    subject: Subject,
    /// The place that is read from, and those to turn to when it fails.
    endpoints: Vec<Endpoint>,
    /// The mirrors that some of it came from.
    mirrors: Vec<Endpoint>,
    response: Option<Response>,
    /// Bytes of the open response that are there already, from a registry without ranges.
    skip_bytes: u64,
    hasher: Option<Hasher>,
    position: u64,
    failed_at: u64,
    streak: Streak,
    _place: Option<OwnedSemaphorePermit>,
}

impl Client {
    /// Fetches a blob into `sink`. `progress` hears the number of bytes so far.
    ///
    /// What is in the sink is the blob only if this returns `Ok`. The sink is written to on the runtime's thread: it
    /// should be a file or memory, not something that waits.
    ///
    /// # Errors
    ///
    /// [`ClientError::DigestMismatch`] and [`ClientError::Truncated`] when the content is not what `blob` says;
    /// [`ClientError::Sink`] when it cannot be written; those of every request.
    pub async fn blob(
        &self,
        reference: &Reference,
        blob: &Blob,
        sink: &mut (dyn Write + Send),
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ClientError> {
        let mut stream = self.blob_stream(reference, blob).await?;
        while let Some(chunk) = stream.chunk().await? {
            sink.write_all(&chunk).map_err(|source| ClientError::Sink { what: stream.subject.what.clone(), source })?;
            progress(stream.position);
        }
        sink.flush().map_err(|source| ClientError::Sink { what: stream.subject.what.clone(), source })
    }

    /// Opens a blob for reading piece by piece. Waits while the client has as many downloads as it may.
    ///
    /// # Errors
    ///
    /// [`ClientError::Algorithm`] for a digest that cannot be checked; those of every request.
    pub async fn blob_stream(&self, reference: &Reference, blob: &Blob) -> Result<BlobStream, ClientError> {
        let place = self.download_place().await;
        self.stream_within(reference, blob, place).await
    }

    /// A stream within a transfer that the caller may have already: one that takes from a registry what it gives to another
    /// has the place of an upload, and waits for no second one.
    pub(super) async fn stream_within(
        &self,
        reference: &Reference,
        blob: &Blob,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<BlobStream, ClientError> {
        let subject = blob_subject(reference, &blob.digest);
        let hasher = Hasher::new(blob.digest.algorithm(), &subject)?;
        let mut endpoints = self.readers(reference)?;
        // Taken from the end.
        endpoints.reverse();
        let mut stream = BlobStream {
            client: self.clone(),
            reference: reference.clone(),
            blob: blob.clone(),
            subject,
            endpoints,
            mirrors: Vec::new(),
            response: None,
            skip_bytes: 0,
            hasher: Some(hasher),
            position: 0,
            failed_at: 0,
            streak: Streak::default(),
            _place: place,
        };
        stream.turn_to_next();
        // So that a missing blob is told here.
        stream.open().await?;
        Ok(stream)
    }

    /// A place among the downloads of this client.
    pub(super) async fn download_place(&self) -> Option<OwnedSemaphorePermit> {
        // Fails only for a closed semaphore, which this one never is.
        Arc::clone(&self.shared.downloads).acquire_owned().await.ok()
    }

    /// Whether the registry itself (no mirror) has a blob in the reference's repository.
    ///
    /// # Errors
    ///
    /// Those of every request, without [`ClientError::NotFound`].
    pub async fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, ClientError> {
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        self.has_blob_at(&endpoint, reference, digest, ScopeSet::pull(reference.repository()), false).await
    }

    pub(super) async fn has_blob_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        digest: &Digest,
        scopes: ScopeSet,
        is_to_go_on: bool,
    ) -> Result<bool, ClientError> {
        let url = endpoint.url(&format!("{}/blobs/{digest}", reference.repository()));
        let purpose = Purpose {
            reference,
            scopes,
            subject: blob_subject(reference, digest),
            also: &[301, 302, 303, 307, 308, 404],
            is_to_go_on,
        };
        let mut request = Request { follow: false, ..Request::new(Method::HEAD, url) };
        let response = self.shared.exchange(endpoint, request.clone(), &purpose).await?;
        if !is_redirect(response.status()) {
            return Ok(response.status().is_success());
        }
        // The way to where a blob is stored is an answer. What is signed there is often for `GET` only.
        let next = self.shared.transport.next_location(response.url(), response.headers(), &purpose.subject)?;
        if !is_ours(endpoint, &next) {
            return Ok(true);
        }
        request.follow = true;
        let purpose = Purpose { also: &[404], ..purpose };
        Ok(self.shared.exchange(endpoint, request, &purpose).await?.status().is_success())
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the response, whose address may be signed.
        let Self { blob, position, .. } = self;
        f.debug_struct("BlobStream").field("blob", blob).field("position", position).finish_non_exhaustive()
    }
}

impl BlobStream {
    /// How many bytes have been given out.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether some of it came from a mirror. Where the content is wrong, those are left alone for a while, and another
    /// stream asks elsewhere.
    #[must_use]
    pub fn is_from_mirror(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// The next piece; `None` after the last one, when size and digest are right.
    ///
    /// # Errors
    ///
    /// As for [`Client::blob`]. After an error the stream gives nothing any more.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if self.hasher.is_none() {
                return Ok(None);
            }
            if self.response.is_none() {
                self.open().await?;
            }
            let Some(response) = &mut self.response else { continue };
            let error = match self.client.shared.transport.chunk(response, &self.subject).await {
                Ok(Some(mut bytes)) => {
                    let skipped = self.skip_bytes.min(bytes.len() as u64);
                    self.skip_bytes -= skipped;
                    let _ = bytes.split_to(usize::try_from(skipped).unwrap_or(bytes.len()));
                    if bytes.is_empty() {
                        continue;
                    }
                    self.position += bytes.len() as u64;
                    if self.position > self.blob.size_bytes {
                        return Err(self.fail_content(self.wrong_size()));
                    }
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&bytes);
                    }
                    return Ok(Some(bytes));
                }
                // Also where the connection breaks after the last byte: there is nothing more to ask for.
                Ok(None) | Err(_) if self.position == self.blob.size_bytes && self.skip_bytes == 0 => {
                    return self.finish().map(|()| None);
                }
                Ok(None) => self.wrong_size(),
                Err(error) => error,
            };
            self.response = None;
            // A body that ended early without a broken connection is tried again as well.
            let is_short = matches!(error, ClientError::Truncated { .. });
            let failure = if is_short { Some(Failure::Wrong) } else { self.client.shared.failure(&error) };
            self.after(error, failure).await?;
        }
    }

    /// Begins anew with the place that is asked next, which may never have answered yet.
    fn turn_to_next(&mut self) {
        let is_under_way = self.endpoints.last().is_some_and(|endpoint| self.client.shared.is_under_way(endpoint));
        self.streak = Streak::of_transfer(is_under_way);
    }

    /// Decides whether to go on after a failure of this kind, and waits.
    async fn after(&mut self, error: ClientError, failure: Option<Failure>) -> Result<(), ClientError> {
        if self.position - self.failed_at >= PROGRESS_MIN_BYTES {
            self.streak.end();
        }
        self.failed_at = self.position;
        let shared = &self.client.shared;
        let Some(endpoint) = self.endpoints.last() else { return Err(self.fail(error)) };
        if shared.moves_on(endpoint, &error) {
            self.endpoints.pop();
            self.turn_to_next();
            return Ok(());
        }
        if shared.pause_after(endpoint, &mut self.streak, failure, &error).await {
            return Ok(());
        }
        Err(self.fail(error))
    }

    /// Opens a response that goes on at the position.
    async fn open(&mut self) -> Result<(), ClientError> {
        loop {
            let Some(endpoint) = self.endpoints.last() else { return Err(self.fail(no_place(&self.reference))) };
            match self.request(endpoint).await {
                Ok((response, skip_bytes)) => {
                    if endpoint.is_mirror {
                        self.mirrors.push(endpoint.clone());
                    }
                    self.response = Some(response);
                    self.skip_bytes = skip_bytes;
                    self.streak.is_transfer = true;
                    return Ok(());
                }
                Err(error) => {
                    let failure = self.client.shared.failure(&error);
                    self.after(error, failure).await?;
                }
            }
        }
    }

    /// The response, and how many of its bytes are there already.
    async fn request(&self, endpoint: &Endpoint) -> Result<(Response, u64), ClientError> {
        let url = endpoint.url(&format!("{}/blobs/{}", self.reference.repository(), self.blob.digest));
        let mut request = Request::new(Method::GET, url);
        // The digest is that of the bytes as they are stored.
        request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.position > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.position))
                .map_err(|error| self.subject.answer(error.to_string()))?;
            request.headers.insert(RANGE, range);
        }
        let scopes = ScopeSet::pull(self.reference.repository());
        let subject = self.subject.clone();
        let purpose = Purpose { reference: &self.reference, scopes, subject, also: &[416], is_to_go_on: false };
        let response = self.client.shared.attempt(endpoint, request, &purpose).await?;
        match response.status().as_u16() {
            206 if self.position > 0 => {
                let start = range_start(&response);
                if start != Some(self.position) {
                    return Err(self
                        .subject
                        .answer(format!("expected the bytes from {} on, and it sends others", self.position)));
                }
                Ok((response, 0))
            }
            // The registry's blob ends before what is there already.
            416 => Err(self.wrong_size()),
            200 => match response.content_length() {
                Some(length) if length != self.blob.size_bytes => Err(ClientError::Truncated {
                    registry: self.subject.registry.clone(),
                    what: self.subject.what.clone(),
                    expected_bytes: self.blob.size_bytes,
                    found_bytes: length,
                }),
                _ => Ok((response, self.position)),
            },
            status => Err(self.subject.answer(format!("it has the status {status}; 200 or 206 were expected"))),
        }
    }

    /// Who gave it, as far as can be told: what a mirror began may be its fault whoever went on.
    fn giver(&self) -> String {
        self.mirrors.last().map_or_else(|| self.subject.registry.clone(), |mirror| mirror.host.clone())
    }

    fn wrong_size(&self) -> ClientError {
        ClientError::Truncated {
            registry: self.giver(),
            what: self.subject.what.clone(),
            expected_bytes: self.blob.size_bytes,
            found_bytes: self.position,
        }
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: ClientError) -> ClientError {
        self.hasher = None;
        self.response = None;
        error
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        self.response = None;
        let found = hasher.finish(&self.subject)?;
        if found == self.blob.digest {
            return Ok(());
        }
        let error = ClientError::DigestMismatch {
            registry: self.giver(),
            what: self.subject.what.clone(),
            expected: Box::new(self.blob.digest.clone()),
            found: Box::new(found),
        };
        Err(self.fail_content(error))
    }

    /// Ends the stream with content that is not the blob's.
    fn fail_content(&mut self, error: ClientError) -> ClientError {
        for mirror in &self.mirrors {
            // So that the caller's next attempt asks elsewhere.
            self.client.shared.moves_on(mirror, &error);
        }
        self.fail(error)
    }
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}
