//! A body on its way into the store: hashed as it comes, in bounded memory.
//!
//! A body that fits one part becomes one data object whose name begins with its digest. A longer one becomes a multipart
//! upload. How much is held meanwhile depends on how the store takes parts ([`PartPlan`]):
//!
//! - of any size (a folder): a body takes memory as it grows, as long as there is some; without, what is there is
//!   appended to the store, and the body goes on in small steps. Nobody waits for anybody.
//! - at fixed places (S3): a body takes memory for a whole part, and gives it back with the part. When there is none, only
//!   a body that has shown to come fast waits for its turn: whoever holds a part meanwhile is as fast, so that the turn
//!   comes soon however many slow ones there are. Of all others, what has come of their part is put aside in small objects
//!   ("tails") beside the upload's state, and read back in front of the rest when the part can be completed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::error::RegistryError;
use super::hashing::{Hashing, Processors};
use super::memory::{BodyMemory, Leave, OWN_BYTES};
use super::pace::{Pace, Pause, Rate};
use super::rope::Rope;
use crate::protocol::Nonces;
use crate::spec::{Algorithm, Digest, Hasher, UploadId};
use crate::storage::{ByteStream, Completed, DataWriter, PartPlan, Session, Storage, Tail};

/// How much is appended at once to a long upload on a store that takes parts of any size.
const STEP_BYTES: u64 = 256 * 1024;
/// A client that sends nothing for this long gives its memory back in any case.
const SLOW: Duration = Duration::from_secs(5);
/// One that sends nothing for this long is given up.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// How long memory may be held while others wait for it.
const HOLD: Duration = Duration::from_secs(5);
/// How many tails of a body are read at once.
const TAILS_AT_ONCE: usize = 8;

/// An upload being received.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    storage: &'a Storage,
    memory: BodyMemory,
    processors: Processors,
    plan: PartPlan,
    upload: UploadId,
    hasher: Hasher,
    offset_bytes: u64,
    /// What was put aside of the part under way; what is in memory follows it.
    tails: Vec<Tail>,
    rope: Rope,
    leave: Option<Leave>,
    pace: Pace,
    writer: Option<DataWriter>,
    /// For the data object, should there come to be a multipart upload, and for tails.
    nonces: Nonces,
}

/// Where the bytes are after a body.
#[derive(Debug)]
pub(super) enum Received {
    /// There were none.
    Nothing,
    /// In memory, by this leave: they fit one part.
    Small { digest: Digest, pieces: Vec<Bytes>, size_bytes: u64, leave: Option<Leave> },
    /// In a multipart upload that is not completed.
    Long,
}

impl<'a> Receiver<'a> {
    /// From the beginning.
    pub(super) fn new(
        storage: &'a Storage,
        (memory, processors): (BodyMemory, Processors),
        upload: UploadId,
        algorithm: Algorithm,
        nonces: Nonces,
    ) -> Self {
        let plan = storage.part_plan();
        Self {
            storage,
            memory,
            processors,
            plan,
            upload,
            hasher: Hasher::new(algorithm),
            offset_bytes: 0,
            tails: Vec::new(),
            rope: Rope::default(),
            leave: None,
            pace: Pace::new(),
            writer: None,
            nonces,
        }
    }

    /// Goes on with a multipart upload; `rest` are the bytes that its state held.
    pub(super) async fn resume(
        storage: &'a Storage,
        means: (BodyMemory, Processors),
        upload: UploadId,
        (session, rest): (Session, ByteStream),
        nonces: Nonces,
    ) -> Result<Self, RegistryError> {
        let Session { offset_bytes, hasher, writer, tails, rest_bytes } = session;
        let mut this = Self::new(storage, means, upload, hasher.algorithm(), nonces);
        (this.hasher, this.offset_bytes, this.writer, this.tails) = (hasher, offset_bytes, Some(writer), tails);
        if rest_bytes > OWN_BYTES as u64 {
            this.leave = Some(this.memory.take(this.part_bytes()).await);
        }
        let rest: Vec<Bytes> = rest.try_collect().await?;
        this.rope.put_back(rest);
        if this.rope.size_bytes as u64 != rest_bytes {
            return Err(RegistryError::UploadUnknown);
        }
        this.pace = Pace::new();
        Ok(this)
    }

    /// Where the part under way begins.
    fn part_begin(&self) -> u64 {
        self.writer.as_ref().map_or(0, DataWriter::end_bytes)
    }

