//! The command line, the environment and a configuration file -> what to do. Nothing else reads them.

mod adopt;
mod collect;
mod config;
mod operate;
mod serve;
mod store;
mod variables;

use clap::{Parser, Subcommand};

pub(crate) use adopt::Adopt;
pub(crate) use collect::{Gc, Retention};
pub(crate) use config::{Given, Wrong, read};
pub(crate) use operate::{DeleteRepository, Explain, Fsck, History, Undo};
pub(crate) use serve::{AccessSettings, LogFormat, Serve};
pub(crate) use store::{CheckStore, Store, StoreSettings};

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
    /// Try whether a store keeps the promises that the registry relies on, and look at what it is set to.
    ///
    /// Writes below one throw-away prefix, and removes what it wrote. Says which permissions are missing, and warns of
    /// lifecycle rules, versioning and Object Lock (S3), of NFS, SMB and FUSE, and of a full disk. A folder that a server
    /// holds is refused. Exit code 1 when the registry should not be run on the store.
    CheckStore(CheckStore),
    /// Collect what nothing refers to any more. Servers do it all the time by themselves; this does it now.
    Gc(Gc),
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
    /// Give a tag the value again that it had before, or the one that --to names.
    ///
    /// The tag gets a new entry, confirmed like a push, so that nothing of its history is lost: `undo` once more goes
    /// forward again (the value before is then the one that was undone), and `--to` reaches any other. A tag that was
    /// deleted gets back the value it had last. What was deleted as a manifest, by its digest, does not come back.
    /// A running server does it when it holds the folder.
    Undo(Undo),
    /// Tell what keeps a manifest or blob of a repository and since when, or what ended it.
    ///
    /// Works beside a running server. Costs a read for each manifest of the repository, and one for each log of removals
    /// and each hint of the collectors.
    Explain(Explain),
    /// Check the store: every link has its data, every manifest its blobs, every tag a manifest, every list its entries.
    ///
    /// Works beside a running server; with --repair the server does it when it holds the folder. Repaired are entries of
    /// indexes, catalog and referrers lists, and links without usable data when there is other data of the same digest
    /// (which is read and compared first). Nothing else is changed, and nothing that has content is deleted. Costs a list
    /// for each 1000 keys and for each blob of each repository, and a read for each manifest; --rehash reads all data too.
    /// Exit code 1 when anything is found that was not repaired.
    Fsck(Fsck),
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
    /// Print the manual page.
    Man,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_is_a_variable_too() {
        use clap::CommandFactory;
        let command = CommandLine::command();
        let serve = command.find_subcommand("serve").expect("serve");
        for argument in serve.get_arguments() {
            let Some(long) = argument.get_long().filter(|long| *long != "print-config") else { continue };
            let expected = format!("FLUYT_REGISTRY_{}", long.to_uppercase().replace('-', "_"));
            let found = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(found.as_deref(), Some(expected.as_str()), "--{long}");
        }
    }
}
