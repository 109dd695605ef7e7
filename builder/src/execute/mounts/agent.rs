//! An agent's socket for one command: a socket of ours that passes on what is said, with the owner and mode that are asked
//! for, so that a user who may not use the agent's own may use this one. Keys never come here.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::super::StepError;
use crate::owners::{self, Owner};

/// A socket that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Forward {
    socket: PathBuf,
    /// Open while the socket's name leads through it.
    _folder: File,
    stopped: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Forward {
    /// Listens in `folder`, at a name that is not there, for `agent`.
    pub(super) fn start(
        folder: &Path,
        name: &str,
        agent: &Path,
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<Self, StepError> {
        let opened = File::open(folder).map_err(|source| StepError::Temporary { path: folder.to_owned(), source })?;
        // The address of a socket has 108 bytes, and a store may be deeper than that.
        let socket = PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
        let failed = |source: io::Error| StepError::Temporary { path: socket.clone(), source };
        // Now, and not in the middle of the command.
        UnixStream::connect(agent).map_err(|source| StepError::Agent { path: agent.to_owned(), source })?;
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        owners::give_if_possible(&socket, Owner { uid, gid }).map_err(failed)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let listening = {
            let (stopped, agent) = (stopped.clone(), agent.to_owned());
            std::thread::spawn(move || listen(&listener, &agent, &stopped))
        };
        Ok(Self { socket, _folder: opened, stopped, listening: Some(listening) })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = UnixStream::connect(&self.socket);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn listen(listener: &UnixListener, agent: &Path, stopped: &AtomicBool) {
    for client in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        // An agent that went away is seen by the client as the end of its connection.
        if let (Ok(client), Ok(agent)) = (client, UnixStream::connect(agent)) {
            std::thread::spawn(move || pass(&client, &agent));
        }
    }
}

/// Passes on both ways, until one side ends. Clients are the command's, so they end with it.
fn pass(client: &UnixStream, agent: &UnixStream) {
    let one_way = |mut from: &UnixStream, mut to: &UnixStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(client, agent));
        one_way(agent, client);
    });
}
