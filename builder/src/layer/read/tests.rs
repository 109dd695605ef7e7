//! Layers as real tools and as enemies write them.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::Header;

use super::*;
use crate::layer::{FileTime, pax};

/// A tar by hand: each entry exactly as told.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(path: &[u8], kind: u8) -> Header {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[156] = kind;
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1_000);
        header
    }

    fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(self, path: &[u8], kind: u8, content: &[u8]) -> Self {
        let mut header = Self::header(path, kind);
        header.set_size(content.len() as u64);
        self.raw(header, content)
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path.as_bytes(), b'0', content)
    }

    fn link(self, path: &str, kind: u8, target: &str) -> Self {
        let mut header = Self::header(path.as_bytes(), kind);
        header.set_size(0);
        header.set_link_name_literal(target).unwrap();
        self.raw(header, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            pax::push(&mut content, key.as_bytes(), value);
        }
        self.entry(b"PaxHeaders/x", b'x', &content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

const SMALL: Limits =
    Limits { entries: 50, uncompressed_bytes: 100_000, path_bytes: 300, extension_bytes: 10_000, stops_at_top: false };

type Seen = Vec<(Entry, Vec<u8>)>;

fn read(bytes: &[u8]) -> Result<(Scan, Seen), LayerError> {
    let mut entries = Vec::new();
    let scan = read_layer::<LayerError>(bytes, "", &SMALL, &mut |entry, content| {
        let mut bytes = Vec::new();
        // A visitor need not care about a failed read.
        let _ = content.read_to_end(&mut bytes);
        entries.push((entry.clone(), bytes));
        Ok(())
    })?;
    Ok((scan, entries))
}

/// One line an entry.
fn outline(bytes: &[u8]) -> String {
    let (_, entries) = read(bytes).unwrap();
    let line = |(entry, content): &(Entry, Vec<u8>)| {
        let kind = match &entry.kind {
            Kind::Symlink(target) => format!("Symlink {:?}", lossy(target)),
            kind => format!("{kind:?}"),
        };
        format!("{} {kind} {:o} {}:{} {:?}\n", entry.path, entry.mode, entry.uid, entry.gid, lossy(content))
    };
    entries.iter().map(line).collect()
}

fn refusal(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok((_, entries)) => panic!("read as {entries:?}"),
        Err(error) => error.to_string(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn all_kinds_are_read() {
    let mut device = Tar::header(b"dev/null", b'3');
    device.set_size(0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let tar = Tar::default()
        .entry(b"./", b'5', b"")
        .entry(b"./dev/", b'5', b"")
        .raw(device, b"")
        .file("./etc/hosts", b"local")
        .link("lib", b'2', "/usr/../lib")
        .link("etc/hosts2", b'1', "./etc/hosts")
        .entry(b"/pipe", b'6', b"")
        .file("var/.wh.cache", b"")
        .file("srv/.wh..wh..opq", b"")
        .file(".wh..wh.plnk/1.2", b"aufs")
        .end();
    insta::assert_snapshot!(outline(&tar), @r#"
    / Directory 644 1:2 ""
    /dev Directory 644 1:2 ""
    /dev/null CharDevice { major: 1, minor: 3 } 644 1:2 ""
    /etc/hosts File { size_bytes: 5 } 644 1:2 "local"
    /lib Symlink "/usr/../lib" 644 1:2 ""
    /etc/hosts2 Hardlink("etc/hosts") 644 1:2 ""
    /pipe Fifo 644 1:2 ""
    /var/cache Whiteout 644 1:2 ""
    /srv Opaque 644 1:2 ""
    "#);
}

#[test]
fn every_compression_gives_the_same_entries_and_diff_id() {
    let tar = Tar::default().file("a", b"1").file("b", &[b'x'; 5000]).end();
    let (scan, plain) = read(&tar).unwrap();
    assert_eq!(scan.diff_id, crate::blob::sha256(&tar));
    assert_eq!(scan.uncompressed_bytes, tar.len() as u64);
    let members = [gzip(&tar[..700]), gzip(b""), gzip(&tar[700..])].concat();
    let skippable = b"\x52\x2A\x4D\x18\x03\0\0\0abc";
    let frames = [
        &skippable[..],
        &zstd::encode_all(&tar[..700], 1).unwrap(),
        skippable,
        &zstd::encode_all(&tar[700..], 3).unwrap(),
    ]
    .concat();
    for (name, bytes) in [("gzip", gzip(&tar)), ("members", members), ("zstd", frames)] {
        assert_eq!(read(&bytes).unwrap(), (scan.clone(), plain.clone()), "{name}");
    }
}

#[test]
fn a_source_that_gives_single_bytes_is_read() {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }
    let bytes = gzip(&Tar::default().file("a", b"1").end());
    let mut seen = 0;
    read_layer::<LayerError>(Slow(&bytes), "", &SMALL, &mut |_, _| {
        seen += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn other_compressions_are_named() {
    for (bytes, name) in [
        (&b"BZh91AY&SY---"[..], "bzip2"),
        (b"\xFD7zXZ\0---", "xz"),
        (b"\x04\x22\x4D\x18---", "lz4"),
        (b"PK\x03\x04", "zip"),
    ] {
        let expected = format!("the layer is compressed with {name}; expected gzip, zstd or none");
        assert_eq!(refusal(bytes), expected);
    }
    assert_eq!(outline(&Tar::default().file("BZh9", b"").end()), "/BZh9 File { size_bytes: 0 } 644 1:2 \"\"\n");
}

#[test]
fn layers_without_files_are_refused_by_their_media_type() {
    for (media_type, allowed) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip", true),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", true),
        ("application/x-tar", true),
        ("application/vnd.in-toto+json", false),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", false),
    ] {
        let tar = Tar::default().end();
        let outcome = read_layer::<LayerError>(&tar[..], media_type, &SMALL, &mut |_, _| Ok(()));
        assert_eq!(outcome.is_ok(), allowed, "{media_type}");
    }
}

#[test]
fn long_names_of_gnu_and_pax_are_read() {
    let long = "d/".repeat(100) + "file";
    let gnu = Tar::default()
        .entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes())
        .entry(b"././@LongLink", b'K', format!("{long}2\0").as_bytes())
        .link("cut", b'2', "cut")
        .end();
    let pax = Tar::default()
        .pax(&[("path", long.as_bytes()), ("linkpath", format!("{long}2").as_bytes())])
        .link("cut", b'2', "cut")
        .end();
    let expected = format!("/{long} Symlink \"{long}2\" 644 1:2 \"\"\n");
    assert_eq!(outline(&gnu), expected);
    assert_eq!(outline(&pax), expected);
}

#[test]
fn what_the_tar_crate_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let path = "deep/".repeat(50) + "file";
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4755);
    builder.append_data(&mut header, &path, &b"abc"[..]).unwrap();
    let expected = format!("/{path} File {{ size_bytes: 3 }} 4755 0:0 \"abc\"\n");
    assert_eq!(outline(&builder.into_inner().unwrap()), expected);
}

#[test]
fn pax_records_override_the_header() {
    let tar = Tar::default()
        .pax(&[
            ("mtime", b"-1.5"),
            ("uid", b"3000000"),
            ("gid", b"4000000"),
            ("uname", "jos\u{e9}".as_bytes()),
            ("SCHILY.xattr.user.a", b"x=\0\xFF"),
        ])
        .file("a", b"1")
        .file("b", b"2")
        .end();
    let (_, entries) = read(&tar).unwrap();
    let first = &entries[0].0;
    assert_eq!(first.modified, FileTime { seconds: -2, nanoseconds: 500_000_000 });
    assert_eq!((first.uid, first.gid), (3_000_000, 4_000_000));
    assert_eq!(first.xattrs, BTreeMap::from([(b"user.a".to_vec(), b"x=\0\xFF".to_vec())]));
    let second = &entries[1].0;
    assert_eq!((second.uid, second.gid, second.modified.seconds), (1, 2, 1_000), "they hold for one entry");
}

#[test]
fn global_records_are_skipped() {
    let tar = Tar::default().entry(b"pax_global_header", b'g', b"13 size=1000\n").file("a", b"1").end();
    assert_eq!(outline(&tar), "/a File { size_bytes: 1 } 644 1:2 \"1\"\n");
}

#[test]
fn numbers_in_base_256_are_read() {
    let mut header = Tar::header(b"a", b'0');
    header.set_size(0);
    header.as_old_mut().mtime = [0xFF; 12];
    header.as_old_mut().uid = [0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFE];
    let (_, entries) = read(&Tar::default().raw(header, b"").end()).unwrap();
    assert_eq!(entries[0].0.modified.seconds, -1);
    assert_eq!(entries[0].0.uid, 0xFFFF_FFFE);
}

#[test]
fn old_archives_are_read() {
    let mut header = Tar::header(b"dir/", 0);
    header.as_mut_bytes()[257..].fill(0);
    header.set_size(0);
    let tar = Tar::default().raw(header, b"");
    assert_eq!(outline(&tar.0), "/dir Directory 644 1:2 \"\"\n", "without an end mark");
}

#[test]
fn a_size_in_an_entry_without_content_is_no_content() {
    let mut header = Tar::header(b"dir", b'5');
    header.set_size(4096);
    let tar = Tar::default().raw(header, b"").file("a", b"1").end();
    assert_eq!(outline(&tar), "/dir Directory 644 1:2 \"\"\n/a File { size_bytes: 1 } 644 1:2 \"1\"\n");
}

#[test]
fn what_could_leave_the_root_is_refused() {
    for (tar, text) in [
        (
            Tar::default().file("../x", b""),
            r#"the layer's entry "../x" has `..` in its path, and could leave the image"#,
        ),
        (
            Tar::default().file("a/../../b", b""),
            r#"the layer's entry "a/../../b" has `..` in its path, and could leave the image"#,
        ),
        (
            Tar::default().link("a", b'1', "../../etc/shadow"),
            r#"the layer's entry "a" has `..` in its path, and could leave the image"#,
        ),
        (
            Tar::default().pax(&[("path", b"a\0b")]).file("a", b""),
            r#"the layer's entry "a\0b" has a NUL byte in its path or link"#,
        ),
        (
            Tar::default().pax(&[("linkpath", b"a\0b")]).link("a", b'2', "a"),
            r#"the layer's entry "a" has a NUL byte in its path or link"#,
        ),
    ] {
        assert_eq!(refusal(&tar.end()), text);
    }
}

#[test]
fn what_only_seems_to_leave_is_read() {
    let tar = Tar::default().file("m/../n", b"1").link("h", b'1', "m/../m/f").file("d/.wh..wh.plnk", b"").end();
    assert_eq!(outline(&tar), "/n File { size_bytes: 1 } 644 1:2 \"1\"\n/h Hardlink(\"m/f\") 644 1:2 \"\"\n");
}

#[test]
fn odd_whiteouts_are_refused() {
    for path in ["a/.wh.", "a/.wh..", "a/.wh...", "a/.wh.b/c", "a/.wh..wh..opq/c"] {
        let text = refusal(&Tar::default().file(path, b"").end());
        assert!(text.contains("is no valid whiteout"), "{path}: {text}");
    }
}

#[test]
fn a_size_that_readers_would_disagree_about_is_refused() {
    let tar = Tar::default().pax(&[("size", b"1024")]).file("a", b"1").end();
    assert_eq!(
        refusal(&tar),
        "the layer's tar has a bad PAX record before byte 1024: `size` is 1024, and the header says 1"
    );
    let same = Tar::default().pax(&[("size", b"1")]).file("a", b"1").end();
    assert_eq!(outline(&same), "/a File { size_bytes: 1 } 644 1:2 \"1\"\n");
}

#[test]
fn sparse_files_of_unknown_form_and_unknown_kinds_are_refused() {
    let expected = "the layer's entry \"a\" is of a kind that we do not read: a sparse file of GNU tar's own form (pack it \
                    again with `--format=posix`, or without `--sparse`)";
    let text = refusal(&Tar::default().entry(b"a", b'S', b"").end());
    assert_eq!(text, expected);
    let text = refusal(&Tar::default().pax(&[("GNU.sparse.major", b"2")]).file("a", b"").end());
    assert_eq!(text, expected);
    let text = refusal(&Tar::default().entry(b"a", b'V', b"").end());
    assert_eq!(text, r#"the layer's entry "a" is of a kind that we do not read: type 'V'"#);
}

/// The file that these pieces make, each behind a hole, in one of the three forms; and what it is.
fn sparse(form: usize, pieces: &[(usize, Vec<u8>)], hole_at_end: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut whole, mut stored, mut map) = (Vec::new(), Vec::new(), Vec::new());
    for (hole, data) in pieces {
        whole.resize(whole.len() + hole, 0);
        map.push((whole.len(), data.len()));
        whole.extend_from_slice(data);
        stored.extend_from_slice(data);
    }
    whole.resize(whole.len() + hole_at_end, 0);
    let (count, size) = (map.len().to_string(), whole.len().to_string());
    let numbers: Vec<String> = map.iter().flat_map(|(at, length)| [at.to_string(), length.to_string()]).collect();
    let list = numbers.join(",");
    let mut records: Vec<(&str, &[u8])> = vec![("GNU.sparse.name", b"own/name")];
    if form == 2 {
        let lines = format!("{count}\n{}\n", numbers.join("\n"));
        let lines = if map.is_empty() { "0\n".to_owned() } else { lines };
        let mut content = lines.into_bytes();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend_from_slice(&stored);
        stored = content;
        records.extend([("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")]);
        records.push(("GNU.sparse.realsize", size.as_bytes()));
    } else {
        records.push(("GNU.sparse.size", size.as_bytes()));
        records.push(("GNU.sparse.numblocks", count.as_bytes()));
    }
    if form == 1 {
        records.extend([
            ("GNU.sparse.major", &b"0"[..]),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", list.as_bytes()),
        ]);
    } else if form == 0 {
        records.extend([("GNU.sparse.major", &b"0"[..]), ("GNU.sparse.minor", b"0")]);
        for (at, number) in numbers.iter().enumerate() {
            records.push((["GNU.sparse.offset", "GNU.sparse.numbytes"][at % 2], number.as_bytes()));
        }
    }
    let tar = Tar::default().pax(&records).file("GNUSparseFile.1/name", &stored).file("next", b"1").end();
    (tar, whole)
}

#[test]
fn a_map_that_does_not_fit_is_refused() {
    let of = |map: &[u8], size: &[u8], content: &[u8]| {
        let records: &[(&str, &[u8])] =
            &[("GNU.sparse.map", map), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.size", size)];
        refusal(&Tar::default().pax(records).file("a", content).end())
    };
    for (map, size, content, reason) in [
        (&b"0,1,4"[..], &b"9"[..], &b"12"[..], "has not as many numbers as its header says"),
        (b"0,1,0,1", b"9", b"12", "has fragments that overlap or stand behind its end"),
        (b"0,1,9,1", b"9", b"12", "has fragments that overlap or stand behind its end"),
        (b"0,1,18446744073709551615,1", b"9", b"12", "has fragments that overlap or stand behind its end"),
        (b"0,1,8,1", b"9", b"123", "tells of 2 bytes, and 3 are there"),
    ] {
        let text = of(map, size, content);
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(of(b"0,1,8,1", b"900000", b"12"), "the layer has more than 100000 bytes uncompressed");
    let one = |content: &[u8]| {
        let records: &[(&str, &[u8])] = &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")];
        refusal(&Tar::default().pax(records).file("a", content).end())
    };
    assert!(one(b"1\n0\n").contains("the map of a sparse file has no end"));
    assert!(one(&[b'x'; 512]).contains("the map of a sparse file is no list of numbers"));
    assert!(one(&b"1\n".repeat(9216)).contains("tells of 1 bytes, and 17920 are there"));
    let endless = ["99999\n".to_owned(), "0\n".repeat(9000)].concat();
    assert_eq!(one(endless.as_bytes()), "the layer has more than 10000 bytes in the map of a sparse file");
}

#[test]
fn bad_headers_are_refused_with_their_place() {
    let mut tar = Tar::default().file("a", b"1").file("b", b"2").end();
    tar[1024] = b'c';
    assert!(refusal(&tar).starts_with("the layer's tar has no valid header at byte 1024: expected the checksum"));
    let mut header = Tar::header(b"a", b'0');
    header.set_size(0);
    header.as_old_mut().uid = *b"12x45670";
    let text = refusal(&Tar::default().raw(header, b"").end());
    assert_eq!(text, r#"the layer's tar has no valid header at byte 0: uid is "12x45670""#);
    let text = refusal(&Tar::default().file("", b"").end());
    assert_eq!(text, "the layer's tar has no valid header at byte 0: an entry without a path");
    let text = refusal(&[&[0; 512][..], &[1; 512]].concat());
    assert_eq!(text, "the layer's tar has no valid header at byte 512: expected a second block of zeros");
    assert!(refusal(b"<html>not found</html>").contains("the layer's tar ends inside a header"));
}

#[test]
fn ends_inside_something_are_told() {
    let tar = Tar::default().file("a", &[b'x'; 600]).end();
    assert_eq!(refusal(&tar[..300]), "the layer's tar ends inside a header");
    assert_eq!(refusal(&tar[..1000]), "the layer's tar ends inside the content of an entry");
    let pax = Tar::default().pax(&[("path", b"a")]);
    assert_eq!(refusal(&pax.0), "the layer's tar ends inside an extended header");
    let compressed = gzip(&tar);
    assert_eq!(refusal(&compressed[..compressed.len() - 9]), "the layer's gzip stream is damaged or ends early");
    let compressed = zstd::encode_all(&tar[..], 3).unwrap();
    assert_eq!(refusal(&compressed[..compressed.len() - 3]), "the layer's zstd stream is damaged or ends early");
}

#[test]
fn limits_hold() {
    let many = (0..60).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), b""));
    assert_eq!(refusal(&many.end()), "the layer has more than 50 entries");
    let bomb = gzip(&vec![0; 200_000]);
    assert_eq!(refusal(&bomb), "the layer has more than 100000 bytes uncompressed");
    let large = Tar::default().pax(&[("path", &[b'a'; 301])]).file("a", b"");
    assert_eq!(refusal(&large.end()), "the layer has more than 300 bytes in a path or link");
    let extension = Tar::default().pax(&[("comment", &[b'a'; 10_001])]).file("a", b"");
    assert_eq!(refusal(&extension.end()), "the layer has more than 10000 bytes in an extended header");
    let mut header = Tar::header(b"L", b'L');
    header.set_size(u64::from(u32::MAX));
    assert_eq!(
        refusal(&Tar::default().raw(header, b"").0),
        "the layer has more than 10000 bytes in an extended header"
    );
}

#[test]
fn the_sources_own_error_comes_out() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line was cut"))
        }
    }
    let bytes = gzip(&Tar::default().file("a", b"1").end());
    let broken = (&bytes[..20]).chain(Broken);
    let error = read_layer::<LayerError>(broken, "", &SMALL, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(&error, LayerError::Read(source) if source.to_string() == "the line was cut"), "{error:?}");
}

