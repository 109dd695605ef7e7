use std::fs;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::layer::sample::{changes, entry, file, path, plain};
use crate::layer::{Compression, FileTime, Limits, Times, read_layer};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

const TAR: LayerOptions =
    LayerOptions { compression: Compression::Uncompressed, threads: NonZeroUsize::MIN, times: Times::Real };

fn tar_of(changes: &[Change]) -> Vec<u8> {
    let (_folder, store) = open();
    let layer = write_layer(&store, TAR, changes).unwrap();
    assert_eq!(layer.digest, layer.diff_id);
    store.read(&layer.digest, u64::MAX).unwrap()
}

fn refusal(changes: &[Change]) -> String {
    let (_folder, store) = open();
    write_layer(&store, TAR, changes).unwrap_err().to_string()
}

/// The fields of a header that say something.
fn fields(header: &[u8]) -> String {
    let field = |at: usize, length: usize| String::from_utf8_lossy(&header[at..at + length]).replace('\0', "_");
    format!(
        "{} | {} {} {} {} {} {} | {} | {} | {} | {} {} {}",
        field(0, 100).trim_end_matches('_'),
        field(100, 8),
        field(108, 8),
        field(116, 8),
        field(124, 12),
        field(136, 12),
        field(148, 8),
        field(156, 1),
        field(157, 100).trim_end_matches('_'),
        field(257, 8),
        field(265, 64).trim_end_matches('_'),
        field(329, 16),
        field(345, 167).trim_end_matches('_'),
    )
}

#[test]
fn headers_are_those_of_go() {
    // `archive/tar` of Go 1.2x with Format PAX, as containerd's differ sets it.
    let tar = tar_of(&[file("etc/hosts", b"x")]);
    assert_eq!(
        fields(&tar[..512]),
        "etc/hosts | 0000644_ 0000000_ 0000000_ 00000000001_ 00000001750_ 011047_  | 0 |  | ustar_00 |  0000000_0000000_ "
    );
    assert_eq!(tar.len(), 512 + 512 + 1024);
    let tar = tar_of(&[plain("etc", Kind::Directory), plain("etc/.x", Kind::Whiteout)]);
    assert!(fields(&tar[..512]).starts_with("etc/ | 0000644_"), "{}", fields(&tar[..512]));
    assert_eq!(
        fields(&tar[512..1024]),
        "etc/.wh..x | 0000000_ 0000000_ 0000000_ 00000000000_ 00000000000_ 010673_  | 0 |  | ustar_00 |  0000000_0000000_ "
    );
}

#[test]
fn what_does_not_fit_goes_into_records() {
    let long = "d".repeat(60) + "/" + &"n".repeat(60);
    let mut change = file(&long, b"");
    change.entry.uid = 2_097_152;
    change.entry.modified.seconds = -7;
    change.entry.xattrs.insert(b"security.capability".to_vec(), b"\0\x01".to_vec());
    let tar = tar_of(&[change]);
    let head = fields(&tar[..512]);
    let name = format!("{}/PaxHeaders.0/{}", "d".repeat(60), "n".repeat(26));
    assert!(head.starts_with(&format!("{name} | 0000000_ 0000000_ 0000000_ 00000000305_ 00000000000_")), "{head}");
    assert!(head.ends_with("| x |  | ustar_00 |  ________________ "), "{head}");
    let records = [
        "39 SCHILY.xattr.security.capability=\0\x01\n".to_owned(),
        "12 mtime=-7\n".to_owned(),
        format!("131 path={long}\n"),
        "15 uid=2097152\n".to_owned(),
    ]
    .concat();
    assert_eq!(String::from_utf8_lossy(&tar[512..512 + records.len()]), records);
    let main = fields(&tar[1024..1536]);
    assert!(main.starts_with(&format!("{}/{} | 0000644_ 0000000_", "d".repeat(60), "n".repeat(39))), "{main}");
    assert!(main.contains(" 00000000000_ 00000000000_ "), "{main}");
}

