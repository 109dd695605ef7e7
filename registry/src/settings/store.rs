//! Which store, and how to use it: flags that every command that opens one has.

use std::path::PathBuf;

use clap::Args;
use percent_encoding::percent_decode_str;

/// Which store, and how to use it.
#[derive(Debug, Args)]
pub(crate) struct StoreSettings {
    /// Where to store: a folder, as file:///PATH or PATH, or memory: (lost at exit).
    #[arg(long, env = "FLUYT_REGISTRY_STORE", value_name = "URL", default_value = "./fluyt-data", value_parser = Store::parse)]
    pub(crate) store: Store,

    /// Do not wait until the disk has what is acknowledged. A crash of the machine may then lose it.
    #[arg(long)]
    pub(crate) no_sync: bool,
}

/// Where to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// In a folder.
    Folder(PathBuf),
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
        match text.split_once("://") {
            Some((scheme @ ("s3" | "gs" | "az"), _)) => {
                Err(format!("{scheme}:// stores are not there yet: use a folder (file:///PATH)"))
            }
            Some((scheme, _)) => {
                Err(format!("`{scheme}` is not a kind of store: expected file:///PATH, a path, or memory:"))
            }
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
        assert!(Store::parse("s3://bucket").unwrap_err().contains("not there yet"));
        assert!(Store::parse("ftp://x").is_err());
        assert!(Store::parse("").is_err());
    }
}
