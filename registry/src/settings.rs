//! The command line and the environment -> what to do. Nothing else reads either.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use percent_encoding::percent_decode_str;

/// An OCI registry that keeps everything in one folder: no database, no configuration.
#[derive(Debug, Parser)]
#[command(name = "fluyt-registry", version, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve images over the OCI distribution API until SIGTERM or SIGINT.
    ///
    /// The first line on stdout says the address; logs go to stderr (RUST_LOG sets their level).
    Serve(Serve),
}

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 takes a free one, which is printed.
    #[arg(long, env = "FLUYT_REGISTRY_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", value_parser = listen_address)]
    pub(crate) listen: SocketAddr,

    /// Where to store: a folder, as file:///PATH or PATH, or memory: (lost at exit).
    #[arg(long, env = "FLUYT_REGISTRY_STORE", value_name = "URL", default_value = "./fluyt-data", value_parser = Store::parse)]
    pub(crate) store: Store,

    /// Do not wait until the disk has what is acknowledged. A crash of the machine may then lose it.
    #[arg(long)]
    pub(crate) no_sync: bool,
}

/// `ADDRESS:PORT`; a port alone (`:5000`) listens on every address, as other registries take it.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    whole.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:5000, [::1]:5000 or :5000".to_owned())
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

    #[test]
    fn addresses() {
        let port = |text: &str| listen_address(text).map(|address| address.to_string());
        assert_eq!(port("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(port(":5000").as_deref(), Ok("0.0.0.0:5000"));
        assert_eq!(port("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert!(port("127.0.0.1").unwrap_err().contains("such as 127.0.0.1:5000"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