#[test]
fn one_pass_gives_all_that_is_known_of_a_layer() {
    let (_folder, store) = open();
    let list = [plain("etc", Kind::Directory), file("etc/passwd", b"root:x:0:0\n"), plain("etc/x", Kind::Whiteout)];
    let layer = write_layer(&store, LayerOptions::default(), &list).unwrap();
    assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(store.size(&layer.digest).unwrap(), Some(layer.size_bytes));
    let blob = store.open_verified(&layer.digest).unwrap();
    let (scan, index) = crate::layer::index_layer(blob, &layer.media_type, &Limits::DEFAULT).unwrap();
    assert_eq!(scan.diff_id, layer.diff_id);
    assert_eq!(index.entries.len(), 3);
    assert_eq!(index.entries[..2], layer.index.entries[..2]);
    assert_eq!(layer.index.entries[1].content, Some(crate::blob::ContentHash::of(b"root:x:0:0\n")));
    assert_eq!(layer.index.accounts[&path("etc/passwd")], "root:x:0:0\n");
    layer.index.save(&store, &layer.diff_id).unwrap();
    assert_eq!(LayerIndex::load(&store, &layer.diff_id).unwrap(), Some(layer.index));
    assert_eq!(LayerIndex::load(&store, &layer.digest).unwrap(), None);
}

