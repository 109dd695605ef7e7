//! Files that hold others, made as tools make them.

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
        Nested::Not { inside, why } => format!("{inside}: {why}"),
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
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&text).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&text).unwrap();
    let zstd = zstd::encode_all(&text[..], 1).unwrap();
    for bytes in [gzip(&text), bzip2_of(&text), xz.finish().unwrap(), zlib.finish().unwrap(), zstd] {
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
    let long = [&b"a\n".repeat(3000)[..], &text].concat();
    let zipped = zip_by(12, &bzip2_of(&long));
    assert_eq!(look(&zipped), "x: npm", "by another method");
    assert_eq!(look(&gzip(&tar(&[(std::str::from_utf8(TOKEN).unwrap(), b"")]))), ": npm", "a name");
}

fn bzip2_of(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A zip of one entry `x`, packed by some other method.
fn zip_by(method: u8, packed: &[u8]) -> Vec<u8> {
    let mut all = zip(&[("x", packed)], false, false);
    all[8] = method;
    all
}

/// An archive of cpio in the new form, or in the old one.
fn cpio(entries: &[(&str, &[u8])], is_new: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, bytes) in entries.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let (size, length) = (bytes.len(), name.len() + 1);
        match is_new {
            true => {
                all.extend(format!("070701{}{size:08x}{}{length:08x}{:08}", "0".repeat(48), "0".repeat(32), 0).bytes())
            }
            false => all.extend(format!("070707{}{length:06o}{size:011o}", "0".repeat(53)).bytes()),
        }
        for part in [format!("{name}\0").as_bytes(), *bytes] {
            all.extend_from_slice(part);
            if is_new {
                all.resize(all.len().next_multiple_of(4), 0);
            }
        }
    }
    all
}

#[test]
fn a_secret_is_found_in_what_archives_of_cpio_and_packages_of_rpm_hold() {
    let packed = gzip(&[b"text\n", TOKEN].concat());
    let others: [(&str, &[u8]); 2] = [("an odd name", b"five!"), ("etc/x.gz", &packed)];
    for is_new in [true, false] {
        assert_eq!(look(&cpio(&others, is_new)), "etc/x.gz: npm", "{is_new}");
        let kernel = [cpio(&[("microcode", b"1")], is_new), vec![0; 300], gzip(&cpio(&others, is_new))].concat();
        assert_eq!(look(&kernel), "etc/x.gz: npm", "behind another one");
    }
    let header = |count: u32, bytes: u32| {
        let begin = [&[0x8E, 0xAD, 0xE8, 1, 0, 0, 0, 0][..], &count.to_be_bytes(), &bytes.to_be_bytes()].concat();
        [begin, vec![7; (count * 16 + bytes) as usize]].concat()
    };
    let mut package = [vec![0xED, 0xAB, 0xEE, 0xDB], vec![0; 92], header(1, 13)].concat();
    package.resize(package.len().next_multiple_of(8), 0);
    package.extend(header(2, 5));
    package.extend(zstd::encode_all(&cpio(&others, true)[..], 1).unwrap());
    assert_eq!(look(&package), "etc/x.gz: npm");
}

#[test]
fn of_what_hides_its_content_it_is_said() {
    let mut encrypted = zip(&[("a", b"1"), ("b/c", b"12345678")], true, false);
    assert_eq!(look(&encrypted), "clean");
    let second = 30 + 1 + encrypted[18] as usize;
    encrypted[second + 6] = 1;
    assert_eq!(look(&encrypted), "b/c: is encrypted");
    assert_eq!(look(&gzip(&tar(&[("x.zip", &encrypted)]))), "x.zip, in it b/c: is encrypted");
    assert_eq!(look(&zip_by(14, b"lzma")), "x: is packed by an unusual method of zip");
    assert_eq!(look(b"7z\xBC\xAF\x27\x1C\0\x04"), ": is packed by 7z");
    assert_eq!(look(&zip(&[("x.rar", b"Rar!\x1A\x07\x01\0")], false, false)), "x.rar: is packed by rar");
    let found = zip(&[("7z", b"7z\xBC\xAF\x27\x1C\0\x04"), ("x", TOKEN)], true, false);
    assert_eq!(look(&found), "x: npm", "a find says more");
}

