//! Finds secrets in archives and compressed files, and in those in them.
//!
//! Read are gzip, zlib (loose objects of git), bzip2, xz, zstd, tar, ar (packages of Debian), cpio, rpm, zip (jars, wheels)
//! and packs of git. Each level is searched as it is unpacked, names included; what is damaged or of another kind is
//! searched as the bytes that it is. Of what is known to hide its content (an encrypted zip, 7z, rar) that is said.

mod cpio;
mod pack;
mod zip;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufReader, Read};

use super::search::{Found, Search, Stream};

/// Archives in archives that are opened: a package in a package's sources in a backup. Some files hold themselves without
/// end.
const DEPTH_MAX: usize = 5;

/// Bytes that one file may unpack to, all its levels together. Bombs unpack to more, and real ones hardly in an image.
const UNPACKED_MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Bytes from which the kind of a file is told: a tar's header.
const HEAD_BYTES: usize = 512;

/// Length of an ar member's header.
const AR_BYTES: usize = 60;

/// What a search in an archive came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nested {
    /// Nothing was found.
    Clean,
    /// A secret, and where in the archive.
    Held {
        /// The entries on the way, outermost first; empty for a file that is only compressed.
        inside: String,
        /// Which secret.
        found: Found,
    },
    /// Nothing was found, and something was not searched.
    Not {
        /// The entries on the way, outermost first; empty for the file itself.
        inside: String,
        /// Why.
        why: Unsearched,
    },
}

/// Why something was not searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsearched {
    /// It unpacks to more than anything that is looked into.
    TooLarge,
    /// An entry of a zip that is encrypted.
    Encrypted,
    /// It is packed in a way that nothing here unpacks: its name.
    Unknown(&'static str),
    /// A pack of git with versions of files that are too large to be put together.
    Versions,
}

impl fmt::Display for Unsearched {
    /// What follows the name of the file in a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("unpacks to too much"),
            Self::Encrypted => f.write_str("is encrypted"),
            Self::Unknown(kind) => write!(f, "is packed by {kind}"),
            Self::Versions => f.write_str("holds versions of files that are too large to put together"),
        }
    }
}

/// The kinds of files that hold others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zlib,
    Bzip2,
    Xz,
    Zstd,
    Tar,
    Ar,
    Cpio,
    Rpm,
    Zip,
    Pack,
    Unknown(&'static str),
}

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1F, 0x8B, ..] => Self::Gzip,
            [0x78, second, ..] if (0x7800 + u16::from(*second)).is_multiple_of(31) => Self::Zlib,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            [0xED, 0xAB, 0xEE, 0xDB, ..] => Self::Rpm,
            [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, ..] => Self::Pack,
            [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => Self::Unknown("7z"),
            head if head.starts_with(b"Rar!\x1A\x07") => Self::Unknown("rar"),
            head if head.starts_with(b"07070") && matches!(head.get(5), Some(b'1' | b'2' | b'7')) => Self::Cpio,
            head if head.starts_with(b"!<arch>\n") => Self::Ar,
            head if head.get(257..262) == Some(b"ustar") => Self::Tar,
            _ => return None,
        })
    }
}

/// Whether a file that begins so is one to look into.
#[must_use]
pub fn holds_others(head: &[u8]) -> bool {
    Kind::of(head).is_some()
}

/// Looks for secrets in what a file holds. Its own bytes are not searched: whoever writes it does that.
#[must_use]
pub fn search_nested(search: &Search, file: &mut dyn Read) -> Nested {
    let walk = Walk { search, state: RefCell::new(State { left_bytes: UNPACKED_MAX_BYTES, ..State::default() }) };
    walk.file(file, 0);
    let state = walk.state.into_inner();
    match state.held {
        Some((inside, found)) => Nested::Held { inside, found },
        None if state.left_bytes == 0 => Nested::Not { inside: String::new(), why: Unsearched::TooLarge },
        None => match state.not_searched {
            Some((inside, why)) => Nested::Not { inside, why },
            None => Nested::Clean,
        },
    }
}

struct Walk<'a> {
    search: &'a Search,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The entries that are being read, outermost first.
    names: Vec<String>,
    held: Option<(String, Found)>,
    /// The first thing that was not searched, and where it is.
    not_searched: Option<(String, Unsearched)>,
    left_bytes: u64,
}

impl State {
    fn inside(&self) -> String {
        self.names.join(", in it ")
    }
}

