//! Zips: from their front, entries one after the other, each behind its own header.

use std::io::{self, BufRead as _, BufReader, Read};

use super::{Unsearched, Walk};

impl Walk<'_> {
    pub(super) fn zip(&self, file: &mut BufReader<&mut dyn Read>, depth: usize) -> io::Result<()> {
        while next_entry(file)? {
            let mut header = [0; 26];
            file.read_exact(&mut header)?;
            let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 2)) << 16;
            let (flags, method, packed) = (short(2), short(4), long(14));
            let (mut name, mut extra) = (vec![0; short(22).into()], vec![0; short(24).into()]);
            file.read_exact(&mut name)?;
            file.read_exact(&mut extra)?;
            let packed = if packed == u64::from(u32::MAX) { large_size(&extra).unwrap_or(packed) } else { packed };
            let size_follows = flags & 8 != 0;
            let unsearched = match method {
                _ if flags & 1 != 0 => Some(Unsearched::Encrypted),
                0 | 8 | BZIP2 | ZSTD | XZ => None,
                _ => Some(Unsearched::Unknown("an unusual method of zip")),
            };
            if let Some(why) = unsearched {
                self.named(&name, || self.not_searched(why));
            }
            match method {
                8 if unsearched.is_none() => self.named(&name, || {
                    self.unpacked(&mut flate2::bufread::DeflateDecoder::new(&mut *file), depth);
                }),
                // Where nobody says how long it is, the next header is looked for.
                _ if size_follows => {}
                // What is packed otherwise than by deflate is a whole file of that kind.
                _ if unsearched.is_none() => self.entry(&name, &mut (&mut *file).take(packed), depth)?,
                _ => drop(io::copy(&mut (&mut *file).take(packed), &mut io::sink())?),
            }
        }
        Ok(())
    }
}

const BZIP2: u16 = 12;
const ZSTD: u16 = 93;
const XZ: u16 = 95;

/// Reads up to the begin of a zip's next entry and over its signature; `false` where none comes.
fn next_entry(file: &mut BufReader<&mut dyn Read>) -> io::Result<bool> {
    const SIGNATURE: &[u8; 4] = b"PK\x03\x04";
    let mut matched = 0;
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let mut used = 0;
        for byte in buffer {
            used += 1;
            matched = match (*byte == SIGNATURE[matched], *byte == SIGNATURE[0]) {
                (true, _) => matched + 1,
                (false, true) => 1,
                (false, false) => 0,
            };
            if matched == SIGNATURE.len() {
                file.consume(used);
                return Ok(true);
            }
        }
        file.consume(used);
    }
}

/// The packed size in a zip64 extra field, behind the unpacked one.
fn large_size(mut extra: &[u8]) -> Option<u64> {
    loop {
        let (head, rest) = extra.split_at_checked(4)?;
        let (data, rest) = rest.split_at_checked(u16::from_le_bytes([head[2], head[3]]).into())?;
        if head[..2] == [1, 0] {
            return data.get(8..16)?.try_into().ok().map(u64::from_le_bytes);
        }
        extra = rest;
    }
}
