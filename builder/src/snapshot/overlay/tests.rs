//! What is of the overlay alone: its entries on disk.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::layer::{
    Change, Compression, Entry as LayerEntry, FileTime, Kind, LayerBuilder, LayerOptions, LayerPath, Source,
};

fn open() -> (tempfile::TempDir, Overlay) {
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let overlay = Overlay::open(Store::open(&folder.path().join("store")).unwrap()).unwrap();
    (folder, overlay)
}

fn change(path: &str, kind: Kind, source: Source) -> Change {
    let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let entry = LayerEntry {
        path: LayerPath::clean(path.as_bytes()).unwrap(),
        kind,
        mode: 0o755,
        uid: user.0,
        gid: user.1,
        modified: FileTime::default(),
        xattrs: std::collections::BTreeMap::new(),
    };
    Change { entry, source }
}

/// A layer's tar and diff id; with a folder for it when `whole`.
fn layer(overlay: &Overlay, whole: bool) -> (Digest, Vec<u8>) {
    let options = LayerOptions { compression: Compression::Uncompressed, ..LayerOptions::default() };
    let store = overlay.entries.store();
    let mut builder = LayerBuilder::new(store, options).unwrap();
    if whole {
        builder.add(&change("d", Kind::Directory, Source::None)).unwrap();
    }
    let kind = Kind::File { size_bytes: 1 };
    builder.add(&change("d/x", kind, Source::Bytes(b"x".to_vec()))).unwrap();
    let layer = builder.finish().unwrap();
    (layer.diff_id, fs::read(store.path(&layer.digest)).unwrap())
}

fn unpack(overlay: &Overlay, diff_id: &Digest, below: &[Digest], tar: &[u8]) -> Result<(), SnapshotError> {
    overlay.unpack(diff_id, below, Box::new(Cursor::new(tar.to_vec())), "", &Limits::DEFAULT, None)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What is left of this process under the store's `tmp/`, once the trash is emptied.
fn leftovers(overlay: &Overlay) -> usize {
    let store = overlay.entries.store();
    store.trash().empty();
    let left =
        |folder: &Path| fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    left(store.scratch()) - 1 + left(&store.scratch().join("trash"))
}

#[test]
fn entries_are_where_the_store_says() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    let layers = overlay.entries.store().root().join("layers");
    assert_eq!(names(&layers), [diff_id.digest()]);
    assert_eq!(names(&layers.join(diff_id.digest())), ["fs", "meta.json"]);
    assert_eq!(fs::read(layers.join(diff_id.digest()).join("fs/d/x")).unwrap(), b"x");
    assert_eq!(leftovers(&overlay), 0);
}

#[test]
fn a_layer_without_its_folders_is_kept_for_each_chain() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to keep the owners of folders below");
        return;
    }
    let (_folder, overlay) = open();
    let (whole, whole_tar) = layer(&overlay, true);
    let (thin, thin_tar) = layer(&overlay, false);
    unpack(&overlay, &whole, &[], &whole_tar).unwrap();
    unpack(&overlay, &thin, std::slice::from_ref(&whole), &thin_tar).unwrap();
    // It is not known what is below for who only asks for the layer, nor above another chain.
    assert!(!overlay.has(&thin));
    assert!(matches!(overlay.prepare(std::slice::from_ref(&thin)), Err(SnapshotError::NotUnpacked { .. })));
    overlay.prepare(&[whole.clone(), thin.clone()]).unwrap();
    // Again: nothing is read.
    unpack(&overlay, &thin, &[whole], b"no tar").unwrap();
    unpack(&overlay, &thin, &[], &thin_tar).unwrap();
    overlay.prepare(&[thin]).unwrap();
    assert_eq!(names(&overlay.entries.store().root().join("layers")).len(), 3);
}

#[test]
fn an_entry_that_was_copied_or_damaged_is_made_again() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    let entry = overlay.entries.store().root().join("layers").join(diff_id.digest());
    let copied = || {
        fs::rename(entry.join("fs"), entry.join("old")).unwrap();
        fs::create_dir(entry.join("fs")).unwrap();
    };
    let cut = || fs::write(entry.join("meta.json"), "{").unwrap();
    // Made, and not known to be on the disk, when the machine lost its power.
    let restarted = || note_boot(&entry, Some("another"));
    let lost = || fs::remove_dir_all(entry.join("fs")).unwrap();
    for damage in [&copied as &dyn Fn(), &cut, &restarted, &lost] {
        damage();
        assert!(!overlay.has(&diff_id));
        unpack(&overlay, &diff_id, &[], &tar).unwrap();
        assert!(overlay.has(&diff_id));
        assert_eq!(fs::read(entry.join("fs/d/x")).unwrap(), b"x");
        assert_eq!(names(&entry), ["fs", "meta.json"]);
    }
    assert_eq!(leftovers(&overlay), 0);
}

