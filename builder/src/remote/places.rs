//! Where layers are, as far as pushes and pulls of this store told: a push to another repository of the same registry
//! mounts them from there. All of it is a guess; a repository may be gone, or not readable by who pushes now.

use std::path::PathBuf;

use fluyt_client::{Blob, Reference};
use oci_spec::image::Digest;

use crate::blob::Store;

/// How many repositories are kept of each layer, the latest first.
const KEPT: usize = 8;
/// What is smaller is sent as quickly as it is mounted.
const LEAST_BYTES: u64 = 16 * 1024;

fn place(digest: &Digest) -> PathBuf {
    PathBuf::from("indexes").join(format!("places-{}", digest.digest()))
}

/// A line each: the host, a space, the repository.
fn lines(store: &Store, digest: &Digest) -> Vec<String> {
    let read = store.read_entry(&place(digest)).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&read).lines().map(str::to_owned).collect()
}

/// Notes that the repository of `reference` has a blob.
pub(super) fn remember(store: &Store, blob: &Blob, reference: &Reference) {
    if blob.size_bytes < LEAST_BYTES {
        return;
    }
    let line = format!("{} {}", reference.host(), reference.repository());
    let before = lines(store, &blob.digest);
    if before.first() == Some(&line) {
        return;
    }
    let others = before.into_iter().filter(|other| *other != line).take(KEPT - 1);
    let text: String = std::iter::once(line.clone()).chain(others).map(|line| line + "\n").collect();
    if let Err(error) = store.write_hint(&place(&blob.digest), text.as_bytes()) {
        tracing::debug!(%error, "where a layer is was not noted");
    }
}

/// The repository of the same registry that had a blob last, besides the target's own.
pub(super) fn other_repository(store: &Store, digest: &Digest, target: &Reference) -> Option<String> {
    let host = format!("{} ", target.host());
    let lines = lines(store, digest);
    let mut there = lines.iter().filter_map(|line| line.strip_prefix(&host));
    there.find(|repository| *repository != target.repository()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::sha256;

    #[test]
    fn the_latest_other_repository_of_the_same_registry_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Blob { digest: sha256(b"layer"), size_bytes: LEAST_BYTES };
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        let found = |target: &str| other_repository(&store, &blob.digest, &reference(target));
        assert_eq!(found("one.example/app:1"), None);
        for text in ["one.example/base:1", "two.example/base:1", "one.example/team/app:1", "one.example/app:1"] {
            remember(&store, &blob, &reference(text));
        }
        assert_eq!(found("one.example/app:2").as_deref(), Some("team/app"));
        assert_eq!(found("one.example/new:2").as_deref(), Some("app"));
        assert_eq!(found("two.example/base:2"), None);
        for number in 0..20 {
            remember(&store, &blob, &reference(&format!("one.example/app{number}:1")));
        }
        assert_eq!(lines(&store, &blob.digest).len(), KEPT);
        remember(&store, &Blob { digest: sha256(b"{}"), size_bytes: 2 }, &reference("one.example/a:1"));
        assert!(lines(&store, &sha256(b"{}")).is_empty());
    }
}
