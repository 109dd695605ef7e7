//! The flags of `serve`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use fluyt_registry::service::SparsePolicy;

use super::StoreSettings;

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 takes a free one, which is printed.
    #[arg(long, env = "FLUYT_REGISTRY_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", value_parser = listen_address)]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) store: StoreSettings,

    /// Which manifests may name what the repository does not have: images (without some layers, and indexes without some
    /// manifests), indexes only, or none. What was deleted here is missed in any case.
    #[arg(long, env = "FLUYT_REGISTRY_SPARSE", value_name = "KIND", default_value = "images")]
    pub(crate) sparse: Sparse,
}

/// Which manifests may name what is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sparse {
    /// Images and indexes.
    Images,
    /// Indexes.
    Indexes,
    /// None.
    Refuse,
}

impl From<Sparse> for SparsePolicy {
    fn from(sparse: Sparse) -> Self {
        match sparse {
            Sparse::Images => Self::Images,
            Sparse::Indexes => Self::Indexes,
            Sparse::Refuse => Self::Refuse,
        }
    }
}

/// `ADDRESS:PORT`; a port alone (`:5000`) listens on every address, as other registries take it.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    whole.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:5000, [::1]:5000 or :5000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let port = |text: &str| listen_address(text).map(|address| address.to_string());
        assert_eq!(port("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(port(":5000").as_deref(), Ok("0.0.0.0:5000"));
        assert_eq!(port("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert!(port("127.0.0.1").unwrap_err().contains("such as 127.0.0.1:5000"));
    }
}
