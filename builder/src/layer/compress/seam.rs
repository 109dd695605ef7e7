//! Makes finished deflate streams ones that go on (RFC 1951).
//!
//! libdeflate takes whole buffers, and marks the last block of each as the last of the stream. Where that block begins only a
//! reader of all before it knows. This one follows the codes without what they stand for, and in four streams at a time: where a code
//! begins is known once the one before it was looked up, so that in one stream a processor mostly waits.

/// How many entries a table of literals and lengths has. With more, a block takes longer to begin than they save.
const RUNS: usize = 1 << 10;
/// And one of distances.
const STEPS: usize = 1 << 9;

/// Stands for a number of bits where the table does not tell it: the end of the block, and longer codes. More than all others, also
/// when it is added to one.
const RARE: u8 = 1 << 6;

/// Bytes behind a stream that a look ahead may touch.
pub(super) const SLACK_BYTES: usize = 16;

/// How many streams are passed over at a time.
pub(super) const LANES: usize = 4;

/// In this order a block gives the lengths of the codes for lengths.
const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Unmarks the last block of each stream, and ends it on a whole byte as a sync flush does, with an empty stored block. `None`,
/// with the streams in no defined state, when one is no deflate stream.
pub(super) fn reopen(streams: &mut [Vec<u8>]) -> Option<()> {
    // Zeros, as the bits that fill up the last byte are.
    streams.iter_mut().for_each(|stream| stream.extend([0; SLACK_BYTES]));
    let found = last_blocks(streams)?;
    for (stream, (last, end)) in streams.iter_mut().zip(found) {
        if end.div_ceil(8) + SLACK_BYTES != stream.len() {
            return None;
        }
        stream[last / 8] &= !(1 << (last % 8));
        // The empty block: three bits, what fills up the byte, its length, and the same inverted.
        let start = (end + 3).div_ceil(8);
        stream.truncate(start);
        stream.extend([0, 0, 0xFF, 0xFF]);
    }
    Some(())
}

/// Where the last block of each begins and where it ends, in bits.
fn last_blocks(streams: &[Vec<u8>]) -> Option<Vec<(usize, usize)>> {
    let mut found = vec![(0, 0); streams.len()];
    let mut waiting = (0..).zip(streams);
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    loop {
        while lanes.len() < LANES
            && let Some((index, bytes)) = waiting.next()
        {
            lanes.push(Lane::new(index, bytes)?);
        }
        if let Some(ended) = lanes.iter().position(|lane| lane.block.is_none()) {
            let lane = lanes.swap_remove(ended);
            found[lane.index] = (lane.start, lane.bits.at);
            continue;
        }
        let stopped = match &mut lanes[..] {
            [] => return Some(found),
            [a] => skip([a.parts()?])?,
            [a, b] => skip([a.parts()?, b.parts()?])?,
            [a, b, c] => skip([a.parts()?, b.parts()?, c.parts()?])?,
            [a, b, c, d, ..] => skip([a.parts()?, b.parts()?, c.parts()?, d.parts()?])?,
        };
        lanes[stopped].skip_slowly()?;
    }
}

/// A stream that is passed over beside others.
struct Lane<'a> {
    index: usize,
    bits: Bits<'a>,
    /// Where its block begins, in bits.
    start: usize,
    is_last: bool,
    /// None at the end of the stream.
    block: Option<Block>,
}

/// The codes of a block, and what passes over most of them.
struct Block {
    literals: Code,
    distances: Code,
    runs: Box<[Run; RUNS]>,
    steps: [u8; STEPS],
}

impl<'a> Lane<'a> {
    fn new(index: usize, bytes: &'a [u8]) -> Option<Self> {
        let mut lane = Self { index, bits: Bits { bytes, at: 0 }, start: 0, is_last: false, block: None };
        lane.next_block()?;
        Some(lane)
    }

    fn parts(&mut self) -> Option<(&mut Bits<'a>, &Block)> {
        Some((&mut self.bits, self.block.as_ref()?))
    }