    fn part_bytes(&self) -> u64 {
        self.plan.part_bytes(self.part_begin())
    }

    /// How much there is of the part under way.
    fn part_filled(&self) -> u64 {
        self.offset_bytes - self.part_begin()
    }

    /// Takes a body in, whose length the client may have announced. After an error, what came before it can still be
    /// finished or stored.
    pub(super) async fn take_in<E: std::fmt::Display>(
        &mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
        announced_bytes: Option<u64>,
    ) -> Result<(), RegistryError> {
        let end_bytes = announced_bytes.map(|bytes| self.offset_bytes.saturating_add(bytes));
        self.check_size(end_bytes.unwrap_or(self.offset_bytes))?;
        let mut hashing = Hashing::new(self.hasher.clone(), self.processors.clone(), self.memory.clone());
        let taken = self.take_frames(body, end_bytes, &mut hashing).await;
        self.hasher = hashing.end().await;
        taken
    }

    async fn take_frames<E: std::fmt::Display>(
        &mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
        end_bytes: Option<u64>,
        hashing: &mut Hashing,
    ) -> Result<(), RegistryError> {
        let mut body = std::pin::pin!(body);
        let mut pause = Pause::new();
        loop {
            let Some(frame) = self.next(&mut body, &mut pause).await? else { return Ok(()) };
            self.pace.came(frame.len());
            // On an object store the network is what bounds a push, and a frame kept is a part's memory.
            hashing.update(&frame, self.writer.is_some() && self.plan == PartPlan::Any).await;
            self.offset_bytes += frame.len() as u64;
            self.rope.exact = self.leave.is_some() && self.plan != PartPlan::Any;
            self.rope.push(frame);
            let came = Instant::now();
            match self.plan {
                PartPlan::Any => self.make_room_by_steps(end_bytes).await?,
                PartPlan::Fixed { .. } => self.make_room_by_parts(end_bytes).await?,
            }
            self.pace.kept(came.elapsed());
        }
    }

    /// What comes next. A client that keeps us waiting keeps nobody's memory.
    async fn next<E: std::fmt::Display>(
        &mut self,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        pause: &mut Pause,
    ) -> Result<Option<Bytes>, RegistryError> {
        let cut = |error: E| RegistryError::BodyCut { reason: error.to_string() };
        if let Some(frame) = pause.before(body.next()).await {
            return frame.transpose().map_err(cut);
        }
        self.pace.paused();
        if self.leave.is_some() && self.memory.is_short_of(self.part_bytes()) {
            self.give_back().await?;
        }
        if let Ok(frame) = tokio::time::timeout(SLOW, body.next()).await {
            return frame.transpose().map_err(cut);
        }
        self.give_back().await?;
        let frame = tokio::time::timeout(IDLE, body.next()).await;
        let reason = format!("nothing came for {} seconds", (IDLE + SLOW).as_secs());
        frame.map_err(|_| RegistryError::BodyCut { reason })?.transpose().map_err(cut)
    }

    fn check_size(&self, end_bytes: u64) -> Result<(), RegistryError> {
        let max_bytes = self.plan.largest_blob_bytes();
        if end_bytes > max_bytes { Err(RegistryError::BlobTooLarge { max_bytes }) } else { Ok(()) }
    }

    async fn make_room_by_steps(&mut self, end_bytes: Option<u64>) -> Result<(), RegistryError> {
        let size_bytes = self.rope.size_bytes as u64;
        if self.writer.is_none() {
            let one_part = self.part_bytes();
            let fits = end_bytes.unwrap_or(size_bytes) <= one_part && size_bytes <= one_part;
            if fits && self.grown(end_bytes.unwrap_or(size_bytes)) {
                return Ok(());
            }
            self.leave = None;
        } else {
            if self.leave.is_none() {
                self.leave = self.memory.try_take(STEP_BYTES);
            }
            let limit = if self.leave.is_some() { STEP_BYTES } else { OWN_BYTES as u64 };
            if size_bytes < limit {
                return Ok(());
            }
        }
        self.store_all().await
    }

    /// Whether there is memory for a body of so many bytes.
    fn grown(&mut self, bytes: u64) -> bool {
        let held = self.leave.as_ref().map_or(0, Leave::bytes);
        if bytes <= held.max(OWN_BYTES as u64) {
            return true;
        }
        // In doubling steps, so that this is not asked at every frame.
        let wanted = bytes.next_power_of_two().min(self.part_bytes());
        let Some(more) = self.memory.try_take(wanted - held) else { return false };
        self.leave = Some(match self.leave.take() {
            Some(leave) => leave.and(more),
            None => more,
        });
        true
    }

