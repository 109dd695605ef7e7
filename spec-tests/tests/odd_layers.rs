//! Layers as other tools write them, on each rung: files without the folders that they are in, files behind a link of the
//! layer below, and an `/etc/resolv.conf` that is an absolute link.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use spec_tests::grounds::{Network, Plan};
use spec_tests::image::Layout;
use spec_tests::program;

/// The folders of the lower layer must be seen with what they have there, and the link must not be hidden by a folder.
const DOCKERFILE: &str = "FROM odd
RUN test -L /lib && test \"$(cat /usr/lib/part)\" = part && cat /etc/resolv.conf > /seen && test -s /seen
RUN [ \"$(stat -c '%a %u:%g' /tmp /var/www)\" = \"$(printf '1777 0:0\\n700 33:33')\" ] && echo more >> /lib/part
RUN rm /var/www/page && rm -r /seen
";

struct Entry {
    path: &'static str,
    kind: tar::EntryType,
    mode: u32,
    owner: u64,
    link: &'static str,
    content: Vec<u8>,
}

fn entry(path: &'static str, kind: tar::EntryType, mode: u32, owner: u64) -> Entry {
    Entry { path, kind, mode, owner, link: "", content: Vec::new() }
}

fn folder(path: &'static str, mode: u32, owner: u64) -> Entry {
    entry(path, tar::EntryType::Directory, mode, owner)
}

fn link(path: &'static str, link: &'static str) -> Entry {
    Entry { link, ..entry(path, tar::EntryType::Symlink, 0o777, 0) }
}

fn file(path: &'static str, mode: u32, owner: u64, content: &[u8]) -> Entry {
    Entry { content: content.to_vec(), ..entry(path, tar::EntryType::Regular, mode, owner) }
}

fn layer(entries: Vec<Entry>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner);
        header.set_gid(entry.owner);
        header.set_mtime(1_000_000_000);
        header.set_size(entry.content.len() as u64);
        match entry.link {
            "" => archive.append_data(&mut header, entry.path, &entry.content[..]).unwrap(),
            link => archive.append_link(&mut header, entry.path, link).unwrap(),
        }
    }
    archive.into_inner().unwrap()
}

/// Writes an image of these layers into a folder, as an OCI layout.
fn layout(folder: &Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |media_type: &str, content: &[u8]| {
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), content).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
    };
    let kind = |name: &str| format!("application/vnd.oci.image.{name}");
    let layers: Vec<_> = layers.iter().map(|layer| add(&kind("layer.v1.tar"), layer)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = add(&kind("config.v1+json"), config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind("manifest.v1+json"), "config": config, "layers": layers,
    });
    let manifest = add(&kind("manifest.v1+json"), manifest.to_string().as_bytes());
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
}

fn odd_layers() -> [Vec<u8>; 2] {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file()).unwrap();
    let mut lower = vec![folder("bin", 0o755, 0), file("bin/busybox", 0o755, 0, &fs::read(busybox).unwrap())];
    lower.extend(["bin/sh", "bin/test", "bin/cat", "bin/stat", "bin/rm", "bin/["].map(|path| link(path, "busybox")));
    lower.extend([
        folder("etc", 0o755, 0),
        link("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        link("lib", "usr/lib"),
        folder("tmp", 0o1777, 0),
        folder("usr", 0o755, 0),
        folder("usr/lib", 0o750, 0),
        folder("var", 0o755, 0),
        folder("var/www", 0o700, 33),
    ]);
    let upper = vec![
        file("lib/part", 0o644, 7, b"part"),
        file("tmp/file", 0o600, 5, b"x"),
        file("var/www/page", 0o640, 33, b"page"),
    ];
    [layer(lower), layer(upper)]
}

/// Type, mode and owner of all that is in the image that is built of it, by path.
fn built(name: &str) -> Option<BTreeMap<PathBuf, String>> {
    let ground = Plan::named(name).unwrap().enter("odd-layers", Network::Own)?;
    let at = ground.new_folder();
    layout(&at.folder("layout"), &odd_layers());
    fs::write(at.folder("context").join("Dockerfile"), DOCKERFILE).unwrap();
    ground.give(at.path());
    let (store, tar) = (ground.store("odd-layers"), at.join("out.tar"));
    let mut command = Command::new(ground.fluyt());
    command.args(["build", "--progress", "plain", "--build-context", "odd=oci-layout://layout", "-o"]);
    command.arg(format!("type=tar,dest={}", tar.display())).arg("context");
    command.current_dir(at.path()).env("FLUYT_STORE", &store).env("HOME", at.path()).env("NO_COLOR", "1");
    let _ = program::finish(ground.command(command)).expect_success();
    let mut archive = tar::Archive::new(fs::File::open(&tar).unwrap());
    let line = |entry: tar::Entry<'_, fs::File>| {
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        (entry.path().unwrap().into_owned(), format!("{:?} {mode:o} {uid}:{gid}{link}", header.entry_type()))
    };
    let found = archive.entries().unwrap().map(|entry| line(entry.unwrap())).collect();
    ground.remove(&store);
    Some(found)
}

