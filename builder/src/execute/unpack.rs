//! `ADD` of an archive: told by its content, unpacked into the destination.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::image::Digest;

use super::StepError;
use super::extract::Spool;
use super::item::{Content, Item};
use super::moving::{Moving, Told};
use super::placing::{CAPABILITY, Made, Placing};
use crate::blob::{ContentHash, ContentHasher};
use crate::layer::{ArchiveError, Entry, Kind, LayerError, LayerPath, Limits, read_layer};

/// Length of a tar header.
const BLOCK_BYTES: usize = 512;

/// A file as the tar that it holds: gzip and zstd are left to the layer reader, bzip2 and xz are taken off here.
fn decoded<R: Read + 'static>(file: R, magic: &[u8]) -> Box<dyn Read> {
    let reader = BufReader::with_capacity(256 * 1024, file);
    match magic {
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(reader)),
        [0xFD, b'7', b'z', b'X', b'Z', 0] => Box::new(xz2::read::XzDecoder::new_multi_decoder(reader)),
        _ => Box::new(reader),
    }
}

/// The first bytes of a file, which tell its compression.
fn magic(path: &Path) -> io::Result<Vec<u8>> {
    let mut magic = [0; 6];
    let found = read_up_to(&mut File::open(path)?, &mut magic)?;
    Ok(magic[..found].to_vec())
}

/// An archive as [`crate::layer::read_layer`] reads it.
///
/// # Errors
/// When the file cannot be read.
pub fn open_archive(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(decoded(File::open(path)?, &magic(path)?))
}

/// A file that is hashed while others read it.
#[derive(Clone)]
struct Watched(Rc<RefCell<(Told<File>, ContentHasher)>>);

impl Watched {
    fn open(path: &Path, moving: Moving) -> io::Result<Self> {
        let file = Told::new(File::open(path)?, moving);
        Ok(Self(Rc::new(RefCell::new((file, ContentHasher::default())))))
    }