#[test]
fn the_layer_carries_the_policys_times_and_the_index_the_real_ones() {
    let (_folder, store) = open();
    let mut change = file("a", b"");
    change.entry.modified = FileTime { seconds: 2_000, nanoseconds: 5 };
    for (times, seconds) in [(Times::Real, 2_000), (Times::Clamp(1_500), 1_500), (Times::Fixed(-1), -1)] {
        let layer = write_layer(&store, LayerOptions { times, ..TAR }, [&change]).unwrap();
        assert_eq!(layer.index.entries[0].entry.modified, change.entry.modified);
        let tar = store.open_blob(&layer.digest).unwrap();
        let mut seen = Vec::new();
        read_layer::<LayerError>(tar, "", &Limits::DEFAULT, &mut |entry, _| {
            seen.push(entry.modified);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [FileTime { seconds, nanoseconds: 0 }]);
    }
}

#[test]
fn order_and_names_are_checked() {
    let hardlink = |at, to| plain(at, Kind::Hardlink(path(to)));
    for (changes, text) in [
        (
            vec![file("b", b""), file("a", b"")],
            "the layer's entry /a came after /b; entries must be sorted by path, each once",
        ),
        (
            vec![file("a", b""), file("a", b"")],
            "the layer's entry /a came after /a; entries must be sorted by path, each once",
        ),
        (
            vec![file("a/b", b""), plain("a", Kind::Directory)],
            "the layer's entry /a came after /a/b; entries must be sorted by path, each once",
        ),
        (
            vec![file("a", b""), file("a/b", b"")],
            "/a/b cannot be written to a layer: /a is no folder in the same layer",
        ),
        (
            vec![file(".wh.a", b"")],
            "/.wh.a cannot be in an image: names that start with `.wh.` mean a removed file in a layer",
        ),
        (
            vec![file(".wh.a/b", b"")],
            "/.wh.a/b cannot be in an image: names that start with `.wh.` mean a removed file in a layer",
        ),
        (vec![plain("", Kind::Whiteout)], "/ cannot be written to a layer: the root cannot be removed"),
        (vec![hardlink("b", "a")], "the layer's entry /b links to /a, which is no file before it in the same layer"),
        (
            vec![plain("a", Kind::Directory), hardlink("b", "a")],
            "the layer's entry /b links to /a, which is no file before it in the same layer",
        ),
        (
            vec![hardlink("a", "b"), file("b", b"")],
            "the layer's entry /a links to /b, which is no file before it in the same layer",
        ),
    ] {
        assert_eq!(refusal(&changes), text);
    }
}

#[test]
fn content_must_have_its_size() {
    let (_folder, store) = open();
    for (content, text) in [
        ("ab", "the content of /a has 2 bytes, and its entry says 3"),
        ("abcd", "the content of /a has 4 bytes, and its entry says 3"),
    ] {
        let mut builder = LayerBuilder::new(&store, TAR).unwrap();
        let error = builder.append(&entry("a", Kind::File { size_bytes: 3 }), &mut content.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), text);
        let error = builder.append(&entry("b", Kind::Fifo), &mut io::empty()).unwrap_err();
        assert!(matches!(error, LayerError::Unfinished), "{error}");
        assert!(matches!(builder.finish(), Err(LayerError::Unfinished)));
    }
    assert_eq!(fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_large_entry_is_written_no_further_once_the_build_is_stopped() {
    struct Stopping(crate::stop::Cancel);
    impl io::Read for Stopping {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.cancel();
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    let (_folder, store) = open();
    let cancel = crate::stop::Cancel::new();
    let mut builder = LayerBuilder::new(&store.until(&cancel), TAR).unwrap();
    let size_bytes = 64 << 20;
    let content = &mut io::Read::take(Stopping(cancel), size_bytes);
    let error = builder.append(&entry("a", Kind::File { size_bytes }), content).unwrap_err();
    assert!(matches!(error, LayerError::Store(_)), "{error}");
    assert!(content.limit() > size_bytes / 2);
    assert!(matches!(builder.finish(), Err(LayerError::Unfinished)));
}

#[test]
fn a_file_that_changed_since_its_key_was_made_is_named() {
    let (folder, store) = open();
    let at = folder.path().join("source.c");
    let change = |expected: &[u8]| {
        let expected = Some(crate::blob::ContentHash::of(expected));
        Change { source: Source::File { path: at.clone(), expected }, ..file("a", b"abc") }
    };
    let error = |change: Change| write_layer(&store, TAR, [&change]).unwrap_err().to_string();

    fs::write(&at, "abc").unwrap();
    write_layer(&store, TAR, [&change(b"abc")]).unwrap();
    let text = error(change(b"abd"));
    assert!(text.contains("source.c changed while the image was built: expected blake3:"), "{text}");
    assert!(text.contains("found blake3:6437") && text.ends_with("run the build again"), "{text}");

    fs::write(&at, "abcd").unwrap();
    assert!(error(change(b"abc")).contains("found more than its 3 bytes"));
    fs::write(&at, "ab").unwrap();
    assert!(error(change(b"abc")).contains("found fewer than its 3 bytes"));
    fs::remove_file(&at).unwrap();
    assert!(error(change(b"abc")).contains("found no file"));
    std::os::unix::fs::symlink("/etc/shadow", &at).unwrap();
    assert!(error(change(b"abc")).contains("found a symbolic link"));
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    assert!(error(change(b"abc")).contains("found no regular file"));
    fs::remove_dir(&at).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(error(change(b"abc")).contains("found no regular file"), "and it does not wait for a writer");
}

#[test]
fn a_size_over_eight_gibibytes_goes_into_a_record() {
    let mut large = entry("a", Kind::File { size_bytes: 1 << 33 });
    large.xattrs.clear();
    let mut tar = TarWriter::new(Vec::new());
    tar.header(&large).unwrap();
    let header = tar.finish().unwrap();
    assert!(String::from_utf8_lossy(&header).contains("19 size=8589934592\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_layer_reads_back_as_written(changes in changes(true), zstd in any::<bool>()) {
        let (_folder, store) = open();
        let compression = if zstd { Compression::Zstd { level: 1 } } else { Compression::default() };
        let layer = write_layer(&store, LayerOptions { compression, ..TAR }, &changes).unwrap();
        let blob = store.open_verified(&layer.digest).unwrap();
        let mut read = Vec::new();
        let scan = read_layer::<LayerError>(blob, &layer.media_type, &Limits::DEFAULT, &mut |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            let source = match entry.kind {
                Kind::File { .. } => Source::Bytes(bytes),
                _ => Source::None,
            };
            read.push(Change { entry: entry.clone(), source });
            Ok(())
        }).unwrap();
        prop_assert_eq!(&read, &changes);
        prop_assert_eq!(scan.diff_id, layer.diff_id);
        let json = layer.index.to_json();
        prop_assert_eq!(LayerIndex::from_json(&json).unwrap(), Some(layer.index));
    }
}
