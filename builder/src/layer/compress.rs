//! Compression of a layer's tar on its way to the blob.
//!
//! The bytes depend on the input, the kind and the level alone: not on the number of threads, not on how the input was cut
//! into writes, not on what was compressed before. `tests/pinned_digests.rs` holds them against a new compressor.

mod blocks;
mod seam;

use std::io::{self, Write};
use std::num::NonZeroUsize;

use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

use super::Compression;
use blocks::{BlockWriter, Framing};

/// What one zstd worker takes at a time. zstd's own choice at level 3 is 8 MiB, and then two workers take 110 MB of memory;
/// with 2 MiB they take 20 MB, and the output grows by 0.3 % (74 MB of Python and Perl libraries).
const ZSTD_JOB_BYTES: u32 = 2 * 1024 * 1024;

/// Takes the tar, gives the blob's bytes to `W`.
pub(super) enum Compressor<W: Write> {
    Gzip(BlockWriter<W>),
    Zstd(ZstdEncoder<'static, W>),
    Uncompressed(W),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(inner: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip { level } => {
                Self::Gzip(BlockWriter::new(inner, level.min(9), Framing::OneMember, threads)?)
            }
            Compression::GzipMembers { level } => {
                Self::Gzip(BlockWriter::new(inner, level.min(9), Framing::MemberPerBlock, threads)?)
            }
            Compression::Zstd { level } => {
                let mut encoder = ZstdEncoder::new(inner, level.clamp(1, 22))?;
                // The library allows 64 everywhere. One worker or more gives the same bytes; none gives others (`limits.md`, section 2).
                encoder.multithread(threads.get().min(64) as u32)?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
                Self::Zstd(encoder)
            }
            Compression::Uncompressed => Self::Uncompressed(inner),
        })
    }

    /// Writes all that is still to come, and gives `W` back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(writer) => writer.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Uncompressed(inner) => Ok(inner),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(writer) => writer.write(buffer),
            Self::Zstd(encoder) => encoder.write(buffer),
            Self::Uncompressed(inner) => inner.write(buffer),
        }
    }

    /// Does nothing: a flush in between would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::{GzDecoder, MultiGzDecoder};
    use proptest::prelude::*;

    use super::*;

    const ALL: &[Compression] = &[
        Compression::Gzip { level: 0 },
        Compression::Gzip { level: 1 },
        Compression::Gzip { level: 3 },
        Compression::Gzip { level: 6 },
        Compression::Gzip { level: 9 },
        Compression::GzipMembers { level: 3 },
        Compression::Zstd { level: 3 },
        Compression::Uncompressed,
    ];

    /// Text-like bytes that compress and repeat over long distances.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = &b"layer digest blob manifest config snapshot stage step context"[(state >> 24) as usize % 50..];
            bytes.extend_from_slice(&word[..word.len().min(1 + (state >> 16) as usize % 9)]);
        }
        bytes.truncate(length);
        bytes
    }

    fn compress(input: &[u8], compression: Compression, threads: usize, piece: usize) -> Vec<u8> {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut compressor = Compressor::new(Vec::new(), compression, threads).unwrap();
        for chunk in input.chunks(piece) {
            compressor.write_all(chunk).unwrap();
            compressor.flush().unwrap();
        }
        compressor.finish().unwrap()
    }

    fn decompress(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let mut output = Vec::new();
        match compression {
            // A reader that stops after the first member must see everything.
            Compression::Gzip { .. } => GzDecoder::new(bytes).read_to_end(&mut output).unwrap(),
            Compression::GzipMembers { .. } => MultiGzDecoder::new(bytes).read_to_end(&mut output).unwrap(),
            Compression::Zstd { .. } => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut output).unwrap(),
            Compression::Uncompressed => return bytes.to_vec(),
        };
        output
    }

    #[test]
    fn the_bytes_do_not_depend_on_threads_or_pieces() {
        for length in [0, 1, 100_000, 1 << 20, (1 << 20) + 1, 3_300_000] {
            let input = sample(length);
            for compression in ALL {
                let once = compress(&input, *compression, 1, 1 << 16);
                assert_eq!(decompress(&once, *compression), input, "{compression:?} {length}");
                for (threads, piece) in [(1, 1 << 22), (2, 99_991), (4, 1 << 16), (4, 1 << 20)] {
                    let again = compress(&input, *compression, threads, piece);
                    assert!(once == again, "{compression:?}, {length} bytes, {threads} threads, pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_gzip_header_tells_nothing_of_time_or_machine() {
        let bytes = compress(b"abc", Compression::default(), 1, 10);
        assert_eq!(&bytes[..10], b"\x1F\x8B\x08\0\0\0\0\0\0\xFF");
    }

    #[test]
    fn noise_is_stored_and_what_surrounds_it_is_not() {
        let mut state = 9_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(3 << 20)
        .collect();
        // Even in its bytes, and full of repetitions that deflate can reach.
        let repeated: Vec<u8> = noise[..20_000].iter().copied().cycle().take(1 << 20).collect();
        let text = sample(1 << 20);
        for compression in [Compression::Gzip { level: 3 }, Compression::GzipMembers { level: 3 }] {
            let size = |input: &[u8]| compress(input, compression, 2, 1 << 20).len();
            assert!((noise.len()..noise.len() + 2000).contains(&size(&noise)), "{compression:?}");
            assert!(size(&repeated) < 100_000, "{compression:?}: {}", size(&repeated));
            let mixed = [&text[..], &noise, &text].concat();
            assert!(size(&mixed) < noise.len() + 2 * size(&text) + 2000, "{compression:?}");
            assert_eq!(decompress(&compress(&mixed, compression, 2, 99_991), compression), mixed, "{compression:?}");
            // Files of either kind that follow each other within a block.
            let files =
                [&noise[..100_000], &text[..300_000], &noise[100_000..350_000], &text[300_000..400_000]].concat();
            assert!(size(&files) < 350_000 + size(&text[..400_000]) + 70_000, "{compression:?}: {}", size(&files));
            assert_eq!(decompress(&compress(&files, compression, 2, 99_991), compression), files, "{compression:?}");
        }
    }

    #[test]
    fn a_failing_sink_fails_the_write_and_leaves_no_thread_waiting() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in ALL {
            let outcome = Compressor::new(Full, *compression, NonZeroUsize::new(4).unwrap()).and_then(|mut writer| {
                writer.write_all(&sample(20 << 20))?;
                writer.finish().map(drop)
            });
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull, "{compression:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(input in proptest::collection::vec(any::<u8>(), 0..3000), piece in 1_usize..500) {
            for compression in ALL {
                let bytes = compress(&input, *compression, 2, piece);
                prop_assert_eq!(decompress(&bytes, *compression), input.clone());
            }
        }
    }
}
