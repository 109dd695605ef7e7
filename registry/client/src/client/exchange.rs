//! A request with all that belongs to it: authorization, another attempt after a failure, another place after a mirror.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, Url};

use super::endpoint::Endpoint;
use super::{Client, Shared};
use crate::auth::Claim;
use crate::challenge::ScopeSet;
use crate::error::{ClientError, Subject};
use crate::reference::Reference;
use crate::retry::Failure;
use crate::transport::{Request, authority, host_of, random};

/// What a request is for.
pub(super) struct Purpose<'a> {
    pub(super) reference: &'a Reference,
    pub(super) scopes: ScopeSet,
    pub(super) subject: Subject,
    /// The statuses that are answers, beside the 2xx.
    pub(super) also: &'a [u16],
    /// Whether a transfer that was under way needs it to go on.
    pub(super) is_to_go_on: bool,
}

/// Failures in a row of one request, or of one transfer.
#[derive(Debug, Default)]
pub(super) struct Streak {
    failures: u32,
    began: Option<Instant>,
    /// Whether it is a transfer that was under way, which is given more time.
    pub(super) is_transfer: bool,
}

impl Streak {
    pub(super) fn of_transfer(is_transfer: bool) -> Self {
        Self { is_transfer, ..Self::default() }
    }

    /// There was progress since the last one.
    pub(super) fn end(&mut self) {
        *self = Self { is_transfer: self.is_transfer, ..Self::default() };
    }
}

impl Purpose<'_> {
    pub(super) fn claim<'c>(&'c self, endpoint: &'c Endpoint) -> Claim<'c> {
        Claim {
            host: &endpoint.host,
            repository: self.reference.repository(),
            scopes: &self.scopes,
            subject: &self.subject,
        }
    }

    fn accepts(&self, status: StatusCode) -> bool {
        status.is_success() || self.also.contains(&status.as_u16())
    }
}

impl Shared {
    /// Sends a request that may be sent again, until it has an answer or the policy gives up.
    pub(super) async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request,
        purpose: &Purpose<'_>,
    ) -> Result<Response, ClientError> {
        let mut streak = Streak::of_transfer(purpose.is_to_go_on);
        loop {
            let error = match self.attempt(endpoint, request.clone(), purpose).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !self.pause(endpoint, &mut streak, &error).await {
                return Err(error);
            }
        }
    }

    /// Waits before another attempt; `false` when there shall be none. A mirror is asked once: the next place is near.
    pub(super) async fn pause(&self, endpoint: &Endpoint, streak: &mut Streak, error: &ClientError) -> bool {
        self.pause_after(endpoint, streak, self.failure(error), error).await
    }

    /// As [`Self::pause`], for a caller that knows better what kind of failure it was.
    pub(super) async fn pause_after(
        &self,
        endpoint: &Endpoint,
        streak: &mut Streak,
        failure: Option<Failure>,
        error: &ClientError,
    ) -> bool {
        let Some(wait) = self.wait(streak, failure.filter(|_| !endpoint.is_mirror)) else { return false };
        tracing::debug!(registry = %endpoint.host, %error, ?wait, "trying again");
        tokio::time::sleep(wait).await;
        true
    }

    /// The wait before another attempt after one more failure, or `None` to give up.
    pub(super) fn wait(&self, streak: &mut Streak, failure: Option<Failure>) -> Option<Duration> {
        streak.failures += 1;
        let lasted = streak.began.get_or_insert_with(Instant::now).elapsed();
        self.retry.wait(streak.failures, streak.is_transfer.then_some(lasted), failure?, random())
    }

    /// What kind of failure an error is; `None`: another attempt cannot help.
    pub(super) fn failure(&self, error: &ClientError) -> Option<Failure> {
        match error {
            // Its name is right, and it was there: it is away for a moment.
            ClientError::Connect { host, .. } if self.transport.has_answered(host) => Some(Failure::Cut),
            error => error.failure(),
        }
    }

    /// Whether something of what this client is for is done at that place already: what follows belongs to a transfer that
    /// is under way, and an outage shall not cost what came before it.
    pub(super) fn is_under_way(&self, endpoint: &Endpoint) -> bool {
        self.transport.has_answered(&host_of(&endpoint.base))
    }

    /// One attempt, with authorization; a refusal (401) is answered once.
    pub(super) async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut request: Request,
        purpose: &Purpose<'_>,
    ) -> Result<Response, ClientError> {
        let claim = purpose.claim(endpoint);
        let ours = is_ours(endpoint, &request.url);
        let sent = if ours { self.auth.header(&claim).await? } else { None };
        authorize(&mut request, sent.as_ref());
        let mut response = self.transport.send(&request, &purpose.subject).await?;
        // After a redirect the question may be another host's, which is none of the registry's credentials' business.
        if ours && response.status() == StatusCode::UNAUTHORIZED && is_ours(endpoint, response.url()) {
            let header = self.auth.answer(&claim, response, sent.as_ref()).await?;
            authorize(&mut request, Some(&header));
            response = self.transport.send(&request, &purpose.subject).await?;
            if response.status() == StatusCode::UNAUTHORIZED && is_ours(endpoint, response.url()) {
                return Err(self.auth.refused(&claim, response).await);
            }
        }
        if purpose.accepts(response.status()) {
            return Ok(response);
        }
        let mut subject = purpose.subject.clone();
        if ours && !is_ours(endpoint, response.url()) {
            subject.registry = host_of(response.url());
        }
        Err(self.transport.refusal(response, &subject).await)
    }
}

/// Whether a URL is one of the registry itself: an upload's place, for example, may be on another host.
pub(super) fn is_ours(endpoint: &Endpoint, url: &Url) -> bool {
    authority(&endpoint.base) == authority(url)
}

pub(super) fn authorize(request: &mut Request, header: Option<&HeaderValue>) {
    match header {
        Some(header) => request.headers.insert(AUTHORIZATION, header.clone()),
        None => request.headers.remove(AUTHORIZATION),
    };
}

impl Client {
    /// The places to read from, mirrors first.
    pub(super) fn readers(&self, reference: &Reference) -> Result<Vec<Endpoint>, ClientError> {
        self.shared.endpoints.readers(reference, &self.shared.transport)
    }
}

impl Shared {
    /// Whether the next place is to be asked after this error; never after the registry's own.
    pub(super) fn moves_on(&self, endpoint: &Endpoint, error: &ClientError) -> bool {
        if !endpoint.is_mirror || matches!(error, ClientError::Sink { .. } | ClientError::Algorithm { .. }) {
            return false;
        }
        tracing::warn!(mirror = %endpoint.host, %error, "the mirror does not help; the next place is asked");
        let is_bad = matches!(
            error,
            ClientError::Tls { .. } | ClientError::DigestMismatch { .. } | ClientError::Truncated { .. }
        );
        if error.is_transient() || is_bad {
            self.endpoints.rest(endpoint);
        }
        true
    }
}

/// The error to tell where a mirror said no and the registry failed after it: a registry that cannot be reached, which may be
/// why there is a mirror, says less than a mirror that answered.
pub(super) fn what_to_say(refusal: Option<ClientError>, error: ClientError) -> ClientError {
    match refusal {
        Some(refusal) if matches!(error, ClientError::Connect { .. }) && !refusal.is_transient() => refusal,
        _ => error,
    }
}

/// The error of a list of places that ends without the registry itself.
pub(super) fn no_place(reference: &Reference) -> ClientError {
    ClientError::Setting {
        name: "the registry",
        value: reference.host().to_owned(),
        problem: "there is no place to ask".to_owned(),
    }
}