#[test]
fn a_damaged_blob_of_the_store_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::blob::Store::open(folder.path()).unwrap();
    let tar = Tar::default().file("a", b"1").end();
    let digest = store.put(&tar).unwrap().digest;
    std::fs::write(store.path(&digest), Tar::default().file("a", b"2").end()).unwrap();
    let reader = store.open_verified(&digest).unwrap();
    let error = read_layer::<LayerError>(reader, "", &SMALL, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("was damaged on disk"), "{error}");
}

#[test]
fn a_blob_that_is_damaged_anywhere_is_told_as_such_and_is_gone() {
    let text = b"a line of text that compresses\n".repeat(40);
    let tar = Tar::default().file("a", &text).file("b", b"1").end();
    let folder = tempfile::tempdir().unwrap();
    let store = crate::blob::Store::open(&folder.path().join("store")).unwrap();
    for bytes in [gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap(), tar] {
        let digest = store.put(&bytes).unwrap().digest;
        for place in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            let told = |read: &dyn Fn(crate::blob::VerifiedBlob) -> String| {
                std::fs::write(store.path(&digest), &damaged).unwrap();
                let error = read(store.open_verified(&digest).unwrap());
                assert!(error.contains("was damaged on disk"), "{place} of {}: {error}", bytes.len());
                assert!(!store.contains(&digest), "{place} of {}", bytes.len());
            };
            told(&|blob| read_layer::<LayerError>(blob, "", &SMALL, &mut |_, _| Ok(())).unwrap_err().to_string());
            told(&|blob| {
                let root = tempfile::tempdir().unwrap();
                crate::layer::apply_layer(blob, "", &SMALL, root.path(), crate::layer::Form::Flat)
                    .unwrap_err()
                    .to_string()
            });
        }
    }
}

