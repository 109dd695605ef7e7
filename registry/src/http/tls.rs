//! Certificates: PEM -> what a server needs, replaced while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file.
    #[error("the certificate cannot be read: {0}: expected PEM, the server's certificate first, then its issuers'")]
    Certificate(String),
    /// The key's file.
    #[error("the private key cannot be read: {0}: expected PEM, a PKCS#8, PKCS#1 or SEC1 key without a password")]
    Key(String),
    /// Each is good, but not with the other.
    #[error("the private key does not belong to the certificate: expected the key of its first certificate")]
    Mismatch,
    /// What is left.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A server's side of TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    current: Arc<Current>,
    pub(super) config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// From the bytes of two PEM files.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(certified(certificate, key)?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { current, config: Arc::new(config) })
    }

    /// Connections from now on get this certificate. With an error, the old one stays.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let certified = certified(certificate, key)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| TlsError::Certificate(told(&error)))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(told(&error)))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| TlsError::Key(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // What does not tell its public half cannot be compared: then clients are the first to see.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch),
        Err(error) => Err(TlsError::Certificate(error.to_string())),
    }
}

fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds none".into(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_with_which_file() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        let wrong = |certificate: &str, key: &str| {
            Tls::new(certificate.as_bytes(), key.as_bytes()).map(drop).unwrap_err().to_string()
        };
        assert!(Tls::new(certificate.as_bytes(), key.as_bytes()).is_ok());
        assert!(wrong("", &key).starts_with("the certificate cannot be read: it holds no certificate"));
        assert!(wrong(&key, &key).starts_with("the certificate cannot be read: it holds no certificate"));
        assert!(wrong(&certificate, "").starts_with("the private key cannot be read: it holds none"));
        assert!(wrong(&certificate, &certificate).starts_with("the private key cannot be read: it holds none"));
        assert_eq!(wrong(&certificate, &other), TlsError::Mismatch.to_string());
        let cut = certificate.replace("-----END", "----END");
        assert!(wrong(&cut, &key).starts_with("the certificate cannot be read: "), "{}", wrong(&cut, &key));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(wrong(broken, &key).starts_with("the certificate cannot be read: "), "{}", wrong(broken, &key));
    }

    #[test]
    fn a_broken_replacement_leaves_the_old_one() {
        let ((certificate, key), (other_certificate, other_key)) = (pair(), pair());
        let tls = Tls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let before = tls.current.0.read().unwrap().clone();
        assert!(tls.replace(certificate.as_bytes(), other_key.as_bytes()).is_err());
        assert!(Arc::ptr_eq(&before, &tls.current.0.read().unwrap()));
        tls.replace(other_certificate.as_bytes(), other_key.as_bytes()).unwrap();
        assert_ne!(before.cert, tls.current.0.read().unwrap().cert);
    }
}
