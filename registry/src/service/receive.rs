//! A body on its way into the store: hashed as it comes, in bounded memory.
//!
//! A body that fits one part becomes one data object whose name begins with its digest. A longer one becomes a multipart
//! upload. How much is held meanwhile depends on how the store takes parts ([`PartPlan`]):
//!
//! - of any size (a folder): a body takes memory as it grows, as long as there is some; without, what is there is
//!   appended to the store, and the body goes on in small steps. Nobody waits for anybody.
//! - at fixed places (S3): a body waits its turn for memory for a whole part, and gives it back with the part. A client
//!   that is too slow to fill it must not keep others waiting: what has come of its part is put aside in small objects
//!   ("tails") beside the upload's state, and read back in front of the rest when the part can be completed.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use tokio::time::{Instant, Sleep, sleep};

use super::error::RegistryError;
use super::hashing::{Hashing, Processors};
use super::memory::{BodyMemory, Leave, OWN_BYTES};
use crate::protocol::Nonces;
use crate::spec::{Algorithm, Digest, Hasher, UploadId};
use crate::storage::{ByteStream, Completed, DataWriter, PartPlan, Session, Storage, Tail};

/// How much is appended at once to a long upload on a store that takes parts of any size.
const STEP_BYTES: u64 = 256 * 1024;
/// A client that sends nothing for this long gives its memory back when others wait for it: a thousand that stall are
/// through in seconds.
const PAUSE: Duration = Duration::from_millis(100);
/// One that sends nothing for this long gives its memory back in any case.
const SLOW: Duration = Duration::from_secs(5);
/// One that sends nothing for this long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// A body whose own memory takes longer to fill waits for no more: it would keep it too long.
const TRICKLE: Duration = Duration::from_secs(1);
/// How long memory may be held while others wait for it.
const HOLD: Duration = Duration::from_secs(5);
/// Frames smaller than this are joined: each kept by itself would hold on to far more than its own bytes.
const JOINED_BYTES: usize = 16 * 1024;

/// The least memory that is taken for copies of frames at once.
const LEAST_PIECE_BYTES: usize = 1024;

/// What has come, and is not stored yet.
#[derive(Debug, Default)]
struct Rope {
    whole: Vec<Bytes>,
    joined: BytesMut,
    size_bytes: usize,
    /// Whether frames are copied into pieces that have just their size: one of a connection's keeps that connection's whole
    /// buffer, which is too much where a part's worth of them is kept.
    exact: bool,
}

impl Rope {
    fn push(&mut self, mut frame: Bytes) {
        self.size_bytes += frame.len();
        while self.exact && !frame.is_empty() {
            if self.joined.capacity() == self.joined.len() {
                self.close();
                // A body of a few bytes is not to take more than they are.
                self.joined = BytesMut::with_capacity(self.size_bytes.clamp(LEAST_PIECE_BYTES, OWN_BYTES));
            }
            let room = self.joined.capacity() - self.joined.len();
            self.joined.extend_from_slice(&frame.split_to(room.min(frame.len())));
        }
        if frame.is_empty() {
            return;
        }
        if frame.len() < JOINED_BYTES {
            self.joined.extend_from_slice(&frame);
            if self.joined.len() < JOINED_BYTES {
                return;
            }
        }
        self.close();
        if frame.len() >= JOINED_BYTES {
            self.whole.push(frame);
        }
    }

    fn close(&mut self) {
        if !self.joined.is_empty() {
            self.whole.push(self.joined.split().freeze());
        }
    }

    /// Takes the first `bytes`, or all.
    fn take(&mut self, bytes: usize) -> Vec<Bytes> {
        self.close();
        let mut left = bytes.min(self.size_bytes);
        self.size_bytes -= left;
        let mut taken = 0;
        let mut cut = None;
        for piece in &mut self.whole {
            if left < piece.len() {
                cut = (left > 0).then(|| piece.split_to(left));
                break;
            }
            left -= piece.len();
            taken += 1;
        }
        self.whole.drain(..taken).chain(cut).collect()
    }

    fn all(&mut self) -> Vec<Bytes> {
        self.take(self.size_bytes)
    }

    /// In front of what is there.
    fn put_back(&mut self, pieces: Vec<Bytes>) {
        self.size_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        self.whole.splice(..0, pieces);
    }
}

/// Sees when nothing comes for [`PAUSE`]. Its timer is set when it runs off and not for each frame: most frames are waited
/// for, and setting one wakes the thread that keeps the timers.
#[derive(Debug)]
struct Pause {
    timer: Pin<Box<Sleep>>,
}

