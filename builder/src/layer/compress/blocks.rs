//! Gzip in blocks that are compressed at the same time (RFC 1951, RFC 1952).
//!
//! The input is cut into blocks of [`BLOCK_BYTES`]. Each is deflated by a compressor of its own, with the last 32 KiB of the
//! block before as its dictionary, and ends on a byte boundary (a sync flush), so that the outputs in a row are one
//! deflate stream. A compressor is never used twice: with a dictionary, zlib-rs leaves bytes of its earlier life in the
//! window, and the output would depend on which thread took which block.
//!
//! Where each block is a member of its own, nothing is shared between blocks, and libdeflate does them: it takes whole buffers
//! only, and is the fastest there is at a given size (274 MB/s at a ratio of 0.427 on two cores against zlib-rs' 189 MB/s
//! at 0.432; `limits.md`, section 2). Its bytes do not depend on the processor either.
//!
//! A block that would not shrink (archives, pictures, keys) is stored as it is: trying takes longer than all else that is done
//! to it. Whether it would is told by the bytes alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};

/// Large enough that the dictionary and the flush cost nothing that can be measured, small enough that a layer of a few
/// megabytes uses all cores (`limits.md`, section 2).
const BLOCK_BYTES: usize = 1024 * 1024;

/// The reach of deflate.
const WINDOW_BYTES: usize = 32 * 1024;

/// Below this a block is deflated without a look: there is little to save.
const LOOK_FROM_BYTES: usize = 64 * 1024;

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
    level: u32,
    framing: Framing,
    threads: NonZeroUsize,
    /// The block that is being filled. It is handed out when more bytes come, as the last one is closed differently.
    block: Vec<u8>,
    /// The end of the block before.
    dictionary: Vec<u8>,
    checksum: Crc,
    workers: Option<Workers>,
    /// What was handed out and not yet written, in order.
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
}

struct Job {
    input: Vec<u8>,
    dictionary: Vec<u8>,
    level: u32,
    framing: Framing,
    last: bool,
    reply: Sender<io::Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    checksum: Crc,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn new(mut inner: W, level: u32, framing: Framing, threads: NonZeroUsize) -> io::Result<Self> {
        if framing == Framing::OneMember {
            inner.write_all(&HEADER)?;
        }
        Ok(Self {
            inner,
            level,
            framing,
            threads,
            block: Vec::new(),
            dictionary: Vec::new(),
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
        let input = std::mem::take(&mut self.block);
        let dictionary = match self.framing {
            Framing::OneMember => {
                let tail = input[input.len().saturating_sub(WINDOW_BYTES)..].to_vec();
                std::mem::replace(&mut self.dictionary, tail)
            }
            Framing::MemberPerBlock => Vec::new(),
        };
        let (reply, answer) = channel();
        let job = Job { input, dictionary, level: self.level, framing: self.framing, last, reply };
        self.pending.push_back(answer);
        // A layer of one block is not worth a thread.
        if self.threads.get() == 1 || (last && self.workers.is_none()) {
            job.run();
            return self.collect();
        }
        // Bounds the memory: a block in hand for each worker, and one more so that none waits.
        while self.pending.len() > self.threads.get() + 1 {
            self.collect()?;
        }
        let workers = match &self.workers {
            Some(workers) => workers,
            None => self.workers.insert(Workers::start(self.threads)?),
        };
        workers.send(job)
    }

    /// Writes the oldest block that was handed out.
    fn collect(&mut self) -> io::Result<()> {
        let Some(answer) = self.pending.pop_front() else { return Ok(()) };
        let deflated = answer.recv().map_err(|_| io::Error::other("a compression thread ended early"))??;
        self.checksum.combine(&deflated.checksum);
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
    fn start(count: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(count.get() + 1);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Self { jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..count.get() {
            let queue = Arc::clone(&queue);
            let run = move || {
                loop {
                    let job = match queue.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else { return };
                    job.run();
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
    fn run(self) {
        // When nobody waits for the answer any more, the writer has failed and has said so.
        let _ = self.reply.send(deflate(&self.input, &self.dictionary, self.level, self.framing, self.last));
    }
}

/// A block as a whole gzip member; its header says as little as [`HEADER`].
fn member(input: &[u8], level: u32) -> io::Result<Deflated> {
    let level = i32::try_from(level).unwrap_or(i32::MAX);
    let level = CompressionLvl::new(level).map_err(|_| io::Error::other("no such level of compression"))?;
    let mut compressor = Compressor::new(level);
    let mut bytes = vec![0; compressor.gzip_compress_bound(input.len())];
    let length = compressor.gzip_compress(input, &mut bytes).map_err(io::Error::other)?;
    bytes.truncate(length);
    Ok(Deflated { bytes, checksum: Crc::new() })
}

fn deflate(input: &[u8], dictionary: &[u8], level: u32, framing: Framing, last: bool) -> io::Result<Deflated> {
    let level = if level > 0 && is_incompressible(input, level) { 0 } else { level };
    if framing == Framing::MemberPerBlock {
        return member(input, level);
    }
    let mut checksum = Crc::new();
    checksum.update(input);
    let mut compress = Compress::new(Compression::new(level), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    // Incompressible input grows by 5 bytes in 16 KiB at most; a tenth is room enough for that and the flush.
    let mut bytes = Vec::with_capacity(input.len() + input.len() / 10 + 64);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let consumed = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(input.len());
        let status = compress.compress_vec(&input[consumed..], &mut bytes, flush).map_err(io::Error::other)?;
        // A sync flush is complete when the call left room in the output.
        let complete = match status {
            Status::StreamEnd => true,
            Status::Ok | Status::BufError => flush == FlushCompress::Sync && bytes.len() < bytes.capacity(),
        };
        if complete {
            break;
        }
        bytes.reserve(64 * 1024);
    }
    Ok(Deflated { bytes, checksum })
}

/// Whether deflate would find nothing: all bytes are about as frequent, and a piece from the middle, which is longer than
/// deflate's reach, does not become shorter by a hundredth.
fn is_incompressible(block: &[u8], level: u32) -> bool {
    if block.len() < LOOK_FROM_BYTES {
        return false;
    }
    let mut counts = [0_u64; 256];
    block.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let (length, squares) = (block.len() as u64, counts.iter().map(|count| count * count).sum::<u64>());
    if squares * 256 * 100 > length * length * EVEN_HUNDREDTHS {
        return false;
    }
    let start = (block.len() - LOOK_FROM_BYTES) / 2;
    let piece = &block[start..start + LOOK_FROM_BYTES];
    let mut output = Vec::with_capacity(piece.len() / 100 * 99);
    // Less room than it would take as it is: what does not come to its end there does not shrink.
    let outcome = Compress::new(Compression::new(level), false).compress_vec(piece, &mut output, FlushCompress::Finish);
    !matches!(outcome, Ok(Status::StreamEnd))
}

/// CRC32 and length of the input.
fn trailer(checksum: &Crc) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&checksum.sum().to_le_bytes());
    bytes[4..].copy_from_slice(&checksum.amount().to_le_bytes());
    bytes
}
