//! Manifests: fetched whole, because their bytes decide what else is fetched, and checked against their digest.

use std::str::FromStr;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use oci_spec::image::{Digest, DigestAlgorithm};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::exchange::{Purpose, Streak, no_place, what_to_say};
use super::{Client, Resolved};
use crate::challenge::ScopeSet;
use crate::error::{ClientError, Subject};
use crate::hash::{Hasher, digest_of};
use crate::reference::Reference;
use crate::transport::Request;

/// Largest manifest that is accepted, in bytes.
///
/// The specification expects registries to take at least 4 MB ("Pushing Manifests"); a manifest is held in memory.
pub const MANIFEST_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The types of manifests and indexes that are asked for when the caller names none.
pub const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The header in which registries name a manifest's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest or index as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// What its field `mediaType` says, or else the registry's header; the field is covered by the digest.
    pub media_type: String,
    /// The digest of the bytes: of the reference's algorithm, or sha256.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
}

impl Client {
    /// Fetches the manifest that a reference names. `accept` are the media types, [`MANIFEST_TYPES`] if empty.
    ///
    /// # Errors
    ///
    /// [`ClientError::DigestMismatch`] when the bytes are not those of the reference's digest, or of the digest that
    /// the registry names; [`ClientError::TooLarge`] over [`MANIFEST_MAX_BYTES`]; [`ClientError::Answer`] for what is
    /// no JSON object; those of every request.
    pub async fn manifest(&self, reference: &Reference, accept: &[&str]) -> Result<Manifest, ClientError> {
        let mut refusal = None;
        for endpoint in self.readers(reference)? {
            match self.manifest_from(&endpoint, reference, accept).await {
                Err(error) if self.shared.moves_on(&endpoint, &error) => refusal = refusal.or(Some(error)),
                Err(error) => return Err(what_to_say(refusal, error)),
                found => return found,
            }
        }
        Err(no_place(reference))
    }

    async fn manifest_from(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        accept: &[&str],
    ) -> Result<Manifest, ClientError> {
        let purpose = reading(endpoint, reference);
        let mut streak = Streak::default();
        loop {
            let response =
                self.shared.exchange(endpoint, request(Method::GET, endpoint, reference, accept)?, &purpose).await?;
            let headers = response.headers().clone();
            match self.shared.transport.bytes(response, MANIFEST_MAX_BYTES, &purpose.subject).await {
                Ok(bytes) => return verified(bytes, &headers, reference, &purpose.subject),
                Err(error) => {
                    if !self.shared.pause(endpoint, &mut streak, &error).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Asks which manifest a reference names at present, without fetching it where the registry allows.
    ///
    /// # Errors
    ///
    /// As for [`Self::manifest`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, ClientError> {
        let mut refusal = None;
        for endpoint in self.readers(reference)? {
            match self.resolve_at(&endpoint, reference).await {
                Err(error) if self.shared.moves_on(&endpoint, &error) => refusal = refusal.or(Some(error)),
                Err(error) => return Err(what_to_say(refusal, error)),
                found => return found,
            }
        }
        Err(no_place(reference))
    }

    async fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Resolved, ClientError> {
        // Some registries know no `HEAD` here.
        let purpose = Purpose { also: &[400, 405, 501], ..reading(endpoint, reference) };
        let response =
            self.shared.exchange(endpoint, request(Method::HEAD, endpoint, reference, &[])?, &purpose).await?;
        if response.status().is_success()
            && let Some(resolved) = resolved(response.headers(), reference, &purpose.subject)?
        {
            return Ok(resolved);
        }
        let manifest = self.manifest_from(endpoint, reference, &[]).await?;
        Ok(Resolved {
            digest: manifest.digest,
            media_type: manifest.media_type,
            size_bytes: manifest.bytes.len() as u64,
        })
    }

    /// Whether the registry itself (no mirror) has the manifest.
    ///
    /// # Errors
    ///
    /// Those of every request, without [`ClientError::NotFound`].
    pub async fn has_manifest(&self, reference: &Reference) -> Result<bool, ClientError> {
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        match self.resolve_at(&endpoint, reference).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest under the reference's tag, or under its digest if the reference has no tag; what it names has to
    /// be there already. Gives its digest.
    ///
    /// # Errors
    ///
    /// [`ClientError::Damaged`] when the reference's digest is not that of the bytes;
    /// [`ClientError::DigestMismatch`] when the registry stored something else; those of every request.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, ClientError> {
        let subject = manifest_subject(reference);
        let algorithm = reference.digest().map_or(DigestAlgorithm::Sha256, |digest| digest.algorithm().clone());
        let digest = digest_of(&bytes, &algorithm, &subject)?;
        if let Some(expected) = reference.digest().filter(|expected| **expected != digest) {
            return Err(ClientError::Damaged {
                what: subject.what,
                problem: format!("expected digest {expected}, found {digest}"),
            });
        }
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        let key = reference.tag().unwrap_or(digest.as_ref());
        let mut request =
            Request::new(Method::PUT, endpoint.url(&format!("{}/manifests/{key}", reference.repository())));
        let media_type = HeaderValue::try_from(media_type).map_err(|_| ClientError::Setting {
            name: "the media type",
            value: media_type.escape_debug().to_string(),
            problem: "it cannot be a header".to_owned(),
        })?;
        request.headers.insert(CONTENT_TYPE, media_type);
        request.body = Some(bytes);
        let scopes = ScopeSet::push(reference.repository());
        let is_to_go_on = self.shared.is_under_way(&endpoint);
        let purpose = Purpose { reference, scopes, subject, also: &[], is_to_go_on };
        let response = self.shared.exchange(&endpoint, request, &purpose).await?;
        if let Some(stored) = named_digest(response.headers())
            .filter(|stored| stored.algorithm() == digest.algorithm() && *stored != digest)
        {
            return Err(mismatch(&purpose.subject, &digest, &stored));
        }
        Ok(digest)
    }
}

fn manifest_subject(reference: &Reference) -> Subject {
    Subject { registry: reference.host().to_owned(), what: format!("manifest {reference}") }
}

/// What is said of an answer names the place that gave it: a mirror refuses for itself.
fn reading<'a>(endpoint: &Endpoint, reference: &'a Reference) -> Purpose<'a> {
    let registry = if endpoint.is_mirror { &endpoint.host } else { reference.host() };
    Purpose {
        reference,
        scopes: ScopeSet::pull(reference.repository()),
        subject: Subject { registry: registry.to_owned(), ..manifest_subject(reference) },
        also: &[],
        is_to_go_on: false,
    }
}

fn request(
    method: Method,
    endpoint: &Endpoint,
    reference: &Reference,
    accept: &[&str],
) -> Result<Request, ClientError> {
    let mut request = Request::new(
        method,
        endpoint.url(&format!("{}/manifests/{}", reference.repository(), reference.manifest_key())),
    );
    let types = if accept.is_empty() { MANIFEST_TYPES } else { accept };
    let types = types.join(", ");
    let value = HeaderValue::try_from(&types).map_err(|_| ClientError::Setting {
        name: "the media types",
        value: types.escape_debug().to_string(),
        problem: "they cannot be a header".to_owned(),
    })?;
    request.headers.insert(ACCEPT, value);
    Ok(request)
}

fn named_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::from_str(headers.get(CONTENT_DIGEST)?.to_str().ok()?).ok()
}

