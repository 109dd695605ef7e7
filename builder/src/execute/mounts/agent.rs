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
use std::time::Duration;

use super::super::StepError;
use crate::owners::{self, Owner};

/// How long the listener rests when it cannot take a client: descriptors that have run out come back when somebody ends.
const REST: Duration = Duration::from_millis(50);

/// A socket that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Forward {
    listener: Arc<UnixListener>,
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
        let listener = Arc::new(UnixListener::bind(&socket).map_err(failed)?);
        owners::give_if_possible(&socket, Owner { uid, gid }).map_err(failed)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let listening = {
            let (listener, stopped, agent) = (listener.clone(), stopped.clone(), agent.to_owned());
            std::thread::spawn(move || listen(|| listener.accept().map(|(client, _)| client), &agent, &stopped))
        };
        Ok(Self { listener, stopped, listening: Some(listening) })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the listener. To connect would need a descriptor, and there may be none.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn listen(accept: impl Fn() -> io::Result<UnixStream>, agent: &Path, stopped: &AtomicBool) {
    loop {
        let client = accept();
        if stopped.load(Ordering::Acquire) {
            return;
        }
        match client {
            // An agent that went away is seen by the client as the end of its connection.
            Ok(client) => {
                if let Ok(agent) = UnixStream::connect(agent) {
                    std::thread::spawn(move || pass(&client, &agent));
                }
            }
            // The client still waits, so that the next attempt fails as soon as this one did.
            Err(_) => std::thread::sleep(REST),
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_listener_without_descriptors_rests_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let agent = UnixListener::bind(&socket).unwrap();
        let (mut client, taken) = UnixStream::pair().unwrap();
        let (taken, asked, stopped) = (std::sync::Mutex::new(Some(taken)), AtomicU32::new(0), AtomicBool::new(false));
        let accept = || match asked.fetch_add(1, Ordering::Relaxed) {
            0..2 => Err(io::Error::from(rustix::io::Errno::MFILE)),
            2 => taken.lock().unwrap().take().ok_or_else(|| io::ErrorKind::Other.into()),
            _ => {
                stopped.store(true, Ordering::Release);
                Err(io::Error::from(rustix::io::Errno::MFILE))
            }
        };
        let began = std::time::Instant::now();
        listen(accept, &socket, &stopped);
        assert!(began.elapsed() >= 2 * REST);
        let (mut served, _) = agent.accept().unwrap();
        client.write_all(b"who").unwrap();
        let mut said = [0; 3];
        served.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"who");
    }

    #[test]
    fn a_forward_ends_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let _agent = UnixListener::bind(&socket).unwrap();
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let forward = Forward::start(folder.path(), "forward", &socket, (0o600, ids.0, ids.1)).unwrap();
        UnixStream::connect(folder.path().join("forward")).unwrap();
        drop(forward);
        assert!(UnixStream::connect(folder.path().join("forward")).is_err());
    }
}
