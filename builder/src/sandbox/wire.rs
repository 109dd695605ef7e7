//! The messages between builder and stage: a length of four bytes, then JSON.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::Failure;
use super::spec::RunSpec;

/// Opens the conversation, so that a program that was named like the stage by accident does nothing.
const MAGIC: &[u8; 8] = b"fluyt/1\n";

/// The longest message read, in bytes: far above an environment that `execve` would take.
const MESSAGE_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// What the builder asks of the stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Run a command.
    Run(Box<RunSpec>),
    /// Find out whether this machine allows what a run needs.
    Try,
    /// Run a command in a chroot.
    Chroot(Box<RunSpec>),
    /// Find out whether this machine allows that, in a fresh folder.
    TryChroot(Vec<u8>),
    /// Run a command under a tracer.
    Trace(Box<RunSpec>),
    /// Find out whether this machine allows that, in a fresh folder.
    TryTrace(Vec<u8>),
}

/// What the stage answers. The first `Failed` or `Ended` is the result.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The sandbox could not be set up; the command was not run.
    Failed(Failure),
    /// The command ended with this raw wait status.
    Ended(i32),
    /// The machine allows all of it.
    Works,
}

pub(super) fn send_order(mut socket: impl Write, order: &Order) -> io::Result<()> {
    socket.write_all(MAGIC)?;
    send(socket, order)
}

pub(super) fn receive_order(mut socket: impl Read) -> io::Result<Order> {
    let mut magic = [0; MAGIC.len()];
    socket.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a conversation with a builder"));
    }
    receive(socket)
}

pub(super) fn send(mut socket: impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= MESSAGE_MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(&body)
}

pub(super) fn receive<T: DeserializeOwned>(mut socket: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = Vec::new();
    socket.take(length.into()).read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// The first whole message in `bytes`, which grow as they arrive.
pub(super) fn first_answer(bytes: &[u8]) -> Option<Answer> {
    receive(bytes).ok()
}
