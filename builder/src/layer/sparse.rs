//! Sparse files in PAX form, as GNU tar (`--sparse --format=posix`) and bsdtar write them: of the content only the
//! fragments that hold data are there, and a map says where in the file they belong. What lies between is zeros.
//!
//! There are three forms of the map: in records of its own each number (0.0), in one record (0.1), and in front of the
//! content (1.0). As Go's `archive/tar` reads them, this does.

use super::pax::decimal;

/// Where a fragment with data belongs, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fragment {
    offset: u64,
    length: u64,
}

/// Where the map stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the records.
    Records,
    /// In front of the content.
    Content,
    /// Nobody knows.
    Unknown,
}

/// The records of one extended header, of which there are none for other files.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    found: bool,
    major: Vec<u8>,
    minor: Vec<u8>,
    /// The file's own name; the header has one for readers that do not know sparse files.
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    count: Option<u64>,
    /// 0.1.
    map: Option<Vec<u64>>,
    /// 0.0.
    numbers: Vec<u64>,
}

impl SparseRecords {
    /// Takes the record `GNU.sparse.` + `key`; `None` for a value that it cannot have.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.found = true;
        match key {
            b"major" => self.major = value.to_vec(),
            b"minor" => self.minor = value.to_vec(),
            b"name" => self.name = Some(value.to_vec()).filter(|name| !name.is_empty()),
            b"size" => self.size = Some(decimal(value)?),
            b"realsize" => self.real_size = Some(decimal(value)?),
            b"numblocks" => self.count = Some(decimal(value)?),
            b"map" if value.is_empty() => self.map = Some(Vec::new()),
            b"map" => self.map = Some(value.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>()?),
            b"offset" | b"numbytes" => {
                let is_offset = key == b"offset";
                if is_offset != self.numbers.len().is_multiple_of(2) {
                    return None;
                }
                self.numbers.push(decimal(value)?);
            }
            _ => {}
        }
        Some(())
    }

    /// Which form it is; `None` for a file that is not sparse.
    pub(super) fn form(&self) -> Option<Form> {
        if !self.found {
            return None;
        }
        Some(match (&self.major[..], &self.minor[..]) {
            (b"0", b"0" | b"1") => Form::Records,
            (b"1", b"0") => Form::Content,
            // The older forms had no number yet.
            (b"", b"") if self.map.is_some() || !self.numbers.is_empty() => Form::Records,
            _ => Form::Unknown,
        })
    }

    /// Length of the whole file, as far as the records tell.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.size.or(self.real_size)
    }

    /// The map of the older forms: offset and length in turn.
    pub(super) fn map(self) -> Result<Vec<u64>, String> {
        let map = if self.numbers.is_empty() { self.map.unwrap_or_default() } else { self.numbers };
        if self.count.and_then(|count| count.checked_mul(2)) != Some(map.len() as u64) {
            return Err("the map of a sparse file has not as many numbers as its header says".to_owned());
        }
        Ok(map)
    }
}

/// Reads a map in front of the content, as its bytes come: how many fragments, then offset and length of each, a line each.
#[derive(Debug, Default)]
pub(super) struct MapLines {
    number: Option<u64>,
    numbers: Vec<u64>,
}

impl MapLines {
    /// Whether that was the end of the map.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, String> {
        let bad = || "the map of a sparse file is no list of numbers".to_owned();
        match byte {
            b'0'..=b'9' => {
                let number = self.number.unwrap_or(0).checked_mul(10).ok_or_else(bad)?;
                self.number = Some(number.checked_add(u64::from(byte - b'0')).ok_or_else(bad)?);
            }
            b'\n' => self.numbers.push(self.number.take().ok_or_else(bad)?),
            _ => return Err(bad()),
        }
        let Some(count) = self.numbers.first() else { return Ok(false) };
        let wanted = count.checked_mul(2).ok_or_else(bad)?;
        Ok(self.number.is_none() && self.numbers.len() as u64 > wanted)
    }

    /// Offset and length in turn.
    pub(super) fn finish(mut self) -> Vec<u64> {
        self.numbers.split_off(1.min(self.numbers.len()))
    }
}

/// What comes next of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many zeros.
    Hole(u64),
    /// So many bytes of what is stored.
    Data(u64),
}

/// A sparse file that is being read.
#[derive(Debug)]
pub(super) struct Sparse {
    /// Those that are not over, the last one first.
    fragments: Vec<Fragment>,
    position: u64,
    size_bytes: u64,
}

impl Sparse {
    /// A file of `size_bytes` bytes, of which `stored_bytes` are there.
    pub(super) fn new(map: &[u64], size_bytes: u64, stored_bytes: u64) -> Result<Self, String> {
        let mut fragments: Vec<_> =
            map.chunks_exact(2).map(|pair| Fragment { offset: pair[0], length: pair[1] }).collect();
        let (mut end, mut data_bytes) = (0_u64, 0_u64);
        for fragment in &fragments {
            let next = fragment.offset.checked_add(fragment.length).filter(|next| *next <= size_bytes);
            end = match next {
                Some(next) if fragment.offset >= end => next,
                _ => {
                    return Err(
                        "the map of a sparse file has fragments that overlap or stand behind its end".to_owned()
                    );
                }
            };
            // They do not overlap: the sum is at most the file's size.
            data_bytes += fragment.length;
        }
        if data_bytes != stored_bytes {
            return Err(format!("the map of a sparse file tells of {data_bytes} bytes, and {stored_bytes} are there"));
        }
        fragments.reverse();
        Ok(Self { fragments, position: 0, size_bytes })
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What stands at the position; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Piece> {
        while self.fragments.pop_if(|fragment| fragment.offset + fragment.length <= self.position).is_some() {}
        let piece = match self.fragments.last() {
            None => Piece::Hole(self.size_bytes - self.position),
            Some(next) if next.offset > self.position => Piece::Hole(next.offset - self.position),
            Some(current) => Piece::Data(current.offset + current.length - self.position),
        };
        (piece != Piece::Hole(0)).then_some(piece)
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.position += bytes;
    }
}
