//! A tar as it stands: headers, extensions and content, for what real tools write (ustar, PAX, GNU long names, v7).
//!
//! Where formats leave room, this reads as Go's `archive/tar` does, on which every other reader of layers stands: two
//! readers that disagree about where an entry ends is how content is smuggled past a check.

use std::io::{self, Read};

use super::sparse::{Form, MapLines, Piece, Sparse, SparseRecords};
use super::{FileTime, LayerError, Limits, pax};

const BLOCK_BYTES: usize = 512;
/// Of GNU's own sparse form, or of one that came after us.
const SPARSE: &str = "a sparse file of GNU tar's own form (pack it again with `--format=posix`, or without `--sparse`)";

/// The bytes of a tar, one after another, until 0.
pub(super) trait Source {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError>;

    /// Reads no more of the tar, and all that is left of what it comes from: a source that checks its bytes does so at their
    /// end.
    fn finish(&mut self) -> Result<(), LayerError>;
}

/// One entry, unchecked but for its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawEntry {
    /// Where its header starts.
    pub(super) offset: u64,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: RawKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: FileTime,
    pub(super) size_bytes: u64,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RawKind {
    File,
    Directory,
    Symlink,
    Hardlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// Reads entry after entry.
pub(super) struct TarReader<S> {
    source: S,
    limits: Limits,
    /// Bytes read so far.
    offset: u64,
    entries: u64,
    /// Content of the current entry that is still to be read, and the padding after it.
    content_bytes: u64,
    padding_bytes: u64,
    /// How that content makes a file with holes.
    sparse: Option<Sparse>,
    /// Bytes of the holes so far.
    holes_bytes: u64,
    /// An error that went through [`Read`], kept as what it was.
    failure: Option<LayerError>,
}

/// What stands before an entry and overrides its header.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<FileTime>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseRecords,
}

impl<S: Source> TarReader<S> {
    pub(super) fn new(source: S, limits: Limits) -> Self {
        Self {
            source,
            limits,
            offset: 0,
            entries: 0,
            content_bytes: 0,
            padding_bytes: 0,
            sparse: None,
            holes_bytes: 0,
            failure: None,
        }
    }

