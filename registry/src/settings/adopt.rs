//! `adopt`: what it takes.

use std::path::PathBuf;

use clap::Args;

use super::StoreSettings;

/// How to take over another registry's store.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The other registry is off for good: nothing can be taken over afterwards. Blobs that were taken over and that no
    /// image needs any more are collected from then on, as all others are.
    #[arg(long)]
    pub(crate) finish: bool,

    /// Ask this Harbor (version 2) what the tags are: it keeps them in its database, and what the store says of them is
    /// out of date as soon as one is deleted or added there. It has to be running, and the user has to see all
    /// projects: an administrator, or a robot for the system. Without a user it shows what is public.
    #[arg(long, value_name = "URL")]
    pub(crate) tags_from: Option<String>,

    /// The user that asks Harbor.
    #[arg(long, env = "HARBOR_USERNAME", value_name = "NAME")]
    pub(crate) tags_user: Option<String>,

    /// A file with that user's password; without it the environment's HARBOR_PASSWORD is taken.
    #[arg(long, value_name = "FILE", requires = "tags_from")]
    pub(crate) tags_password_file: Option<PathBuf>,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

impl Adopt {
    /// The password of the user that asks Harbor. It is no flag: a command line is seen by everybody on the machine.
    pub(crate) fn tags_password(&self) -> std::io::Result<Option<String>> {
        match &self.tags_password_file {
            Some(path) => Ok(Some(std::fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).to_owned())),
            None => Ok(std::env::var("HARBOR_PASSWORD").ok()),
        }
    }
}
