//! Whether a registry answers, and whether credentials are good for it.

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};

use super::Client;
use super::endpoint::Endpoint;
use super::exchange::Streak;
use crate::auth::Claim;
use crate::challenge::ScopeSet;
use crate::credential::{Credential, Erased, Stored};
use crate::error::{ClientError, Subject};
use crate::reference::{normal_host, wire_host};
use crate::transport::Request;

/// What a registry makes of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginCheck {
    /// It accepts them.
    Accepted,
    /// It asks for none, so that they could not be checked.
    NotNeeded,
}

impl Client {
    /// Whether a registry answers the distribution API at all; that it asks for credentials is an answer.
    ///
    /// # Errors
    ///
    /// Those of every request.
    pub async fn ping(&self, host: &str) -> Result<(), ClientError> {
        let (endpoint, subject) = self.registry(host)?;
        self.greet(&endpoint, &subject, None).await.map(|_| ())
    }

    /// Checks credentials with a registry, without storing them.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unauthorized`] when it does not accept them; those of every request.
    pub async fn check_login(&self, host: &str, credential: &Credential) -> Result<LoginCheck, ClientError> {
        let (endpoint, subject) = self.registry(host)?;
        let refused = self.greet(&endpoint, &subject, None).await?;
        if refused.status() != StatusCode::UNAUTHORIZED {
            return Ok(LoginCheck::NotNeeded);
        }
        let scopes = ScopeSet::default();
        let claim = Claim { host: &endpoint.host, repository: "", scopes: &scopes, subject: &subject };
        let header = self.shared.auth.check(&claim, refused, credential).await?;
        let answer = self.greet(&endpoint, &subject, Some(header)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(LoginCheck::Accepted);
        }
        let said = self.shared.transport.said(answer, &subject).await;
        Err(ClientError::Unauthorized {
            registry: endpoint.host.clone(),
            what: subject.what,
            tried: format!("those of {} are not accepted", credential.shown()),
            said,
            hint: "check the user name and the password; some registries want an access token in its place".to_owned(),
        })
    }

    /// Checks credentials and stores them: see [`Keyring::store`](crate::Keyring::store).
    ///
    /// # Errors
    ///
    /// As for [`Self::check_login`]; [`ClientError::Credential`] when they cannot be stored.
    pub async fn login(&self, host: &str, credential: &Credential) -> Result<(LoginCheck, Stored), ClientError> {
        let check = self.check_login(host, credential).await?;
        let (keyring, name, secret) = (self.keyring().clone(), host.to_owned(), credential.clone());
        let stored = tokio::task::spawn_blocking(move || keyring.store(&name, &secret))
            .await
            .map_err(|error| broken(&error))??;
        self.shared.auth.forget(normal_host(host));
        Ok((check, stored))
    }

    /// Removes the credentials of a registry: see [`Keyring::erase`](crate::Keyring::erase).
    ///
    /// # Errors
    ///
    /// [`ClientError::Credential`] when they cannot be removed.
    pub async fn logout(&self, host: &str) -> Result<Erased, ClientError> {
        let (keyring, name) = (self.keyring().clone(), host.to_owned());
        let erased =
            tokio::task::spawn_blocking(move || keyring.erase(&name)).await.map_err(|error| broken(&error))??;
        self.shared.auth.forget(normal_host(host));
        Ok(erased)
    }

    fn registry(&self, host: &str) -> Result<(Endpoint, Subject), ClientError> {
        let host = normal_host(host);
        let base = self.shared.transport.base(wire_host(host))?;
        let subject = Subject { registry: host.to_owned(), what: "its start page /v2/".to_owned() };
        Ok((Endpoint { base, host: host.to_owned(), is_mirror: false }, subject))
    }

    /// `GET /v2/`, whose answers are success and 401.
    async fn greet(
        &self,
        endpoint: &Endpoint,
        subject: &Subject,
        header: Option<http::HeaderValue>,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = Request::new(Method::GET, endpoint.url(""));
        request.headers.extend(header.map(|header| (AUTHORIZATION, header)));
        let mut streak = Streak::default();
        loop {
            let error = match self.shared.transport.send(&request, subject).await {
                Ok(response) if response.status().is_success() || response.status() == StatusCode::UNAUTHORIZED => {
                    return Ok(response);
                }
                Ok(response) => self.shared.transport.refusal(response, subject).await,
                Err(error) => error,
            };
            let wait = self.shared.wait(&mut streak, self.shared.failure(&error));
            let Some(wait) = wait else { return Err(error) };
            tokio::time::sleep(wait).await;
        }
    }
}

fn broken(error: &tokio::task::JoinError) -> ClientError {
    ClientError::Setting { name: "the credentials", value: String::new(), problem: error.to_string() }
}
