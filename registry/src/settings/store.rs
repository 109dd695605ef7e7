//! Which store, and how to use it: flags that every command that opens one has.

use std::path::PathBuf;

use clap::Args;
use fluyt_registry::storage::{CloudAddress, CloudSettings};
use percent_encoding::percent_decode_str;

/// Which store, and how to use it.
#[derive(Debug, Args)]
pub(crate) struct StoreSettings {
    /// Where to store: a folder (file:///PATH or PATH), s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or
    /// memory: (lost at exit). Keys and endpoints come from the variables that the providers' own tools read.
    #[arg(long, env = "FLUYT_REGISTRY_STORE", value_name = "URL", default_value = "./fluyt-data", value_parser = Store::parse)]
    pub(crate) store: Store,

    /// Do not wait until the disk has what is acknowledged. A crash of the machine may then lose it.
    #[arg(long, env = "FLUYT_REGISTRY_NO_SYNC")]
    pub(crate) no_sync: bool,

    /// Read settings from this file too: TOML, its keys are the flags of `serve`. Flags and the environment win over it.
    #[arg(long, env = "FLUYT_REGISTRY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Which store is checked.
#[derive(Debug, Args)]
pub(crate) struct CheckStore {
    /// The store: a folder (file:///PATH or PATH), s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or memory:.
    #[arg(value_name = "URL", value_parser = Store::parse)]
    pub(crate) store: Store,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// How to reach a store in the cloud, besides what the environment says.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Certificates of authorities to trust for the store, besides the system's (PEM).
    #[arg(long, env = "FLUYT_REGISTRY_STORE_CA", value_name = "FILE")]
    pub(crate) store_ca: Option<PathBuf>,

    /// Where clients reach it; a flag of `serve`.
    #[arg(skip)]
    pub(crate) redirect_endpoint: Option<String>,
}

impl Reach {
    /// What a store in the cloud is opened with.
    pub(crate) fn cloud(&self, address: &CloudAddress) -> CloudSettings {
        const ABOUT_STORES: &[&str] = &["AWS_", "GOOGLE_", "AZURE_"];
        const BESIDES: &[&str] =
            &["HOME", "SERVICE_ACCOUNT", "STORAGE_EMULATOR_HOST", "MSI_ENDPOINT", "IDENTITY_ENDPOINT"];
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let ours = BESIDES.contains(&name.as_str()) || ABOUT_STORES.iter().any(|prefix| name.starts_with(prefix));
            ours.then_some((name, value))
        });
        CloudSettings {
            address: address.clone(),
            variables: variables.collect(),
            authorities: self.store_ca.clone(),
            redirect_endpoint: self.redirect_endpoint.clone(),
        }
    }
}

/// Where to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// In a folder.
    Folder(PathBuf),
    /// On S3, GCS or Azure.
    Cloud(CloudAddress),
    /// In memory.
    Memory,
}

impl Store {
    fn parse(text: &str) -> Result<Self, String> {
        if matches!(text, "memory:" | "memory://") {
            return Ok(Self::Memory);
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//localhost/").map_or(path, |_| &path["//localhost".len()..]);
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.is_empty() && !path.starts_with('/') {
                return Err(format!(
                    "`{text}` names the host of a file: expected file:///PATH, with three slashes, or a path"
                ));
            }
            let path = percent_decode_str(path).decode_utf8().map_err(|_| "the path is not UTF-8".to_owned())?;
            return folder(&path);
        }
        if let Some(address) = CloudAddress::parse(text) {
            return address.map(Self::Cloud);
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!(
                "`{scheme}` is not a kind of store: expected file:///PATH, a path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or memory:"
            )),
            None if text == "memory" => {
                Err("`memory` is a folder of that name or the store in memory: write memory: or ./memory".into())
            }
            None => folder(text),
        }
    }
}

fn folder(path: &str) -> Result<Store, String> {
    if path.is_empty() {
        Err("the path is empty: expected file:///PATH".into())
    } else {
        Ok(Store::Folder(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use fluyt_registry::storage::Provider;

    use super::*;

    #[test]
    fn stores() {
        let folder = |path: &str| Ok(Store::Folder(path.into()));
        assert_eq!(Store::parse("memory:"), Ok(Store::Memory));
        assert_eq!(Store::parse("./fluyt-data"), folder("./fluyt-data"));
        assert_eq!(Store::parse("/var/lib/x"), folder("/var/lib/x"));
        assert_eq!(Store::parse("file:///a%20b"), folder("/a b"));
        assert_eq!(Store::parse("file://localhost/a"), folder("/a"));
        assert_eq!(Store::parse("file:///"), folder("/"));
        assert!(Store::parse("file://x/y").unwrap_err().contains("three slashes"));
        assert!(Store::parse("memory").unwrap_err().contains("memory:"));
        let cloud = CloudAddress { provider: Provider::S3, bucket: "bucket".into(), prefix: "a/b".into() };
        assert_eq!(Store::parse("s3://bucket/a/b/"), Ok(Store::Cloud(cloud)));
        assert!(Store::parse("gs://B").unwrap_err().contains("not the name of a bucket"));
        assert!(Store::parse("ftp://x").is_err());
        assert!(Store::parse("").is_err());
    }
}
