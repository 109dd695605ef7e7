//! Opens the store that the settings name.

use std::error::Error;
use std::sync::Arc;

use fluyt_registry::admin::Admin;
use fluyt_registry::service::{Registry, Surroundings};
use fluyt_registry::storage::{Cloud, CloudAddress, Folder, LayoutError, Memory, Storage, StorageErrorKind};

use super::Failure;
use crate::settings::{Store, StoreSettings};

/// The store, and its URL as it is shown to people.
pub(crate) async fn open_storage(settings: &StoreSettings) -> Result<(Storage, String), Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::Environment(error.into()))?;
    let user = |error: Box<dyn Error>| Failure::User(error);
    match &settings.store {
        Store::Memory => {
            let storage = Storage::open(Memory::default(), random).await?;
            Ok((storage, "memory:".into()))
        }
        Store::Cloud(address) => {
            let cloud = Cloud::open(&settings.reach.cloud(address)).await.map_err(|error| user(error.into()))?;
            let storage = Storage::open(cloud, random).await.map_err(|error| user(unwritable(&error, address)))?;
            Ok((storage, address.to_string()))
        }
        Store::Folder(path) => {
            let folder = Folder::open(path, !settings.no_sync)?;
            if let Ok(system) = folder.file_system()
                && system.is_shared()
            {
                tracing::warn!(
                    "the store lies on {system}: nothing is collected there, and no other server may use the folder"
                );
            }
            let place = format!("file://{}", folder.root().display());
            let storage = Storage::open(folder, random).await?;
            Ok((storage, place))
        }
    }
}

/// The store, which may hold what another registry stored.
pub(crate) async fn open_to_adopt(settings: &StoreSettings) -> Result<Storage, Failure> {
    let Store::Folder(path) = &settings.store else { return Ok(open_storage(settings).await?.0) };
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::Environment(error.into()))?;
    let folder = Folder::open_to_adopt(path, !settings.no_sync)?;
    Ok(Storage::open(folder, random).await?)
}

/// The store, for a command that only looks: a folder needs no lock for that, and a running server is no obstacle.
pub(crate) async fn open_storage_to_read(settings: &StoreSettings) -> Result<Storage, Failure> {
    match &settings.store {
        Store::Memory => Err(Failure::User(NO_MEMORY.into())),
        Store::Folder(path) => Ok(Storage::open(Folder::open_read_only(path)?, [0; 32]).await?),
        Store::Cloud(_) => Ok(open_storage(settings).await?.0),
    }
}

/// The same, for the orders of `admin`.
pub(crate) async fn open_to_read(settings: &StoreSettings) -> Result<Admin, Failure> {
    let storage = open_storage_to_read(settings).await?;
    Ok(Admin::new(Arc::new(Registry::new(storage, surroundings()))))
}

/// A store that can be listed and not written gets this far.
fn unwritable(error: &LayoutError, address: &CloudAddress) -> Box<dyn Error> {
    let advice = match error {
        LayoutError::Storage(cause) if cause.kind() == StorageErrorKind::Denied => {
            format!(": `fluyt-registry check-store {address}` says which permissions are missing")
        }
        _ => String::new(),
    };
    format!("cannot use {address}: {error}{advice}").into()
}

pub(super) const NO_MEMORY: &str =
    "a store in memory is its server's alone: name a folder, or a store that is elsewhere, with --store";

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
