//! Layers as strangers write them, unpacked beside a file that must not be touched.

mod hostile;
mod laws;
mod odd;
mod recorded;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::Header;

use super::*;
use crate::layer::pax;

/// Whether the test can run; says so when it cannot.
fn as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root, to set owners and overlayfs's marks");
    }
    root
}

/// A tar by hand: each entry exactly as told.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
    mode: Option<u32>,
    uid: u32,
    mtime: Option<u64>,
}

impl Tar {
    fn raw(mut self, path: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_mut_bytes()[156] = kind;
        header.set_mode(self.mode.take().unwrap_or(if kind == b'5' { 0o755 } else { 0o644 }));
        header.set_uid(self.uid.into());
        header.set_gid(self.uid.into());
        self.uid = 0;
        header.set_mtime(self.mtime.take().unwrap_or(1_000));
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// For the next entry.
    fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// For the next entry; owner and group.
    fn owner(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    /// For the next entry.
    fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = Some(seconds);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(path, b'0', "", content.as_bytes())
    }

    fn folder(self, path: &str) -> Self {
        self.raw(path, b'5', "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(path, b'2', target, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(path, b'1', target, b"")
    }

    fn device(mut self, path: &str, kind: u8, major: u32, minor: u32) -> Self {
        let start = self.bytes.len();
        self = self.raw(path, kind, "", b"");
        let mut header = Header::from_byte_slice(&self.bytes[start..start + 512]).clone();
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.bytes[start..start + 512].copy_from_slice(header.as_bytes());
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            pax::push(&mut content, key.as_bytes(), value);
        }
        self.raw("PaxHeaders/x", b'x', "", &content)
    }
}

/// A folder with unpacked trees in it, and a file that no layer may reach.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        Self { folder }
    }

    fn tree(&self, name: &str) -> PathBuf {
        let tree = self.folder.path().join(name);
        fs::create_dir_all(&tree).unwrap();
        tree
    }

    /// The link target that reaches the outside from anywhere.
    fn outside(&self) -> String {
        self.folder.path().join("outside").to_str().unwrap().to_owned()
    }

    fn apply(&self, name: &str, tar: Tar, form: Form<'_>) -> Result<Applied, ApplyError> {
        let mut bytes = tar.bytes;
        bytes.resize(bytes.len() + 1024, 0);
        let applied = apply_layer(&bytes[..], "", &Limits::DEFAULT, &self.tree(name), form);
        let outside = self.folder.path().join("outside");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
        let metadata = fs::symlink_metadata(&outside).unwrap();
        assert_eq!((metadata.nlink(), owner(&metadata), metadata.mode() & 0o7777), (1, 0, 0o644));
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(["outside", "root", "base", "top", "flat"].iter().any(|known| name == *known), "{name:?} escaped");
        }
        applied
    }

    /// The same in both forms, as nothing is below. One line an entry.
    fn both(&self, tar: impl Fn() -> Tar) -> String {
        self.apply("root", tar(), Form::Overlay { lowers: &[] }).unwrap();
        self.apply("flat", tar(), Form::Flat).unwrap();
        let lines = outline(&self.tree("root"));
        assert_eq!(lines, outline(&self.tree("flat")));
        lines
    }

    /// Why the layer is refused, in both forms.
    fn refusal(&self, tar: impl Fn() -> Tar) -> String {
        let overlay = self.apply("root", tar(), Form::Overlay { lowers: &[] });
        let flat = self.apply("flat", tar(), Form::Flat);
        let error = flat.unwrap_err();
        assert_eq!(overlay.unwrap_err().to_string(), error.to_string());
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    }
}

/// Who owns it; 0 is we too, as only root can give files to root.
fn owner(metadata: &fs::Metadata) -> u32 {
    if metadata.uid() == rustix::process::geteuid().as_raw() { 0 } else { metadata.uid() }
}

fn outline(tree: &Path) -> String {
    let mut lines = BTreeMap::new();
    let mut ahead = vec![tree.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&at).unwrap();
            let path = LayerPath::clean(at.strip_prefix(tree).unwrap().as_os_str().as_bytes()).unwrap();
            lines.insert(path.clone(), line(&path, &at, &metadata));
            if metadata.is_dir() {
                ahead.push(at);
            }
        }
    }
    lines.values().map(|line| format!("{line}\n")).collect()
}

fn line(path: &LayerPath, at: &Path, metadata: &fs::Metadata) -> String {
    if crate::layer::lowers::is_whiteout(at, metadata) {
        return format!("{path} removed");
    }
    let kind = if metadata.is_dir() {
        if crate::layer::lowers::is_opaque(at).unwrap() { "opaque dir" } else { "dir" }.to_owned()
    } else if metadata.is_symlink() {
        format!("-> {}", String::from_utf8_lossy(fs::read_link(at).unwrap().as_os_str().as_bytes()))
    } else if metadata.is_file() {
        let links = if metadata.nlink() > 1 { format!(" x{}", metadata.nlink()) } else { String::new() };
        format!("{:?}{links}", String::from_utf8_lossy(&fs::read(at).unwrap()))
    } else {
        let device = metadata.rdev();
        let kind = FileType::from_raw_mode(metadata.mode());
        format!("{kind:?} {}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    };
    format!("{path} {kind} {:o} {} @{}", metadata.mode() & 0o7777, owner(metadata), metadata.mtime())
}
