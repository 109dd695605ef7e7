//! An agent of our own for keys in files (`--ssh NAME=KEYFILE`): it lists them and signs with them, and does nothing else.
//!
//! What a command needs of an agent is two requests of the protocol, so that is all there is; the keys never leave this
//! process, and go with it. The files are read as `ssh-keygen` and `openssl` write them; signing is the work of the
//! cryptographic library that the registry client has already.
//!
//! | where | what |
//! |---|---|
//! | `file` | a key in any of the forms of files |
//! | `key` | signing |
//! | `wire` | the fields of the protocol and of OpenSSH's files. Pure |

mod file;
mod key;
mod wire;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use key::Key;
use wire::{Reader, string};

/// Largest file that is read as a key, in bytes: as other builders read.
const FILE_MAX_BYTES: u64 = 100 * 1024;

/// Largest message that is taken, in bytes: as OpenSSH's agent takes.
const MESSAGE_MAX_BYTES: u32 = 256 * 1024;

/// The messages of the protocol that are known.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGNATURE: u8 = 14;

/// Why a file gives no key, or the keys cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no key that can be used.
    #[error("{} {problem}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No socket can be made.
    #[error("cannot make a socket for the keys in {}", .path.display())]
    Socket {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Keys from files.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads these files, one key each.
    ///
    /// # Errors
    /// When one of them is no key, or is locked by a passphrase.
    pub fn read(paths: &[PathBuf]) -> Result<Self, KeyError> {
        paths.iter().map(|path| read(path)).collect::<Result<_, _>>().map(Self)
    }

    /// The answer to a message, both without their lengths.
    fn answer(&self, message: &[u8]) -> Vec<u8> {
        let mut fields = Reader::new(message);
        match fields.byte() {
            Some(REQUEST_IDENTITIES) => {
                let mut answer = vec![IDENTITIES];
                answer.extend(u32::try_from(self.0.len()).unwrap_or(0).to_be_bytes());
                for key in &self.0 {
                    string(&mut answer, key.public());
                    string(&mut answer, key.comment().as_bytes());
                }
                answer
            }
            Some(SIGN_REQUEST) => self.sign(&mut fields).unwrap_or_else(|| vec![FAILURE]),
            _ => vec![FAILURE],
        }
    }

    fn sign(&self, fields: &mut Reader<'_>) -> Option<Vec<u8>> {
        let (public, data, flags) = (fields.string()?, fields.string()?, fields.number()?);
        let key = self.0.iter().find(|key| key.public() == public)?;
        let mut answer = vec![SIGNATURE];
        string(&mut answer, &key.sign(data, flags)?);
        Some(answer)
    }
}

fn read(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let unusable = |problem| KeyError::Unusable { path: path.to_owned(), problem };
    let file = fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(unusable("is neither a key nor an agent's socket"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(unusable("is too large for a key"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unusable("is no text, as a key is"))?;
    file::parse(&text, &path.display().to_string()).map_err(unusable)
}

/// Whether there is an agent's socket.
#[must_use]
pub fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Keys behind a socket that goes when this is dropped.
#[derive(Debug)]
pub struct Served {
    folder: PathBuf,
    stopped: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Served {
    /// Offers `keys` at a socket in a new folder below `below`, which only this user can enter.
    ///
    /// # Errors
    /// When there can be no socket there.
    pub fn start(keys: Keys, below: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Socket { path: below.to_owned(), source };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let folder = below.join(format!("fluyt-keys-{}", hex::encode(random)));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let listener = UnixListener::bind(folder.join(SOCKET)).map_err(|error| {
            let _ = fs::remove_dir(&folder);
            failed(error)
        })?;
        let (stopped, keys) = (Arc::new(AtomicBool::new(false)), Arc::new(keys));
        let flag = stopped.clone();
        let listening = std::thread::spawn(move || {
            for client in listener.incoming() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(client), keys) = (client, keys.clone()) else { continue };
                // A client that breaks off has its own reasons.
                std::thread::spawn(move || converse(&client, &keys));
            }
        });
        Ok(Self { folder, stopped, listening: Some(listening) })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }
}

const SOCKET: &str = "agent";

impl Drop for Served {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = UnixStream::connect(self.socket());
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Answers one client until it has no more to ask.
fn converse(mut client: &UnixStream, keys: &Keys) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MESSAGE_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = Vec::new();
        client.take(length.into()).read_to_end(&mut message)?;
        let mut answer = Vec::new();
        string(&mut answer, &keys.answer(&message));
        client.write_all(&answer)?;
    }
}

#[cfg(test)]
mod tests;
