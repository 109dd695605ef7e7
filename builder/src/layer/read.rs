//! Reads a layer: any compression, any tar that real tools write, one entry at a time.
//!
//! A layer comes from strangers. Nothing is unpacked here; what is handed on is a path inside the root, a kind that an
//! image can have, and content of exactly the length that was told. Each refusal has its own variant of
//! [`LayerError`].

use std::collections::BTreeMap;
use std::io::Read;

use oci_spec::image::Digest;

use super::decode::Decoded;
use super::tar_reader::{RawEntry, RawKind, Source, TarReader, lossy};
use super::{Entry, Kind, LayerError, LayerPath, Limits};
use crate::blob::Hasher;

/// What a layer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// SHA-256 of the whole uncompressed tar.
    pub diff_id: Digest,
    /// Its size.
    pub uncompressed_bytes: u64,
}

/// Reads a whole layer and shows each entry, with its content, to `visit`, in the order of the tar.
///
/// `reader` gives the blob as it is stored. How it is compressed is told by its first bytes: media types are often wrong
/// about it, so `media_type` only tells whether this is a layer of files at all (an empty one is not checked). Content that `visit` leaves unread is skipped. The same path may come more than once; the later one counts.
/// An absolute path or hard link target is taken as relative to the root. Metadata of the AUFS union file system, which
/// old layers hold, is left out.
///
/// # Errors
/// The first error of the source, of the layer or of `visit` ends the reading.
pub fn read_layer<E: From<LayerError>>(
    reader: impl Read,
    media_type: &str,
    limits: &Limits,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<Scan, E> {
    check_media_type(media_type)?;
    let source = Hashed { decoded: Decoded::new(reader)?, hasher: Hasher::sha256() };
    let (uncompressed_bytes, mut source) = read_entries(source, limits, visit)?;
    source.finish()?;
    Ok(Scan { diff_id: source.hasher.finish(), uncompressed_bytes })
}

/// Shows each entry of an uncompressed tar, and reads it to its end. Returns its size, and the source.
pub(super) fn read_entries<S: Source, E: From<LayerError>>(
    source: S,
    limits: &Limits,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(u64, S), E> {
    let mut tar = TarReader::new(source, *limits);
    while let Some(raw) = tar.next().map_err(|error| tar.reason(error))? {
        let Some(entry) = checked(raw, limits).map_err(|error| tar.reason(error))? else { continue };
        let outcome = visit(&entry, &mut tar);
        // The visitor saw an error of the layer as a failed read; ours says what it was.
        if let Some(failure) = tar.take_failure() {
            return Err(tar.reason(failure).into());
        }
        outcome?;
    }
    Ok(tar.finish())
}

/// Attestations, charts and other artifacts come as manifests with "layers" that hold no files.
pub(super) fn check_media_type(media_type: &str) -> Result<(), LayerError> {
    let files = media_type.is_empty() || media_type.contains("tar");
    if !files || media_type.ends_with("+encrypted") {
        return Err(LayerError::NotFiles { media_type: media_type.to_owned() });
    }
    Ok(())
}

struct Hashed<R: Read> {
    decoded: Decoded<R>,
    hasher: Hasher,
}

impl<R: Read> Source for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let count = self.decoded.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        self.decoded.finish()
    }
}

/// An entry that is safe to hand on; `None` for what readers of layers leave out.
fn checked(raw: RawEntry, limits: &Limits) -> Result<Option<Entry>, LayerError> {
    let path = clean(&raw.path, &raw.path, limits)?;
    let Some((path, whiteout)) = decode_whiteout(path, &raw)? else { return Ok(None) };
    let bad = |reason: &str| LayerError::BadHeader { offset: raw.offset, reason: reason.to_owned() };
    let kind = match whiteout {
        Some(kind) => kind,
        None => match raw.kind {
            RawKind::File => Kind::File { size_bytes: raw.size_bytes },
            RawKind::Directory => Kind::Directory,
            RawKind::Fifo => Kind::Fifo,
            RawKind::CharDevice => Kind::CharDevice { major: raw.major, minor: raw.minor },
            RawKind::BlockDevice => Kind::BlockDevice { major: raw.major, minor: raw.minor },
            RawKind::Symlink => {
                if raw.link.is_empty() {
                    return Err(bad("a symbolic link without a target"));
                }
                check_bytes(&raw.link, &raw.path, limits)?;
                Kind::Symlink(raw.link)
            }
            RawKind::Hardlink => {
                let target = clean(&raw.link, &raw.path, limits)?;
                if target.is_root() {
                    return Err(bad("a hard link without a target"));
                }
                Kind::Hardlink(target)
            }
        },
    };
    if path.is_root() && !matches!(kind, Kind::Directory | Kind::Opaque) {
        return Err(bad("an entry without a path"));
    }
    let xattrs: BTreeMap<_, _> = raw.xattrs.into_iter().collect();
    Ok(Some(Entry { path, kind, mode: raw.mode, uid: raw.uid, gid: raw.gid, modified: raw.modified, xattrs }))
}

fn check_bytes(bytes: &[u8], path: &[u8], limits: &Limits) -> Result<(), LayerError> {
    if bytes.len() as u64 > limits.path_bytes {
        return Err(LayerError::TooMuch { what: "bytes in a path or link", limit: limits.path_bytes });
    }
    if bytes.contains(&0) {
        return Err(LayerError::Nul { path: lossy(path) });
    }
    Ok(())
}

fn clean(raw: &[u8], path: &[u8], limits: &Limits) -> Result<LayerPath, LayerError> {
    check_bytes(raw, path, limits)?;
    let escapes = || LayerError::Escapes { path: lossy(path) };
    if !raw.split(|byte| *byte == b'/').any(|component| component == b"..") {
        return LayerPath::clean(raw).ok_or_else(escapes);
    }
    // What stands before a `..` may be a link, and is taken for a folder all the same: nothing is looked up, so that nothing
    // leads out.
    let mut inside: Vec<&[u8]> = Vec::new();
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if inside.pop().is_none() && !limits.stops_at_top => return Err(escapes()),
            b".." => {}
            _ => inside.push(component),
        }
    }
    LayerPath::clean(&inside.join(&b'/')).ok_or_else(escapes)
}

/// What a `.wh.` name says (image specification, layer.md, "Whiteouts").
fn decode_whiteout(path: LayerPath, raw: &RawEntry) -> Result<Option<(LayerPath, Option<Kind>)>, LayerError> {
    // AUFS kept its own files (`.wh..wh.plnk`, `.wh..wh.aufs`), mostly at the top; its layers carry them, and every reader skips
    // them.
    let of_aufs = |component: &[u8]| component.starts_with(b".wh..wh.") && component != b".wh..wh..opq";
    if path.components().any(of_aufs) {
        return Ok(None);
    }
    let (Some(name), Some(parent)) = (path.name(), path.parent()) else { return Ok(Some((path, None))) };
    let bad = |reason| Err(LayerError::BadWhiteout { path: lossy(&raw.path), reason });
    if parent.components().any(|component| component.starts_with(b".wh.")) {
        return bad("it stands in a folder that has a whiteout's name");
    }
    let Some(removed) = name.strip_prefix(b".wh.") else { return Ok(Some((path, None))) };
    match removed {
        b".wh..opq" => Ok(Some((parent, Some(Kind::Opaque)))),
        b"" | b"." | b".." => bad("it names no file"),
        _ => Ok(Some((parent.join(removed), Some(Kind::Whiteout)))),
    }
}

#[cfg(test)]
mod tests;
