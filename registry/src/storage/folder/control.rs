//! The socket beside a store on a folder, by which commands reach the server that holds the folder's lock.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::names;

/// A socket to listen on. Dropped, it goes away; after a kill the next server replaces it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket of the store in `root`, for this user alone. Only whoever holds the folder's lock may: whatever
    /// socket is there is taken for one that a server of the past left.
    pub fn make(root: &Path) -> io::Result<Self> {
        let near = Near::open(root)?;
        let fresh = format!("{}-{}", names::CONTROL, std::process::id());
        let _ = fs::remove_file(near.path(&fresh));
        let listener = UnixListener::bind(near.path(&fresh))?;
        // Nobody can connect between the two: it gets its name last.
        fs::set_permissions(near.path(&fresh), Permissions::from_mode(0o600))?;
        fs::rename(near.path(&fresh), near.path(names::CONTROL))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Some(listener), path: root.join(names::CONTROL) })
    }

    /// The listener, in non-blocking mode, once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays is replaced by the next server.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the server that holds the folder, in non-blocking mode.
pub fn connect_control(root: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(Near::open(root)?.path(names::CONTROL))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A folder by its number: the address of a socket has room for 107 bytes only, and folders lie deeper than that.
struct Near(File);

impl Near {
    fn open(root: &Path) -> io::Result<Self> {
        File::open(root).map(Self)
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileTypeExt;

    #[test]
    fn a_socket_for_one_user_at_any_depth_that_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep".repeat(30)).join("deeper".repeat(30));
        fs::create_dir_all(&root).unwrap();
        assert_eq!(connect_control(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
        // A server that was killed leaves its socket.
        std::mem::forget(ControlSocket::make(&root).unwrap());
        let mut socket = ControlSocket::make(&root).unwrap();
        let metadata = fs::metadata(root.join(names::CONTROL)).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let listener = socket.take().unwrap();
        connect_control(&root).unwrap();
        listener.accept().unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}
