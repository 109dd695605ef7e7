//! A base image's layer is unpacked while it arrives.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Gives half of it, whatever part is asked for.
    NeverWhole,
    /// Gives as many bytes of another.
    Another,
}

/// A layer with a shell, a file and 8 MB that cannot be shrunk.
fn tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut noise = Vec::with_capacity(8 << 20);
    let mut state = 1_u64;
    while noise.len() < 8 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.push(state.to_be_bytes()[0]);
    }
    for (path, content) in
        [("busybox", fs::read(BUSYBOX).unwrap()), (FIRST, b"first".to_vec()), ("noise", noise), ("last", vec![1])]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn is_below(folder: &Path, name: &str) -> bool {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().any(|entry| {
        entry.file_name() == name || entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_below(&entry.path(), name)
    })
}

/// A registry of one image, which looks into the store of who pulls it; counts how often the start was seen unpacked there.
fn registry(layer: Layer, store: &Path) -> (Server, Arc<AtomicUsize>) {
    let arch = fluyt::pipeline::host_platform().architecture;
    let tar = tar();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    let blob = encoder.finish().unwrap();
    let (digest, size) = (sha256(&blob), blob.len());
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}}"#,
        sha256(&tar)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":{size}}}]}}"#,
        sha256(config.as_bytes()),
        config.len()
    );
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, store) = (Arc::clone(&seen), store.to_owned());
    let server = Server::start(move |asked| {
        if asked.target.contains("/manifests/") {
            return Reply::new(200, manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
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
            Layer::Halves if begin == 0 => reply.cut_after = Some(size / 2),
            Layer::Halves => {
                let asked_at = Instant::now();
                while !is_below(&store, FIRST) && asked_at.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(20));
                }
                count.fetch_add(usize::from(is_below(&store, FIRST)), Ordering::Relaxed);
            }
            Layer::NeverWhole => reply.cut_after = Some((size / 2).saturating_sub(begin)),
            Layer::Another => reply.body[size / 2] ^= 1,
        }
        reply
    });
    (server, seen)
}

/// A place whose Dockerfile runs a command of the image; nothing, said aloud, where that is not possible.
fn place(layer: Layer) -> Option<(Place, Server, Arc<AtomicUsize>)> {
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        println!("skipped: this test needs root and {BUSYBOX}");
        return None;
    }
    let place = Place::new();
    let (server, seen) = registry(layer, &place.path("store"));
    let name = server.address;
    place.write("context/Dockerfile", format!("FROM {name}/base\nRUN [\"/busybox\", \"cp\", \"/last\", \"/copy\"]\n"));
    Some((place, server, seen))
}

#[test]
fn a_layer_is_unpacked_before_its_last_byte_is_here() {
    let Some((place, _server, seen)) = place(Layer::Halves) else { return };
    let built = place.build(&["context"]);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "{}", built.said);
    assert!(built.files.iter().any(|line| line.contains(" /copy")), "{:?}", built.files);
}

#[test]
fn what_is_told_of_a_layer_that_does_not_arrive_is_why_and_nothing_of_its_start_stays() {
    for (layer, words) in [(Layer::NeverWhole, "broke at"), (Layer::Another, "sends other content")] {
        let Some((place, _server, _)) = place(layer) else { return };
        let said = place.fail(3, &["context"], None);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("unpacking layer") && !said.contains("did not arrive whole"), "{said}");
        assert!(!is_below(&place.path("store"), FIRST), "{said}");
    }
}
