use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;

use super::*;
use crate::blob::Store;
use crate::image::{Format, ImageConfig, manifest};
use crate::layer::{
    Change, Compression, Entry, FileTime, Kind, LayerError, LayerOptions, LayerPath, Limits, Source, Times, read_layer,
    write_layer,
};

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

fn open() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    Place { folder, store }
}

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, layers: &[&[Change]]) -> Descriptor {
        let mut config = ImageConfig { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..Default::default() };
        let mut rows = Vec::new();
        for (number, changes) in layers.iter().enumerate() {
            // Both compressions, so that both are read back.
            let compression = if number % 2 == 0 {
                Compression::default()
            } else {
                Compression::Zstd { level: Compression::ZSTD_LEVEL }
            };
            let options = LayerOptions { compression, ..LayerOptions::default() };
            let layer = write_layer(&self.store, options, *changes).unwrap();
            config.rootfs.diff_ids.push(layer.diff_id.to_string());
            rows.push(Descriptor::new(layer.media_type[..].into(), layer.size_bytes, layer.digest));
        }
        let config = manifest::config(&config, Format::Oci);
        self.store.put(&config.bytes).unwrap();
        let manifest = manifest::manifest(&config, &rows, &BTreeMap::new(), Format::Oci).unwrap();
        self.store.put(&manifest.bytes).unwrap();
        manifest.descriptor()
    }

    /// What stands in the folder besides the store, with leftovers of any kind.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "store")
            .collect();
        names.sort();
        names
    }
}

fn change(at: &str, kind: Kind, mode: u32, source: Source) -> Change {
    let path = LayerPath::clean(at.as_bytes()).unwrap();
    let modified = FileTime { seconds: 1_000_000_000, nanoseconds: 0 };
    Change { entry: Entry { path, kind, mode, uid: 0, gid: 0, modified, xattrs: BTreeMap::new() }, source }
}

fn file(at: &str, content: &str) -> Change {
    let kind = Kind::File { size_bytes: content.len() as u64 };
    change(at, kind, 0o644, Source::Bytes(content.as_bytes().to_vec()))
}

fn plain(at: &str, kind: Kind, mode: u32) -> Change {
    change(at, kind, mode, Source::None)
}

fn link(at: &str, to: &str) -> Change {
    plain(at, Kind::Symlink(to.as_bytes().to_vec()), 0o777)
}

fn hard(at: &str, to: &str) -> Change {
    plain(at, Kind::Hardlink(LayerPath::clean(to.as_bytes()).unwrap()), 0o644)
}

/// Two layers that meet in every way.
fn sample(place: &Place) -> Descriptor {
    place.image(&[
        &[
            plain("bin", Kind::Directory, 0o755),
            file("bin/a", "old"),
            file("bin/gone", "x"),
            plain("etc", Kind::Directory, 0o755),
            file("etc/one", "1"),
            hard("etc/two", "etc/one"),
            link("lib", "usr/lib"),
            plain("pipe", Kind::Fifo, 0o600),
        ],
        &[
            file("bin/a", "new"),
            plain("bin/gone", Kind::Whiteout, 0),
            file("etc/one", "changed"),
            file("lib/so", "so"),
            plain("locked", Kind::Directory, 0o555),
            file("locked/key", "k"),
        ],
    ])
}

