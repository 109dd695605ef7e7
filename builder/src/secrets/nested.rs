//! Finds secrets in archives and compressed files, and in those in them.
//!
//! Read are gzip, zlib (loose objects of git), bzip2, xz, zstd, tar, ar (packages of Debian) and zip (jars, wheels). Each
//! level is searched as it is unpacked, names included; what is damaged or of another kind is searched as the bytes that
//! it is.

use std::cell::RefCell;
use std::io::{self, BufRead as _, BufReader, Read};

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
    /// It unpacks to more than anything that is looked into.
    TooLarge,
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
    Zip,
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
        None if state.left_bytes == 0 => Nested::TooLarge,
        None => Nested::Clean,
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
    left_bytes: u64,
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
            Kind::Zip => drop(self.zip(&mut buffered(file), depth)),
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

    /// A zip from its front: entries one after the other, each behind its own header.
    fn zip(&self, file: &mut BufReader<&mut dyn Read>, depth: usize) -> io::Result<()> {
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
            let encrypted = flags & 1 != 0;
            let size_follows = flags & 8 != 0;
            match method {
                8 if !encrypted => self.named(&name, || {
                    self.unpacked(&mut flate2::bufread::DeflateDecoder::new(&mut *file), depth);
                }),
                // Where nobody says how long it is, the next header is looked for.
                _ if size_follows => {}
                0 if !encrypted => self.entry(&name, &mut (&mut *file).take(packed), depth)?,
                _ => drop(io::copy(&mut (&mut *file).take(packed), &mut io::sink())?),
            }
        }
        Ok(())
    }
}

fn buffered(file: &mut dyn Read) -> BufReader<&mut dyn Read> {
    BufReader::with_capacity(64 * 1024, file)
}

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
            state.held = Some((state.names.join(", in it "), found));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use proptest::prelude::*;

    use super::super::Secret;
    use super::*;

    const TOKEN: &[u8] = b"tok_4f9A/2+x=";

    fn search() -> Search {
        Search::new(&[("npm".to_owned(), Secret::of(TOKEN))].into_iter().collect()).unwrap()
    }

    fn look(bytes: &[u8]) -> String {
        match search_nested(&search(), &mut &bytes[..]) {
            Nested::Clean => "clean".to_owned(),
            Nested::Held { inside, found } => format!("{inside}: {}{}", found.id, found.spelling),
            Nested::TooLarge => "too large".to_owned(),
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn ar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut all = b"!<arch>\n".to_vec();
        for (name, bytes) in entries {
            all.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, bytes.len()).bytes());
            all.extend_from_slice(bytes);
            all.resize(all.len().next_multiple_of(2), b'\n');
        }
        all
    }

    /// A zip as Python writes it, or with sizes behind the content, as Java does.
    fn zip(entries: &[(&str, &[u8])], deflated: bool, size_follows: bool) -> Vec<u8> {
        let mut all = Vec::new();
        for (name, bytes) in entries {
            let mut packed = bytes.to_vec();
            if deflated {
                let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
                writer.write_all(bytes).unwrap();
                packed = writer.finish().unwrap();
            }
            let size = |length: usize| if size_follows { [0; 4] } else { u32::try_from(length).unwrap().to_le_bytes() };
            all.extend(b"PK\x03\x04\x14\0");
            all.extend([if size_follows { 8 } else { 0 }, 0, if deflated { 8 } else { 0 }, 0]);
            all.extend([0; 8]);
            all.extend(size(packed.len()));
            all.extend(size(bytes.len()));
            all.extend([u8::try_from(name.len()).unwrap(), 0, 0, 0]);
            all.extend(name.bytes());
            all.extend(&packed);
            if size_follows {
                all.extend(b"PK\x07\x08");
                all.extend([9; 12]);
            }
        }
        all.extend(b"PK\x01\x02 and so on");
        all
    }

    #[test]
    fn a_secret_is_found_in_each_kind_of_file() {
        let text = [b"text\n", TOKEN, b"\n"].concat();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for bytes in [gzip(&text), bzip2.finish().unwrap(), xz.finish().unwrap(), zlib.finish().unwrap(), zstd] {
            assert_eq!(look(&bytes), ": npm");
        }
        assert_eq!(look(&gzip(b"nothing")), "clean");
        assert_eq!(look(&[gzip(b"nothing"), gzip(&text)].concat()), ": npm", "several members");
        let others: [(&str, &[u8]); 2] = [("a", b"one"), ("b/c", &text)];
        assert_eq!(look(&gzip(&tar(&others))), "b/c: npm");
        assert_eq!(look(&zip(&others, true, false)), "b/c: npm");
        assert_eq!(look(&zip(&others, true, true)), "b/c: npm");
        assert_eq!(look(&zip(&others, false, false)), "clean", "stored: whoever reads the file finds it");
        let package = ar(&[("debian-binary", b"2.0"), ("data.tar.gz", &gzip(&tar(&others)))]);
        assert_eq!(look(&package), "data.tar.gz, in it b/c: npm");
        let jar = zip(&[("lib/inner.jar", &zip(&others, true, true))], false, false);
        assert_eq!(look(&jar), "lib/inner.jar, in it b/c: npm");
        assert_eq!(look(&tar(&[("x.gz", &gzip(&text))])), "x.gz: npm");
        assert_eq!(look(&gzip(&tar(&[(std::str::from_utf8(TOKEN).unwrap(), b"")]))), ": npm", "a name");
    }

    #[test]
    fn what_is_damaged_is_searched_as_far_as_it_goes_and_what_has_no_end_is_left() {
        let text = [&[7; 100_000][..], TOKEN, &[7; 1000]].concat();
        let mut bytes = gzip(&tar(&[("a", &text)]));
        bytes.truncate(bytes.len() - 9);
        assert_eq!(look(&bytes), "a: npm");
        let mut broken = tar(&[("a", b"1"), ("b", &text)]);
        broken[512 + 512 + 148] = b'x';
        assert_eq!(look(&gzip(&broken)), ": npm");
        let mut deep = text;
        for _ in 0..DEPTH_MAX {
            deep = gzip(&deep);
        }
        assert_eq!(look(&deep), ": npm");
        assert_eq!(look(&gzip(&deep)), "clean");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_read_without_fault(kind in 0_usize..8, mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let heads: [&[u8]; 7] = [b"\x1F\x8B\x08\0", b"BZh9", b"PK\x03\x04", b"!<arch>\n", b"\xFD7zXZ\0", b"\x28\xB5\x2F\xFD", b"\x78\x9C"];
            match heads.get(kind) {
                Some(head) => drop(bytes.splice(0..0, head.iter().copied())),
                None if bytes.len() > 300 => bytes[257..262].copy_from_slice(b"ustar"),
                None => {}
            }
            prop_assert_eq!(look(&bytes), "clean");
        }
    }
}