impl Walk<'_> {
    /// Looks into a file that whoever reads it searches. What cannot be read on is left.
    fn file(&self, file: &mut dyn Read, depth: usize) {
        let mut head = Vec::new();
        if (&mut *file).take(HEAD_BYTES as u64).read_to_end(&mut head).is_err() {
            return;
        }
        let Some(kind) = Kind::of(&head).filter(|_| depth < DEPTH_MAX) else { return };
        let mut file = head.chain(file);
        let file: &mut dyn Read = &mut file;
        match kind {
            Kind::Gzip => self.unpacked(&mut flate2::bufread::MultiGzDecoder::new(buffered(file)), depth),
            Kind::Zlib => self.unpacked(&mut flate2::bufread::ZlibDecoder::new(buffered(file)), depth),
            Kind::Bzip2 => self.unpacked(&mut bzip2::bufread::MultiBzDecoder::new(buffered(file)), depth),
            Kind::Xz => self.unpacked(&mut xz2::bufread::XzDecoder::new_multi_decoder(buffered(file)), depth),
            Kind::Zstd => {
                if let Ok(mut decoder) = zstd::Decoder::with_buffer(buffered(file)) {
                    self.unpacked(&mut decoder, depth);
                }
            }
            // These end at what they cannot read, and their bytes were searched or will be.
            Kind::Tar => drop(self.tar(file, depth)),
            Kind::Ar => drop(self.ar(file, depth)),
            Kind::Cpio => drop(self.cpio(file, depth)),
            Kind::Rpm => drop(self.rpm(file, depth)),
            Kind::Zip => drop(self.zip(&mut buffered(file), depth)),
            Kind::Pack => drop(self.pack(&mut buffered(file), depth)),
            Kind::Unknown(kind) => self.not_searched(Unsearched::Unknown(kind)),
        }
    }

    /// Searches what a decoder gives, and looks into it.
    fn unpacked(&self, decoder: &mut dyn Read, depth: usize) {
        let mut searched = Searched { inner: decoder, stream: self.search.stream(true), state: &self.state };
        self.file(&mut searched, depth + 1);
        // What is no archive, and what follows the end of one.
        let _ = io::copy(&mut searched, &mut io::sink());
    }

    /// Looks into an entry, and leaves it at its end.
    fn entry(&self, name: &[u8], content: &mut dyn Read, depth: usize) -> io::Result<()> {
        self.named(name, || self.file(content, depth + 1));
        io::copy(content, &mut io::sink()).map(drop)
    }

    fn named(&self, name: &[u8], work: impl FnOnce()) {
        self.state.borrow_mut().names.push(String::from_utf8_lossy(name).into_owned());
        work();
        let mut state = self.state.borrow_mut();
        state.names.pop();
    }

    /// Remembers that what is being read cannot be searched.
    fn not_searched(&self, why: Unsearched) {
        let mut state = self.state.borrow_mut();
        if state.not_searched.is_none() {
            state.not_searched = Some((state.inside(), why));
        }
    }

    fn tar(&self, file: &mut dyn Read, depth: usize) -> io::Result<()> {
        for entry in tar::Archive::new(file).entries()? {
            let mut entry = entry?;
            let name = entry.path_bytes().into_owned();
            // Read to its end under its name: then what is found in it is found there.
            let mut outcome = Ok(());
            self.named(&name, || {
                self.file(&mut entry, depth + 1);
                outcome = io::copy(&mut entry, &mut io::sink()).map(drop);
            });
            outcome?;
        }
        Ok(())
    }

    fn ar(&self, file: &mut dyn Read, depth: usize) -> io::Result<()> {
        file.read_exact(&mut [0; 8])?;
        let mut header = [0; AR_BYTES];
        loop {
            file.read_exact(&mut header)?;
            let size = std::str::from_utf8(&header[48..58]).ok().and_then(|text| text.trim().parse::<u64>().ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            self.entry(header[..16].trim_ascii_end(), &mut (&mut *file).take(size), depth)?;
            if size % 2 == 1 {
                file.read_exact(&mut [0])?;
            }
        }
    }
}

fn buffered(file: &mut dyn Read) -> BufReader<&mut dyn Read> {
    BufReader::with_capacity(64 * 1024, file)
}

/// Unpacked bytes that are searched while they are read. Reading ends at the first find, and where it is too much.
struct Searched<'a> {
    inner: &'a mut dyn Read,
    stream: Stream<'a>,
    state: &'a RefCell<State>,
}

impl Read for Searched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        if state.held.is_some() || state.left_bytes == 0 {
            return Ok(0);
        }
        drop(state);
        let count = self.inner.read(buffer)?;
        state = self.state.borrow_mut();
        state.left_bytes = state.left_bytes.saturating_sub(count as u64);
        if state.held.is_none()
            && let Some(found) = self.stream.push(&buffer[..count])
        {
            state.held = Some((state.inside(), found));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
