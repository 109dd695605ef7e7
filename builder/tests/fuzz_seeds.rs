//! The fuzzer's seeds without a fuzzer: what it once found stays found.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "a crate of its own for the fuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

fn contents(files: impl Iterator<Item = PathBuf>) -> Vec<Vec<u8>> {
    let contents: Vec<_> = files.map(|file| fs::read(file).unwrap()).collect();
    assert!(!contents.is_empty(), "there are no seeds");
    contents
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    contents(fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()))
}

fn texts(seeds: Vec<Vec<u8>>) -> impl Iterator<Item = String> {
    seeds.into_iter().filter_map(|seed| String::from_utf8(seed).ok())
}

#[test]
fn seeds_of_every_target() {
    texts(seeds("expand")).for_each(|text| targets::expand(&text));
    texts(seeds("ignore")).for_each(|text| targets::ignore(&text));
    seeds("layer").iter().for_each(|bytes| targets::layer(bytes));
}

/// The Dockerfiles of the build corpus, with which the fuzzer begins.
#[test]
fn every_dockerfile_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec-tests/dockerfiles");
    let cases = fs::read_dir(corpus).unwrap().map(|case| case.unwrap().path().join("Dockerfile"));
    texts(contents(cases.filter(|file| file.exists()))).for_each(|text| targets::dockerfile(&text));
}
