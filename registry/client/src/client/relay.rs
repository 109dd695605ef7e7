//! A blob from one registry to another, in one stream that touches no disk.
//!
//! The download is hashed on the way, and its last bytes are let through only when the digest is right: a source that sends
//! something else is told as what it is, and the target never closes an upload of it. A download that breaks goes on by
//! itself; an upload that breaks goes on from where the target says, for which the source is read again from its start,
//! so that the digest of the whole is checked once more.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Blob, Client, Pushed};
use crate::error::ClientError;
use crate::reference::Reference;

/// Pieces between the two connections; a piece is what the network gives at once, at most some 100 KiB.
const PIECES: usize = 16;

impl Client {
    /// Puts the blob that `source`'s repository has into `target`'s, unless it is there: by a mount from one of
    /// `mount_from`, or through this machine's memory.
    ///
    /// # Errors
    ///
    /// Those of [`Client::push_blob`], and those of [`Client::blob_stream`] as they are.
    pub async fn copy_blob(
        &self,
        source: &Reference,
        target: &Reference,
        blob: &Blob,
        mount_from: &[String],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, ClientError> {
        let runtime = Handle::current();
        let open = |offset| Ok(Relay::start(&runtime, self.clone(), source.clone(), blob.clone(), offset));
        let once = async || match self.push_blob(target, blob, mount_from, &open, progress).await {
            Err(ClientError::Source { what, source }) => match source.downcast::<ClientError>() {
                Ok(error) => Err(error),
                Err(source) => Err(ClientError::Source { what, source }),
            },
            outcome => outcome,
        };
        match once().await {
            // A mirror that is wrong is left alone from now on.
            Err(ClientError::DigestMismatch { registry, .. } | ClientError::Truncated { registry, .. })
                if registry != source.host() =>
            {
                once().await
            }
            outcome => outcome,
        }
    }
}

/// A download as a reader for a thread of its own.
struct Relay {
    pieces: mpsc::Receiver<Result<Bytes, ClientError>>,
    piece: Bytes,
}

impl Relay {
    fn start(runtime: &Handle, client: Client, source: Reference, blob: Blob, offset: u64) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        runtime.spawn(async move {
            if let Err(error) = feed(&client, &source, &blob, offset, &sender).await {
                // Nobody listens any more when the upload has failed, and then it has said why.
                let _ = sender.send(Err(error)).await;
            }
        });
        Self { pieces, piece: Bytes::new() }
    }
}

async fn feed(
    client: &Client,
    source: &Reference,
    blob: &Blob,
    offset: u64,
    sender: &mpsc::Sender<Result<Bytes, ClientError>>,
) -> Result<(), ClientError> {
    // The upload has its place.
    let mut stream = client.stream_within(source, blob, None).await?;
    let mut skip = offset;
    while let Some(mut bytes) = stream.chunk().await? {
        let skipped = skip.min(bytes.len() as u64);
        skip -= skipped;
        bytes.advance(usize::try_from(skipped).unwrap_or(bytes.len()));
        if !bytes.is_empty() && sender.send(Ok(bytes)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Read for Relay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A read into nothing asks whether there is more.
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
