//! What a failed connection was: the cause out of the chain of errors below reqwest's.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

use crate::error::{ClientError, Subject};
use crate::quote::clean;

const TRUST_HINT: &str = "give its CA with --registry-certificate HOST=FILE, or use --skip-tls-verify-registry HOST";

/// The error of a request that got no answer.
pub(super) fn classify(
    host: &str,
    error: &reqwest::Error,
    plain: bool,
    connect_timeout: Duration,
    subject: &Subject,
) -> ClientError {
    if let Some(tls) = find_tls(error) {
        let (problem, hint) = explain_tls(tls);
        return ClientError::Tls { host: host.to_owned(), problem, hint };
    }
    if error.is_connect() {
        let problem = if error.is_timeout() {
            format!("no answer within {} s", connect_timeout.as_secs())
        } else if error.is_dns() {
            format!("the name cannot be resolved ({})", innermost(error))
        } else {
            innermost(error)
        };
        return ClientError::Connect { host: host.to_owned(), problem };
    }
    if plain && not_http(error) {
        return ClientError::Tls {
            host: host.to_owned(),
            problem: "it does not speak plain HTTP".to_owned(),
            hint: "if it speaks TLS, give its CA with --registry-certificate HOST=FILE, or use --skip-tls-verify-registry HOST".to_owned(),
        };
    }
    cut(host, error, subject)
}

/// The error of a connection that broke while it was in use.
pub(super) fn cut(host: &str, error: &reqwest::Error, subject: &Subject) -> ClientError {
    ClientError::Cut { host: host.to_owned(), what: subject.what.clone(), problem: innermost(error) }
}

/// The innermost cause, whose words are the plainest and hold no URL.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut last: Option<String> = None;
    visit(error, &mut |cause| {
        if !cause.is::<reqwest::Error>() {
            last = Some(clean(&cause.to_string()));
        }
    });
    last.unwrap_or_else(|| "unknown cause".to_owned())
}

/// Visits the chain of causes, also those that `io::Error` keeps to itself.
fn visit(error: &(dyn Error + 'static), see: &mut dyn FnMut(&(dyn Error + 'static))) {
    see(error);
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    if let Some(inner) = inner {
        visit(inner, see);
    } else if let Some(source) = error.source() {
        visit(source, see);
    }
}

fn find_tls(error: &reqwest::Error) -> Option<rustls::Error> {
    let mut found = None;
    visit(error, &mut |cause| {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            found = Some(tls.clone());
        }
    });
    found
}

fn not_http(error: &reqwest::Error) -> bool {
    let mut found = false;
    visit(error, &mut |cause| found |= cause.to_string().contains("invalid HTTP version parsed"));
    found
}

fn explain_tls(error: rustls::Error) -> (String, String) {
    match error {
        rustls::Error::InvalidCertificate(problem) => {
            let text = match &problem {
                // The latter: another authority of the same name.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "its certificate is signed by an authority that is not trusted".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "its certificate is for another name".to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet; look at this machine's clock".to_owned()
                }
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                    "its certificate is its own authority, and not one that is trusted".to_owned()
                }
                other => format!("its certificate is not accepted ({other:?})"),
            };
            (text, TRUST_HINT.to_owned())
        }
        rustls::Error::InvalidMessage(_) => (
            "it does not speak TLS".to_owned(),
            "if it speaks plain HTTP, name it with --insecure-registry HOST".to_owned(),
        ),
        rustls::Error::AlertReceived(alert) => (
            format!("it refuses the connection with the alert `{alert:?}`"),
            "if it wants a certificate of yours, put NAME.cert and NAME.key into /etc/docker/certs.d/HOST".to_owned(),
        ),
        other => (clean(&other.to_string()), TRUST_HINT.to_owned()),
    }
}
