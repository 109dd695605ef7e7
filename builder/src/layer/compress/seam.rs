//! Makes a finished deflate stream one that goes on (RFC 1951).
//!
//! libdeflate takes whole buffers, and marks the last block of each as the last of the stream. Where that block begins only a
//! reader of all before it knows. This one follows the codes without what they stand for, in a fifth of the time that
//! compressing took.

/// How many entries a table of literals and lengths has.
const RUNS: usize = 1 << 12;
/// And one of distances.
const STEPS: usize = 1 << 9;

/// Bytes behind a stream that a look ahead may touch.
const SLACK_BYTES: usize = 16;

/// In this order a block gives the lengths of the codes for lengths.
const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Unmarks the last block of the stream that is the first `length` bytes of `buffer`, and ends it on a whole byte as a sync
/// flush does, with an empty stored block. Gives its new length; `None` when it is no deflate stream.
pub(super) fn reopen(buffer: &mut Vec<u8>, length: usize) -> Option<usize> {
    buffer.resize(buffer.len().max(length + SLACK_BYTES), 0);
    // Zeros, as the bits that fill up the stream's last byte are.
    buffer[length..length + SLACK_BYTES].fill(0);
    let (last, end) = last_block(buffer)?;
    if end.div_ceil(8) != length {
        return None;
    }
    buffer[last / 8] &= !(1 << (last % 8));
    // The empty block: three bits, what fills up the byte, its length, and the same inverted.
    let start = (end + 3).div_ceil(8);
    buffer[start + 2..start + 4].fill(0xFF);
    Some(start + 4)
}

/// Where the last block begins and where it ends, in bits.
fn last_block(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut bits = Bits { bytes, at: 0 };
    loop {
        let start = bits.at;
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let length = bits.take(16)? as usize;
                bits.at += 16 + length * 8;
            }
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                skip_symbols(&mut bits, &Code::new(&lengths), &Code::new(&[5; 30]))?;
            }
            2 => {
                let (literals, distances) = codes(&mut bits)?;
                skip_symbols(&mut bits, &literals, &distances)?;
            }
            _ => return None,
        }
        if last {
            return Some((start, bits.at));
        }
    }
}

/// The codes that a block brings.
fn codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let given = bits.take(4)? as usize + 4;
    let mut lengths = [0; 19];
    for at in &LENGTHS_ORDER[..given] {
        lengths[*at] = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::with_capacity(320);
    while lengths.len() < literals + distances {
        let symbol = bits.symbol(&code)?;
        let (value, count) = match symbol {
            0..=15 => (symbol as u8, 1),
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            _ => (0, bits.take(7)? + 11),
        };
        lengths.extend(std::iter::repeat_n(value, count as usize));
    }
    let distances = Code::new(lengths.get(literals..literals + distances)?);
    Some((Code::new(&lengths[..literals]), distances))
}

/// Passes over all symbols of a block.
fn skip_symbols(bits: &mut Bits<'_>, literals: &Code, distances: &Code) -> Option<()> {
    let (runs, steps) = (literals.runs(), distances.steps());
    loop {
        let ahead = bits.ahead()?;
        let run = runs[ahead as usize & (RUNS - 1)];
        // Whether a distance follows cannot be foretold, so that this is no branch.
        let step = steps[(ahead >> run.bits) as usize & (STEPS - 1)] & run.distance;
        if !run.is_rare && (step > 0 || run.distance == 0) {
            bits.at += usize::from(run.bits) + usize::from(step);
        } else if !skip_slowly(bits, literals, distances)? {
            return Some(());
        }
    }
}

/// Passes over one symbol, with its distance. Says whether it was not the last of its block.
#[cold]
fn skip_slowly(bits: &mut Bits<'_>, literals: &Code, distances: &Code) -> Option<bool> {
    let symbol = bits.symbol(literals)?;
    if symbol > 256 {
        bits.at += length_extra(symbol);
        let distance = bits.symbol(distances)?;
        bits.at += distance_extra(distance);
    }
    Some(symbol != 256)
}

/// How many bits behind the code of a length say which of several it is.
fn length_extra(symbol: u16) -> usize {
    match symbol {
        0..=264 | 285.. => 0,
        _ => usize::from(symbol - 261) / 4,
    }
}

