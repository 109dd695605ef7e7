//! A body on its way into the store: hashed as it comes, at most one part of it in memory.
//!
//! A body that fits one part becomes one data object whose name begins with its digest. A longer one becomes a multipart
//! upload. A body begins with a small buffer, and gets a part's worth when one of a fixed number is free; without one,
//! or when the client is slow, what is there goes to the store as a part, so memory stays bounded whoever sends what.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::RegistryError;
use crate::protocol::Nonce;
use crate::spec::{Algorithm, Digest, Hasher};
use crate::storage::{DataWriter, Session, Storage};

/// Largest body, or piece of one, that is held in memory.
pub(super) const PART_BYTES: usize = 4 * 1024 * 1024;
/// How many such buffers there are: 48 MiB in all.
pub(super) const PART_BUFFERS: usize = 12;
/// What every body may hold without one.
const SMALL_BYTES: usize = 64 * 1024;
/// A client that sends nothing for this long gives its buffer back.
const SLOW: Duration = Duration::from_secs(5);
/// One that sends nothing for this long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Frames smaller than this are joined: each kept by itself would hold on to far more than its own bytes.
const JOINED_BYTES: usize = 16 * 1024;

/// What has come, and is not stored yet.
#[derive(Debug, Default)]
struct Rope {
    whole: Vec<Bytes>,
    joined: BytesMut,
    size_bytes: usize,
}

impl Rope {
    fn push(&mut self, frame: Bytes) {
        self.size_bytes += frame.len();
        if frame.len() < JOINED_BYTES {
            self.joined.extend_from_slice(&frame);
            if self.joined.len() < JOINED_BYTES {
                return;
            }
        }
        if !self.joined.is_empty() {
            self.whole.push(self.joined.split().freeze());
        }
        if frame.len() >= JOINED_BYTES {
            self.whole.push(frame);
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.size_bytes = 0;
        if !self.joined.is_empty() {
            self.whole.push(self.joined.split().freeze());
        }
        std::mem::take(&mut self.whole)
    }
}

/// An upload being received.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    storage: &'a Storage,
    buffers: std::sync::Arc<Semaphore>,
    hasher: Hasher,
    offset_bytes: u64,
    rope: Rope,
    /// Leave to hold a part's worth of bytes.
    buffer: Option<OwnedSemaphorePermit>,
    writer: Option<DataWriter>,
    /// For the data object, should there come to be a multipart upload.
    nonce: Nonce,
}

/// Where the bytes are after a body.
#[derive(Debug)]
pub(super) enum Received {
    /// There were none.
    Nothing,
    /// In memory: they fit one part.
    Small { digest: Digest, pieces: Vec<Bytes>, size_bytes: u64 },
    /// In a multipart upload that is not completed.
    Long(Box<Session>),
}

impl<'a> Receiver<'a> {
    /// From the beginning.
    pub(super) fn new(
        storage: &'a Storage,
        buffers: std::sync::Arc<Semaphore>,
        algorithm: Algorithm,
        nonce: Nonce,
    ) -> Self {
        let hasher = Hasher::new(algorithm);
        Self { storage, buffers, hasher, offset_bytes: 0, rope: Rope::default(), buffer: None, writer: None, nonce }
    }

    /// Goes on with a multipart upload.
    pub(super) fn resume(
        storage: &'a Storage,
        buffers: std::sync::Arc<Semaphore>,
        session: Session,
        nonce: Nonce,
    ) -> Self {
        let Session { offset_bytes, hasher, writer } = session;
        Self {
            storage,
            buffers,
            hasher,
            offset_bytes,
            rope: Rope::default(),
            buffer: None,
            writer: Some(writer),
            nonce,
        }
    }

    /// Takes a body in. After an error, what came before it can still be finished.
    pub(super) async fn take_in<E: std::fmt::Display>(
        &mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), RegistryError> {
        let mut body = std::pin::pin!(body);
        loop {
            let frame = match tokio::time::timeout(SLOW, body.next()).await {
                Ok(frame) => frame,
                Err(_) => {
                    if self.buffer.take().is_some() || self.rope.size_bytes > SMALL_BYTES {
                        self.flush().await?;
                    }
                    tokio::time::timeout(IDLE, body.next()).await.map_err(|_| {
                        let reason = format!("nothing came for {} seconds", (IDLE + SLOW).as_secs());
                        RegistryError::BodyCut { reason }
                    })?
                }
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| RegistryError::BodyCut { reason: error.to_string() })?;
            self.hasher.update(&frame);
            self.offset_bytes += frame.len() as u64;
            self.rope.push(frame);
            if self.rope.size_bytes > SMALL_BYTES && self.buffer.is_none() {
                self.buffer = self.buffers.clone().try_acquire_owned().ok();
            }
            let limit = if self.buffer.is_some() { PART_BYTES } else { SMALL_BYTES };
            if self.rope.size_bytes > limit {
                self.flush().await?;
            }
        }
    }

    /// Stores what is in memory as a part.
    async fn flush(&mut self) -> Result<(), RegistryError> {
        if self.rope.size_bytes == 0 {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.storage.begin_data(self.nonce.clone()).await?),
        };
        match self.storage.add_part(writer, self.rope.take()).await {
            // Given up after a wrong digest, or lost with the machine's last start.
            Err(error) if error.is_absent() => Err(RegistryError::UploadUnknown),
            added => Ok(added?),
        }
    }

    /// How many bytes there are.
    pub(super) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Whether a multipart upload is under way.
    pub(super) fn is_long(&self) -> bool {
        self.writer.is_some()
    }

    /// Ends receiving.
    pub(super) async fn end(mut self) -> Result<Received, RegistryError> {
        if self.writer.is_some() {
            self.flush().await?;
        }
        Ok(match self.writer {
            Some(writer) => {
                Received::Long(Box::new(Session { offset_bytes: self.offset_bytes, hasher: self.hasher, writer }))
            }
            None if self.offset_bytes == 0 => Received::Nothing,
            None => Received::Small {
                digest: self.hasher.finish(),
                pieces: self.rope.take(),
                size_bytes: self.offset_bytes,
            },
        })
    }

    /// Gives up what nothing names. Failing leaves garbage, which is swept.
    pub(super) async fn give_up(self) {
        if let Some(writer) = self.writer
            && let Err(error) = self.storage.abort_data(&writer).await
        {
            tracing::warn!(error = %error, "an unfinished upload could not be removed; it is left for collection");
        }
    }
}