#[test]
fn what_other_tools_leave_out_of_a_layer_is_taken_from_below_on_each_rung() {
    let Some(expected) = built("root") else { return };
    let line = |path: &str| expected.iter().find(|(at, _)| at.as_path() == Path::new(path)).map(|(_, line)| &**line);
    assert_eq!(line("lib"), Some("Symlink 777 0:0 -> usr/lib"));
    assert_eq!(line("usr/lib/part"), Some("Regular 644 7:7"));
    assert_eq!(line("etc/resolv.conf"), Some("Symlink 777 0:0 -> /run/systemd/resolve/stub-resolv.conf"));
    assert_eq!((line("run"), line("var/www/page"), line("seen")), (None, None, None), "{expected:?}");
    for name in ["user-subids", "user", "docker", "docker-user", "docker-drop-all"] {
        let Some(found) = built(name) else { continue };
        assert_eq!(found, expected, "{name}");
        println!("rung: odd layers on {name}: {} entries as root leaves them", found.len());
    }
}

/// What a script that does everything odd leaves as a layer, entry by entry.
const TRICKY: [(&str, &str); 2] =
    [("Dockerfile", include_str!("odd_layers/Dockerfile")), ("tricky.sh", include_str!("odd_layers/tricky.sh"))];

fn entries(name: &str) -> Option<String> {
    let ground = Plan::named(name).unwrap().enter("tricky-layer", Network::Own)?;
    let at = ground.new_folder();
    let context = at.folder("context");
    for (file, text) in TRICKY {
        fs::write(context.join(file), text).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let _ = fs::copy(busybox.unwrap(), context.join("busybox")).unwrap();
    ground.give(at.path());
    let (store, tar) = (ground.store("tricky-layer"), at.join("out.tar"));
    let mut command = Command::new(ground.fluyt());
    command.args(["build", "--progress", "plain", "-o", &format!("type=oci,dest={}", tar.display())]).arg("context");
    command.current_dir(at.path()).env("FLUYT_STORE", &store).env("HOME", at.path()).env("NO_COLOR", "1");
    let _ = program::finish(ground.command(command)).expect_success();
    ground.remove(&store);
    let image = Layout::unpack(&tar, &at.folder("image")).image(None);
    let layer = image.layers.last().unwrap().tar();
    let mut list = String::new();
    for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        // A time before 1970 stands in an extension alone.
        let extended = entry.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap);
        let extended = extended.filter(|one| one.key() == Ok("mtime")).find_map(|one| one.value().ok()?.parse().ok());
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => "folder",
            tar::EntryType::Symlink => "link",
            tar::EntryType::Link => "name",
            tar::EntryType::Fifo => "pipe",
            _ => "file",
        };
        let (mode, uid, gid) = (header.mode().unwrap() & 0o7777, header.uid().unwrap(), header.gid().unwrap());
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let link = entry.link_name_bytes().map(|link| format!(" -> {}", String::from_utf8_lossy(&link)));
        let time: i64 = extended.unwrap_or(header.mtime().unwrap().cast_signed());
        // Those of now differ.
        let time = (time < 100_000_000).then(|| format!(" at {time}"));
        let (link, time) = (link.unwrap_or_default(), time.unwrap_or_default());
        writeln!(list, "{kind} {mode:o} {uid}:{gid} {} {path}{link}{time}", entry.size()).unwrap();
    }
    Some(list)
}

/// `layer.txt` is what BuildKit wrote for the same files.
#[test]
fn a_layer_has_the_entries_that_buildkit_writes_on_each_rung() {
    for name in ["root", "user-subids", "user", "docker", "docker-user"] {
        if let Some(found) = entries(name) {
            assert_eq!(found, include_str!("odd_layers/layer.txt"), "{name}");
        }
    }
}