/// Sets the run of the machine that an entry names.
fn note_boot(entry: &Path, boot: Option<&str>) {
    let path = entry.join("meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    meta.as_object_mut().unwrap().insert("boot".to_owned(), boot.into());
    fs::write(&path, serde_json::to_vec(&meta).unwrap()).unwrap();
}

#[test]
fn an_entry_outlives_the_run_of_the_machine_once_it_is_on_the_disk() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    let store = overlay.entries.store();
    let entry = store.root().join("layers").join(diff_id.digest());
    let boot = || {
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(entry.join("meta.json")).unwrap()).unwrap();
        meta.get("boot").and_then(|boot| boot.as_str()).map(str::to_owned)
    };
    let this = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(boot().as_deref(), Some(this.trim()));
    // Too young for it.
    assert!(overlay.has(&diff_id));
    assert!(boot().is_some());
    overlay.entries.settle_now(&diff_id);
    assert_eq!(boot(), None);
    assert!(overlay.has(&diff_id));
    note_boot(&entry, Some("another"));
    assert!(!overlay.has(&diff_id));
    assert_eq!(leftovers(&overlay), 0);
}

#[test]
fn an_index_is_made_while_a_layer_is_unpacked() {
    let (_folder, overlay) = open();
    let once = |tar: &[u8], diff_id: &Digest| {
        overlay.unpack_and_index(diff_id, Box::new(Cursor::new(tar.to_vec())), "", &Limits::DEFAULT)
    };
    let (whole, tar) = layer(&overlay, true);
    let index = once(&tar, &whole).unwrap().unwrap();
    assert_eq!(index, crate::layer::index_layer(&tar[..], "", &Limits::DEFAULT).unwrap().1);
    assert_eq!(index.entries[1].content, Some(crate::blob::ContentHash::of(b"x")));
    let unpacked = overlay.entries.store().root().join("layers").join(whole.digest()).join("fs/d/x");
    assert_eq!(fs::read(unpacked).unwrap(), b"x");
    // What takes something from below is left to who knows what that is.
    let (thin, tar) = layer(&overlay, false);
    assert_eq!(once(&tar, &thin).unwrap(), None);
    assert!(!overlay.has(&thin));
    // Another layer than the image says leaves nothing.
    let error = once(&tar[..0], &thin).unwrap_err();
    assert!(matches!(error, SnapshotError::Apply { .. } | SnapshotError::WrongDiffId { .. }), "{error}");
    assert_eq!(leftovers(&overlay), 0);
}

#[test]
fn a_damaged_entry_that_another_build_uses_is_told_and_left() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    let root = overlay.entries.store().root().to_owned();
    let other = Overlay::open(Store::open(&root).unwrap()).unwrap();
    assert!(other.has(&diff_id), "and holds it now");
    let entry = root.join("layers").join(diff_id.digest());
    fs::write(entry.join("meta.json"), "{").unwrap();
    let error = unpack(&overlay, &diff_id, &[], &tar).unwrap_err();
    assert!(matches!(&error, SnapshotError::DamagedInUse { path } if *path == entry), "{error:?}");
    assert_eq!(fs::read(entry.join("fs/d/x")).unwrap(), b"x", "its user still needs it");
    assert_eq!(leftovers(&overlay), 0);
    drop(other);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    assert!(overlay.has(&diff_id));
}

#[test]
fn many_may_unpack_one_layer() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                unpack(&overlay, &diff_id, &[], &tar).unwrap();
                assert!(overlay.has(&diff_id));
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 8);
    assert_eq!(leftovers(&overlay), 0);
}

#[test]
fn a_layer_that_was_found_is_held_until_the_store_is_closed() {
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    unpack(&overlay, &diff_id, &[], &tar).unwrap();
    let name = format!("layers/{}", diff_id.digest());
    let root = overlay.entries.store().root().to_owned();
    let other = Store::open(&root).unwrap();
    assert_eq!(other.alone(&name, || ()).unwrap(), None, "who made it holds it");
    drop(overlay);
    other.alone(&name, || ()).unwrap().unwrap();
    let overlay = Overlay::open(other).unwrap();
    let third = Store::open(&root).unwrap();
    assert!(overlay.has(&diff_id));
    assert_eq!(third.alone(&name, || ()).unwrap(), None, "who found it holds it");
    drop(overlay);
    assert_eq!(
        third.alone(&name, || fs::rename(root.join(&name), root.join("gone"))).unwrap().map(|done| done.is_ok()),
        Some(true)
    );
    assert!(!Overlay::open(third).unwrap().has(&diff_id));
}

#[test]
fn a_failing_reader_leaves_nothing() {
    struct Failing(Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("the disk is gone")),
                count => Ok(count),
            }
        }
    }
    let (_folder, overlay) = open();
    let (diff_id, tar) = layer(&overlay, true);
    let failing = Box::new(Failing(Cursor::new(tar[..1100].to_vec())));
    let error = overlay.unpack(&diff_id, &[], failing, "", &Limits::DEFAULT, None).unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut next = std::error::Error::source(&error);
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    assert_eq!(chain, [&format!("unpacking layer {diff_id}")[..], "reading the layer", "the disk is gone"]);
    assert!(!overlay.has(&diff_id));
    assert_eq!(leftovers(&overlay), 0);
}
