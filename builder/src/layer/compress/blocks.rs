//! Gzip in blocks that are compressed at the same time (RFC 1951, RFC 1952).
//!
//! The input is cut into blocks of [`BLOCK_BYTES`], and each is deflated on its own by libdeflate: nothing is as fast at a given
//! size, and its bytes depend neither on the processor nor on what it did before. In one member, [`seam`] has each block's
//! stream go on where libdeflate ended it, so that all in a row are one.
//!
//! What would not shrink (archives, pictures, keys) is stored as it is: trying takes longer than all else that is done to
//! it. Whether it would is told by the bytes alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::Crc;
use libdeflater::{CompressionError, CompressionLvl, Compressor};

use super::seam;

/// Large enough that what repeats over its borders does not matter (0.3 % of the size, against blocks of 2 MiB), small enough
/// that a layer of a few megabytes uses all cores.
const BLOCK_BYTES: usize = 1024 * 1024;

/// So many blocks may be in the hands of all workers where each has more than one.
const IN_HAND: usize = 16;

/// What is stored or deflated as a whole.
const PIECE_BYTES: usize = 64 * 1024;

/// Shorter pieces are deflated without a look: there is little to save.
const LOOK_FROM_BYTES: usize = 32 * 1024;

/// Of so many bytes one is counted. Odd, so that numbers of several bytes show all of theirs.
const COUNTED_STEP: usize = 5;

/// The most that one stored block holds.
const STORED_BYTES: usize = 65_535;

/// How much the squares of the bytes' counts may exceed, in hundredths, what they sum up to where all bytes are as frequent. In
/// whole numbers, since the decision must be the same on every machine.
const EVEN_HUNDREDTHS: u64 = 105;

/// ID1, ID2, deflate, no flags, no time, no hint, operating system unknown.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];

/// How blocks become gzip members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::layer) enum Framing {
    /// All blocks in one.
    OneMember,
    /// Each on its own.
    MemberPerBlock,
}

/// Cuts, hands out and collects the blocks.
pub(in crate::layer) struct BlockWriter<W> {
    inner: W,
    level: CompressionLvl,
    framing: Framing,
    threads: NonZeroUsize,
    /// The block that is being filled. It is handed out when more bytes come, as the last one is closed differently.
    block: Vec<u8>,
    /// Room for the next one.
    spare: Vec<u8>,
    checksum: Crc,
    workers: Option<Workers>,
    /// Where there are none.
    deflater: Option<Deflater>,
    /// What was handed out and not yet written, in order.
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
}

struct Job {
    input: Vec<u8>,
    framing: Framing,
    last: bool,
    reply: Sender<io::Result<Deflated>>,
}