fn header_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next().unwrap_or(text).trim();
    (!bare.is_empty()).then(|| bare.to_ascii_lowercase())
}

fn mismatch(subject: &Subject, expected: &Digest, found: &Digest) -> ClientError {
    ClientError::DigestMismatch {
        registry: subject.registry.clone(),
        what: subject.what.clone(),
        expected: Box::new(expected.clone()),
        found: Box::new(found.clone()),
    }
}

fn verified(
    bytes: Bytes,
    headers: &HeaderMap,
    reference: &Reference,
    subject: &Subject,
) -> Result<Manifest, ClientError> {
    let named = named_digest(headers);
    // The reference's digest is the user's word, the header only the registry's.
    let expected = reference.digest().or(named.as_ref().filter(|named| Hasher::knows(named.algorithm())));
    let algorithm = expected.map_or(DigestAlgorithm::Sha256, |digest| digest.algorithm().clone());
    let digest = digest_of(&bytes, &algorithm, subject)?;
    if let Some(expected) = expected.filter(|expected| **expected != digest) {
        return Err(mismatch(subject, expected, &digest));
    }
    // Where neither tag nor header promise a digest, an answer that was cut could pass for a manifest.
    let typed: Typed = serde_json::from_slice(&bytes)
        .map_err(|error| subject.answer(format!("it is not the JSON object that a manifest is: {error}")))?;
    let media_type = typed.media_type.or_else(|| header_type(headers)).unwrap_or_default();
    Ok(Manifest { bytes, media_type, digest })
}

/// `None` when the headers do not say enough.
fn resolved(headers: &HeaderMap, reference: &Reference, subject: &Subject) -> Result<Option<Resolved>, ClientError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let (Some(digest), Some(size_bytes)) = (named_digest(headers), length) else { return Ok(None) };
    if let Some(expected) =
        reference.digest().filter(|expected| expected.algorithm() == digest.algorithm() && **expected != digest)
    {
        return Err(mismatch(subject, expected, &digest));
    }
    let digest = reference.digest().cloned().unwrap_or(digest);
    Ok(Some(Resolved { digest, media_type: header_type(headers).unwrap_or_default(), size_bytes }))
}
