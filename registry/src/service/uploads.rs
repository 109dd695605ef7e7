//! Uploads: begin, add, ask, finish, cancel, mount.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};

use super::error::RegistryError;
use super::receive::{IDLE, Received, Receiver};
use super::ticket::{Held, Ticket};
use super::{BlobInfo, Registry};
use crate::auth::{MayPull, MayPush};
use crate::protocol::{ClaimUpload, DataId, FinishUpload, Mount, Mutation, Object, mutated};
use crate::spec::{Algorithm, ChunkRange, Digest, Hasher, RepoName, UploadId};
use crate::storage::{Attachments, Completed, SessionName, StorageErrorKind, UploadListing};

/// How many repositories are tried for a mount that names none.
const HOLDERS_MAX: usize = 4;
/// How often a claim is tried while everybody loses it, and the least time between.
const CLAIM_ROUNDS: u32 = 4;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// Where a chunk belongs, and how long the request says that it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkPlace {
    /// `Content-Range`; none for a stream, which goes on where the upload is.
    pub range: Option<ChunkRange>,
    /// How many bytes the body has, where the request says so.
    pub announced_bytes: Option<u64>,
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
        let keys = self.storage.upload_keys();
        ticket.seal(push.repo(), keys.first().map(Vec::as_slice).unwrap_or_default())
    }

    /// The ticket of a Location.
    pub async fn open_ticket(
        &self,
        push: &MayPush,
        id: &UploadId,
        sealed: Option<&str>,
    ) -> Result<Ticket, RegistryError> {
        let sealed = sealed.ok_or(RegistryError::UploadUnknown)?;
        let open = || Ticket::open(sealed, push.repo(), id, &self.storage.upload_keys());
        if let Some(ticket) = open() {
            return Ok(ticket);
        }
        // Where replicas set a store up at the same time, one may seal with a key that another has not seen.
        self.storage.read_upload_keys_again().await?;
        open().ok_or(RegistryError::UploadUnknown)
    }

    /// Where the upload is. A Location that is not the last one finds the last state that was stored.
    pub async fn upload_status(&self, _push: &MayPush, ticket: Ticket) -> Result<Ticket, RegistryError> {
        let listing = self.living(&ticket).await?;
        let newer = listing.sessions.iter().filter(|name| name.seq > ticket.seq()).max();
        let newer = newer.filter(|_| !mutated(Mutation::StatusOfLocation));
        let Some(newest) = newer else { return Ok(ticket) };
        match self.storage.read_session(ticket.id(), newest).await? {
            Some((session, _)) => {
                Ok(Ticket { offset_bytes: session.offset_bytes, held: Held::Session(newest.clone()), ..ticket })
            }
            None => Ok(ticket),
        }
    }

    /// Cancels an upload; it stays unknown from now on.
    pub async fn cancel_upload(&self, _push: &MayPush, ticket: Ticket) -> Result<(), RegistryError> {
        self.living(&ticket).await?;
        if !mutated(Mutation::CancelForgotten) {
            self.storage.cancel_upload(ticket.id(), &self.nonce()).await?;
        }
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
        let listing = match ticket.held {
            // The first chunk relies on nothing that could have ended; the finishing PUT sees whether it was cancelled.
            Held::Nothing => UploadListing::default(),
            _ => self.living(&ticket).await?,
        };
        check_place(&ticket, place)?;
        let (name, receiver) = self.claimed(&ticket, &listing).await?;
        let receiver = self.received(&ticket, &name, receiver, place, body).await?;
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
        place: ChunkPlace,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Finished, RegistryError> {
        let ticket = self.begin_upload(push, Some(declared.algorithm()));
        // Nobody else knows its id: there is nothing to list, and nobody to go on with it.
        let listing = UploadListing::default();
        self.finish(push, ticket, &listing, declared, place, body).await
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
        let Some(mut body) = non_empty(body).await? else {
            let finished = self.finish_held(push, &ticket, listing, &declared).await;
            return self.or_repeated(push, &declared, finished).await;
        };
        let ticket = match ticket.held {
            // Nothing is hashed yet, so it can be the right hash from the start.
            Held::Nothing => Ticket { algorithm: declared.algorithm(), ..ticket },
            _ => ticket,
        };
        let (name, receiver) = match self.claimed(&ticket, listing).await {
            Err(error) => {
                let repeated = self.or_repeated(push, &declared, Err(error)).await?;
                // The client waits for the answer until all is sent.
                while patiently(body.try_next()).await?.is_some() {}
                return Ok(repeated);
            }
            Ok(claimed) => claimed,
        };
        let receiver = self.received(&ticket, &name, receiver, place, body).await?;
        self.finish_received(push, receiver, &declared).await
    }

    /// Takes a body in. What of a broken one can be kept, is; then, and when it is not what the request said, the
    /// upload can be gone on with from where it was.
    async fn received<'a, E: std::fmt::Display>(
        &self,
        ticket: &Ticket,
        name: &SessionName,
        mut receiver: Receiver<'a>,
        place: ChunkPlace,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Receiver<'a>, RegistryError> {
        if let Err(error) = receiver.take_in(body, place.announced_bytes).await {
            self.broken(ticket, name, receiver, &error).await;
            return Err(error);
        }
        let came = receiver.offset_bytes() - ticket.offset_bytes;
        if let Some(range) = place.range
            && range.size_bytes != came
        {
            self.discard(ticket, name, receiver).await;
            let reason = format!("Content-Range says {} bytes, but {came} came", range.size_bytes);
            return Err(RegistryError::UploadInvalid { reason });
        }
        Ok(receiver)
    }

    /// What becomes of an upload whose body broke off, or could not be stored.
    async fn broken(&self, ticket: &Ticket, name: &SessionName, mut receiver: Receiver<'_>, error: &RegistryError) {
        // On a full disk what cannot be used must not take up space; and nobody goes on with what has no Location.
        let full = matches!(error, RegistryError::Storage(error) if error.kind() == StorageErrorKind::Full);
        if ticket.known_to_client && receiver.is_long() && !full {
            match self.keep(ticket, name, &mut receiver).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(error = %error, "the beginning of a broken upload could not be kept"),
            }
        }
        self.discard(ticket, name, receiver).await;
    }

    /// As if the request had not come: an earlier state stays, and can be gone on with.
    async fn discard(&self, ticket: &Ticket, name: &SessionName, receiver: Receiver<'_>) {
        match ticket.held {
            Held::Session(_) => self.unclaim(ticket, name).await,
            // Nothing names it yet.
            Held::Nothing | Held::Data { .. } => receiver.give_up().await,
        }
    }

    /// Makes a blob of what has come already.
    async fn finish_held(
        &self,
        push: &MayPush,
        ticket: &Ticket,
        listing: &UploadListing,
        declared: &Digest,
    ) -> Result<Finished, RegistryError> {
        match &ticket.held {
            Held::Nothing => self.finish_empty(push, declared).await,
            Held::Data { digest, nonce } => {
                let data = DataId::Known(digest.clone(), nonce.clone());
                let actual = self.digest_of(&data, Some(digest.clone()), declared.algorithm()).await?;
                check_digest(declared, actual)?;
                self.link(push, declared, data, ticket.offset_bytes).await
            }
            Held::Session(_) => {
                if taken(listing, ticket.seq() + 1) {
                    return Err(RegistryError::UploadContended);
                }
                let receiver = self.receiver(ticket).await?;
                self.finish_received(push, receiver, declared).await
            }
        }
    }

    async fn finish_empty(&self, push: &MayPush, declared: &Digest) -> Result<Finished, RegistryError> {
        check_digest(declared, Digest::of(declared.algorithm(), &[]))?;
        let data = DataId::Known(declared.clone(), self.nonce());
        self.storage.put_data(&data, Vec::new()).await?;
        self.link(push, declared, data, 0).await
    }

    async fn finish_received(
        &self,
        push: &MayPush,
        mut receiver: Receiver<'_>,
        declared: &Digest,
    ) -> Result<Finished, RegistryError> {
        match receiver.end().await? {
            Received::Nothing => self.finish_empty(push, declared).await,
            Received::Small { digest, pieces, size_bytes, leave } => {
                let actual = hash_again(declared.algorithm(), digest, &pieces);
                check_digest(declared, actual)?;
                let data = DataId::Known(declared.clone(), self.nonce());
                self.storage.put_data(&data, pieces).await?;
                drop(leave);
                self.link(push, declared, data, size_bytes).await
            }
            Received::Long => self.finish_long(push, receiver, declared).await,
        }
    }

    async fn finish_long(
        &self,
        push: &MayPush,
        receiver: Receiver<'_>,
        declared: &Digest,
    ) -> Result<Finished, RegistryError> {
        let size_bytes = receiver.offset_bytes();
        let actual = receiver.digest();
        let wrong = actual.algorithm() == declared.algorithm() && actual != *declared;
        if wrong && !mutated(Mutation::DigestUnchecked) {
            receiver.give_up().await;
            return Err(RegistryError::DigestMismatch { declared: declared.clone(), actual });
        }
        let (data, actual) = match receiver.complete().await? {
            Completed::Gone => return Err(RegistryError::UploadUnknown),
            // A digest of another kind than was announced costs reading it once.
            Completed::Now(data) => {
                let actual = self.digest_of(&data, Some(actual), declared.algorithm()).await?;
                (data, actual)
            }
            // Nobody knows of what parts: it is looked at, unless all that was asked for is done.
            Completed::Before(data) => {
                match self.or_repeated(push, declared, Err(RegistryError::UploadUnknown)).await {
                    Err(RegistryError::UploadUnknown) => {
                        let actual = self.digest_of(&data, None, declared.algorithm()).await?;
                        (data, actual)
                    }
                    finished => return finished,
                }
            }
        };
        if let Err(error) = check_digest(declared, actual) {
            self.hint(data).await?;
            return Err(error);
        }
        self.link(push, declared, data, size_bytes).await
    }

    /// A finishing PUT that is repeated finds its upload ended, swept or in use: what counts then is whether the repository
    /// has the blob, in such a way that it can be relied on.
    async fn or_repeated(
        &self,
        push: &MayPush,
        declared: &Digest,
        finished: Result<Finished, RegistryError>,
    ) -> Result<Finished, RegistryError> {
        let refused = match finished {
            Err(error @ (RegistryError::UploadUnknown | RegistryError::UploadContended)) => error,
            finished => return finished,
        };
        // A link of one's own, confirmed, as for a blob of another repository.
        let repo = push.repo();
        let operation = Mount::new(repo.clone(), repo.clone(), declared.clone(), self.nonces());
        let link = self.storage.run(operation, &Attachments::default()).await?;
        link.map(|link| Finished { digest: link.digest, size_bytes: link.size_bytes }).ok_or(refused)
    }

    /// Gives the repository the blob: the protocol's part of the operation.
    async fn link(
        &self,
        push: &MayPush,
        digest: &Digest,
        data: DataId,
        size_bytes: u64,
    ) -> Result<Finished, RegistryError> {
        let operation = FinishUpload::new(push.repo().clone(), digest.clone(), data, size_bytes, self.nonces());
        match self.storage.run(operation, &Attachments::default()).await? {
            Some(_) => Ok(Finished { digest: digest.clone(), size_bytes }),
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
    /// most one does not see the other. Who has lost takes the claim back, so that an upload that nobody goes on with
    /// is not lost; when all have lost, they try again after different times.
    async fn claim(&self, ticket: &Ticket, listing: &UploadListing) -> Result<SessionName, RegistryError> {
        let seq = ticket.seq() + 1;
        if !matches!(ticket.held, Held::Session(_)) {
            return Ok(SessionName { seq, nonce: self.nonce() });
        }
        if taken(listing, seq) {
            return Err(RegistryError::UploadContended);
        }
        for round in 0..CLAIM_ROUNDS {
            let name = SessionName { seq, nonce: self.nonce() };
            let operation = ClaimUpload::new(ticket.id().clone(), seq, name.nonce.clone());
            let won = self.storage.run(operation, &Attachments::default()).await;
            if matches!(won, Ok(true)) {
                return Ok(name);
            }
            self.unclaim(ticket, &name).await;
            won?;
            let wait = CLAIM_PAUSE * (1 + u32::from((self.surroundings.random)()[15]) % (8 << round));
            tokio::time::sleep(wait).await;
            if taken(&self.living(ticket).await?, seq) {
                break;
            }
        }
        Err(RegistryError::UploadContended)
    }

    /// Claims the next state, and takes up the last one.
    async fn claimed(
        &self,
        ticket: &Ticket,
        listing: &UploadListing,
    ) -> Result<(SessionName, Receiver<'_>), RegistryError> {
        let name = self.claim(ticket, listing).await?;
        match self.receiver(ticket).await {
            Ok(receiver) => Ok((name, receiver)),
            Err(error) => {
                self.unclaim(ticket, &name).await;
                Err(error)
            }
        }
    }

    async fn unclaim(&self, ticket: &Ticket, name: &SessionName) {
        if mutated(Mutation::ClaimKept) {
            return;
        }
        if matches!(ticket.held, Held::Session(_))
            && let Err(error) = self.storage.unclaim_upload(ticket.id(), name).await
        {
            tracing::warn!(error = %error, "an upload's claim could not be given up: the upload has to be begun again");
        }
    }

    async fn receiver(&self, ticket: &Ticket) -> Result<Receiver<'_>, RegistryError> {
        let (storage, id) = (&self.storage, ticket.id().clone());
        let means = (self.body_memory.clone(), self.processors.clone());
        match &ticket.held {
            Held::Nothing => Ok(Receiver::new(storage, means, id, ticket.algorithm, self.nonces())),
            Held::Data { digest, nonce } => {
                // At most one part: it is read back in front of what comes now.
                let data = DataId::Known(digest.clone(), nonce.clone());
                let before = self.storage.read_data(&data, None).await?.ok_or(RegistryError::UploadUnknown)?;
                let mut receiver = Receiver::new(storage, means, id, ticket.algorithm, self.nonces());
                receiver.take_in(before, None).await?;
                Ok(receiver)
            }
            Held::Session(name) => {
                let session = self.storage.read_session(ticket.id(), name).await?;
                let session = session.ok_or(RegistryError::UploadUnknown)?;
                Receiver::resume(storage, means, id, session, self.nonces()).await
            }
        }
    }

    /// Stores where the upload is, so that another request can go on.
    async fn park(
        &self,
        ticket: &Ticket,
        name: SessionName,
        mut receiver: Receiver<'_>,
    ) -> Result<Ticket, RegistryError> {
        if receiver.offset_bytes() == ticket.offset_bytes {
            self.unclaim(ticket, &name).await;
            return Ok(ticket.clone());
        }
        match self.keep(ticket, &name, &mut receiver).await {
            Ok(held) => {
                if let Some(before) = ticket.data() {
                    self.hint(before).await?;
                }
                Ok(Ticket { offset_bytes: receiver.offset_bytes(), held, ..ticket.clone() })
            }
            Err(error) => {
                self.discard(ticket, &name, receiver).await;
                Err(error)
            }
        }
    }

    async fn keep(
        &self,
        ticket: &Ticket,
        name: &SessionName,
        receiver: &mut Receiver<'_>,
    ) -> Result<Held, RegistryError> {
        Ok(match receiver.end().await? {
            Received::Nothing => Held::Nothing,
            Received::Small { digest, pieces, leave, .. } => {
                let nonce = self.nonce();
                self.storage.put_data(&DataId::Known(digest.clone(), nonce.clone()), pieces).await?;
                drop(leave);
                Held::Data { digest, nonce }
            }
            Received::Long => {
                let Some((session, rest)) = receiver.state().await? else { return Ok(Held::Nothing) };
                self.storage.write_session(ticket.id(), name, &session, rest).await?;
                Held::Session(name.clone())
            }
        })
    }

    /// The digest of stored data by this algorithm; `known` is its digest by the one it was received with, where that
    /// can be relied on.
    async fn digest_of(
        &self,
        data: &DataId,
        known: Option<Digest>,
        wanted: Algorithm,
    ) -> Result<Digest, RegistryError> {
        if let Some(known) = known.filter(|known| known.algorithm() == wanted) {
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

/// Whether somebody else writes, or wrote, this state or a later one.
fn taken(listing: &UploadListing, seq: u32) -> bool {
    listing.claims.iter().chain(&listing.sessions).any(|other| other.seq >= seq)
}

fn cut(error: impl std::fmt::Display) -> RegistryError {
    RegistryError::BodyCut { reason: error.to_string() }
}

fn check_place(ticket: &Ticket, place: ChunkPlace) -> Result<(), RegistryError> {
    match place.range {
        Some(range) if range.start != ticket.offset_bytes && !mutated(Mutation::PlaceUnchecked) => {
            Err(RegistryError::ChunkOutOfOrder { found: range.start, expected_bytes: ticket.offset_bytes })
        }
        _ => Ok(()),
    }
}

fn check_digest(declared: &Digest, actual: Digest) -> Result<(), RegistryError> {
    let right = *declared == actual || mutated(Mutation::DigestUnchecked);
    if right { Ok(()) } else { Err(RegistryError::DigestMismatch { declared: declared.clone(), actual }) }
}

fn hash_again(algorithm: Algorithm, known: Digest, pieces: &[Bytes]) -> Digest {
    if known.algorithm() == algorithm {
        return known;
    }
    let mut hasher = Hasher::new(algorithm);
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finish()
}

/// What comes next, if it comes in time.
async fn patiently<T, E: std::fmt::Display>(next: impl Future<Output = Result<T, E>>) -> Result<T, RegistryError> {
    match tokio::time::timeout(IDLE, next).await {
        Ok(next) => next.map_err(cut),
        Err(_) => Err(cut(format!("nothing came for {} seconds", IDLE.as_secs()))),
    }
}

/// The body again, unless it has no bytes.
async fn non_empty<E: std::fmt::Display>(
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Option<impl Stream<Item = Result<Bytes, E>>>, RegistryError> {
    loop {
        match patiently(body.try_next()).await? {
            None => return Ok(None),
            Some(frame) if frame.is_empty() => {}
            Some(frame) => {
                use futures_util::StreamExt;
                return Ok(Some(stream::iter([Ok(frame)]).chain(body)));
            }
        }
    }
}