/// One line an entry of a tar.
fn listing(tar: &[u8]) -> String {
    let mut lines = String::new();
    read_layer::<LayerError>(tar, "", &Limits::DEFAULT, &mut |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let what = match &entry.kind {
            Kind::Directory => "/".to_owned(),
            Kind::File { .. } => format!(" {text:?}"),
            Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
            Kind::Hardlink(target) => format!(" = {target}"),
            kind => format!(" {kind:?}"),
        };
        lines += &format!("{:o} {}{what}\n", entry.mode, entry.path);
        Ok(())
    })
    .unwrap();
    lines
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_tar_of_the_files_shows_what_the_layers_show_together() {
    let place = open();
    let image = sample(&place);
    let mut tar = Vec::new();
    root_tar(&place.store, &image, Times::Real, &mut tar).unwrap();
    insta::assert_snapshot!(listing(&tar), @r#"
    755 /bin/
    755 /etc/
    555 /locked/
    755 /usr/
    755 /usr/lib/
    644 /etc/two "1"
    644 /bin/a "new"
    644 /etc/one "changed"
    644 /usr/lib/so "so"
    644 /locked/key "k"
    777 /lib -> usr/lib
    600 /pipe Fifo
    "#);
    let mut again = Vec::new();
    root_tar(&place.store, &image, Times::Real, &mut again).unwrap();
    assert!(tar == again);
}

#[test]
fn hard_links_that_are_still_one_file_stay_hard_links() {
    let place = open();
    let image = place.image(&[&[file("a", "1"), hard("b", "a"), hard("c", "a")], &[plain("a", Kind::Whiteout, 0)]]);
    let mut tar = Vec::new();
    root_tar(&place.store, &image, Times::Fixed(7), &mut tar).unwrap();
    assert_eq!(listing(&tar), "644 /b \"1\"\n644 /c = /b\n");
    let folder = place.at("out");
    local(&place.store, &image, Times::Fixed(7), &folder).unwrap();
    let (b, c) = (fs::metadata(folder.join("b")).unwrap(), fs::metadata(folder.join("c")).unwrap());
    assert_eq!((b.ino(), b.mtime()), (c.ino(), 7));
}

#[test]
fn files_are_written_to_a_new_folder() {
    let place = open();
    let image = sample(&place);
    let out = place.at("out");
    let left_out = local(&place.store, &image, Times::Real, &out).unwrap();
    assert!(left_out.is_empty());
    assert_eq!(fs::read_to_string(out.join("bin/a")).unwrap(), "new");
    assert!(!out.join("bin/gone").exists());
    assert_eq!(fs::read_to_string(out.join("lib/so")).unwrap(), "so");
    let locked = fs::metadata(out.join("locked")).unwrap();
    assert_eq!((locked.permissions().mode() & 0o7777, locked.mtime()), (0o555, 1_000_000_000));
    assert_eq!(fs::metadata(out.join("locked/key")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::symlink_metadata(out.join("lib")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(place.names(), ["out"]);
}

/// Only in a tar do they belong to the image's users.
#[test]
fn files_of_a_folder_belong_to_who_writes_them() {
    let place = open();
    let given = |mut change: Change| {
        (change.entry.uid, change.entry.gid) = (4321, 1234);
        change
    };
    let folder = given(plain("there", Kind::Directory, 0o2750));
    let mut tool = file("there/tool", "t");
    tool.entry.mode = 0o4755;
    let link = given(link("there/link", "tool"));
    let image = place.image(&[&[given(plain("pipe", Kind::Fifo, 0o640)), folder, link, given(tool)]]);
    let out = place.at("out");
    // One folder hands its group on; another was somebody else's before. Only root can make them so.
    fs::create_dir_all(out.join("there")).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o2755)).unwrap();
    for there in [&out, &out.join("there")] {
        let _ = std::os::unix::fs::chown(there, None, Some(7777));
    }
    local(&place.store, &image, Times::Real, &out).unwrap();
    let ours = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for (name, mode) in [("there", 0o2750), ("there/tool", 0o4755), ("there/link", 0o777), ("pipe", 0o640)] {
        let found = fs::symlink_metadata(out.join(name)).unwrap();
        assert_eq!(((found.uid(), found.gid()), found.permissions().mode() & 0o7777), (ours, mode), "{name}");
    }
    let mut tar = Vec::new();
    root_tar(&place.store, &image, Times::Real, &mut tar).unwrap();
    read_layer::<LayerError>(&tar[..], "", &Limits::DEFAULT, &mut |entry, _| {
        assert_eq!((entry.uid, entry.gid), (4321, 1234), "{}", entry.path);
        Ok(())
    })
    .unwrap();
}

#[test]
fn files_go_over_what_is_there_and_leave_the_rest() {
    let place = open();
    let image = sample(&place);
    let out = place.at("out");
    let outside = place.at("outside");
    fs::create_dir_all(out.join("etc/one")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(out.join("etc/one/inner"), "goes").unwrap();
    fs::write(out.join("mine"), "stays").unwrap();
    // Links that lead out must be replaced and never followed.
    symlink(&outside, out.join("bin")).unwrap();
    symlink(outside.join("target"), out.join("pipe")).unwrap();
    for _ in 0..2 {
        local(&place.store, &image, Times::Real, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("etc/one")).unwrap(), "changed");
        assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "stays");
        assert_eq!(fs::read_to_string(out.join("bin/a")).unwrap(), "new");
        assert!(fs::symlink_metadata(out.join("bin")).unwrap().is_dir());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        let mut left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bin", "etc", "lib", "locked", "mine", "pipe", "usr"]);
    }
}

#[test]
fn a_damaged_or_missing_layer_leaves_nothing_behind() {
    let place = open();
    let image = place.image(&[&[file("a", &"text ".repeat(1_000))]]);
    let before = fs::read(place.store.path(image.digest())).unwrap();
    let layer = contents::one_image(&place.store, &image, "").unwrap().manifest.layers()[0].digest().clone();
    let blob = fs::read(place.store.path(&layer)).unwrap();
    let all = |place: &Place| -> Vec<String> {
        let (store, image) = (&place.store, &image);
        let file = place.at("file");
        [
            layout_folder(store, image, &[], &place.at("layout")),
            write_file(&file, |sink| layout_tar(store, image, &[], sink)),
            write_file(&file, |sink| docker_archive(store, image, &[], sink)),
            write_file(&file, |sink| root_tar(store, image, Times::Real, sink)),
            local(store, image, Times::Real, &place.at("files")).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().to_string())
        .to_vec()
    };
    let mut damaged = blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    // Each finds it damaged, and takes it away.
    for number in 0..5 {
        fs::write(place.store.path(&layer), &damaged).unwrap();
        let errors = all(&place);
        assert!(errors[0].contains("was damaged on disk"), "{number}: {errors:?}");
        assert!(errors[1..].iter().all(|error| error.contains("the store has no blob")), "{errors:?}");
        assert!(place.names().is_empty(), "{:?}", place.names());
    }
    fs::write(place.store.path(&layer), &damaged).unwrap();
    let error = local(&place.store, &image, Times::Real, &place.at("files")).unwrap_err();
    assert!(error.to_string().contains("was damaged on disk"), "{error}");
    fs::write(place.store.path(&layer), &damaged).unwrap();
    let tar = write_file(&place.at("file"), |sink| layout_tar(&place.store, &image, &[], sink)).unwrap_err();
    assert!(tar.to_string().contains("was damaged on disk"), "{tar}");
    assert!(place.names().is_empty());
    assert_eq!(fs::read(place.store.path(image.digest())).unwrap(), before);
}

#[test]
fn a_layout_folder_is_new_whole_or_added_to() {
    let place = open();
    let (one, two) = (place.image(&[&[file("a", "1")]]), place.image(&[&[file("a", "2")]]));
    let out = place.at("layout");
    fs::create_dir(&out).unwrap();
    layout_folder(&place.store, &one, &names(&["localhost:5000/app:1", "localhost:5000/app:2"]), &out).unwrap();
    layout_folder(&place.store, &two, &names(&["localhost:5000/app:2"]), &out).unwrap();
    assert_eq!(place.names(), ["layout"]);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    let rows: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let annotation = |name: &str| row["annotations"][name].as_str().unwrap();
            let tag = annotation("org.opencontainers.image.ref.name");
            (row["digest"].as_str().unwrap(), annotation("io.containerd.image.name"), tag)
        })
        .collect();
    assert_eq!(
        rows,
        [(one.digest().as_ref(), "localhost:5000/app:1", "1"), (two.digest().as_ref(), "localhost:5000/app:2", "2")]
    );
    for image in [&one, &two] {
        for place in contents::blobs(&place.store, image).unwrap().keys() {
            assert!(out.join("blobs").join(place).is_file());
        }
    }
    assert_eq!(fs::read_to_string(out.join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3);
}

