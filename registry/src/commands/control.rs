//! Beside a server on a folder: the socket by which commands reach it while it holds the folder's lock.

use std::future::pending;

use fluyt_registry::admin::Commands;
use fluyt_registry::storage::ControlSocket;
use tokio::task::JoinHandle;

use super::Failure;
use crate::settings::{Store, StoreSettings};

/// The socket, as long as this is kept.
#[derive(Debug)]
pub(crate) struct Control {
    task: JoinHandle<()>,
    /// Removed when it is dropped.
    _socket: ControlSocket,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens for orders. Only where the store is a folder: any other can be opened by the command itself. To be called
/// once the folder's lock is held.
pub(crate) fn listen(settings: &StoreSettings, commands: Commands) -> Result<Option<Control>, Failure> {
    let Store::Folder(path) = &settings.store else { return Ok(None) };
    let failed = |error: std::io::Error| {
        let message = format!("cannot make the control socket of the folder `{}`: {error}", path.display());
        Failure::Environment(message.into())
    };
    let mut socket = ControlSocket::make(path).map_err(failed)?;
    let Some(listener) = socket.take() else { return Ok(None) };
    let task = tokio::spawn(async move {
        if let Err(error) = commands.serve(listener, pending()).await {
            tracing::error!(error = %error, "the control socket cannot be used");
        }
    });
    Ok(Some(Control { task, _socket: socket }))
}
