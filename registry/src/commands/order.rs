//! Has an order done that writes: here when the store can be opened, otherwise by the server that holds its folder.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluyt_registry::admin::{Admin, Orderable, Progress, call};
use fluyt_registry::service::Registry;
use fluyt_registry::storage::{Folder, FolderError};

use super::Failure;
use super::open::{NO_MEMORY, open_storage, surroundings};
use crate::settings::{Store, StoreSettings};

/// How often progress is told at most.
const OFTEN: Duration = Duration::from_millis(500);

pub(crate) async fn order<O: Orderable>(settings: &StoreSettings, order: &O) -> Result<O::Answer, Failure> {
    let progress = on_stderr();
    let asked = order.order()?;
    let answer = match &settings.store {
        Store::Memory => return Err(Failure::User(NO_MEMORY.into())),
        Store::Folder(path) if is_held(path)? => call(path, &asked, &progress).await?,
        _ => {
            let (storage, _) = open_storage(settings).await?;
            let admin = Admin::new(Arc::new(Registry::new(storage, surroundings())));
            admin.commands().run(asked, &progress).await?
        }
    };
    Ok(O::answer(answer)?)
}

/// Whether another process has the folder. One that holds no store is refused, not made one.
pub(crate) fn is_held(path: &std::path::Path) -> Result<bool, FolderError> {
    Folder::open_read_only(path)?;
    match Folder::open(path, true) {
        Ok(_) => Ok(false),
        Err(FolderError::InUse { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Progress for people, not too often.
pub(crate) fn on_stderr() -> Progress {
    let last = std::sync::Mutex::new(None::<Instant>);
    Progress::to(move |line| {
        let Ok(mut last) = last.lock() else { return };
        if last.is_none_or(|last| last.elapsed() >= OFTEN) {
            *last = Some(Instant::now());
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    })
}