/// A pack of git: of each object the kind, what stands before its bytes (a distance, a hash) and those.
fn pack(objects: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut all = b"PACK\0\0\0\x02\0\0\0".to_vec();
    all.push(u8::try_from(objects.len()).unwrap());
    for (kind, before, bytes) in objects {
        let (mut size, mut byte) = (bytes.len() >> 4, kind << 4 | u8::try_from(bytes.len() & 15).unwrap());
        while size > 0 {
            all.push(byte | 0x80);
            byte = u8::try_from(size & 0x7F).unwrap();
            size >>= 7;
        }
        all.push(byte);
        all.extend_from_slice(before);
        all.extend(zlib(bytes));
    }
    all.extend([5; 20]);
    all
}

#[test]
fn a_secret_is_found_in_what_a_pack_of_git_puts_together() {
    let (head, tail) = TOKEN.split_at(6);
    let first = [b"an older version of a file: ", head, b"XXXX"].concat();
    // Copies all but the last four bytes, and goes on with others.
    let mut difference = vec![u8::try_from(first.len()).unwrap(), u8::try_from(first.len() - 4 + tail.len()).unwrap()];
    difference.extend([0x90, u8::try_from(first.len() - 4).unwrap(), u8::try_from(tail.len()).unwrap()]);
    difference.extend(tail);
    let length = 12 + 2 + zlib(&first).len();
    let (blob, by_place, by_hash) = (3, 6, 7);
    let distance = [u8::try_from(length - 12).unwrap()];
    let whole = pack(&[(blob, b"", &first), (by_place, &distance, &difference)]);
    assert_eq!(look(&whole), format!("the object at {length}: npm"));
    assert_eq!(look(&pack(&[(blob, b"", &first)])), "clean");
    // What it builds on is unknown: its new bytes are searched.
    let other = pack(&[(by_hash, &[9; 20], &difference)]);
    assert_eq!(look(&other), "the object at 12: holds versions of files that are too large to put together");
    let mut news = vec![100, 100, u8::try_from(TOKEN.len()).unwrap()];
    news.extend(TOKEN);
    assert_eq!(look(&pack(&[(by_hash, &[9; 20], &news)])), "the object at 12: npm");
    // Objects hold archives too, and what is damaged ends the search.
    let archive = gzip(&tar(&[("a", TOKEN)]));
    assert_eq!(look(&pack(&[(blob, b"", b"1"), (blob, b"", &archive)])), "the object at 22, in it a: npm");
    let damaged = pack(&[(by_place, &[0x80, 0x80, 0x80, 0x80, 1], &difference), (blob, b"", TOKEN)]);
    assert_eq!(look(&damaged), "clean");
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
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_bytes_are_read_without_fault(kind in 0_usize..13, mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let heads: [&[u8]; 12] = [
            b"\x1F\x8B\x08\0", b"BZh9", b"PK\x03\x04", b"!<arch>\n", b"\xFD7zXZ\0", b"\x28\xB5\x2F\xFD", b"\x78\x9C",
            b"070701", b"070707", b"\xED\xAB\xEE\xDB", b"PACK\0\0\0\x02\0\0\x10\0", b"PACK\0\0\0\x02\0\0\0\x01\x34\x78\x9C",
        ];
        match heads.get(kind) {
            Some(head) => drop(bytes.splice(0..0, head.iter().copied())),
            None if bytes.len() > 300 => bytes[257..262].copy_from_slice(b"ustar"),
            None => {}
        }
        let came = look(&bytes);
        // Random flags of a zip may say that it is encrypted, and random lengths in a pack that a version is too large.
        let refused = kind == 2 || kind >= 10 && came.ends_with("too large to put together");
        prop_assert!(came == "clean" || refused, "{}", came);
    }

    #[test]
    fn any_difference_is_put_together_or_refused(base in proptest::collection::vec(any::<u8>(), 0..300),
                                                 mut difference in proptest::collection::vec(any::<u8>(), 0..60)) {
        difference.splice(0..0, [u8::try_from(base.len() & 0x7F).unwrap(), 0x7F]);
        let _ = super::pack::put_together(&base[..base.len() & 0x7F], &difference);
    }
}
