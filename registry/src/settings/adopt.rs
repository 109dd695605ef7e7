//! `adopt`: what it takes.

use clap::Args;

use super::StoreSettings;

/// How to take over another registry's store.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The other registry is off for good: nothing can be taken over afterwards. What it left stays where it is.
    #[arg(long)]
    pub(crate) finish: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}
