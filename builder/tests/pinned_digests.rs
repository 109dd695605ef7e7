//! The digests of known layers. When one moves, the same Dockerfile gives other digests than before: the commit that
//! changes a number here says why.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use fluyt::blob::Store;
use fluyt::image::{Format, ImageConfig, manifest};
use fluyt::layer::{
    Change, Compression, Entry, FileTime, Kind, Layer, LayerOptions, LayerPath, Source, Times, write_layer,
};
use oci_spec::image::Descriptor;

fn path(at: &str) -> LayerPath {
    LayerPath::clean(at.as_bytes()).expect("a clean path")
}

fn change(at: &[u8], kind: Kind, mode: u32, seconds: i64, source: Source) -> Change {
    let modified = FileTime { seconds, nanoseconds: 0 };
    let path = LayerPath::clean(at).expect("a clean path");
    Change { entry: Entry { path, kind, mode, uid: 0, gid: 0, modified, xattrs: BTreeMap::new() }, source }
}

fn plain(at: &str, kind: Kind, mode: u32) -> Change {
    change(at.as_bytes(), kind, mode, 1_000, Source::None)
}

fn file(at: &str, content: &[u8], mode: u32, seconds: i64) -> Change {
    let kind = Kind::File { size_bytes: content.len() as u64 };
    change(at.as_bytes(), kind, mode, seconds, Source::Bytes(content.to_vec()))
}

/// One of each kind, and all that takes PAX records.
fn all_kinds() -> Vec<Change> {
    let (folder, name) = ("d".repeat(60), "n".repeat(60));
    let mut hosts = file("etc/hosts", b"127.0.0.1 localhost\n", 0o644, 1_700_000_000);
    (hosts.entry.uid, hosts.entry.gid) = (1_000, 2_000);
    let mut linked = hosts.clone();
    linked.entry.path = path("etc/hosts2");
    linked.entry.kind = Kind::Hardlink(path("etc/hosts"));
    linked.source = Source::None;
    let mut long = file(&format!("{folder}/{name}"), b"long", 0o4755, -7);
    (long.entry.uid, long.entry.gid) = (2_097_152, u32::MAX);
    long.entry.xattrs.insert(b"security.capability".to_vec(), b"\0\x01".to_vec());
    let mut changes = vec![
        plain("dev", Kind::Directory, 0o755),
        plain("dev/null", Kind::CharDevice { major: 1, minor: 3 }, 0o666),
        plain("etc", Kind::Directory, 0o1777),
        change(b"etc/gone", Kind::Whiteout, 0, 0, Source::None),
        hosts,
        linked,
        plain("lib", Kind::Symlink(b"usr/lib".to_vec()), 0o777),
        plain("pipe", Kind::Fifo, 0o600),
        long,
        plain(&format!("{folder}/{name}x/{name}"), Kind::Directory, 0o755),
        change(
            b"z\xC3\xBC\xFF",
            Kind::Symlink(format!("\u{fc}/{name}{name}").into_bytes()),
            0o777,
            1_000,
            Source::None,
        ),
    ];
    changes.sort_by(|one, other| one.entry.path.cmp(&other.entry.path));
    changes
}

/// Three blocks and a piece, of text-like bytes.
fn large() -> Vec<Change> {
    let mut state = 1_u32;
    let mut content = Vec::new();
    while content.len() < 3_300_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        content.extend_from_slice(format!("{:x} layer {}\n", state >> 20, state >> 28).as_bytes());
    }
    vec![file("large.txt", &content, 0o644, 1_000)]
}

fn written(changes: &[Change], compression: Compression, threads: usize) -> Layer {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path()).expect("a store");
    let threads = NonZeroUsize::new(threads).expect("at least one thread");
    write_layer(&store, LayerOptions { compression, threads, times: Times::Real }, changes).expect("a layer")
}

#[test]
fn the_diff_id_is_that_of_gos_archive_tar() {
    // Made with Go's `archive/tar` (Format PAX, as containerd's differ sets it) from the same entries.
    let layer = written(&all_kinds(), Compression::Uncompressed, 1);
    assert_eq!(layer.diff_id.as_ref(), "sha256:e9ecb1c8c0e61bd47072358de3da4680670a4cb4e32a07433194769ec5f41555");
}

#[test]
fn a_whole_image_keeps_its_digest() {
    let layer = written(&all_kinds(), Compression::default(), 2);
    let mut config = ImageConfig {
        created: Some("1980-01-01T00:00:00Z".to_owned()),
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        ..ImageConfig::default()
    };
    config.config.env = Some(vec!["PATH=/bin".to_owned()]);
    config.config.cmd = Some(vec!["/bin/app".to_owned()]);
    config.config.labels = Some(BTreeMap::from([("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]));
    config.rootfs.diff_ids.push(layer.diff_id.to_string());
    let row = Descriptor::new(layer.media_type.as_str().into(), layer.size_bytes, layer.digest);
    let annotations = BTreeMap::from([("y".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())]);
    let found = [(Format::Oci, annotations), (Format::Docker, BTreeMap::new())].map(|(format, annotations)| {
        let config = manifest::config(&config, format);
        let document = manifest::manifest(&config, std::slice::from_ref(&row), &annotations, format);
        document.expect("a manifest").digest.to_string()
    });
    let pinned = [
        "sha256:ba295623931ef2f049ac361bcaf49848251abf9dc4e57e998555236b35bf8242",
        "sha256:0d17c782e38bd25ebc440cc7325ddda00fd7216eece1f92f58725bf079f80097",
    ];
    assert_eq!(found, pinned, "in OCI's and in Docker's format");
}

#[test]
fn the_compressors_bytes_stay() {
    let changes = large();
    let pinned = [
        (Compression::Gzip { level: 1 }, "sha256:ce3451b9c35ccf50f3db3c98c263f5d18eed664dd2992f1cf53c37fd02386d9a"),
        (Compression::Gzip { level: 2 }, "sha256:e4c33d554e8003e3ff8ae1a4f6886141ee47ac45c725f4a6ad45b83e0199a000"),
        (Compression::Gzip { level: 6 }, "sha256:46ee6c9c4c9fcff6e5bf309a4409bfe060aff3810de8a9b4d59954fc6ea6179c"),
        (Compression::Gzip { level: 9 }, "sha256:c0bfeff534e4a5c6000b55653a55fa03335990aaa8a49925f7c7e608ab83659e"),
        (
            Compression::GzipMembers { level: 2 },
            "sha256:50ddb0c57815699176342a977b7bb3b7951b95aaf6a1838210e3815ed941639f",
        ),
        (Compression::Zstd { level: 3 }, "sha256:f6e624d1793ce5a0cfd3a9b3bb57d9aaf4274dc61169a6abd0b94fa0c6fa06a8"),
        (Compression::Uncompressed, "sha256:f2989c2d377c895fd2418248ce7c603e49546004a881325cc2303652ff23b3b2"),
    ];
    for threads in [1, 2, 4] {
        let found =
            pinned.map(|(compression, _)| (compression, written(&changes, compression, threads).digest.to_string()));
        assert_eq!(
            found,
            pinned.map(|(compression, digest)| (compression, digest.to_owned())),
            "with {threads} threads"
        );
    }
}