    /// The next entry; `None` at the end of the tar. What is left of the current one's content is skipped.
    pub(super) fn next(&mut self) -> Result<Option<RawEntry>, LayerError> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            let offset = self.offset;
            let Some(block) = self.block()? else {
                if extended {
                    return Err(LayerError::Truncated { inside: "an extended header".to_owned() });
                }
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(LayerError::TooMuch { what: "entries", limit: self.limits.entries });
            }
            let header = Header { block: &block, offset };
            header.check()?;
            match header.block[156] {
                b'x' => {
                    let content = self.extension(&header)?;
                    read_pax(&content, &mut extensions)
                        .map_err(|reason| LayerError::BadPax { offset: self.offset, reason })?;
                }
                // Records for all later entries. Nobody who reads layers applies them, and nobody who writes layers needs
                // them (git puts a commit id there).
                b'g' => drop(self.extension(&header)?),
                b'L' => extensions.long_path = Some(cut_at_nul(&self.extension(&header)?).to_vec()),
                b'K' => extensions.long_link = Some(cut_at_nul(&self.extension(&header)?).to_vec()),
                _ => return self.entry(&header, extensions).map(Some),
            }
            extended = true;
        }
    }

    fn entry(&mut self, header: &Header<'_>, mut extensions: Extensions) -> Result<RawEntry, LayerError> {
        let named = extensions.sparse.name.take().or(extensions.long_path).or(extensions.path);
        let path = named.unwrap_or_else(|| header.path());
        let unknown = |kind: String| LayerError::UnknownKind { path: lossy(&path), kind };
        let kind = match header.block[156] {
            // Before ustar, a folder was a file whose name ends so.
            0 if path.ends_with(b"/") => RawKind::Directory,
            0 | b'0' | b'7' => RawKind::File,
            b'1' => RawKind::Hardlink,
            b'2' => RawKind::Symlink,
            b'3' => RawKind::CharDevice,
            b'4' => RawKind::BlockDevice,
            b'5' => RawKind::Directory,
            b'6' => RawKind::Fifo,
            b'S' => return Err(unknown(SPARSE.to_owned())),
            other => return Err(unknown(format!("type {:?}", char::from(other)))),
        };
        let form = extensions.sparse.form();
        if form == Some(Form::Unknown) || (form.is_some() && kind != RawKind::File) {
            return Err(unknown(SPARSE.to_owned()));
        }
        let declared = header.number(124, 12, "size")?;
        let size_bytes = extensions.size_bytes.unwrap_or(declared);
        // The header's field holds what fits into eleven octal digits. A record that says something else about a size
        // that fits is made to be read differently by different readers.
        if size_bytes != declared && size_bytes <= 0o777_7777_7777 {
            return Err(LayerError::BadPax {
                offset: header.offset,
                reason: format!("`size` is {size_bytes}, and the header says {declared}"),
            });
        }
        // Only a file has content, whatever the header says.
        self.content_bytes = if kind == RawKind::File { size_bytes } else { 0 };
        self.padding_bytes = self.content_bytes.wrapping_neg() % BLOCK_BYTES as u64;
        if let Some(form) = form {
            self.begin_sparse(header, form, extensions.sparse)?;
        }
        let device = matches!(kind, RawKind::CharDevice | RawKind::BlockDevice);
        let device_number = |at, name| if device { header.small(at, 8, name) } else { Ok(0) };
        let id = |extended: Option<u64>, at, name: &str| match extended {
            Some(id) => u32::try_from(id).map_err(|_| header.bad(format!("{name} is {id}"))),
            None => header.small(at, 8, name),
        };
        Ok(RawEntry {
            offset: header.offset,
            link: extensions
                .long_link
                .or(extensions.link)
                .unwrap_or_else(|| cut_at_nul(header.field(157, 100)).to_vec()),
            kind,
            // Some writers put the file type of `st_mode` above the permissions.
            mode: (header.number(100, 8, "mode")? & 0o7777) as u32,
            uid: id(extensions.uid, 108, "uid")?,
            gid: id(extensions.gid, 116, "gid")?,
            modified: match extensions.modified {
                Some(time) => time,
                None => FileTime { seconds: header.signed(136, 12, "mtime")?, nanoseconds: 0 },
            },
            size_bytes: self.sparse.as_ref().map_or(self.content_bytes, Sparse::size_bytes),
            major: device_number(329, "major device number")?,
            minor: device_number(337, "minor device number")?,
            xattrs: extensions.xattrs,
            path,
        })
    }

    /// Finds out how the content that was begun makes a file with holes.
    fn begin_sparse(&mut self, header: &Header<'_>, form: Form, records: SparseRecords) -> Result<(), LayerError> {
        let bad = |reason| LayerError::BadPax { offset: header.offset, reason };
        let size_bytes = records.size_bytes().unwrap_or(self.content_bytes);
        let map = match form {
            Form::Content => self.sparse_map(header.offset)?,
            Form::Records | Form::Unknown => records.map().map_err(bad)?,
        };
        let sparse = Sparse::new(&map, size_bytes, self.content_bytes).map_err(bad)?;
        // Holes cost nothing in the tar, and as much as other bytes from then on.
        self.holes_bytes = self.holes_bytes.saturating_add(size_bytes - self.content_bytes);
        self.sparse = Some(sparse);
        self.check_size()
    }

    /// The map in front of the content, which takes whole blocks.
    fn sparse_map(&mut self, offset: u64) -> Result<Vec<u64>, LayerError> {
        let bad = |reason| LayerError::BadPax { offset, reason };
        let mut lines = MapLines::default();
        let mut read_bytes = 0;
        loop {
            let mut block = [0; BLOCK_BYTES];
            let mut filled = 0;
            while filled < BLOCK_BYTES {
                match self.stored(&mut block[filled..])? {
                    0 => return Err(bad("the map of a sparse file has no end".to_owned())),
                    count => filled += count,
                }
            }
            read_bytes += BLOCK_BYTES as u64;
            if read_bytes > self.limits.extension_bytes {
                let limit = self.limits.extension_bytes;
                return Err(LayerError::TooMuch { what: "bytes in the map of a sparse file", limit });
            }
            for byte in block {
                if lines.take(byte).map_err(bad)? {
                    return Ok(lines.finish());
                }
            }
        }
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, LayerError> {
        let size_bytes = header.number(124, 12, "size")?;
        let limit = self.limits.extension_bytes;
        if size_bytes > limit {
            return Err(LayerError::TooMuch { what: "bytes in an extended header", limit });
        }
        self.content_bytes = size_bytes;
        self.padding_bytes = size_bytes.wrapping_neg() % BLOCK_BYTES as u64;
        let mut content = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.content(&mut buffer)?;
            if count == 0 {
                break;
            }
            content.extend_from_slice(&buffer[..count]);
        }
        self.skip_content()?;
        Ok(content)
    }

    /// The next header; `None` at the end, which is two blocks of zeros or the end of the bytes.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, LayerError> {
        let mut block = [0; BLOCK_BYTES];
        if !self.whole(&mut block)? {
            return Ok(None);
        }
        if block != [0; BLOCK_BYTES] {
            return Ok(Some(block));
        }
        let offset = self.offset;
        if self.whole(&mut block)? && block != [0; BLOCK_BYTES] {
            return Err(LayerError::BadHeader { offset, reason: "expected a second block of zeros".to_owned() });
        }
        // What stands after the end is no part of the archive, but of the diff id.
        let mut buffer = [0; 8192];
        while self.pull(&mut buffer)? > 0 {}
        Ok(None)
    }

    /// Fills the block; `false` when there is not one byte of it.
    fn whole(&mut self, block: &mut [u8; BLOCK_BYTES]) -> Result<bool, LayerError> {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let count = self.pull(&mut block[filled..])?;
            if count == 0 {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(LayerError::Truncated { inside: "a header".to_owned() });
            }
            filled += count;
        }
        Ok(true)
    }

    fn skip_content(&mut self) -> Result<(), LayerError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut buffer = [0; 8192];
        self.sparse = None;
        while self.stored(&mut buffer)? > 0 {}
        while self.padding_bytes > 0 {
            let length = self.padding_bytes.min(BLOCK_BYTES as u64) as usize;
            let count = self.pull(&mut buffer[..length])?;
            if count == 0 {
                // The last block may be cut short by a writer that does not pad.
                self.padding_bytes = 0;
            }
            self.padding_bytes -= count as u64;
        }
        Ok(())
    }

    /// Content of the current entry; 0 at its end.
    fn content(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let Some(sparse) = &mut self.sparse else { return self.stored(buffer) };
        let most = |length: u64| usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let count = match sparse.next() {
            None => 0,
            Some(Piece::Hole(length)) => {
                let count = most(length);
                buffer[..count].fill(0);
                count
            }
            Some(Piece::Data(length)) => {
                let wanted = most(length);
                self.stored(&mut buffer[..wanted])?
            }
        };
        if let Some(sparse) = &mut self.sparse {
            sparse.advance(count as u64);
        }
        Ok(count)
    }

    /// What the tar has of the content; 0 at its end.
    fn stored(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let length = usize::try_from(self.content_bytes).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let count = self.pull(&mut buffer[..length])?;
        if count == 0 {
            return Err(LayerError::Truncated { inside: "the content of an entry".to_owned() });
        }
        self.content_bytes -= count as u64;
        Ok(count)
    }

    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let count = self.source.read(buffer)?;
        self.offset += count as u64;
        self.check_size()?;
        Ok(count)
    }

    fn check_size(&self) -> Result<(), LayerError> {
        if self.offset.saturating_add(self.holes_bytes) > self.limits.uncompressed_bytes {
            return Err(LayerError::TooMuch { what: "bytes uncompressed", limit: self.limits.uncompressed_bytes });
        }
        Ok(())
    }

    /// The error that a read of the content ended with, if one did.
    pub(super) fn take_failure(&mut self) -> Option<LayerError> {
        self.failure.take()
    }

    /// Why the layer cannot be read on: `error`, or that its bytes are not what they should be, which explains any other.
    pub(super) fn reason(&mut self, error: LayerError) -> LayerError {
        match self.source.finish() {
            Err(damage @ LayerError::Store(_)) => damage,
            _ => error,
        }
    }

    /// Bytes of the tar read so far, and the source.
    pub(super) fn finish(self) -> (u64, S) {
        (self.offset, self.source)
    }
}