impl Pause {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(PAUSE)) }
    }

    /// What comes; `None` when nothing does.
    async fn before<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        if let Some(came) = what.as_mut().now_or_never() {
            return Some(came);
        }
        let end = Instant::now() + PAUSE;
        loop {
            tokio::select! {
                biased;
                came = &mut what => return Some(came),
                () = &mut self.timer => {}
            }
            let now = Instant::now();
            self.timer.as_mut().reset(if now < end { end } else { now + PAUSE });
            if now >= end {
                return None;
            }
        }
    }
}

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
    /// Since when the rope is filled.
    filling: Option<Instant>,
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
            filling: None,
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
            if self.rope.size_bytes == 0 {
                self.filling = Some(Instant::now());
            }
            // On an object store the network is what bounds a push, and a frame kept is a part's memory.
            hashing.update(&frame, self.writer.is_some() && self.plan == PartPlan::Any).await;
            self.offset_bytes += frame.len() as u64;
            self.rope.exact = self.leave.is_some() && self.plan != PartPlan::Any;
            self.rope.push(frame);
            match self.plan {
                PartPlan::Any => self.make_room_by_steps(end_bytes).await?,
                PartPlan::Fixed { .. } => self.make_room_by_parts(end_bytes).await?,
            }
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
            None if self.filling.is_some_and(|since| since.elapsed() > TRICKLE) => {
                self.leave = self.memory.try_take_spare(wanted);
                if self.leave.is_none() {
                    self.put_aside().await?;
                }
            }
            None => self.leave = Some(self.memory.take(wanted).await),
            Some(leave) if leave.since().elapsed() > HOLD && self.memory.is_short_of(self.part_bytes()) => {
                self.put_aside().await?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Stores what is in memory and gives the memory back, however little it is.
    async fn give_back(&mut self) -> Result<(), RegistryError> {
        if self.leave.is_none() && self.rope.size_bytes <= OWN_BYTES {
            return Ok(());
        }
        match self.plan {
            PartPlan::Any => {
                self.leave = None;
                self.store_all().await
            }
            PartPlan::Fixed { .. } => self.put_aside().await,
        }
    }

    /// Stores what is in memory as a part, of whatever size.
    async fn store_all(&mut self) -> Result<(), RegistryError> {
        let pieces = self.rope.all();
        self.add_part(pieces.clone()).await.inspect_err(|_| self.rope.put_back(pieces))
    }

    /// Stores the part under way, which has all its bytes, and gives its memory back.
    async fn store_part(&mut self) -> Result<(), RegistryError> {
        self.check_size(self.part_begin().saturating_add(self.part_bytes()))?;
        let aside: u64 = self.tails.iter().map(|tail| tail.size_bytes).sum();
        if aside > 0 && self.leave.is_none() {
            self.leave = Some(self.memory.take(self.part_bytes()).await);
        }
        let mut pieces = self.aside().await?;
        // A part fits the memory that parts are lent.
        let came = self.rope.take(usize::try_from(self.part_bytes() - aside).unwrap_or(usize::MAX));
        pieces.extend(came.iter().cloned());
        match self.add_part(pieces).await {
            Ok(()) => {
                self.tails.clear();
                self.leave = None;
                self.filling = Some(Instant::now());
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

    /// Puts what is in memory aside, and gives the memory back.
    async fn put_aside(&mut self) -> Result<(), RegistryError> {
        let pieces = self.rope.all();
        let size_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        if size_bytes > 0 {
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

    /// What was put aside.
    async fn aside(&self) -> Result<Vec<Bytes>, RegistryError> {
        let mut pieces = Vec::new();
        for tail in &self.tails {
            let stored = self.storage.read_tail(&self.upload, tail).await?;
            pieces.extend(stored.ok_or(RegistryError::UploadUnknown)?.try_collect::<Vec<Bytes>>().await?);
        }
        Ok(pieces)
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
            if self.leave.is_none() {
                self.leave = Some(self.memory.take(self.offset_bytes).await);
            }
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
        if !self.tails.is_empty() && self.leave.is_none() {
            self.leave = Some(self.memory.take(self.part_bytes()).await);
        }
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
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_seen_whenever_it_begins() {
        let mut pause = Pause::new();
        for wait in [0, 60, 99, 30, 5, 99] {
            let frame = async {
                sleep(Duration::from_millis(wait)).await;
                wait
            };
            assert_eq!(pause.before(frame).await, Some(wait));
        }
        for _ in 0..2 {
            let began = Instant::now();
            assert_eq!(pause.before(std::future::pending::<()>()).await, None);
            assert_eq!(began.elapsed().as_millis(), PAUSE.as_millis());
            sleep(PAUSE * 3).await;
        }
        assert_eq!(pause.before(sleep(PAUSE / 2)).await, Some(()));
    }

    proptest! {
        #[test]
        fn a_rope_keeps_every_byte_in_its_place(
            frames in prop::collection::vec(0usize..100_000, 0..8),
            takes in prop::collection::vec((0usize..60_000, any::<bool>()), 0..8),
            exact: bool,
        ) {
            let (mut rope, mut expected) = (Rope { exact, ..Default::default() }, Vec::new());
            for (n, size) in frames.iter().enumerate() {
                let frame: Vec<u8> = (0..*size).map(|i| (i * 7 + n) as u8).collect();
                expected.extend_from_slice(&frame);
                rope.push(frame.into());
            }
            let mut out = Vec::new();
            for (bytes, back) in takes {
                let pieces = rope.take(bytes);
                if back {
                    rope.put_back(pieces);
                } else {
                    out.extend(pieces.concat());
                }
                prop_assert_eq!(out.len() + rope.size_bytes, expected.len());
            }
            out.extend(rope.all().concat());
            prop_assert_eq!(out, expected);
        }
    }
}
