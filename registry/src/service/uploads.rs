//! Uploads: begin, add, ask, finish, cancel, mount.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};

use super::error::RegistryError;
use super::receive::{Received, Receiver};
use super::ticket::{Held, Ticket};
use super::{BlobInfo, Registry};
use crate::auth::{MayPull, MayPush};
use crate::protocol::{DataId, FinishUpload, Mount, Object};
use crate::spec::{Algorithm, ChunkRange, Digest, Hasher, RepoName, UploadId};
use crate::storage::{Attachments, Session, SessionName, UploadListing};

/// How many repositories are tried for a mount that names none.
const HOLDERS_MAX: usize = 4;

/// Where a chunk belongs, and how long the request says that it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkPlace {
    /// `Content-Range`; none for a stream, which goes on where the upload is.
    pub range: Option<ChunkRange>,
}

/// A blob that an upload became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
}

impl Registry {
    /// Begins an upload; `algorithm` is the hash that the client announced (`?digest-algorithm=`). Writes nothing.
    pub fn begin_upload(&self, _push: &MayPush, algorithm: Option<Algorithm>) -> Ticket {
        let algorithm = algorithm.unwrap_or(Algorithm::Sha256);
        Ticket { id: self.upload_id(), algorithm, offset_bytes: 0, held: Held::Nothing, known_to_client: false }
    }

    /// What a Location says after its `?state=`.
    pub fn seal(&self, push: &MayPush, ticket: &Ticket) -> String {
        let key = self.storage.upload_keys().first().map(Vec::as_slice).unwrap_or_default();
        ticket.seal(push.repo(), key)
    }

    /// The ticket of a Location.
    pub fn open_ticket(&self, push: &MayPush, id: &UploadId, sealed: Option<&str>) -> Result<Ticket, RegistryError> {
        sealed
            .and_then(|sealed| Ticket::open(sealed, push.repo(), id, self.storage.upload_keys()))
            .ok_or(RegistryError::UploadUnknown)
    }

    /// Where the upload is. A Location that is not the last one finds the last state that was stored.
    pub async fn upload_status(&self, _push: &MayPush, ticket: Ticket) -> Result<Ticket, RegistryError> {
        let listing = self.living(&ticket).await?;
        let newer = listing.sessions.iter().filter(|name| name.seq > ticket.seq()).max();
        let Some(newest) = newer else { return Ok(ticket) };
        match self.storage.read_session(ticket.id(), newest).await? {
            Some(session) => {
                Ok(Ticket { offset_bytes: session.offset_bytes, held: Held::Session(newest.clone()), ..ticket })
            }
            None => Ok(ticket),
        }
    }

    /// Cancels an upload; it stays unknown from now on.
    pub async fn cancel_upload(&self, _push: &MayPush, ticket: Ticket) -> Result<(), RegistryError> {
        self.living(&ticket).await?;
        self.storage.cancel_upload(ticket.id(), &self.nonce()).await?;
        if let Some(data) = ticket.data() {
            self.hint(data).await?;
        }
        Ok(())
    }