fn distance_extra(symbol: u16) -> usize {
    (usize::from(symbol) / 2).saturating_sub(1)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next bits, 57 at least.
    #[inline(always)]
    fn ahead(&self) -> Option<u64> {
        let from = self.at / 8;
        let eight = self.bytes.get(from..from + 8)?;
        Some(u64::from_le_bytes(eight.try_into().ok()?) >> (self.at % 8))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let bits = self.ahead()? as u32 & ((1 << count) - 1);
        self.at += count as usize;
        Some(bits)
    }

    /// The symbol whose code is next.
    fn symbol(&mut self, by: &Code) -> Option<u16> {
        let ahead = self.ahead()?;
        let (mut code, mut first, mut index) = (0_usize, 0, 0);
        for length in 1..16 {
            code = code << 1 | (ahead >> (length - 1) & 1) as usize;
            let count = usize::from(by.counts[length]);
            if code < first + count {
                self.at += length;
                return by.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
        }
        None
    }
}

/// What the next bits are: as many literals in a row as fit in, with the length behind them where it fits in too.
#[derive(Clone, Copy, Default)]
struct Run {
    bits: u8,
    /// All ones where it ends with a length, so that a distance follows; or else zero.
    distance: u8,
    /// The end of the block, or a code that is longer than this.
    is_rare: bool,
}

/// A canonical Huffman code.
struct Code {
    /// How many codes there are of each length, and their symbols in order.
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[usize::from(*length) % 16] += 1);
        counts[0] = 0;
        let mut ends = [0_usize; 17];
        for length in 1..16 {
            ends[length + 1] = ends[length] + usize::from(counts[length]);
        }
        let mut symbols = vec![0; ends[16]];
        for (symbol, length) in (0_u16..).zip(lengths).filter(|(_, length)| **length > 0) {
            let place = &mut ends[usize::from(*length) % 16];
            symbols[*place] = symbol;
            *place += 1;
        }
        Self { counts, symbols }
    }

    /// Symbols and lengths by the next bits; a length of 0 where they do not tell.
    fn table<const SIZE: usize>(&self) -> Box<[(u16, u8); SIZE]> {
        let mut table = Box::new([(0, 0); SIZE]);
        let (mut code, mut symbols) = (0_u32, self.symbols.iter());
        for length in 1..=SIZE.ilog2() {
            for symbol in symbols.by_ref().take(usize::from(self.counts[length as usize])) {
                let start = (code.reverse_bits() >> (32 - length)) as usize;
                table.iter_mut().skip(start).step_by(1 << length).for_each(|entry| *entry = (*symbol, length as u8));
                code += 1;
            }
            code <<= 1;
        }
        table
    }

    fn runs(&self) -> Box<[Run; RUNS]> {
        let table = self.table::<RUNS>();
        let mut runs = Box::new([Run::default(); RUNS]);
        for (index, run) in runs.iter_mut().enumerate() {
            let mut bits = 0;
            loop {
                let (symbol, length) = table[index >> bits];
                let is_whole = length > 0 && bits + length <= RUNS.ilog2() as u8;
                match symbol {
                    0..=255 if is_whole => bits += length,
                    257.. if is_whole => {
                        *run = Run { bits: bits + length + length_extra(symbol) as u8, distance: 255, is_rare: false };
                        break;
                    }
                    // What is rare is looked at when it comes first.
                    _ => {
                        *run = Run { bits, distance: 0, is_rare: bits == 0 };
                        break;
                    }
                }
            }
        }
        runs
    }

    /// How many bits a distance takes, by the next ones; 0 where they do not tell.
    fn steps(&self) -> [u8; STEPS] {
        self.table::<STEPS>()
            .map(|(symbol, length)| if length == 0 { 0 } else { length + distance_extra(symbol) as u8 })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::DeflateDecoder;
    use libdeflater::{CompressionLvl, Compressor};
    use proptest::prelude::*;

    use super::*;

    fn stream(input: &[u8], level: i32) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut bytes = vec![0; compressor.deflate_compress_bound(input.len())];
        let length = compressor.deflate_compress(input, &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        DeflateDecoder::new(bytes).read_to_end(&mut output).unwrap();
        output
    }

    /// Bytes of which small numbers are the more frequent: some get codes of 15 bits.
    fn skewed(length: usize) -> Vec<u8> {
        let mut state = 5_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..length).map(|_| (next() % (next() % 256 + 1) % (next() % 256 + 1)) as u8).collect()
    }

    #[test]
    fn streams_of_all_levels_go_on_in_the_next() {
        let skewed = skewed(400_000);
        let repeated = skewed[..1000].repeat(300);
        for input in [&b""[..], b"a", b"abcabcabcabc", &skewed, &repeated, &[0; 70_000]] {
            for level in 0..=12 {
                let mut bytes = stream(input, level);
                let length = bytes.len();
                let length = reopen(&mut bytes, length).unwrap();
                bytes.truncate(length);
                bytes.extend(stream(b"the end", level));
                assert_eq!(inflated(&bytes), [input, b"the end"].concat(), "level {level}, {} bytes", input.len());
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_or_goes_on_is_refused() {
        let whole = stream(&skewed(5000), 6);
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert_eq!(reopen(&mut whole[..length].to_vec(), length), None, "{length} of {} bytes", whole.len());
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(reopen(&mut longer.clone(), longer.len()), None);
    }

    proptest! {
           #[test]
           fn any_bytes_are_no_reason_to_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
               let length = bytes.len();
               let _ = reopen(&mut bytes, length);
           }

           #[test]
           fn any_two_streams_become_one(
               one in proptest::collection::vec(0_u8..20, 0..2000), other in proptest::collection::vec(any::<u8>(), 0..300), level in 0..=12
           ) {
               let mut bytes = stream(&one, level);
               let length = bytes.len();
    let length = reopen(&mut bytes, length).unwrap();
               bytes.truncate(length);
               bytes.extend(stream(&other, level));
               prop_assert_eq!(inflated(&bytes), [one, other].concat());
           }
       }
}