#[test]
fn destinations_of_the_wrong_kind_are_refused() {
    let place = open();
    let image = place.image(&[&[file("a", "1")]]);
    let full = place.at("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.txt"), "").unwrap();
    let file = full.join("thesis.txt");
    let text = layout_folder(&place.store, &image, &[], &full).unwrap_err().to_string();
    assert!(
        text.ends_with("full holds other files and is no OCI image layout; choose an empty or new folder as `dest`"),
        "{text}"
    );
    let text = layout_folder(&place.store, &image, &[], &file).unwrap_err().to_string();
    assert!(text.ends_with("thesis.txt is a file, and `dest` must be a folder"), "{text}");
    let text = local(&place.store, &image, Times::Real, &file).unwrap_err().to_string();
    assert!(text.ends_with("thesis.txt is a file, and `dest` must be a folder"), "{text}");
    let text = write_file(&full, |_| Ok(())).unwrap_err().to_string();
    assert!(text.ends_with("full is a folder, and `dest` must be a file"), "{text}");
}

#[test]
fn a_file_is_replaced_only_when_the_new_one_is_whole() {
    let place = open();
    let path = place.at("image.tar");
    fs::write(&path, "before").unwrap();
    let error = write_file(&path, |sink| {
        sink.write_all(b"half").map_err(ExportError::Write)?;
        Err(ExportError::Write(std::io::ErrorKind::StorageFull.into()))
    })
    .unwrap_err();
    assert!(error.to_string().contains("the disk is full while writing"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    let link = place.at("link.tar");
    symlink(&path, &link).unwrap();
    write_file(&link, |sink| sink.write_all(b"after").map_err(ExportError::Write)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "after");
    assert_eq!(place.names(), ["image.tar", "link.tar"]);
    write_file(Path::new("/dev/null"), |sink| sink.write_all(b"x").map_err(ExportError::Write)).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_docker_archive_is_a_layout_with_dockers_manifest() {
    let place = open();
    let image = place.image(&[&[file("a", "1")]]);
    let mut tar = Vec::new();
    docker_archive(&place.store, &image, &names(&["docker.io/library/app:1"]), &mut tar).unwrap();
    let one = contents::one_image(&place.store, &image, "").unwrap();
    let (config, layer) = (one.manifest.config().digest().digest(), one.manifest.layers()[0].digest().digest());
    let listing = listing(&tar[..]);
    let row = format!(
        r#"[{{"Config":"blobs/sha256/{config}","RepoTags":["docker.io/library/app:1"],"Layers":["blobs/sha256/{layer}"]}}]"#
    );
    assert!(listing.contains(&format!("444 /manifest.json {row:?}")), "{listing}");
    assert!(listing.contains("444 /index.json ") && listing.contains("444 /oci-layout "), "{listing}");
    assert!(listing.contains(&format!("444 /blobs/sha256/{config} ")), "{listing}");
    let mut again = Vec::new();
    docker_archive(&place.store, &image, &names(&["docker.io/library/app:1"]), &mut again).unwrap();
    assert!(tar == again);
}

#[test]
fn an_index_with_one_image_stands_for_it_and_one_with_two_does_not() {
    let place = open();
    let (one, two) = (place.image(&[&[file("a", "1")]]), place.image(&[&[file("a", "2")]]));
    let platform = |descriptor: &Descriptor, text: &str| {
        let mut descriptor = descriptor.clone();
        descriptor.set_platform(Some(serde_json::from_str(text).unwrap()));
        descriptor
    };
    let amd64 = platform(&one, r#"{"os":"linux","architecture":"amd64"}"#);
    let attestation = platform(&two, r#"{"os":"unknown","architecture":"unknown"}"#);
    let arm64 = platform(&two, r#"{"os":"linux","architecture":"arm64"}"#);
    let index = |rows: &[Descriptor]| {
        let document = manifest::index(rows, &BTreeMap::new(), Format::Oci).unwrap();
        place.store.put(&document.bytes).unwrap();
        document.descriptor()
    };
    let mut tar = Vec::new();
    root_tar(&place.store, &index(&[amd64.clone(), attestation]), Times::Real, &mut tar).unwrap();
    assert_eq!(listing(&tar), "644 /a \"1\"\n");
    let both = index(&[amd64, arm64]);
    let error = docker_archive(&place.store, &both, &[], &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image is for 2 platforms, and a Docker archive holds one; choose one with `--platform`"
    );
    layout_folder(&place.store, &both, &[], &place.at("layout")).unwrap();
    assert_eq!(fs::read_dir(place.at("layout/blobs/sha256")).unwrap().count(), 7);
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let place = open();
    let one = contents::one_image(&place.store, &place.image(&[&[file("a", "1")]]), "").unwrap();
    let mut config = one.config;
    config.rootfs.diff_ids[0] = crate::blob::sha256(b"other").to_string();
    let config = manifest::config(&config, Format::Oci);
    place.store.put(&config.bytes).unwrap();
    let wrong = manifest::manifest(&config, one.manifest.layers(), &BTreeMap::new(), Format::Oci).unwrap();
    place.store.put(&wrong.bytes).unwrap();
    let error = root_tar(&place.store, &wrong.descriptor(), Times::Real, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("expected content with digest sha256:d9298a10"), "{error}");
}

fn program(place: &Place, script: &str) -> String {
    let path = place.at("engine");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_engine_gets_the_archive_and_its_words_come_back() {
    let place = open();
    let image = place.image(&[&[file("a", &"long ".repeat(100_000))]]);
    let tags = names(&["app:1"]);
    let taken = place.at("taken");
    let engine = program(&place, &format!("cat > '{}' && echo \"Loaded $1\"", taken.display()));
    assert_eq!(load(&place.store, &image, &tags, &["no-such-engine", &engine]).unwrap(), "Loaded load\n");
    let mut archive = Vec::new();
    docker_archive(&place.store, &image, &tags, &mut archive).unwrap();
    assert!(fs::read(&taken).unwrap() == archive);

    let engine = program(&place, "echo 'cannot connect to the daemon' >&2; exit 1");
    let error = load(&place.store, &image, &tags, &[&engine]).unwrap_err();
    assert!(error.to_string().ends_with("load` failed (exit status: 1): cannot connect to the daemon"), "{error}");

    let error = load(&place.store, &image, &tags, &["no-such-engine", "nor-this"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot load the image: found neither no-such-engine nor nor-this here; write an archive with `-o type=docker,dest=FILE`"
    );
}