#[test]
fn the_visitors_error_ends_the_reading() {
    let tar = Tar::default().file("a", b"1").file("b", b"2").end();
    let mut seen = 0;
    let error = read_layer::<LayerError>(&tar[..], "", &SMALL, &mut |entry, _| {
        seen += 1;
        Err(LayerError::ReservedName { path: entry.path.clone() })
    });
    assert!(matches!(error, Err(LayerError::ReservedName { .. })));
    assert_eq!(seen, 1);
}

/// Headers of every kind, each changed anywhere and its checksum set right again, so that what is behind it is reached.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut tar = Tar::default()
        .pax(&[("path", b"long/name"), ("mtime", b"1.5"), ("size", b"3"), ("SCHILY.xattr.user.a", b"b")])
        .file("a", b"123")
        .entry(b"././@LongLink", b'L', b"other/name\0")
        .link("l", b'2', "a")
        .link("h", b'1', "other/name")
        .entry(b"dir/", b'5', b"")
        .file("dir/.wh.x", b"")
        .file("dir/.wh..wh..opq", b"")
        .entry(b"null", b'3', b"")
        .entry(b"g", b'g', b"9 a=b\n")
        .end();
    let length = tar.len();
    for (at, byte) in changes {
        tar[at % length] = *byte;
    }
    for block in tar.chunks_exact_mut(512) {
        if block.iter().any(|byte| *byte != 0) && block[257..262] == *b"ustar" {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    tar
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_headers_are_read_safely_or_refused(
        changes in proptest::collection::vec((any::<usize>(), prop_oneof![any::<u8>(), Just(0), Just(b'/'), Just(b'.'), Just(b'7'), Just(0xFF)]), 0..12)
    ) {
        let tar = changed(&changes);
        let Ok((scan, entries)) = read(&tar) else { return Ok(()) };
        prop_assert_eq!(scan.diff_id, crate::blob::sha256(&tar));
        for (entry, content) in entries {
            prop_assert!(entry.path.components().all(|component| component != b".." && !component.contains(&0)));
            prop_assert!(entry.mode <= 0o7777 && entry.modified.nanoseconds < 1_000_000_000);
            let size_bytes = if let Kind::File { size_bytes } = entry.kind { size_bytes } else { 0 };
            prop_assert_eq!(size_bytes, content.len() as u64);
        }
    }

    #[test]
    fn sparse_files_are_read_as_what_they_are(
        form in 0_usize..3,
        pieces in proptest::collection::vec((0_usize..2000, proptest::collection::vec(any::<u8>(), 0..700)), 0..6),
        hole_at_end in 0_usize..2000,
    ) {
        // Without a fragment, records alone could not tell that there are none.
        prop_assume!(form == 2 || !pieces.is_empty());
        let (tar, whole) = sparse(form, &pieces, hole_at_end);
        let (_, entries) = read(&tar).unwrap();
        prop_assert_eq!(entries.len(), 2);
        prop_assert_eq!(entries[0].0.path.to_string(), "/own/name");
        prop_assert_eq!(&entries[0].0.kind, &Kind::File { size_bytes: whole.len() as u64 });
        prop_assert!(entries[0].1 == whole);
        prop_assert_eq!(&entries[1].1, b"1");
    }

    #[test]
    fn a_sparse_file_with_any_byte_changed_is_a_layer_or_an_error(
        form in 0_usize..3, at in any::<usize>(), byte in prop_oneof![b'0'..=b'9', any::<u8>()]
    ) {
        let (mut tar, _) = sparse(form, &[(3, vec![1; 20]), (700, vec![2; 600])], 5);
        let at = at % tar.len();
        tar[at] = byte;
        let _ = read(&tar);
    }

    #[test]
    fn any_bytes_are_a_layer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_layer_with_any_byte_changed_is_a_layer_or_an_error(at in 0_usize..4608, byte in any::<u8>()) {
        let mut tar = Tar::default()
            .pax(&[("path", b"other"), ("mtime", b"1.5")])
            .file("a", b"1")
            .link("l", b'2', "a")
            .end();
        let at = at % tar.len();
        tar[at] = byte;
        if let Ok((scan, _)) = read(&tar) {
            prop_assert_eq!(scan.diff_id, crate::blob::sha256(&tar));
        }
    }
}
