//! The command line, the environment and a configuration file -> what to do. Nothing else reads them.

mod adopt;
mod config;
mod operate;
mod serve;
mod store;

use clap::{Parser, Subcommand};

pub(crate) use adopt::Adopt;
pub(crate) use config::{Given, Wrong, read};
pub(crate) use operate::{DeleteRepository, History};
pub(crate) use serve::{AccessSettings, LogFormat, Serve};
pub(crate) use store::{Store, StoreSettings};

/// An OCI registry that keeps everything in one folder or bucket: no database, nothing to configure.
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
    Serve(Box<Serve>),
    /// List the values that a tag had: when, by whom, what became of each.
    ///
    /// An old value is pulled as REPO:TAG.at.<time>, such as team/app:v1.at.20261101T100000Z: the value that the tag
    /// had at that time. Ids are for `undo --to`. Times are the earlier of the writer's clock and the store's.
    /// Works beside a running server. Costs two lists, and two reads for each value.
    History(History),
    /// Take over what a CNCF distribution registry (Docker's `registry`, version 2 or 3) stored, in place.
    ///
    /// Name the folder or bucket that it is configured with (its `rootdirectory`) as --store; this registry then serves
    /// the same images from the same data, of which no byte is copied. The other registry may go on meanwhile, with its
    /// own garbage collection off; repeat the command to take over what it got since. What was deleted or moved here
    /// stays so. At the end, when the other registry is off: `adopt --finish`. A server that holds the folder has to be
    /// stopped first. Exit code 1 when something could not be taken over.
    Adopt(Adopt),
    /// Take everything out of a repository: end its tags, remove its manifests, unlink its blobs. Cannot be undone.
    ///
    /// The name stays free to be pushed to. What is pushed meanwhile is refused, or stays. A running server does it when
    /// it holds the folder. Space comes back when the collector has found out what nobody else has.
    DeleteRepository(DeleteRepository),
    /// Print the version.
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a script that lets a shell complete commands and flags.
    ///
    /// bash: `source <(fluyt-registry completion bash)`.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
