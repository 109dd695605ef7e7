//! Which certificates are believed, per registry.
//!
//! The CA store is read from files, so that a static binary works on every distribution: from a file and from folders where
//! distributions keep them. `SSL_CERT_FILE` stands for the file and `SSL_CERT_DIR` for the folders, each leaving the other as
//! it is, as for programs in Go; without either the folders are read only where there is no file. It is read when the first TLS
//! connection is made: without a CA store everything else still works. A registry may have more CA certificates and a
//! certificate of our own, by a setting or in Docker's `certs.d` folder.

mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::ClientError;
use crate::reference::normal_host;
use crate::settings::Settings;
use verify::{NoVerification, Verification};

/// Where distributions keep all CA certificates in one file.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];
/// And where one file per certificate.
const SYSTEM_FOLDERS: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

const NO_STORE_HINT: &str = "install the package `ca-certificates`, or name a file of CA certificates in SSL_CERT_FILE";

/// The trust of all registries.
pub(crate) struct Trust {
    skip_tls_verify: Vec<String>,
    certificates: Vec<(String, PathBuf)>,
    folders: Vec<PathBuf>,
    ssl_cert_file: Option<PathBuf>,
    ssl_cert_dir: Vec<PathBuf>,
    provider: Arc<CryptoProvider>,
    system: OnceLock<Result<Arc<RootCertStore>, String>>,
}

/// What a registry has beyond the system's store.
#[derive(Default)]
struct Special {
    skip: bool,
    authorities: Vec<PathBuf>,
    own: Vec<(PathBuf, PathBuf)>,
}

impl Trust {
    pub(crate) fn new(settings: &Settings) -> Self {
        let folders = settings.environment.ssl_cert_dir.as_deref().map(std::env::split_paths).into_iter().flatten();
        Self {
            skip_tls_verify: settings.skip_tls_verify.clone(),
            certificates: settings.certificates.clone(),
            folders: settings.certificate_folders.clone(),
            ssl_cert_file: settings.environment.ssl_cert_file.clone(),
            ssl_cert_dir: folders.filter(|folder| !folder.as_os_str().is_empty()).collect(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            system: OnceLock::new(),
        }
    }

    /// Whether something is said about the certificate of this very registry.
    pub(crate) fn knows(&self, host: &str) -> bool {
        let named = |name: &String| same_host(name, host);
        self.skip_tls_verify.iter().any(named)
            || self.certificates.iter().any(|(name, _)| named(name))
            || self.folder(host).is_some()
    }

    /// The TLS settings for a registry; `knows` is whether [`Self::knows`] something about it.
    pub(crate) fn config(&self, host: &str, knows: bool) -> Result<ClientConfig, ClientError> {
        let tls =
            |problem: String, hint: &str| ClientError::Tls { host: host.to_owned(), problem, hint: hint.to_owned() };
        let special = if knows { self.special(host)? } else { Special::default() };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(error.to_string(), "this is a fault of this program"))?;
        let builder = if special.skip {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(Arc::clone(&self.provider))))
        } else {
            let mut roots = match self.system() {
                Ok(roots) => RootCertStore::clone(roots),
                // Enough if the registry's own CA is known.
                Err(_) if !special.authorities.is_empty() => RootCertStore::empty(),
                Err(problem) => return Err(tls(problem.clone(), NO_STORE_HINT)),
            };
            let mut named = Vec::new();
            for path in &special.authorities {
                for certificate in certificates(path)? {
                    roots
                        .add(certificate.clone())
                        .map_err(|error| setting("the certificate", path, error.to_string()))?;
                    named.push(certificate);
                }
            }
            let verifier =
                Verification::new(roots, named, &self.provider).map_err(|error| tls(error, NO_STORE_HINT))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match special.own.first() {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| setting("the private key", key, pem_problem(&error)))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, secret)
                    .map_err(|error| setting("the client certificate", certificate, error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// TLS settings for connections that do not use TLS: nothing is trusted.
    pub(crate) fn unused(&self) -> Result<ClientConfig, ClientError> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| ClientError::Tls {
            host: String::new(),
            problem: error.to_string(),
            hint: "this is a fault of this program".to_owned(),
        })?;
        Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }

    fn folder(&self, host: &str) -> Option<PathBuf> {
        let names = [host, normal_host(host)];
        // A host cannot hold a slash; `..` is no host either, but this costs nothing.
        let names = names.iter().filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('.'));
        self.folders.iter().flat_map(|root| names.clone().map(|name| root.join(name))).find(|folder| folder.is_dir())
    }

    fn special(&self, host: &str) -> Result<Special, ClientError> {
        let mut special =
            Special { skip: self.skip_tls_verify.iter().any(|name| same_host(name, host)), ..Special::default() };
        special
            .authorities
            .extend(self.certificates.iter().filter(|(name, _)| same_host(name, host)).map(|(_, path)| path.clone()));
        if let Some(folder) = self.folder(host) {
            for path in
                sorted_files(&folder).map_err(|error| setting("the certificates folder", &folder, error.to_string()))?
            {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => special.authorities.push(path),
                    Some("cert") => {
                        let key = path.with_extension("key");
                        if !key.is_file() {
                            return Err(setting(
                                "the client certificate",
                                &path,
                                format!("its key {} is missing", key.display()),
                            ));
                        }
                        special.own.push((path, key));
                    }
                    _ => {}
                }
            }
            if special.own.len() > 1 {
                tracing::warn!(folder = %folder.display(), used = %special.own[0].0.display(), "several client certificates; the first is used");
            }
        }
        Ok(special)
    }

    fn system(&self) -> &Result<Arc<RootCertStore>, String> {
        self.system.get_or_init(|| self.read_system().map(Arc::new))
    }

    fn read_system(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let mut add = |path: &Path| -> Result<(), String> {
            let bytes = std::fs::read(path)
                .map_err(|error| format!("the CA certificates {} cannot be read: {error}", path.display()))?;
            // A store may hold what this library does not take; the others are as good as before.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok));
            Ok(())
        };
        let from_variables = self.ssl_cert_file.is_some() || !self.ssl_cert_dir.is_empty();
        let file = match &self.ssl_cert_file {
            Some(file) => Some(file.as_path()),
            None => SYSTEM_FILES.iter().map(Path::new).find(|file| file.is_file()),
        };
        if let Some(file) = file {
            add(file)?;
        }
        // The system's folders hold what the system's file does.
        if from_variables || file.is_none() {
            let folders: Vec<&Path> = match self.ssl_cert_dir.is_empty() {
                true => SYSTEM_FOLDERS.iter().map(Path::new).collect(),
                false => self.ssl_cert_dir.iter().map(PathBuf::as_path).collect(),
            };
            for path in folders.into_iter().filter_map(|folder| sorted_files(folder).ok()).flatten() {
                let _ = add(&path);
            }
        }
        if !roots.is_empty() {
            return Ok(roots);
        }
        Err(match (&self.ssl_cert_file, from_variables) {
            (Some(file), _) => format!("SSL_CERT_FILE names {}, which holds no CA certificate", file.display()),
            (None, true) => "SSL_CERT_DIR names folders that hold no CA certificate".to_owned(),
            (None, false) => "this system has no CA certificates".to_owned(),
        })
    }
}

