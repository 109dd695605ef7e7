//! Packs of git: objects one after the other, each compressed by itself, many as the difference to another one.
//!
//! A difference copies what both have in common, so a value may stand in none of its parts; the object is put together from
//! the one that it builds on, which stands before it in the pack. Those are kept, as far as memory is given. Where one is
//! kept no longer, or named by its hash (only packs in transfer do that), the new parts alone are searched.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use super::{Unsearched, Walk};

/// Longest object that is kept and put together, in bytes. Sources are shorter.
const OBJECT_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// All objects that are kept, in bytes.
const KEPT_MAX_BYTES: usize = 96 * 1024 * 1024;

const BY_PLACE: u8 = 6;
const BY_HASH: u8 = 7;

impl Walk<'_> {
    pub(super) fn pack(&self, file: &mut BufReader<&mut dyn Read>, depth: usize) -> io::Result<()> {
        let mut file = Counted { inner: file, at: 0 };
        let mut header = [0; 12];
        file.read_exact(&mut header)?;
        let count = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let mut kept = Kept::default();
        for _ in 0..count {
            let at = file.at;
            let (kind, size) = object(&mut file)?;
            let base = match kind {
                1..=4 => None,
                BY_PLACE => Some(at.checked_sub(distance(&mut file)?).ok_or(io::ErrorKind::InvalidData)?),
                BY_HASH => {
                    file.read_exact(&mut [0; 20])?;
                    Some(at)
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            let mut outcome = Ok(());
            self.named(format!("the object at {at}").as_bytes(), || {
                outcome = self.object(&mut file, (at, base, size), &mut kept, depth);
            });
            outcome?;
            let state = self.state.borrow();
            if state.held.is_some() || state.left_bytes == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Searches an object that stands at a place and may build on one of another, and keeps it.
    fn object(
        &self,
        file: &mut impl BufRead,
        (at, base, size): (u64, Option<u64>, u64),
        kept: &mut Kept,
        depth: usize,
    ) -> io::Result<()> {
        let mut decoder = flate2::bufread::ZlibDecoder::new(file);
        if size > OBJECT_MAX_BYTES {
            if base.is_some() {
                self.not_searched(Unsearched::Versions);
            }
            self.unpacked(&mut decoder, depth);
            return Ok(());
        }
        let mut content = Vec::new();
        // One byte more than it should have: the decoder then sees its end, and stands behind it.
        (&mut decoder).take(size + 1).read_to_end(&mut content)?;
        if content.len() as u64 != size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(base) = base {
            content = match kept.of(base).map(|base| put_together(base, &content)) {
                Some(whole) => whole.ok_or(io::ErrorKind::InvalidData)?,
                None => {
                    self.not_searched(Unsearched::Versions);
                    let news = put_together(&[], &content).unwrap_or(content);
                    self.unpacked(&mut &news[..], depth);
                    return Ok(());
                }
            };
        }
        self.unpacked(&mut &content[..], depth);
        kept.keep(at, content);
        Ok(())
    }
}

/// Objects by their places.
#[derive(Default)]
struct Kept {
    objects: BTreeMap<u64, Vec<u8>>,
    size_bytes: usize,
}

impl Kept {
    fn of(&self, at: u64) -> Option<&[u8]> {
        self.objects.get(&at).map(Vec::as_slice)
    }

    /// Keeps one more; the first ones go.
    fn keep(&mut self, at: u64, content: Vec<u8>) {
        self.size_bytes += content.len();
        let _ = self.objects.insert(at, content);
        while self.size_bytes > KEPT_MAX_BYTES
            && let Some((_, first)) = self.objects.pop_first()
        {
            self.size_bytes -= first.len();
        }
    }
}

/// The kind and the length that stand before an object: seven bits a byte, the last ones first.
fn object(file: &mut impl Read) -> io::Result<(u8, u64)> {
    let mut byte = next(file)?;
    let (kind, mut size, mut shift) = (byte >> 4 & 7, u64::from(byte & 15), 4);
    while byte & 0x80 != 0 {
        byte = next(file)?;
        size |= u64::from(byte & 0x7F).checked_shl(shift).ok_or(io::ErrorKind::InvalidData)?;
        shift += 7;
    }
    Ok((kind, size))
}

/// How far before an object that stands on which it builds: seven bits a byte, the first ones first, each but the last one
/// less than it counts for.
fn distance(file: &mut impl Read) -> io::Result<u64> {
    let mut byte = next(file)?;
    let mut distance = u64::from(byte & 0x7F);
    while byte & 0x80 != 0 {
        byte = next(file)?;
        let more = distance.checked_add(1).and_then(|more| more.checked_mul(0x80)).ok_or(io::ErrorKind::InvalidData)?;
        distance = more | u64::from(byte & 0x7F);
    }
    Ok(distance)
}

fn next(file: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// What a difference makes of `base`; `None` where it makes no sense. Of an empty base, what the difference itself brings.
pub(super) fn put_together(base: &[u8], difference: &[u8]) -> Option<Vec<u8>> {
    let mut rest = difference;
    let (base_bytes, whole_bytes) = (length(&mut rest)?, length(&mut rest)?);
    let news_alone = base.is_empty() && base_bytes != 0;
    if (base_bytes != base.len() && !news_alone) || whole_bytes as u64 > OBJECT_MAX_BYTES {
        return None;
    }
    let mut whole = Vec::with_capacity(whole_bytes);
    while let Some((&order, mut more)) = rest.split_first() {
        if order & 0x80 == 0 {
            // So many new bytes.
            let (news, after) = more.split_at_checked(order.into())?;
            whole.extend_from_slice(news);
            rest = after;
            continue;
        }
        // A copy: which bytes of the place and the length follow, say the bits.
        let mut part = |bit: u8| match order & bit {
            0 => Some(0),
            _ => more.split_off_first().map(|byte| usize::from(*byte)),
        };
        let from = part(1)? | part(2)? << 8 | part(4)? << 16 | part(8)? << 24;
        let count = part(16)? | part(32)? << 8 | part(64)? << 16;
        let count = if count == 0 { 0x1_0000 } else { count };
        if !news_alone {
            whole.extend_from_slice(base.get(from..from.checked_add(count)?)?);
        }
        if whole.len() > whole_bytes {
            return None;
        }
        rest = more;
    }
    Some(whole)
}

/// A length at the begin of a difference: seven bits a byte, the last ones first.
fn length(rest: &mut &[u8]) -> Option<usize> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = *rest.split_off_first()?;
        length |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(length);
        }
        shift += 7;
    }
}

/// Counts what was read.
struct Counted<'a, 'b> {
    inner: &'a mut BufReader<&'b mut dyn Read>,
    at: u64,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl BufRead for Counted<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.at += count as u64;
    }
}
