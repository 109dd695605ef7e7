//! `adopt`: what it takes.

use clap::Args;

use super::StoreSettings;

/// How to take over another registry's store.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The other registry is off for good: nothing can be taken over afterwards. Blobs that were taken over and that no
    /// image needs any more are collected from then on, as all others are.
    #[arg(long)]
    pub(crate) finish: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}
