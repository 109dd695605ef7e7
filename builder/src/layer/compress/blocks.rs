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
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::Crc;
use libdeflater::{CompressionError, CompressionLvl, Compressor};

use super::seam;

/// Large enough that what repeats over its borders does not matter (0.3 % of the size, against blocks of 2 MiB), small enough
/// that a layer of a few megabytes uses all cores.
const BLOCK_BYTES: usize = 1024 * 1024;

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
    bytes: Vec<u8>,
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
            job.run(&mut Deflater::new(self.level));
            return self.collect();
        }
        // Bounds the memory: a block in hand for each worker, and one more so that none waits.
        while self.pending.len() > self.threads.get() + 1 {
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
        self.inner.write_all(&deflated.bytes)
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

/// Threads that live as long as the writer.
struct Workers {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(count: NonZeroUsize, level: CompressionLvl) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(count.get() + 1);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Self { jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..count.get() {
            let queue = Arc::clone(&queue);
            let run = move || {
                let mut deflater = Deflater::new(level);
                loop {
                    let job = match queue.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else { return };
                    job.run(&mut deflater);
                }
            };
            workers.threads.push(std::thread::Builder::new().name("compress".to_owned()).spawn(run)?);
        }
        Ok(workers)
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(|| io::Error::other("the compression threads have ended"))?;
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

impl Job {
    fn run(self, deflater: &mut Deflater) {
        let Self { input, framing, last, reply } = self;
        let mut checksum = Crc::new();
        checksum.update(&input);
        let deflated = match framing {
            Framing::OneMember => deflater.deflate(&input, last),
            Framing::MemberPerBlock => deflater.deflate(&input, true).map(|bytes| {
                let mut member = HEADER.to_vec();
                member.extend_from_slice(&bytes);
                member.extend_from_slice(&trailer(&checksum));
                member
            }),
        };
        // When nobody waits for the answer any more, the writer has failed and has said so.
        let _ = reply.send(deflated.map(|bytes| Deflated { bytes, checksum, input }));
    }
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

    /// A stream of the whole block, that ends there or goes on.
    fn deflate(&mut self, block: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(block.len() / 2 + 64);
        let mut parts = self.parts(block).into_iter().peekable();
        while let Some((part, is_stored)) = parts.next() {
            let last = last && parts.peek().is_none();
            if is_stored {
                store(part, last, &mut bytes);
            } else {
                self.deflate_part(part, last, &mut bytes)?;
            }
        }
        Ok(bytes)
    }

    fn deflate_part(&mut self, part: &[u8], last: bool, bytes: &mut Vec<u8>) -> io::Result<()> {
        let bound = self.compressor.deflate_compress_bound(part.len());
        self.buffer.resize(self.buffer.len().max(bound), 0);
        let mut length = self.compressor.deflate_compress(part, &mut self.buffer).map_err(io::Error::other)?;
        if !last {
            let reopened = seam::reopen(&mut self.buffer, length);
            length = reopened.ok_or_else(|| io::Error::other("libdeflate gave what is no deflate stream"))?;
        }
        bytes.extend_from_slice(&self.buffer[..length]);
        Ok(())
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
fn store(part: &[u8], last: bool, bytes: &mut Vec<u8>) {
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