/// Reads the content of the current entry.
impl<S: Source> Read for TarReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content(buffer).map_err(|error| {
            let text = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            self.failure = Some(error);
            text
        })
    }
}

fn read_pax(content: &[u8], extensions: &mut Extensions) -> Result<(), String> {
    for (key, value) in pax::parse(content)? {
        let number = || pax::decimal(value).ok_or_else(|| bad_value(key, value));
        // An empty value takes the record away (POSIX.1-2017, pax).
        let given = !value.is_empty();
        match key {
            b"path" => extensions.path = given.then(|| value.to_vec()),
            b"linkpath" => extensions.link = given.then(|| value.to_vec()),
            b"size" => extensions.size_bytes = given.then(number).transpose()?,
            b"uid" => extensions.uid = given.then(number).transpose()?,
            b"gid" => extensions.gid = given.then(number).transpose()?,
            b"mtime" => {
                let time = || pax::time(value).ok_or_else(|| bad_value(key, value));
                extensions.modified = given.then(time).transpose()?;
            }
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    extensions.sparse.take(key, value).ok_or_else(|| bad_value(key, value))?;
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    extensions.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn bad_value(key: &[u8], value: &[u8]) -> String {
    format!("`{}` has the value {:?}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
}

struct Header<'a> {
    block: &'a [u8; BLOCK_BYTES],
    offset: u64,
}

impl Header<'_> {
    fn bad(&self, reason: String) -> LayerError {
        LayerError::BadHeader { offset: self.offset, reason }
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        &self.block[at..at + length]
    }

    fn check(&self) -> Result<(), LayerError> {
        let stored = self.number(148, 8, "checksum")?;
        // The field itself counts as spaces. Some old writers summed signed bytes.
        let counted = |at: usize| if (148..156).contains(&at) { b' ' } else { self.block[at] };
        let unsigned: u64 = (0..BLOCK_BYTES).map(|at| u64::from(counted(at))).sum();
        let signed: i64 = (0..BLOCK_BYTES).map(|at| i64::from(counted(at).cast_signed())).sum();
        if stored != unsigned && i64::try_from(stored) != Ok(signed) {
            return Err(self.bad(format!("expected the checksum {unsigned}, found {stored}")));
        }
        Ok(())
    }

    fn path(&self) -> Vec<u8> {
        let name = cut_at_nul(self.field(0, 100));
        let prefix = if self.field(257, 6) == b"ustar\0" {
            // star keeps times behind a shorter prefix.
            let length = if self.field(508, 4) == b"tar\0" { 131 } else { 155 };
            cut_at_nul(self.field(345, length))
        } else {
            b""
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn small(&self, at: usize, length: usize, name: &str) -> Result<u32, LayerError> {
        let number = self.number(at, length, name)?;
        u32::try_from(number).map_err(|_| self.bad(format!("{name} is {number}")))
    }

    fn number(&self, at: usize, length: usize, name: &str) -> Result<u64, LayerError> {
        let number = self.signed(at, length, name)?;
        u64::try_from(number).map_err(|_| self.bad(format!("{name} is {number}")))
    }

    /// Octal digits, or, with the highest bit set, two's complement of all other bits (GNU, star).
    fn signed(&self, at: usize, length: usize, name: &str) -> Result<i64, LayerError> {
        let field = self.field(at, length);
        let bad = || self.bad(format!("{name} is {:?}", String::from_utf8_lossy(field)));
        if field[0] & 0x80 != 0 {
            let first =
                if field[0] & 0x40 == 0 { i128::from(field[0] & 0x3F) } else { i128::from(field[0].cast_signed()) };
            let number = field[1..].iter().fold(first, |sum, byte| (sum << 8) | i128::from(*byte));
            return i64::try_from(number).map_err(|_| bad());
        }
        let text = field.trim_ascii_start();
        let end = text.iter().position(|byte| *byte == 0 || *byte == b' ').unwrap_or(text.len());
        let padding = text[end..].iter().all(|byte| *byte == 0 || *byte == b' ');
        if !padding || !text[..end].iter().all(|byte| (b'0'..=b'7').contains(byte)) {
            return Err(bad());
        }
        // Twelve octal digits are 36 bits.
        Ok(text[..end].iter().fold(0, |sum, digit| sum * 8 + i64::from(digit - b'0')))
    }
}

fn cut_at_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|byte| *byte == 0).map_or(bytes, |end| &bytes[..end])
}

pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
