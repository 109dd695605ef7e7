//! A base image's layers arrive together, and are unpacked and read meanwhile.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fluyt::blob::sha256;

use super::place::Place;
use super::server::{Reply, Server};

const BUSYBOX: &str = "/usr/bin/busybox";

/// How long the rest of a layer is held back for what was to be made of its start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file that stands early in the layer.
const FIRST: &str = "unpacked-first";

/// What the registry does with the one layer of its image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Gives half of it, and the rest when `FIRST` is unpacked.
    Halves,
    /// Gives half of it, and the rest when the layer above was asked for.
    BeforeAnother,
    /// Gives half of it, whatever part is asked for.
    NeverWhole,
    /// Gives as many bytes of another.
    Another,
    /// Gives it.
    Whole,
}

/// A tar of these files.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// 8 MB that cannot be shrunk.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(state.to_be_bytes()[0])
    };
    std::iter::from_fn(next).take(8 << 20).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn is_below(folder: &Path, name: &str) -> bool {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().any(|entry| {
        entry.file_name() == name || entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_below(&entry.path(), name)
    })
}

/// A registry of one image, which looks into the store of who pulls it; counts how often what it waited for came.
fn registry(layer: Layer, store: &Path) -> (Server, Arc<AtomicUsize>) {
    let arch = fluyt::pipeline::host_platform().architecture;
    let shell = fs::read(BUSYBOX).unwrap_or_default();
    let below = tar(&[("busybox", shell), (FIRST, b"first".to_vec()), ("noise", noise()), ("last", vec![1])]);
    let above = tar(&[("above", vec![2])]);
    let (blob, blob_above) = (gzip(&below), gzip(&above));
    let (digest, size, digest_above) = (sha256(&blob), blob.len(), sha256(&blob_above));
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}},"history":[]}}"#,
        sha256(&below),
        sha256(&above)
    );
    let descriptor = |digest: &dyn std::fmt::Display, size: usize| {
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{},{}]}}"#,
        sha256(config.as_bytes()),
        config.len(),
        descriptor(&digest, size),
        descriptor(&digest_above, blob_above.len())
    );
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, store, asked_above) = (Arc::clone(&seen), store.to_owned(), AtomicBool::new(false));
    let server = Server::start(move |asked| {
        if asked.target.contains("/manifests/") {
            return Reply::new(200, manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        }
        if asked.target.ends_with(&digest_above.to_string()) {
            asked_above.store(true, Ordering::Relaxed);
            return Reply::new(200, blob_above.clone());
        }
        if !asked.target.ends_with(&digest.to_string()) {
            return Reply::new(200, config.clone());
        }
        let begin: usize = asked
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
            .unwrap_or(0);
        let mut reply = match begin {
            0 => Reply::new(200, blob.clone()),
            _ => Reply::new(206, &blob[begin..]).header("Content-Range", &format!("bytes {begin}-{}/{size}", size - 1)),
        };
        match layer {
            Layer::Halves | Layer::BeforeAnother if begin == 0 => reply.cut_after = Some(size / 2),
            Layer::Halves | Layer::BeforeAnother => {
                let has_come = || match layer {
                    Layer::Halves => is_below(&store, FIRST),
                    _ => asked_above.load(Ordering::Relaxed),
                };
                let asked_at = Instant::now();
                while !has_come() && asked_at.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(20));
                }
                count.fetch_add(usize::from(has_come()), Ordering::Relaxed);
            }
            Layer::NeverWhole => reply.cut_after = Some((size / 2).saturating_sub(begin)),
            Layer::Another => reply.body[size / 2] ^= 1,
            Layer::Whole => {}
        }
        reply
    });
    (server, seen)
}

/// A place whose Dockerfile does this on top of the image.
fn place(layer: Layer, steps: &str) -> (Place, Server, Arc<AtomicUsize>) {
    let place = Place::new();
    let (server, seen) = registry(layer, &place.path("store"));
    place.write("context/Dockerfile", format!("FROM {}/base\n{steps}", server.address));
    (place, server, seen)
}

const RUN: &str = "RUN [\"/busybox\", \"cp\", \"/last\", \"/copy\"]\n";
const COPY: &str = "COPY Dockerfile /folder/\n";

fn can_run() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new(BUSYBOX).exists();
    if !can {
        println!("skipped: this test needs root and {BUSYBOX}");
    }
    can
}

#[test]
fn a_layer_is_unpacked_before_its_last_byte_is_here() {
    // The copy looks into the image before the command runs on it, and the first to read a layer unpacks it.
    for steps in [RUN.to_owned(), format!("{COPY}{RUN}")] {
        if !can_run() {
            return;
        }
        let (place, _server, seen) = place(Layer::Halves, &steps);
        let built = place.build(&["context"]);
        assert_eq!(seen.load(Ordering::Relaxed), 1, "{}", built.said);
        assert!(built.files.iter().any(|line| line.contains(" /copy")), "{:?}", built.files);
    }
}

#[test]
fn the_layers_that_a_copy_looks_into_arrive_together_and_are_not_unpacked() {
    let (place, _server, seen) = place(Layer::BeforeAnother, COPY);
    let built = place.build(&["context"]);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "{}", built.said);
    assert!(built.files.iter().any(|line| line.contains(" /folder/Dockerfile")), "{:?}", built.files);
    assert!(!is_below(&place.path("store"), FIRST), "{}", built.said);
}

#[test]
fn the_layers_that_an_archive_is_made_of_arrive_together() {
    let (place, _server, seen) = place(Layer::BeforeAnother, "LABEL a=b\n");
    let output = place.run(&["-o", "type=oci,dest=image.tar", "context"], None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(seen.load(Ordering::Relaxed), 1, "{said}");
}

#[test]
fn what_is_told_of_a_layer_that_does_not_arrive_is_why_and_nothing_of_its_start_stays() {
    let cases = [(Layer::NeverWhole, "broke at"), (Layer::Another, "sends other content")];
    for ((layer, words), steps) in cases.iter().flat_map(|case| [(case, RUN), (case, COPY)]) {
        if steps == RUN && !can_run() {
            continue;
        }
        let (place, _server, _) = place(*layer, steps);
        let said = place.fail(3, &["--retry", "2", "context"], None);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("unpacking layer") && !said.contains("did not arrive whole"), "{said}");
        assert!(!is_below(&place.path("store"), FIRST), "{said}");
    }
}

#[test]
fn a_wrong_layer_of_a_mirror_is_fetched_from_the_registry() {
    // Read while it arrives, by a command or a copy, and not read at all.
    for (steps, output) in
        [(RUN, "type=tar,dest=image.tar"), (COPY, "type=tar,dest=image.tar"), ("", "type=oci,dest=image.tar")]
    {
        if steps == RUN && !can_run() {
            continue;
        }
        let (place, origin, _) = place(Layer::Whole, steps);
        let (mirror, _) = registry(Layer::Another, &place.path("store"));
        let mirrors = format!("{}={}", origin.address, mirror.url(""));
        let output = place.run(&["--registry-mirror", &mirrors, "-o", output, "context"], None);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let warning =
            format!("it is fetched from elsewhere: registry `{}` sends other content for blob ", mirror.address);
        assert_eq!(said.matches(&warning).count(), 1, "{said}");
        assert!(origin.asked().iter().any(|asked| asked.target.contains("/blobs/")), "{said}");
    }
}