    /// Adds a chunk. When the body breaks off, what has come of a long upload is kept and can be gone on with.
    pub async fn add_chunk<E: std::fmt::Display>(
        &self,
        _push: &MayPush,
        ticket: Ticket,
        place: ChunkPlace,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Ticket, RegistryError> {
        let listing = self.living(&ticket).await?;
        check_place(&ticket, place)?;
        let name = self.claim(&ticket, &listing).await?;
        let mut receiver = self.receiver(&ticket).await?;
        let taken = receiver.take_in(body).await;
        let came = receiver.offset_bytes() - ticket.offset_bytes;
        if let Err(error) = taken {
            return Err(self.broken(&ticket, name, receiver, error).await);
        }
        if let Some(range) = place.range
            && range.size_bytes != came
        {
            receiver.give_up().await;
            let reason = format!("Content-Range says {} bytes, but {came} came", range.size_bytes);
            return Err(RegistryError::UploadInvalid { reason });
        }
        self.park(&ticket, name, receiver).await
    }

    /// Adds the last chunk, if there is a body, and makes the upload a blob. Repeated, it says the same again.
    pub async fn finish_upload<E: std::fmt::Display>(
        &self,
        push: &MayPush,
        ticket: Ticket,
        declared: Digest,
        place: ChunkPlace,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Finished, RegistryError> {
        let listing = self.living(&ticket).await?;
        check_place(&ticket, place)?;
        self.finish(push, ticket, &listing, declared, place, body).await
    }

    /// A whole upload in one request.
    pub async fn upload<E: std::fmt::Display>(
        &self,
        push: &MayPush,
        declared: Digest,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Finished, RegistryError> {
        let ticket = self.begin_upload(push, Some(declared.algorithm()));
        // Nobody else knows its id: there is nothing to list, and nobody to go on with it.
        let listing = UploadListing::default();
        self.finish(push, ticket, &listing, declared, ChunkPlace::default(), body).await
    }

    async fn finish<E: std::fmt::Display>(
        &self,
        push: &MayPush,
        ticket: Ticket,
        listing: &UploadListing,
        declared: Digest,
        place: ChunkPlace,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Finished, RegistryError> {
        let Some(body) = non_empty(body).await? else { return self.finish_held(push, ticket, declared).await };
        let ticket = match ticket.held {
            // Nothing is hashed yet, so it can be the right hash from the start.
            Held::Nothing => Ticket { algorithm: declared.algorithm(), ..ticket },
            _ => ticket,
        };
        let name = self.claim(&ticket, listing).await?;
        let mut receiver = self.receiver(&ticket).await?;
        if let Err(error) = receiver.take_in(body).await {
            return Err(self.broken(&ticket, name, receiver, error).await);
        }
        let came = receiver.offset_bytes() - ticket.offset_bytes;
        if let Some(range) = place.range
            && range.size_bytes != came
        {
            receiver.give_up().await;
            let reason = format!("Content-Range says {} bytes, but {came} came", range.size_bytes);
            return Err(RegistryError::UploadInvalid { reason });
        }
        match receiver.end().await? {
            Received::Nothing => self.finish_held(push, ticket, declared).await,
            Received::Small { digest, pieces, size_bytes } => {
                let actual = hash_again(declared.algorithm(), digest, &pieces);
                check_digest(&declared, actual)?;
                let data = DataId::Known(declared.clone(), self.nonce());
                self.storage.put_data(&data, pieces).await?;
                self.link(push, declared, data, size_bytes).await
            }
            Received::Long(session) => self.finish_long(push, *session, declared).await,
        }
    }

    /// What becomes of an upload whose body broke off, or could not be stored.
    async fn broken(
        &self,
        ticket: &Ticket,
        name: SessionName,
        receiver: Receiver<'_>,
        error: RegistryError,
    ) -> RegistryError {
        let cut = matches!(error, RegistryError::BodyCut { .. });
        let resumable = ticket.known_to_client;
        if cut && resumable && receiver.is_long() {
            if let Err(error) = self.park(ticket, name, receiver).await {
                tracing::warn!(error = %error, "the beginning of a broken upload could not be kept");
            }
        } else if !matches!(ticket.held, Held::Session(_)) {
            // On a full disk what cannot be used must not take up space; nothing names it yet.
            receiver.give_up().await;
        }
        error
    }

    /// Makes a blob of what has come already.
    async fn finish_held(&self, push: &MayPush, ticket: Ticket, declared: Digest) -> Result<Finished, RegistryError> {
        match &ticket.held {
            Held::Nothing => {
                check_digest(&declared, Digest::of(declared.algorithm(), &[]))?;
                let data = DataId::Known(declared.clone(), self.nonce());
                self.storage.put_data(&data, Vec::new()).await?;
                self.link(push, declared, data, 0).await
            }
            Held::Data { digest, nonce } => {
                let data = DataId::Known(digest.clone(), nonce.clone());
                let actual = self.digest_of(&data, digest.clone(), declared.algorithm()).await?;
                check_digest(&declared, actual)?;
                self.link(push, declared, data, ticket.offset_bytes).await
            }
            Held::Session(name) => {
                let session = self.storage.read_session(ticket.id(), name).await?;
                self.finish_long(push, session.ok_or(RegistryError::UploadUnknown)?, declared).await
            }
        }
    }

    async fn finish_long(&self, push: &MayPush, session: Session, declared: Digest) -> Result<Finished, RegistryError> {
        let size_bytes = session.offset_bytes;
        let actual = session.hasher.finish();
        if actual.algorithm() == declared.algorithm() && actual != declared {
            if let Err(error) = self.storage.abort_data(&session.writer).await {
                tracing::warn!(error = %error, "an unfinished upload could not be removed; it is left for collection");
            }
            return Err(RegistryError::DigestMismatch { declared, actual });
        }
        let data = self.storage.complete_data(&session.writer).await?.ok_or(RegistryError::UploadUnknown)?;
        // A digest of another kind than was announced costs reading it once.
        let actual = self.digest_of(&data, actual, declared.algorithm()).await?;
        if let Err(error) = check_digest(&declared, actual) {
            self.hint(data).await?;
            return Err(error);
        }
        self.link(push, declared, data, size_bytes).await
    }

    /// Gives the repository the blob: the protocol's part of the operation.
    async fn link(
        &self,
        push: &MayPush,
        digest: Digest,
        data: DataId,
        size_bytes: u64,
    ) -> Result<Finished, RegistryError> {
        let operation = FinishUpload::new(push.repo().clone(), digest.clone(), data, size_bytes, self.nonces());
        match self.storage.run(operation, &Attachments::default()).await? {
            Some(_) => Ok(Finished { digest, size_bytes }),
            None => Err(RegistryError::Contended),
        }
    }

    /// A blob of another repository, without its bytes; `None` when it has to be uploaded.
    pub async fn mount(
        &self,
        push: &MayPush,
        pull: &MayPull,
        digest: &Digest,
    ) -> Result<Option<BlobInfo>, RegistryError> {
        let (from, to): (RepoName, RepoName) = (pull.repo().clone(), push.repo().clone());
        let operation = Mount::new(from, to, digest.clone(), self.nonces());
        let link = self.storage.run(operation, &Attachments::default()).await?;
        Ok(link.map(|link| BlobInfo { digest: link.digest, size_bytes: link.size_bytes }))
    }

    /// Some repositories that have the blob. Which of them the client may read is not this room's to say: the names are for
    /// the authorizer.
    pub async fn holders(&self, _push: &MayPush, digest: &Digest) -> Result<Vec<RepoName>, RegistryError> {
        Ok(self.storage.holders(digest, HOLDERS_MAX).await?)
    }

    /// The upload's listing; a cancelled one is unknown.
    async fn living(&self, ticket: &Ticket) -> Result<UploadListing, RegistryError> {
        let listing = self.storage.upload_listing(ticket.id()).await?;
        if listing.cancelled { Err(RegistryError::UploadUnknown) } else { Ok(listing) }
    }

    /// The name of the next state. Who goes on with a multipart upload claims it first and looks afterwards: of two, at
    /// most one does not see the other.
    async fn claim(&self, ticket: &Ticket, listing: &UploadListing) -> Result<SessionName, RegistryError> {
        let name = SessionName { seq: ticket.seq() + 1, nonce: self.nonce() };
        if !matches!(ticket.held, Held::Session(_)) {
            return Ok(name);
        }
        let taken = |listing: &UploadListing| {
            let mut others = listing.claims.iter().chain(&listing.sessions);
            others.any(|other| other.seq >= name.seq && other.nonce != name.nonce)
        };
        if taken(listing) {
            return Err(RegistryError::UploadContended);
        }
        self.storage.claim_upload(ticket.id(), &name).await?;
        if taken(&self.storage.upload_listing(ticket.id()).await?) {
            return Err(RegistryError::UploadContended);
        }
        Ok(name)
    }

    async fn receiver(&self, ticket: &Ticket) -> Result<Receiver<'_>, RegistryError> {
        let (storage, buffers) = (&self.storage, self.part_buffers.clone());
        match &ticket.held {
            Held::Nothing => Ok(Receiver::new(storage, buffers, ticket.algorithm, self.nonce())),
            Held::Data { digest, nonce } => {
                // At most one part: it is read back in front of what comes now.
                let data = DataId::Known(digest.clone(), nonce.clone());
                let before = self.storage.read_data(&data, None).await?.ok_or(RegistryError::UploadUnknown)?;
                let mut receiver = Receiver::new(storage, buffers, ticket.algorithm, self.nonce());
                receiver.take_in(before).await?;
                Ok(receiver)
            }
            Held::Session(name) => {
                let session = self.storage.read_session(ticket.id(), name).await?;
                let session = session.ok_or(RegistryError::UploadUnknown)?;
                Ok(Receiver::resume(storage, buffers, session, self.nonce()))
            }
        }
    }

    /// Stores where the upload is, so that another request can go on.
    async fn park(&self, ticket: &Ticket, name: SessionName, receiver: Receiver<'_>) -> Result<Ticket, RegistryError> {
        if receiver.offset_bytes() == ticket.offset_bytes && !receiver.is_long() {
            return Ok(ticket.clone());
        }
        let offset_bytes = receiver.offset_bytes();
        let held = match receiver.end().await? {
            Received::Nothing => Held::Nothing,
            Received::Small { digest, pieces, .. } => {
                let nonce = self.nonce();
                self.storage.put_data(&DataId::Known(digest.clone(), nonce.clone()), pieces).await?;
                Held::Data { digest, nonce }
            }
            Received::Long(session) => {
                self.storage.write_session(ticket.id(), &name, &session).await?;
                Held::Session(name)
            }
        };
        if let Some(before) = ticket.data() {
            self.hint(before).await?;
        }
        Ok(Ticket { offset_bytes, held, ..ticket.clone() })
    }

    /// The digest of stored data by this algorithm; `known` is its digest by the one it was received with.
    async fn digest_of(&self, data: &DataId, known: Digest, wanted: Algorithm) -> Result<Digest, RegistryError> {
        if known.algorithm() == wanted {
            return Ok(known);
        }
        let mut pieces = self.storage.read_data(data, None).await?.ok_or(RegistryError::UploadUnknown)?;
        let mut hasher = Hasher::new(wanted);
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(&piece);
        }
        Ok(hasher.finish())
    }

    /// Tells collectors of data that nothing will name.
    async fn hint(&self, data: DataId) -> Result<(), RegistryError> {
        let hint = Object::Hint(self.nonce(), vec![Object::Data(data)]);
        Ok(self.storage.leave(&hint).await?)
    }
}

impl Ticket {
    /// The number of the last state stored.
    fn seq(&self) -> u32 {
        match &self.held {
            Held::Session(name) => name.seq,
            Held::Nothing | Held::Data { .. } => 0,
        }
    }
}

fn check_place(ticket: &Ticket, place: ChunkPlace) -> Result<(), RegistryError> {
    match place.range {
        Some(range) if range.start != ticket.offset_bytes => {
            Err(RegistryError::ChunkOutOfOrder { found: range.start, expected_bytes: ticket.offset_bytes })
        }
        _ => Ok(()),
    }
}

fn check_digest(declared: &Digest, actual: Digest) -> Result<(), RegistryError> {
    if *declared == actual { Ok(()) } else { Err(RegistryError::DigestMismatch { declared: declared.clone(), actual }) }
}

fn hash_again(algorithm: Algorithm, known: Digest, pieces: &[Bytes]) -> Digest {
    if known.algorithm() == algorithm {
        return known;
    }
    let mut hasher = Hasher::new(algorithm);
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finish()
}

/// The body again, unless it has no bytes.
async fn non_empty<E: std::fmt::Display>(
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Option<impl Stream<Item = Result<Bytes, E>>>, RegistryError> {
    loop {
        let frame = body.try_next().await.map_err(|error| RegistryError::BodyCut { reason: error.to_string() })?;
        match frame {
            None => return Ok(None),
            Some(frame) if frame.is_empty() => {}
            Some(frame) => {
                use futures_util::StreamExt;
                return Ok(Some(stream::iter([Ok(frame)]).chain(body)));
            }
        }
    }
}
