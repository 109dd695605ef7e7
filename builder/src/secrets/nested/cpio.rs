//! Archives of cpio (the two forms in use), and packages of rpm, which hold one that is compressed.

use std::io::{self, Read};

use super::Walk;

/// Length of a member's header behind its magic: of eight hexadecimal digits a field, or of octal ones.
const NEW_BYTES: usize = 104;
const OLD_BYTES: usize = 70;

/// Longest name that is read, in bytes, beyond any path.
const NAME_MAX_BYTES: u64 = 64 * 1024;

/// What stands before the headers of a package.
const LEAD_BYTES: u64 = 96;

impl Walk<'_> {
    pub(super) fn cpio(&self, file: &mut dyn Read, depth: usize) -> io::Result<()> {
        let mut magic = [0; 6];
        loop {
            file.read_exact(&mut magic)?;
            let is_new = &magic[..5] == b"07070" && magic[5] != b'7';
            let mut header = [0; NEW_BYTES];
            let header = &mut header[..if is_new { NEW_BYTES } else { OLD_BYTES }];
            file.read_exact(header)?;
            let (name_bytes, size, padding) = match is_new {
                true => (number(&header[88..96], 16)?, number(&header[48..56], 16)?, 4),
                false => (number(&header[53..59], 8)?, number(&header[59..70], 8)?, 1),
            };
            let padded = |length: u64| length.next_multiple_of(padding) - length;
            let mut name = Vec::new();
            (&mut *file).take(name_bytes.min(NAME_MAX_BYTES)).read_to_end(&mut name)?;
            skip(file, padded(6 + header.len() as u64 + name_bytes))?;
            let name = name.strip_suffix(b"\0").unwrap_or(&name);
            if name == b"TRAILER!!!" {
                break;
            }
            self.entry(name, &mut (&mut *file).take(size), depth)?;
            skip(file, padded(size))?;
        }
        // The first file system of a kernel is several of them, with zeros between, and the last is compressed.
        let mut first = [0];
        while first == [0] {
            file.read_exact(&mut first)?;
        }
        self.file(&mut (&first[..]).chain(file), depth + 1);
        Ok(())
    }

    pub(super) fn rpm(&self, file: &mut dyn Read, depth: usize) -> io::Result<()> {
        skip(file, LEAD_BYTES)?;
        let signature_bytes = skip_rpm_header(file)?;
        skip(file, signature_bytes.next_multiple_of(8) - signature_bytes)?;
        let _ = skip_rpm_header(file)?;
        self.file(file, depth + 1);
        Ok(())
    }
}

/// Reads over a header of rpm; gives its length.
fn skip_rpm_header(file: &mut dyn Read) -> io::Result<u64> {
    let mut begin = [0; 16];
    file.read_exact(&mut begin)?;
    if begin[..3] != [0x8E, 0xAD, 0xE8] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let long = |at: usize| u64::from(u32::from_be_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]));
    let rest = long(8) * 16 + long(12);
    skip(file, rest)?;
    Ok(16 + rest)
}

fn number(digits: &[u8], radix: u32) -> io::Result<u64> {
    let text = std::str::from_utf8(digits).map_err(|_| io::ErrorKind::InvalidData)?;
    u64::from_str_radix(text, radix).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn skip(file: &mut dyn Read, count: u64) -> io::Result<()> {
    io::copy(&mut file.take(count), &mut io::sink()).map(drop)
}
