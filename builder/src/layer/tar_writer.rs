//! Entries as tar headers, byte for byte as Go's `archive/tar` writes them for containerd and BuildKit (format PAX, times
//! cut to seconds, no names of users), so that the same files give the same diff id here and there.
//!
//! A header is plain ustar. What does not fit goes into PAX records before it: a path or link target over 100 bytes or with
//! other bytes than ASCII, an owner over 2,097,151, a size of 8 GiB or more, a time before 1970, and extended attributes.
//! A long path that is all that does not fit goes into ustar's prefix field where it can be split.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::{Entry, Kind, LayerError, pax};

const BLOCK_BYTES: usize = 512;

/// Bytes of content that are copied at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// The end of an archive; and padding, where a piece of it is needed.
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Writes entries, with their content, as a tar into `W`. The order is the caller's.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts a tar.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Writes what stands before the content of `entry`.
    ///
    /// # Errors
    /// [`LayerError::Unwritable`] or [`LayerError::ReservedName`] when no reader would get the entry back;
    /// [`LayerError::Write`].
    pub fn header(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.inner.write_all(&header(entry)?).map_err(LayerError::Write)
    }

    /// Writes the content of `entry`: exactly the bytes that its kind says.
    ///
    /// # Errors
    /// [`LayerError::Size`], [`LayerError::Read`] or [`LayerError::Write`].
    pub fn content(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), LayerError> {
        let Kind::File { size_bytes: expected } = entry.kind else { return Ok(()) };
        let mut found = 0;
        loop {
            let count = match content.read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LayerError::Read(error)),
            };
            if count == 0 {
                break;
            }
            found += count as u64;
            if found > expected {
                found = expected + 1;
                break;
            }
            self.inner.write_all(&self.buffer[..count]).map_err(LayerError::Write)?;
        }
        if found != expected {
            return Err(LayerError::Size { path: entry.path.clone(), expected, found });
        }
        let padding = (expected.wrapping_neg() % BLOCK_BYTES as u64) as usize;
        self.inner.write_all(&END[..padding]).map_err(LayerError::Write)
    }

    /// Writes an entry with its content.
    ///
    /// # Errors
    /// Those of [`TarWriter::header`] and [`TarWriter::content`].
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), LayerError> {
        self.header(entry)?;
        self.content(entry, content)
    }

    /// Writes the end, and gives `W` back.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn finish(mut self) -> Result<W, LayerError> {
        self.inner.write_all(&END).map_err(LayerError::Write)?;
        Ok(self.inner)
    }
}

