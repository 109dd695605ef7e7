//! Opens the store that the settings name.

use std::error::Error;
use std::sync::Arc;

use fluyt_registry::service::Surroundings;
use fluyt_registry::storage::{Folder, Memory, Storage};

use super::Failure;
use crate::settings::{Store, StoreSettings};

/// The store, and its URL as it is shown to people.
pub(crate) async fn open_storage(settings: &StoreSettings) -> Result<(Storage, String), Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::Environment(error.into()))?;
    let user = |error: Box<dyn Error>| Failure::User(error);
    match &settings.store {
        Store::Memory => {
            let storage = Storage::open(Memory::default(), random).await.map_err(|error| user(error.into()))?;
            Ok((storage, "memory:".into()))
        }
        Store::Folder(path) => {
            let folder = Folder::open(path, !settings.no_sync).map_err(|error| user(error.into()))?;
            let place = format!("file://{}", folder.root().display());
            let storage = Storage::open(folder, random).await.map_err(|error| user(error.into()))?;
            Ok((storage, place))
        }
    }
}

/// The real clock and the system's randomness.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        now: Arc::new(|| jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        random: Arc::new(|| {
            let mut bits = [0; 16];
            // Linux has randomness once it has started; without it no name could be trusted to be unique.
            #[expect(clippy::expect_used, reason = "going on would overwrite what others stored")]
            getrandom::fill(&mut bits).expect("the system gives no random bits");
            bits
        }),
    }
}