    async fn make_room_by_parts(&mut self, end_bytes: Option<u64>) -> Result<(), RegistryError> {
        // A body that is exactly one part is one object.
        while self.part_filled() >= self.part_bytes() + u64::from(self.writer.is_none()) {
            self.store_part().await?;
        }
        if self.rope.size_bytes <= OWN_BYTES {
            return Ok(());
        }
        let rest = end_bytes.map_or(u64::MAX, |end| end - self.part_begin().min(end));
        let wanted = self.part_bytes().min(rest.max(self.part_filled()));
        match &self.leave {
            None => {
                self.leave = match self.pace.rate() {
                    // Without one another waiting: the first parts of a body take no longer where there is memory.
                    Rate::Unknown => self.memory.try_take(wanted),
                    Rate::Fast => Some(self.memory.take(wanted).await),
                    Rate::Slow => self.memory.try_take_some(wanted, self.part_bytes()),
                };
                if self.leave.is_none() {
                    self.put_aside().await?;
                }
            }
            Some(leave) => {
                let slow = self.pace.rate() == Rate::Slow || leave.since().elapsed() > HOLD;
                let full = leave.bytes() < wanted && self.rope.size_bytes as u64 >= leave.bytes();
                if full || (slow && self.memory.is_short_of(self.part_bytes())) {
                    self.put_aside().await?;
                }
            }
        }
        Ok(())
    }

    /// Stores what is in memory and gives the memory back, however little it is.
    async fn give_back(&mut self) -> Result<(), RegistryError> {
        if self.leave.is_none() && self.rope.size_bytes <= OWN_BYTES {
            return Ok(());
        }
        let start = Instant::now();
        match self.plan {
            PartPlan::Any => {
                self.leave = None;
                self.store_all().await?;
            }
            PartPlan::Fixed { .. } => self.put_aside().await?,
        }
        self.pace.kept(start.elapsed());
        Ok(())
    }

    /// Stores what is in memory as a part, of whatever size.
    async fn store_all(&mut self) -> Result<(), RegistryError> {
        let pieces = self.rope.all();
        self.add_part(pieces.clone()).await.inspect_err(|_| self.rope.put_back(pieces))
    }

    /// Stores the part under way, which has all its bytes, and gives its memory back.
    async fn store_part(&mut self) -> Result<(), RegistryError> {
        self.check_size(self.part_begin().saturating_add(self.part_bytes()))?;
        self.take_for_aside(self.part_bytes()).await?;
        let aside = self.aside_bytes();
        let mut pieces = self.aside().await?;
        // A part fits the memory that parts are lent.
        let came = self.rope.take(usize::try_from(self.part_bytes() - aside).unwrap_or(usize::MAX));
        pieces.extend(came.iter().cloned());
        match self.add_part(pieces).await {
            Ok(()) => {
                self.tails.clear();
                self.leave = None;
                Ok(())
            }
            Err(error) => {
                self.rope.put_back(came);
                Err(error)
            }
        }
    }