/// Largest number in a field of seven octal digits.
const SEVEN_DIGITS: u64 = 0o777_7777;
/// Largest number in a field of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// What is written before the content of `entry`, whose times and kind are written as they are.
///
/// # Errors
/// [`LayerError::Unwritable`] or [`LayerError::ReservedName`] when no reader would get the entry back.
fn header(entry: &Entry) -> Result<Vec<u8>, LayerError> {
    let unwritable = |reason: &str| LayerError::Unwritable { path: entry.path.clone(), reason: reason.to_owned() };
    if entry.path.components().any(|component| component.starts_with(b".wh.")) {
        return Err(LayerError::ReservedName { path: entry.path.clone() });
    }
    if entry.mode > 0o7777 {
        return Err(unwritable("its mode has more than permission bits"));
    }
    let mut fields = Fields::of(entry, &unwritable)?;
    let name = fields.name.clone();
    let mut records = BTreeMap::new();
    fields.move_to_records(&mut records);
    for (attribute, value) in &entry.xattrs {
        if attribute.is_empty() || attribute.iter().any(|byte| matches!(byte, b'=' | 0)) {
            return Err(unwritable("the name of an extended attribute is empty or holds `=` or NUL"));
        }
        records.insert([&b"SCHILY.xattr."[..], attribute].concat(), value.clone());
    }
    if !fits(&name) {
        match split(&name) {
            Some(at) if records.is_empty() => {
                fields.prefix = name[..at].to_vec();
                fields.name = name[at + 1..].to_vec();
            }
            _ => drop(records.insert(b"path".to_vec(), name.clone())),
        }
    }
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    if !records.is_empty() {
        let mut content = Vec::new();
        for (key, value) in &records {
            pax::push(&mut content, key, value);
        }
        let extension =
            Fields { name: extension_name(&name), flag: b'x', size_bytes: content.len() as u64, ..Fields::default() };
        bytes.extend_from_slice(&extension.block());
        bytes.extend_from_slice(&content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    bytes.extend_from_slice(&fields.block());
    Ok(bytes)
}

/// The fields of one header.
#[derive(Default)]
struct Fields {
    name: Vec<u8>,
    /// The folders before the name, where it is split.
    prefix: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    size_bytes: u64,
    mtime: i64,
    flag: u8,
    link: Vec<u8>,
    major: u32,
    minor: u32,
}

impl Fields {
    fn of(entry: &Entry, unwritable: &dyn Fn(&str) -> LayerError) -> Result<Self, LayerError> {
        let path = entry.path.as_bytes();
        let mut fields = Self {
            name: path.to_vec(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.modified.seconds,
            ..Self::default()
        };
        match &entry.kind {
            Kind::File { size_bytes } => {
                fields.flag = b'0';
                fields.size_bytes = *size_bytes;
            }
            Kind::Directory => {
                fields.flag = b'5';
                if entry.path.is_root() {
                    fields.name = b".".to_vec();
                }
                fields.name.push(b'/');
            }
            Kind::Symlink(target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(unwritable("its link target is empty or holds a NUL byte"));
                }
                fields.flag = b'2';
                fields.link.clone_from(target);
            }
            Kind::Hardlink(target) => {
                fields.flag = b'1';
                fields.link = target.as_bytes().to_vec();
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                if u64::from(*major.max(minor)) > SEVEN_DIGITS {
                    return Err(unwritable("its device number is too large"));
                }
                fields.flag = if matches!(entry.kind, Kind::CharDevice { .. }) { b'3' } else { b'4' };
                (fields.major, fields.minor) = (*major, *minor);
            }
            Kind::Fifo => fields.flag = b'6',
            Kind::Whiteout => {
                let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.name()) else {
                    return Err(unwritable("the root cannot be removed"));
                };
                let hidden = [b".wh.", name].concat();
                fields = Self { name: parent.join(&hidden).as_bytes().to_vec(), flag: b'0', ..Self::default() };
            }
            Kind::Opaque => return Err(unwritable("opaque folders are written as the whiteouts of what they hide")),
        }
        Ok(fields)
    }

    /// Moves what this header cannot hold, but for the name. The field keeps what Go leaves in it: a number as 0, a name cut (see `text`).
    fn move_to_records(&mut self, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut record = |key: &str, value: Vec<u8>| records.insert(key.as_bytes().to_vec(), value);
        if !fits(&self.link) {
            record("linkpath", self.link.clone());
        }
        if u64::from(self.uid) > SEVEN_DIGITS {
            record("uid", self.uid.to_string().into_bytes());
            self.uid = 0;
        }
        if u64::from(self.gid) > SEVEN_DIGITS {
            record("gid", self.gid.to_string().into_bytes());
            self.gid = 0;
        }
        if self.size_bytes > ELEVEN_DIGITS {
            record("size", self.size_bytes.to_string().into_bytes());
            self.size_bytes = 0;
        }
        if u64::try_from(self.mtime).map_or(true, |time| time > ELEVEN_DIGITS) {
            record("mtime", self.mtime.to_string().into_bytes());
            self.mtime = 0;
        }
    }

    fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        text(&mut block[0..100], &self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], u64::from(self.uid));
        octal(&mut block[116..124], u64::from(self.gid));
        octal(&mut block[124..136], self.size_bytes);
        octal(&mut block[136..148], self.mtime.unsigned_abs());
        block[148..156].fill(b' ');
        block[156] = self.flag;
        text(&mut block[157..257], &self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        // Go leaves the device numbers of an extended header empty, and writes zeros everywhere else.
        if self.flag != b'x' {
            octal(&mut block[329..337], u64::from(self.major));
            octal(&mut block[337..345], u64::from(self.minor));
        }
        text(&mut block[345..500], &self.prefix);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        // Six digits, a NUL, and the space that is there.
        octal(&mut block[148..155], sum);
        block
    }
}

fn fits(name: &[u8]) -> bool {
    name.len() <= 100 && name.is_ascii()
}

/// Where the `/` is that ends ustar's prefix of at most 155 bytes before a name of at most 100; `None` when there is none.
fn split(name: &[u8]) -> Option<usize> {
    if !name.is_ascii() {
        return None;
    }
    // A folder's last `/` is part of the name.
    let end = if name.len() > 156 { 156 } else { name.len() - usize::from(name.ends_with(b"/")) };
    let at = name[..end].iter().rposition(|byte| *byte == b'/')?;
    let length = name.len() - at - 1;
    (at > 0 && (1..=100).contains(&length)).then_some(at)
}

/// As many of the ASCII characters as fit.
fn text(field: &mut [u8], value: &[u8]) {
    let ascii: Vec<u8> = value.iter().copied().filter(u8::is_ascii).collect();
    let length = ascii.len().min(field.len());
    field[..length].copy_from_slice(&ascii[..length]);
    // A cut name that ends with `/` would make old readers take a file for a folder.
    if ascii.len() > field.len() && field[length - 1] == b'/' {
        let kept = field.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        field[kept] = 0;
    }
}

/// Digits with leading zeros, and a NUL at the end.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    debug_assert_eq!(text.len(), digits, "a number that does not fit is moved to a record");
    field[..digits].copy_from_slice(&text.as_bytes()[..digits]);
    field[digits] = 0;
}

/// The name under which a reader without PAX finds the records: `FOLDER/PaxHeaders.0/NAME`.
fn extension_name(name: &[u8]) -> Vec<u8> {
    let split = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (folder, file) = name.split_at(split);
    let mut ascii: Vec<u8> = [folder, b"PaxHeaders.0/", file].concat();
    ascii.retain(u8::is_ascii);
    ascii.truncate(100);
    while ascii.last() == Some(&b'/') {
        ascii.pop();
    }
    ascii
}