/// Whether a registry's name in a setting means that host; a port that HTTPS has anyway may be written or not.
pub(crate) fn same_host(name: &str, host: &str) -> bool {
    let plain = |text: &str| -> String { normal_host(text).trim_end_matches(":443").to_ascii_lowercase() };
    plain(name) == plain(host)
}

fn setting(name: &'static str, path: &Path, problem: String) -> ClientError {
    ClientError::Setting { name, value: path.display().to_string(), problem }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let problem = |error: &rustls::pki_types::pem::Error| setting("the certificate", path, pem_problem(error));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))?.collect();
    let found = found.map_err(|error| problem(&error))?;
    if found.is_empty() {
        return Err(setting(
            "the certificate",
            path,
            "it holds no certificate; expected PEM with `BEGIN CERTIFICATE`".to_owned(),
        ));
    }
    Ok(found)
}

fn pem_problem(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "it holds nothing of the kind; expected PEM".to_owned(),
        other => format!("it is not PEM: {other}"),
    }
}

fn sorted_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn a_variable_leaves_the_other_half_of_the_system_as_it_is() {
        let found = |environment| {
            let settings = Settings { environment, ..Settings::default() };
            Trust::new(&settings).system().as_ref().map_or(0, |store| store.len())
        };
        let empty = tempfile::tempdir().unwrap();
        let without = found(Environment { ssl_cert_dir: Some(empty.path().into()), ..Environment::default() });
        if SYSTEM_FILES.iter().any(|file| Path::new(file).is_file()) {
            assert_eq!(without, found(Environment::default()));
        } else {
            assert_eq!(without, 0);
        }
    }
}