    /// The hash of the whole file: what the archive's readers left of it is read now.
    fn finish(mut self) -> io::Result<ContentHash> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.0.borrow().1.finish())
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, hasher) = &mut *self.0.borrow_mut();
        let count = file.read(buffer)?;
        hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn read_up_to(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether a file is a tar, plain or compressed with gzip, bzip2, xz or zstd. Its name does not matter.
///
/// # Errors
/// When the file cannot be read.
pub fn is_archive(path: &Path) -> Result<bool, StepError> {
    let read = |source| StepError::Read { path: path.to_owned(), source };
    let magic = magic(path).map_err(read)?;
    let file = File::open(path).map_err(read)?;
    let mut start: Box<dyn Read> = match &magic[..] {
        [0x1F, 0x8B, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => match zstd::Decoder::new(file) {
            Ok(decoder) => Box::new(decoder),
            Err(_) => return Ok(false),
        },
        magic => decoded(file, magic),
    };
    let mut block = [0; BLOCK_BYTES];
    // A stream that cannot be decoded is a file like any other.
    Ok(read_up_to(&mut start, &mut block).is_ok_and(|found| found == BLOCK_BYTES) && is_tar_header(&block))
}

/// Whether the checksum of a header is right; the magic is missing in archives of old tars.
fn is_tar_header(block: &[u8; BLOCK_BYTES]) -> bool {
    let Ok(text) = std::str::from_utf8(&block[148..156]) else { return false };
    let Ok(written) = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8) else { return false };
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    sum == written
}

/// An archive that is unpacked into the destination.
#[derive(Debug)]
pub(super) struct Archive {
    /// The source's name, for messages.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its content as the step's key saw it.
    pub(super) hash: ContentHash,
    /// How many sources that are no archives stand before it.
    pub(super) after: usize,
}

/// Puts what an archive holds below `destination`.
///
/// As in the reference builder: links on the way, those that are there and those that the archive made before, are
/// followed with the destination as the root; `..` stops there too; folders that the archive does not name are root's; the
/// destination stays as it is whatever the archive says of `.`; and `--chmod` has no effect.
///
/// An archive that is no more what the key saw is an error: its content must not be kept under that key. `below` are the
/// diff ids of the root file system: a hard link may be to a file of it. `moving` begins to tell how much of so many bytes is read.
pub(super) fn unpack(
    archive: &Archive,
    destination: &LayerPath,
    owner: Option<(u32, u32)>,
    below: &[Digest],
    placing: &mut Placing<'_>,
    spool: &mut Spool,
    moving: &dyn Fn(u64) -> Moving,
) -> Result<(), StepError> {
    placing.made = Made { owner: owner.unwrap_or((0, 0)), mode: 0o755 };
    placing.make_directory(destination)?;
    placing.made.owner = (0, 0);
    let path = &archive.path;
    let read = |source| StepError::Read { path: path.clone(), source };
    let changed = |found: String| LayerError::Changed { path: path.clone(), expected: Some(archive.hash), found };
    let size_bytes = match std::fs::metadata(path) {
        Ok(about) if about.is_file() => about.len(),
        Ok(_) => return Err(changed("no regular file".to_owned()).into()),
        Err(error) => {
            let change = LayerError::change_by(path, Some(archive.hash), &error);
            return Err(change.map_or_else(|| read(error), StepError::Layer));
        }
    };
    let watched = Watched::open(path, moving(size_bytes)).map_err(read)?;
    let reader = decoded(watched.clone(), &magic(path).map_err(read)?);
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    let result = read_layer(reader, media_type, &Limits::ARCHIVE, &mut |entry, content| -> Result<(), StepError> {
        if entry.path.is_root() {
            return Ok(());
        }
        let mut entry = entry.clone();
        if matches!(entry.kind, Kind::Whiteout | Kind::Opaque) {
            return Err(LayerError::ReservedName { path: whiteout_name(&entry) }.into());
        }
        entry.path = placing.resolve_in(destination, &entry.path, false)?;
        if let Kind::Hardlink(target) = &entry.kind {
            let target = placing.resolve_in(destination, target, false)?;
            if !placing.put_name(&entry.path, &target, below)? {
                return Err(LayerError::DanglingHardlink { path: entry.path, target }.into());
            }
            return Ok(());
        }
        if let Some((uid, gid)) = owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if matches!(entry.kind, Kind::Symlink(_)) {
            // Whatever the archive says: Linux gives links no other mode.
            entry.mode = 0o777;
        }
        entry.xattrs.retain(|name, _| name == CAPABILITY);
        let content = match entry.kind {
            Kind::File { .. } => Content::Spooled { offset_bytes: spool.keep(content)? },
            _ => Content::None,
        };
        Ok(placing.put_over(Item { entry, content, digest: None, same_file: None, timeless: false })?)
    });
    // Before a damaged archive is complained of: one that is being rewritten looks damaged too.
    let found = watched.finish().map_err(read)?;
    if found != archive.hash {
        return Err(changed(found.to_string()).into());
    }
    match result {
        Ok(_) => Ok(()),
        Err(StepError::Layer(source)) => {
            Err(StepError::Archive { name: archive.name.clone(), source: Box::new(ArchiveError(source)) })
        }
        Err(error) => Err(error),
    }
}

/// The name that an entry has in the archive which layers' readers take for a whiteout.
fn whiteout_name(entry: &Entry) -> LayerPath {
    match (&entry.kind, entry.path.name(), entry.path.parent()) {
        (Kind::Whiteout, Some(name), Some(parent)) => parent.join(&[b".wh.", name].concat()),
        _ => entry.path.join(b".wh..wh..opq"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(name: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &b"hi"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn archives_are_told_by_content() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let tar = tar_of("a");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&tar).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        let mut old = tar.clone();
        old[257..265].fill(0);
        let sum: u32 = old[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut gzip_text = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip_text.write_all(b"not a tar").unwrap();
        for (bytes, expected) in [
            (tar.clone(), true),
            (gzip.finish().unwrap(), true),
            (bzip2.finish().unwrap(), true),
            (xz.finish().unwrap(), true),
            (zstd::encode_all(&tar[..], 1).unwrap(), true),
            (old, true),
            (gzip_text.finish().unwrap(), false),
            (b"BZh9 but not".to_vec(), false),
            (b"\x28\xB5\x2F\xFDnot".to_vec(), false),
            (b"text".to_vec(), false),
            (vec![0; 1024], false),
            (Vec::new(), false),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(is_archive(&path).unwrap(), expected, "{:?}", &bytes[..bytes.len().min(6)]);
        }
    }

    #[test]
    fn an_archive_that_is_no_more_what_the_key_saw_is_refused() {
        use std::sync::Arc;

        use crate::event::{Deaf, Events, StepId};
        use crate::layer::{FileTime, Tree};
        let folder = tempfile::tempdir().unwrap();
        let store = crate::blob::Store::open(&folder.path().join("store")).unwrap();
        // Behind the end of the archive stands more than its readers look at; that counts too.
        let mut bytes = tar_of("a");
        bytes.extend(vec![7; 1 << 20]);
        let path = folder.path().join("a.tar");
        std::fs::write(&path, &bytes).unwrap();
        let unpacked = |hash: ContentHash| {
            let tree = Tree::new();
            let mut placing = Placing::new(&tree, Made { owner: (0, 0), mode: 0o755 }, FileTime::default());
            let mut spool = Spool::create(&store).unwrap();
            let archive = Archive { name: "a.tar".to_owned(), path: path.clone(), hash, after: 0 };
            let moving = |size_bytes| {
                let events: Events = Arc::new(Deaf);
                Moving::begin(&events, StepId(1), "unpacking".to_owned(), size_bytes)
            };
            unpack(&archive, &LayerPath::root(), None, &[], &mut placing, &mut spool, &moving)
        };
        unpacked(ContentHash::of(&bytes)).unwrap();
        bytes[(1 << 20) - 1] = 8;
        let error = unpacked(ContentHash::of(&bytes)).unwrap_err();
        assert!(error.to_string().contains("changed while the image was built"), "{error}");
    }
}
