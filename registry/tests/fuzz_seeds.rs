//! The fuzzer's seeds without a fuzzer: what it once found stays found.

use std::fs;
use std::path::{Path, PathBuf};

use fluyt_registry::service::Ticket;
use fluyt_registry::spec::{ChunkRange, Endpoint, Manifest, ReadRange, UploadId};

#[expect(unreachable_pub, reason = "a crate of its own for the fuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn seeds_of_every_target() {
    for (target, run) in [
        ("path", targets::path as fn(&[u8])),
        ("range", targets::range),
        ("manifest", targets::manifest),
        ("session", targets::session),
    ] {
        let mut count = 0;
        for seed in fs::read_dir(seeds(target)).unwrap() {
            run(&fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 2, "{target} has no seeds");
    }
}

/// The seeds reach what they are for: a change of a form would leave the fuzzer at the door.
#[test]
fn the_good_seeds_are_read() {
    let text = |name: &str| fs::read_to_string(seeds(name)).unwrap();
    let header = |name: &str| String::from_utf8(fs::read(seeds(name)).unwrap().split_off(8)).unwrap();
    assert!(Endpoint::parse(&text("path/manifest")).is_ok());
    assert!(ReadRange::parse(&header("range/part")).is_some());
    assert!(ChunkRange::parse(&header("range/chunk")).is_some());
    let image = text("manifest/image");
    let (header, body) = image.split_once('\n').unwrap();
    assert!(Manifest::parse(body.as_bytes(), Some(header)).is_ok());
    assert!(Ticket::parse(&text("session/ticket"), &UploadId::from_bits(1)).is_some());
}
