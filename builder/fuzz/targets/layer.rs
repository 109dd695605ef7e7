//! Any bytes are read as a layer, and what is read is shown as a tree: an error may come back, a panic may not. What is read
//! can be kept as an index, and read back from it.
#![no_main]

use fluyt::layer::{LayerIndex, Limits, Tree, index_layer};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    entries: 200,
    uncompressed_bytes: 1 << 20,
    path_bytes: 1 << 10,
    extension_bytes: 1 << 16,
    stops_at_top: false,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = index_layer(bytes, "", &LIMITS);
    // No fuzzer guesses checksums: set right, they let it behind the headers.
    let mut bytes = bytes.to_vec();
    bytes.chunks_exact_mut(512).for_each(set_checksum);
    let Ok((_, index)) = index_layer(&bytes[..], "", &LIMITS) else { return };
    let again = LayerIndex::from_json(&index.to_json());
    assert_eq!(again, Ok(Some(index.clone())), "an index reads back as it was written");
    let mut tree = Tree::new();
    tree.push(&index, 0);
    tree.push(&index, 1);
    for (path, _) in tree.iter() {
        assert!(path.components().all(|component| component != b"..".as_slice()), "{path} leaves the root");
        let parent = path.parent().expect("the root is no node");
        assert!(parent.is_root() || tree.get(&parent).is_some(), "{path} stands in no folder");
        let _ = tree.resolve(path, true);
    }
});

fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    // A block of zeros is the end of a tar, and stays one.
    if sum == 8 * u32::from(b' ') {
        return block[148..156].fill(0);
    }
    block[148..155].copy_from_slice(format!("{sum:07o}").as_bytes());
}