    /// Goes on to the next block that has codes, or to the end of the stream.
    fn next_block(&mut self) -> Option<()> {
        self.block = None;
        while self.block.is_none() && !self.is_last {
            let bits = &mut self.bits;
            self.start = bits.at;
            self.is_last = bits.take(1)? == 1;
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
                    self.block = Some(Block::new(Code::new(&lengths), Code::new(&[5; 30])));
                }
                2 => {
                    let (literals, distances) = codes(bits)?;
                    self.block = Some(Block::new(literals, distances));
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Passes over one symbol with its distance, or over the end of the block.
    #[cold]
    fn skip_slowly(&mut self) -> Option<()> {
        let (bits, block) = self.parts()?;
        let symbol = bits.symbol(&block.literals)?;
        if symbol == 256 {
            return self.next_block();
        }
        if symbol > 256 {
            bits.at += length_extra(symbol);
            let distance = bits.symbol(&block.distances)?;
            bits.at += distance_extra(distance);
        }
        Some(())
    }
}

impl Block {
    fn new(literals: Code, distances: Code) -> Self {
        let (runs, steps) = (literals.runs(), distances.steps());
        Self { literals, distances, runs, steps }
    }
}

/// Passes over symbols in all lanes until one is at something rare, and says which.
fn skip<const COUNT: usize>(mut lanes: [(&mut Bits<'_>, &Block); COUNT]) -> Option<usize> {
    let mut at = lanes.each_ref().map(|(bits, _)| bits.at);
    let stopped = 'all: loop {
        for (lane, (bits, block)) in lanes.iter().enumerate() {
            let ahead = bits.ahead(at[lane])?;
            let run = block.runs[ahead as usize & (RUNS - 1)];
            // Whether a distance follows cannot be foretold, so that this is no branch.
            let step = block.steps[(ahead >> (run.bits & 63)) as usize & (STEPS - 1)] & run.distance;
            let count = run.bits + step;
            if count >= RARE {
                break 'all lane;
            }
            at[lane] += usize::from(count);
        }
    };
    lanes.iter_mut().zip(at).for_each(|((bits, _), at)| bits.at = at);
    Some(stopped)
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
    /// The bits from `at` on, 57 at least.
    #[inline(always)]
    fn ahead(&self, at: usize) -> Option<u64> {
        let from = at / 8;
        let eight = self.bytes.get(from..from + 8)?;
        Some(u64::from_le_bytes(eight.try_into().ok()?) >> (at % 8))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let bits = self.ahead(self.at)? as u32 & ((1 << count) - 1);
        self.at += count as usize;
        Some(bits)
    }

    /// The symbol whose code is next.
    fn symbol(&mut self, by: &Code) -> Option<u16> {
        let ahead = self.ahead(self.at)?;
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
    /// Of all of it; or [`RARE`].
    bits: u8,
    /// All ones where it ends with a length, so that a distance follows; or else zero.
    distance: u8,
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
                        *run = Run { bits: bits + length + length_extra(symbol) as u8, distance: u8::MAX };
                        break;
                    }
                    // What is rare is looked at when it comes first.
                    _ => {
                        *run = Run { bits: if bits == 0 { RARE } else { bits }, distance: 0 };
                        break;
                    }
                }
            }
        }
        runs
    }

    /// How many bits a distance takes, by the next ones; or [`RARE`].
    fn steps(&self) -> [u8; STEPS] {
        self.table::<STEPS>()
            .map(|(symbol, length)| if length == 0 { RARE } else { length + distance_extra(symbol) as u8 })
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
                let mut streams = [stream(input, level), stream(b"between", level), stream(input, level)];
                reopen(&mut streams).unwrap();
                let bytes = [streams.concat(), stream(b"the end", level)].concat();
                let expected = [input, b"between", input, b"the end"].concat();
                assert_eq!(inflated(&bytes), expected, "level {level}, {} bytes", input.len());
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_or_goes_on_is_refused() {
        let whole = stream(&skewed(5000), 6);
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            let mut streams = [whole.clone(), whole[..length].to_vec()];
            assert_eq!(reopen(&mut streams), None, "{length} of {} bytes", whole.len());
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(reopen(&mut [longer]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_reason_to_panic(one in bytes(300), other in bytes(300)) {
            let _ = reopen(&mut [one, other]);
        }

        #[test]
        fn any_streams_become_one(
            inputs in proptest::collection::vec(proptest::collection::vec(0_u8..20, 0..2000), 0..5), end in bytes(300), level in 0..=12
        ) {
            let mut streams: Vec<Vec<u8>> = inputs.iter().map(|input| stream(input, level)).collect();
            reopen(&mut streams).unwrap();
            streams.push(stream(&end, level));
            prop_assert_eq!(inflated(&streams.concat()), [inputs.concat(), end].concat());
        }
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..most)
    }
}