    async fn add_part(&mut self, pieces: Vec<Bytes>) -> Result<(), RegistryError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.storage.begin_data(self.nonces.take()).await?),
        };
        match self.storage.add_part(writer, pieces).await {
            // Given up after a wrong digest, completed meanwhile, or lost with the machine's last start.
            Err(error) if error.is_absent() => Err(RegistryError::UploadUnknown),
            added => Ok(added?),
        }
    }

    /// Puts what is in memory of the part under way aside, and gives the memory back.
    async fn put_aside(&mut self) -> Result<(), RegistryError> {
        let room = self.part_bytes().saturating_sub(self.aside_bytes());
        let pieces = self.rope.take(usize::try_from(room).unwrap_or(usize::MAX));
        let size_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        if size_bytes > 0 {
            let _turn = self.memory.turn_aside().await;
            let tail = Tail { nonce: self.nonces.take(), size_bytes };
            if let Err(error) = self.storage.put_tail(&self.upload, &tail, pieces.clone()).await {
                self.rope.put_back(pieces);
                return Err(error.into());
            }
            self.tails.push(tail);
        }
        self.leave = None;
        Ok(())
    }

    fn aside_bytes(&self) -> u64 {
        self.tails.iter().map(|tail| tail.size_bytes).sum()
    }

    /// Takes memory for so many bytes, if some of them were put aside and have to be read back. Nobody who holds some
    /// waits for more: what is held goes first.
    async fn take_for_aside(&mut self, bytes: u64) -> Result<(), RegistryError> {
        if !self.tails.is_empty() && self.leave.as_ref().is_none_or(|leave| leave.bytes() < bytes) {
            if self.leave.is_some() {
                self.put_aside().await?;
            }
            self.leave = Some(self.memory.take(bytes).await);
        }
        Ok(())
    }

    /// What was put aside.
    async fn aside(&self) -> Result<Vec<Bytes>, RegistryError> {
        let (storage, upload) = (self.storage, &self.upload);
        let read = stream::iter(self.tails.clone()).map(|tail| async move {
            let stored = storage.read_tail(upload, &tail).await?.ok_or(RegistryError::UploadUnknown)?;
            Ok::<Vec<Bytes>, RegistryError>(stored.try_collect().await?)
        });
        Ok(read.buffered(TAILS_AT_ONCE).try_collect::<Vec<_>>().await?.concat())
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
    pub(super) async fn end(&mut self) -> Result<Received, RegistryError> {
        if self.writer.is_some() {
            return Ok(Received::Long);
        }
        if self.offset_bytes == 0 {
            return Ok(Received::Nothing);
        }
        if !self.tails.is_empty() {
            self.take_for_aside(self.offset_bytes).await?;
            let aside = self.aside().await?;
            self.rope.put_back(aside);
            self.tails.clear();
        }
        Ok(Received::Small {
            digest: self.hasher.clone().finish(),
            pieces: self.rope.all(),
            size_bytes: self.offset_bytes,
            leave: self.leave.take(),
        })
    }

    /// The state of a multipart upload, and the bytes that belong into it; `None` when there is none.
    pub(super) async fn state(&mut self) -> Result<Option<(Session, Vec<Bytes>)>, RegistryError> {
        if matches!(self.plan, PartPlan::Any) && self.writer.is_some() {
            self.store_all().await?;
        }
        let Some(writer) = self.writer.clone() else { return Ok(None) };
        let rest = self.rope.all();
        let rest_bytes = rest.iter().map(|piece| piece.len() as u64).sum();
        let (hasher, tails) = (self.hasher.clone(), self.tails.clone());
        Ok(Some((Session { offset_bytes: self.offset_bytes, hasher, writer, tails, rest_bytes }, rest)))
    }

    /// The digest of all that came.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes data of a multipart upload.
    pub(super) async fn complete(mut self) -> Result<Completed, RegistryError> {
        self.take_for_aside(self.part_filled()).await?;
        let mut pieces = self.aside().await?;
        pieces.extend(self.rope.all());
        let Some(mut writer) = self.writer.take() else { return Ok(Completed::Gone) };
        Ok(self.storage.finish_data(&mut writer, pieces).await?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{AskedBy, Failed, StoreRequest, StoreRequestKind, StoreRequests};
    use crate::protocol::Nonce;
    use crate::service::memory::POOL_BYTES;
    use crate::storage::Memory;
    use std::sync::{Arc, LazyLock};
    use tokio::time::sleep;

    const MIB: usize = 1024 * 1024;

    /// Who receives bodies for an object store, all by one pool.
    struct Place {
        requests: StoreRequests,
        storage: Arc<Storage>,
        memory: BodyMemory,
        uploads: u8,
    }

    impl Place {
        async fn new() -> Self {
            let requests = StoreRequests::default();
            let storage = Storage::open(Memory::default(), [7; 32]).await.unwrap().counting(requests.clone());
            Self { requests, storage: Arc::new(storage), memory: BodyMemory::new(POOL_BYTES), uploads: 0 }
        }

        /// How often something was put aside.
        fn tails(&self) -> u64 {
            let kind = StoreRequestKind::put;
            self.requests.get_or_create(&StoreRequest { kind, failed: Failed::no, by: AskedBy::clients }).get()
        }

        /// Takes a body in to its end; the digest of what is stored.
        fn receive<B>(&mut self, body: B) -> impl Future<Output = Digest> + Send + use<B>
        where
            B: Stream<Item = Result<Bytes, String>> + Send + 'static,
        {
            self.uploads += 1;
            let nonces = Nonces::new(Nonce::from_bits([self.uploads; 12]));
            let (storage, memory, id) =
                (self.storage.clone(), self.memory.clone(), UploadId::from_bits(self.uploads.into()));
            async move {
                let means = (memory, Processors::new(1));
                let mut receiver = Receiver::new(&storage, means, id, Algorithm::Sha256, nonces);
                receiver.plan = PartPlan::Fixed { least_bytes: 5 * MIB as u64 };
                receiver.take_in(body, None).await.unwrap();
                match receiver.end().await.unwrap() {
                    Received::Nothing => Digest::of(Algorithm::Sha256, b""),
                    Received::Small { pieces, .. } => Digest::of(Algorithm::Sha256, &pieces.concat()),
                    Received::Long => {
                        let Completed::Now(data) = receiver.complete().await.unwrap() else { panic!("gone") };
                        let mut stored = storage.read_data(&data, None).await.unwrap().unwrap();
                        let mut hasher = Hasher::new(Algorithm::Sha256);
                        while let Some(piece) = stored.try_next().await.unwrap() {
                            hasher.update(&piece);
                        }
                        hasher.finish()
                    }
                }
            }
        }
    }

    /// What all bodies begin with.
    static CONTENT: LazyLock<Bytes> = LazyLock::new(|| vec![[7u8, 1, 254, 3, 0, 90, 8]; 3 * MIB].concat().into());

    /// `bytes` of a body, so many at once and so long between.
    fn body(bytes: usize, frame_bytes: usize, between: Duration) -> impl Stream<Item = Result<Bytes, String>> {
        stream::unfold(0, move |sent| async move {
            if sent > 0 && !between.is_zero() {
                sleep(between).await;
            }
            let frame = CONTENT.slice(sent.min(bytes)..bytes.min(sent + frame_bytes));
            (!frame.is_empty()).then(|| (Ok(frame), sent + frame_bytes))
        })
    }

    fn expected(bytes: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &CONTENT[..bytes])
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_slow_a_fast_one_is_through_in_the_same_time() {
        let burst = || body(100 * 1024, 10 * 1024, Duration::ZERO);
        for (kind, frame_bytes, between) in [("next to nothing", 13, 500), ("a steady 10 KiB/s", 512, 50)] {
            let mut took = Vec::new();
            for crowd in [10, 200] {
                let mut place = Place::new().await;
                let slow: Vec<_> = (0..crowd)
                    .map(|_| {
                        let rest = body(MIB, frame_bytes, Duration::from_millis(between));
                        tokio::spawn(place.receive(burst().chain(rest)))
                    })
                    .collect();
                tokio::task::yield_now().await;
                let start = Instant::now();
                assert_eq!(place.receive(body(20 * MIB, 64 * 1024, Duration::ZERO)).await, expected(20 * MIB));
                took.push(start.elapsed());
                slow.into_iter().for_each(|slow| slow.abort());
            }
            assert!(took.iter().all(|took| *took <= Duration::from_secs(2)), "{kind}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_slow_ones_with_nobody_else_put_nothing_aside_and_more_of_them_little() {
        for (bodies, tails) in [(3, 0..1), (10, 10..300)] {
            let mut place = Place::new().await;
            let slow = (0..bodies).map(|_| place.receive(body(7 * MIB, 64 * 1024, Duration::from_millis(500))));
            for digest in futures_util::future::join_all(slow.collect::<Vec<_>>()).await {
                assert_eq!(digest, expected(7 * MIB));
            }
            assert!(tails.contains(&place.tails()), "{bodies}: {}", place.tails());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_aside_in_pieces_of_any_size_comes_together_again() {
        let mut place = Place::new().await;
        let sizes = [7 * MIB, 12 * MIB, 5 * MIB, 5 * MIB + 1, 300 * 1024];
        let bodies = (0..30).map(|n| {
            let size = sizes[n % sizes.len()];
            // From 90 KiB/s to as fast as can be, in frames that no part is a multiple of.
            let between = [0, 0, 99, 120, 450][n / 2 % 5];
            let received =
                tokio::spawn(place.receive(body(size, 40_007 + 1000 * (n % 7), Duration::from_millis(between))));
            async move { (received.await.unwrap(), size) }
        });
        for (digest, size) in futures_util::future::join_all(bodies.collect::<Vec<_>>()).await {
            assert_eq!(digest, expected(size));
        }
        assert!(place.tails() > 0);
        let (lent, _) = place.memory.lent_bytes();
        assert_eq!(lent, 0);
    }
}