struct Deflated {
    parts: Vec<Vec<u8>>,
    checksum: Crc,
    /// Room to use again.
    input: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn new(mut inner: W, level: u32, framing: Framing, threads: NonZeroUsize) -> io::Result<Self> {
        if framing == Framing::OneMember {
            inner.write_all(&HEADER)?;
        }
        let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
        Ok(Self {
            inner,
            level: level.ok_or_else(|| io::Error::other("no such level of compression"))?,
            framing,
            threads,
            block: Vec::new(),
            spare: Vec::new(),
            checksum: Crc::new(),
            workers: None,
            deflater: None,
            pending: VecDeque::new(),
        })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.hand_out(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        if self.framing == Framing::OneMember {
            self.inner.write_all(&trailer(&self.checksum))?;
        }
        Ok(self.inner)
    }

    fn hand_out(&mut self, last: bool) -> io::Result<()> {
        let input = std::mem::replace(&mut self.block, std::mem::take(&mut self.spare));
        let (reply, answer) = channel();
        let job = Job { input, framing: self.framing, last, reply };
        self.pending.push_back(answer);
        // A layer of one block is not worth a thread.
        if self.threads.get() == 1 || (last && self.workers.is_none()) {
            run(vec![job], self.deflater.get_or_insert_with(|| Deflater::new(self.level)));
            return self.collect();
        }
        // Bounds the memory: the blocks in hand of each worker, and one more so that none waits.
        while self.pending.len() > self.threads.get() * in_hand(self.threads) + 1 {
            self.collect()?;
        }
        let workers = match &self.workers {
            Some(workers) => workers,
            None => self.workers.insert(Workers::start(self.threads, self.level)?),
        };
        workers.send(job)
    }

    /// Writes the oldest block that was handed out.
    fn collect(&mut self) -> io::Result<()> {
        let Some(answer) = self.pending.pop_front() else { return Ok(()) };
        let deflated = answer.recv().map_err(|_| io::Error::other("a compression thread ended early"))??;
        self.checksum.combine(&deflated.checksum);
        self.spare = deflated.input;
        self.spare.clear();
        deflated.parts.iter().try_for_each(|part| self.inner.write_all(part))
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.block.len() == BLOCK_BYTES {
            self.hand_out(false)?;
        }
        let count = buffer.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many blocks a worker takes at a time where so many wait: as many as [`seam`] passes over at once, while that takes little memory.
fn in_hand(threads: NonZeroUsize) -> usize {
    (IN_HAND / threads).clamp(1, seam::LANES)
}

/// Threads that live as long as the writer.
struct Workers {
    jobs: Option<SyncSender<Job>>,
    /// How many wait.
    queued: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(count: NonZeroUsize, level: CompressionLvl) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(count.get() * in_hand(count) + 1);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Self { jobs: Some(jobs), queued: Arc::default(), threads: Vec::new() };
        for _ in 0..count.get() {
            let (queue, queued) = (Arc::clone(&queue), Arc::clone(&workers.queued));
            let run = move || {
                let mut deflater = Deflater::new(level);
                loop {
                    let jobs: Vec<Job> = match queue.lock() {
                        // Of what waits, no more than leaves as much to each of the others.
                        Ok(queue) => {
                            let first = queue.recv();
                            let share = (queued.load(Ordering::Relaxed) / count).clamp(1, in_hand(count));
                            first.into_iter().chain(queue.try_iter().take(share - 1)).collect()
                        }
                        Err(_) => return,
                    };
                    queued.fetch_sub(jobs.len(), Ordering::Relaxed);
                    if jobs.is_empty() {
                        return;
                    }
                    run(jobs, &mut deflater);
                }
            };
            workers.threads.push(std::thread::Builder::new().name("compress".to_owned()).spawn(run)?);
        }
        Ok(workers)
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(|| io::Error::other("the compression threads have ended"))?;
        self.queued.fetch_add(1, Ordering::Relaxed);
        jobs.send(job).map_err(|_| io::Error::other("the compression threads have ended"))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic in one has already failed the write that waited for its block.
            let _ = thread.join();
        }
    }
}

/// Deflates blocks and answers each job, or none of them.
fn run(jobs: Vec<Job>, deflater: &mut Deflater) {
    let deflated =
        jobs.iter().map(|job| deflater.deflate(&job.input, job.last || job.framing == Framing::MemberPerBlock));
    let blocks = deflated.collect::<io::Result<Vec<_>>>().and_then(joinable);
    let mut blocks = blocks.map(Vec::into_iter);
    for Job { input, framing, reply, .. } in jobs {
        let mut checksum = Crc::new();
        checksum.update(&input);
        let answer = match &mut blocks {
            Ok(blocks) => {
                let mut parts = blocks.next().unwrap_or_default();
                if framing == Framing::MemberPerBlock {
                    parts.insert(0, HEADER.to_vec());
                    parts.push(trailer(&checksum).to_vec());
                }
                Ok(Deflated { parts, checksum, input })
            }
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // When nobody waits for the answer any more, the writer has failed and has said so.
        let _ = reply.send(answer);
    }
}

/// Has all streams that are not the last of their gzip member go on, those of all blocks together: [`seam`] takes less time for
/// several at once than for one after the other.
fn joinable(mut blocks: Vec<Vec<Part>>) -> io::Result<Vec<Vec<Vec<u8>>>> {
    let mut open: Vec<&mut Part> = blocks.iter_mut().flatten().filter(|part| part.goes_on).collect();
    let mut streams: Vec<Vec<u8>> = open.iter_mut().map(|part| std::mem::take(&mut part.bytes)).collect();
    seam::reopen(&mut streams).ok_or_else(|| io::Error::other("libdeflate gave what is no deflate stream"))?;
    open.into_iter().zip(streams).for_each(|(part, stream)| part.bytes = stream);
    Ok(blocks.into_iter().map(|parts| parts.into_iter().map(|part| part.bytes).collect()).collect())
}

/// A stream, or stored blocks.
struct Part {
    bytes: Vec<u8>,
    /// Whether others follow in the same gzip member where it is a stream that says it ends.
    goes_on: bool,
}

/// Makes deflate streams of blocks, one after the other.
struct Deflater {
    compressor: Compressor,
    /// At level 0 all is stored.
    stores: bool,
    buffer: Vec<u8>,
}

impl Deflater {
    fn new(level: CompressionLvl) -> Self {
        let stores = CompressionLvl::new(0).is_ok_and(|zero| zero == level);
        Self { compressor: Compressor::new(level), stores, buffer: Vec::new() }
    }

    /// The whole block, which is or is not the last of its gzip member.
    fn deflate(&mut self, block: &[u8], last: bool) -> io::Result<Vec<Part>> {
        let parts = self.parts(block);
        let count = parts.len();
        let deflated = parts.into_iter().enumerate().map(|(index, (part, is_stored))| {
            let last = last && index + 1 == count;
            match is_stored {
                true => Ok(Part { bytes: store(part, last), goes_on: false }),
                false => Ok(Part { bytes: self.deflate_part(part)?, goes_on: !last }),
            }
        });
        deflated.collect()
    }

    fn deflate_part(&mut self, part: &[u8]) -> io::Result<Vec<u8>> {
        let bound = self.compressor.deflate_compress_bound(part.len());
        self.buffer.resize(self.buffer.len().max(bound), 0);
        let length = self.compressor.deflate_compress(part, &mut self.buffer).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(length + seam::SLACK_BYTES);
        bytes.extend_from_slice(&self.buffer[..length]);
        Ok(bytes)
    }

    /// Cuts a block where what would shrink borders on what would not, and says of each part whether to store it.
    fn parts<'a>(&mut self, block: &'a [u8]) -> Vec<(&'a [u8], bool)> {
        if self.stores || block.is_empty() {
            return vec![(block, self.stores)];
        }
        let looks: Vec<bool> = block.chunks(PIECE_BYTES).map(is_even).collect();
        let mut parts: Vec<(usize, bool)> = Vec::new();
        let mut start = 0;
        for run in looks.chunk_by(|one, other| one == other) {
            let end = block.len().min(start + run.len() * PIECE_BYTES);
            let is_stored = run[0] && self.is_incompressible(&block[start..end]);
            match parts.last_mut() {
                Some((before, stored)) if *stored == is_stored => *before = end,
                _ => parts.push((end, is_stored)),
            }
            start = end;
        }
        let mut start = 0;
        parts.into_iter().map(|(end, is_stored)| (&block[std::mem::replace(&mut start, end)..end], is_stored)).collect()
    }

    /// Whether a piece from the middle, which is longer than deflate's reach, does not become shorter by a hundredth.
    fn is_incompressible(&mut self, part: &[u8]) -> bool {
        let length = part.len().min(PIECE_BYTES);
        let start = (part.len() - length) / 2;
        // Less room than it would take as it is: what does not fit into it does not shrink.
        let room = length / 100 * 99;
        self.buffer.resize(self.buffer.len().max(room), 0);
        let outcome = self.compressor.deflate_compress(&part[start..start + length], &mut self.buffer[..room]);
        matches!(outcome, Err(CompressionError::InsufficientSpace))
    }
}

/// Stored blocks, the last of them marked where the stream ends.
fn store(part: &[u8], last: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.len() + 5 * part.len().div_ceil(STORED_BYTES) + 5);
    let mut blocks = part.chunks(STORED_BYTES).peekable();
    if part.is_empty() {
        bytes.extend_from_slice(&[u8::from(last), 0, 0, 0xFF, 0xFF]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        bytes.push(u8::from(last && blocks.peek().is_none()));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(block);
    }
    bytes
}

/// Whether all bytes are about as frequent.
fn is_even(piece: &[u8]) -> bool {
    if piece.len() < LOOK_FROM_BYTES {
        return false;
    }
    let mut counts = [0_u64; 256];
    piece.iter().step_by(COUNTED_STEP).for_each(|byte| counts[usize::from(*byte)] += 1);
    let (total, squares) =
        counts.iter().fold((0, 0), |(total, squares), count| (total + count, squares + count * count));
    squares * 256 * 100 <= total * total * EVEN_HUNDREDTHS
}

/// CRC32 and length of the input.
fn trailer(checksum: &Crc) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&checksum.sum().to_le_bytes());
    bytes[4..].copy_from_slice(&checksum.amount().to_le_bytes());
    bytes
}
