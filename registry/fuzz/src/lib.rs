//! What the fuzzer feeds: each function takes any bytes, and holds what must be true of whatever was made of them.
//!
//! The seeds in `seeds/` are replayed by the registry's own tests (`fuzz_seeds`); one that found a bug stays there.

use std::sync::LazyLock;

use fluyt_registry::service::Ticket;
use fluyt_registry::spec::{ChunkRange, Endpoint, Manifest, ReadRange, UploadId};
use fluyt_registry::storage::{Memory, SessionName, Storage};
use object_store::ObjectStoreExt;
use object_store::path::Path;

/// The path of a request, percent-encoded as it came.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(endpoint) = Endpoint::parse(text) {
        let written = endpoint.to_string();
        assert_eq!(Endpoint::parse(&written), Ok(endpoint), "`{text}` was read, and then written as `{written}`");
    }
}

/// A header line that asks for a part or places a chunk; the blob's size stands before it.
pub fn range(bytes: &[u8]) {
    let (size, header) = bytes.split_at(bytes.len().min(8));
    let size_bytes = size.iter().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    let Ok(header) = std::str::from_utf8(header) else { return };
    if let Some(part) = ReadRange::parse(header).and_then(|range| range.within(size_bytes)) {
        assert!(part.start < part.end && part.end <= size_bytes, "`{header}` of {size_bytes} bytes is {part:?}");
    }
    if let Some(chunk) = ChunkRange::parse(header) {
        assert!(chunk.size_bytes > 0, "`{header}` is a chunk of nothing");
        assert!(chunk.start.checked_add(chunk.size_bytes - 1).is_some(), "`{header}` ends beyond all numbers");
    }
}

/// A manifest's body; the first line is its Content-Type.
pub fn manifest(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, body) = bytes.split_at(at);
    let header = std::str::from_utf8(header).ok().filter(|header| !header.is_empty());
    let Ok(manifest) = Manifest::parse(body, header) else { return };
    assert!(!manifest.media_type.contains(';'), "the stored type has parameters: {}", manifest.media_type);
    // What was accepted is read again from the store, by the type that it got.
    let again = Manifest::parse(body, Some(&manifest.media_type));
    assert_eq!(again.as_ref(), Ok(&manifest));
    for layer in &manifest.layers {
        assert!(manifest.blobs.contains(layer), "{layer} is a layer and no blob");
    }
}

/// The state of an upload: in its Location (whose seal holds strangers off) and as an object of the store.
pub fn session(bytes: &[u8]) {
    static STORE: LazyLock<(Memory, Storage, tokio::runtime::Runtime)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let memory = Memory::default();
        let storage = runtime.block_on(Storage::open(memory.clone(), [7; 32])).expect("a store in memory");
        (memory, storage, runtime)
    });
    let id = UploadId::from_bits(1);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(ticket) = Ticket::parse(text, &id)
    {
        assert_eq!(*ticket.id(), id);
    }
    let (memory, storage, runtime) = &*STORE;
    let name = SessionName { seq: 1, nonce: "0123456789abcdef01234567".parse().expect("a nonce") };
    let key = Path::from(format!("uploads/{id}/00000001.{}", name.nonce));
    runtime.block_on(async {
        memory.put(&key, bytes::Bytes::copy_from_slice(bytes).into()).await.expect("memory takes it");
        // Read or not taken up: never an error, since no store failed.
        let session = storage.read_session(&id, &name).await.expect("memory gives it back");
        drop(session);
    });
}
