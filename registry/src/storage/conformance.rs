//! What every port has to do for the registry, run on each of them: memory and the folder.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Folder, Memory, Port};

fn path(key: &str) -> Path {
    Path::parse(key).unwrap()
}

async fn put(port: &impl Port, key: &str, content: impl Into<PutPayload>) {
    port.put(&path(key), content.into()).await.unwrap();
}

async fn read(port: &impl Port, key: &str, range: Option<GetRange>) -> object_store::Result<Bytes> {
    let options = GetOptions { range, ..Default::default() };
    port.get_opts(&path(key), options).await?.bytes().await
}

async fn page(port: &impl Port, prefix: &str, after: Option<&str>, max: usize) -> (Vec<String>, bool) {
    let options = PaginatedListOptions { offset: after.map(str::to_owned), max_keys: Some(max), ..Default::default() };
    let page = port.list_paginated(Some(prefix), options).await.unwrap();
    let keys = page.result.objects.into_iter().map(|object| object.location.to_string()).collect();
    (keys, page.page_token.is_some())
}

fn is_absent<T: std::fmt::Debug>(result: object_store::Result<T>) -> bool {
    matches!(result, Err(object_store::Error::NotFound { .. }))
}

async fn objects_come_back_as_written(port: &impl Port) {
    put(port, "a/b", PutPayload::from_iter([Bytes::from("hel"), Bytes::new(), Bytes::from("lo")])).await;
    put(port, "empty", "").await;
    assert_eq!(read(port, "a/b", None).await.unwrap(), "hello");
    assert_eq!(read(port, "empty", None).await.unwrap(), "");
    assert_eq!(port.head(&path("a/b")).await.unwrap().size, 5);
    for absent in ["a", "a/b/c", "a/c", "b"] {
        assert!(is_absent(port.head(&path(absent)).await), "{absent}");
        assert!(is_absent(read(port, absent, None).await), "{absent}");
    }
}

async fn parts_come_back(port: &impl Port) {
    let content: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
    put(port, "large", content.clone()).await;
    assert_eq!(read(port, "large", None).await.unwrap(), content);
    for (range, expected) in [
        (GetRange::Bounded(5..10), 5..10),
        (GetRange::Bounded(70_000..599_999), 70_000..599_999),
        (GetRange::Bounded(599_999..700_000), 599_999..600_000),
        (GetRange::Offset(599_000), 599_000..600_000),
        (GetRange::Suffix(3), 599_997..600_000),
    ] {
        assert_eq!(read(port, "large", Some(range)).await.unwrap(), content[expected]);
    }
    assert!(read(port, "large", Some(GetRange::Bounded(600_000..600_001))).await.is_err());
}

async fn names_that_differ_by_case_or_by_a_slash_stay_apart(port: &impl Port) {
    let keys = ["a", "A", "a/b", "a/B", "a-b", "a!", "a.b/c", "a/b/c", "AB/c", "aB/c"];
    for key in keys {
        put(port, key, key.to_owned()).await;
    }
    for key in keys {
        assert_eq!(read(port, key, None).await.unwrap(), key);
    }
    port.delete(&path("a/b")).await.unwrap();
    assert!(is_absent(read(port, "a/b", None).await));
    assert_eq!(read(port, "a/B", None).await.unwrap(), "a/B");
    assert_eq!(read(port, "a/b/c", None).await.unwrap(), "a/b/c");
}

async fn lists_are_sorted_and_take_a_raw_prefix(port: &impl Port) {
    let mut keys = ["l/a!", "l/a", "l/a/b!", "l/a-b!", "l/a0", "l/ab/c", "l/b/d/e", "l/Z", "l/a/b/c", "l/b", "lx", "k"];
    for key in keys {
        put(port, key, "x").await;
    }
    keys.sort();
    let below: Vec<&str> = keys.into_iter().filter(|key| key.starts_with("l/")).collect();
    assert_eq!(page(port, "l/", None, 100).await, (below.iter().map(|key| (*key).to_owned()).collect(), false));
    assert_eq!(page(port, "l/a", None, 100).await.0, ["l/a", "l/a!", "l/a-b!", "l/a/b!", "l/a/b/c", "l/a0", "l/ab/c"]);
    assert_eq!(page(port, "l/a/", None, 100).await.0, ["l/a/b!", "l/a/b/c"]);
    assert_eq!(page(port, "l/a/b", None, 100).await.0, ["l/a/b!", "l/a/b/c"]);
    assert_eq!(page(port, "l/nothing", None, 100).await, (vec![], false));
    assert_eq!(page(port, "nothing/at/all", None, 100).await, (vec![], false));
    // Pages, from every key and from keys that are not there.
    for after in below.iter().copied().chain(["l/a/", "l/a/b", "l/aa", "l/", "l/zzz", "a", "m"]) {
        let (found, more) = page(port, "l/", Some(after), 3).await;
        let expected: Vec<&str> = below.iter().copied().filter(|key| *key > after).collect();
        assert_eq!(found, expected[..expected.len().min(3)], "after {after}");
        assert_eq!(more, expected.len() > 3, "after {after}");
    }
    let mut all: Vec<String> =
        port.list(Some(&path("l"))).map_ok(|o| o.location.to_string()).try_collect().await.unwrap();
    all.sort();
    assert_eq!(all, below);
}

async fn deletes_are_seen_and_repeat(port: &impl Port) {
    for key in ["x/y/1", "x/y/2", "x/z"] {
        put(port, key, "x").await;
    }
    let keys = ["x/y/1", "x/y/2", "never/there"].map(|key| Ok(path(key)));
    let results: Vec<_> = port.delete_stream(stream::iter(keys).boxed()).collect().await;
    assert!(results.iter().all(|result| result.is_ok() || is_absent(result.as_ref().map_err(again))), "{results:?}");
    assert_eq!(page(port, "x/", None, 10).await.0, ["x/z"]);
    put(port, "x/y/1", "again").await;
    assert_eq!(read(port, "x/y/1", None).await.unwrap(), "again");
}

fn again(error: &object_store::Error) -> object_store::Error {
    object_store::Error::NotFound { path: error.to_string(), source: error.to_string().into() }
}

async fn creating_does_not_replace(port: &impl Port) {
    let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
    port.put_opts(&path("once"), "1".into(), create()).await.unwrap();
    let second = port.put_opts(&path("once"), "2".into(), create()).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(read(port, "once", None).await.unwrap(), "1");
}

async fn uploads_in_parts(port: &impl Port) {
    let key = path("data/ab/multi");
    let id = port.create_multipart(&key).await.unwrap();
    let mut parts = Vec::new();
    for (index, part) in ["one ", "two ", "three"].into_iter().enumerate() {
        parts.push(port.put_part(&key, &id, index, part.into()).await.unwrap());
        assert!(is_absent(port.head(&key).await));
    }
    port.complete_multipart(&key, &id, parts.clone()).await.unwrap();
    assert_eq!(read(port, "data/ab/multi", None).await.unwrap(), "one two three");
    assert!(port.complete_multipart(&key, &id, parts).await.is_err());
    // Out of order.
    let id = port.create_multipart(&key).await.unwrap();
    let last = port.put_part(&key, &id, 1, "world".into()).await.unwrap();
    let first = port.put_part(&key, &id, 0, "hello ".into()).await.unwrap();
    port.complete_multipart(&key, &id, vec![first, last]).await.unwrap();
    assert_eq!(read(port, "data/ab/multi", None).await.unwrap(), "hello world");
    // Given up.
    let key = path("data/ab/never");
    let id = port.create_multipart(&key).await.unwrap();
    let part = port.put_part(&key, &id, 0, "x".into()).await.unwrap();
    port.abort_multipart(&key, &id).await.unwrap();
    assert!(port.complete_multipart(&key, &id, vec![part]).await.is_err());
    assert!(is_absent(port.head(&key).await));
}

async fn all(port: impl Port) {
    objects_come_back_as_written(&port).await;
    parts_come_back(&port).await;
    names_that_differ_by_case_or_by_a_slash_stay_apart(&port).await;
    lists_are_sorted_and_take_a_raw_prefix(&port).await;
    deletes_are_seen_and_repeat(&port).await;
    creating_does_not_replace(&port).await;
    uploads_in_parts(&port).await;
}

#[tokio::test]
async fn memory_conforms() {
    all(Memory::default()).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    all(Folder::open(folder.path(), true).unwrap()).await;
}

#[tokio::test]
async fn a_folder_without_syncing_conforms() {
    let folder = tempfile::tempdir().unwrap();
    all(Folder::open(folder.path(), false).unwrap()).await;
}

mod folder {
    use object_store::multipart::MultipartStore;

    use super::*;
    use crate::storage::FolderError;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path(), true).unwrap();
        let error = Folder::open(folder.path(), true).unwrap_err();
        assert!(matches!(&error, FolderError::InUse { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
        drop(first);
        Folder::open(folder.path(), true).unwrap();
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lost+found")).unwrap();
        std::fs::write(folder.path().join(".gitkeep"), "").unwrap();
        std::fs::write(folder.path().join("photos.tar"), "").unwrap();
        let error = Folder::open(folder.path(), true).unwrap_err();
        assert!(matches!(&error, FolderError::Foreign { found, .. } if found == "photos.tar"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        std::fs::remove_file(folder.path().join("photos.tar")).unwrap();
        Folder::open(folder.path(), true).unwrap();
    }

    #[tokio::test]
    async fn whoever_only_reads_needs_no_lock_and_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Folder::open_read_only(folder.path()), Err(FolderError::NoStore { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let held = Folder::open(folder.path(), true).unwrap();
        put(&held, "store.json.1.a", "{}").await;
        let reader = Folder::open_read_only(folder.path()).unwrap();
        put(&held, "a/b", "later").await;
        assert_eq!(read(&reader, "a/b", None).await.unwrap(), "later");
        assert_eq!(page(&reader, "a/", None, 10).await.0, ["a/b"]);
        let refused = |result: object_store::Result<()>| {
            assert!(matches!(result, Err(object_store::Error::PermissionDenied { .. })), "{result:?}");
        };
        refused(reader.put(&path("x"), "x".into()).await.map(drop));
        refused(reader.delete(&path("a/b")).await);
        refused(reader.create_multipart(&path("x")).await.map(drop));
        let id = held.create_multipart(&path("x")).await.unwrap();
        refused(reader.put_part(&path("x"), &id, 0, "x".into()).await.map(drop));
        refused(reader.complete_multipart(&path("x"), &id, vec![]).await.map(drop));
        refused(reader.abort_multipart(&path("x"), &id).await);
        assert_eq!(page(&held, "", None, 10).await.0, ["a/b", "store.json.1.a"]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_which() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(&file.path().join("below"), true).unwrap_err().to_string();
        assert!(error.contains("below"), "{error}");
    }

    #[tokio::test]
    async fn what_a_crash_leaves_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let port = Folder::open(folder.path(), true).unwrap();
        put(&port, "a/b", "x").await;
        for name in ["@new-1-2", "c", "d@zz@", "ä@"] {
            std::fs::write(folder.path().join("a").join(name), "half").unwrap();
        }
        assert_eq!(page(&port, "", None, 10).await.0, ["a/b"]);
    }

    #[tokio::test]
    async fn folders_that_become_empty_go_while_others_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let port = Folder::open(folder.path(), false).unwrap();
        let work = (0..8).map(|task| {
            let port = port.clone();
            tokio::spawn(async move {
                for round in 0..50 {
                    let key = format!("deep/er/{}/x{task}", round % 3);
                    put(&port, &key, "x").await;
                    assert_eq!(read(&port, &key, None).await.unwrap(), "x");
                    port.delete(&path(&key)).await.unwrap();
                }
            })
        });
        for task in work.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(!folder.path().join("deep").exists());
    }

    /// What a process that has the lock says, and what one that reads the disk says.
    async fn both_see(port: &Folder, prefix: &str) -> Vec<String> {
        let told = page(port, prefix, None, 10_000).await.0;
        let reader = Folder::open_read_only(port.root()).unwrap();
        assert_eq!(told, page(&reader, prefix, None, 10_000).await.0, "below `{prefix}`");
        for key in &told {
            let (one, other) = (port.head(&path(key)).await.unwrap(), reader.head(&path(key)).await.unwrap());
            assert_eq!(one, other);
        }
        told
    }

    #[tokio::test]
    async fn a_list_is_answered_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        {
            let port = Folder::open(folder.path(), true).unwrap();
            for key in ["store.json.1.a", "a/b/1", "a/b/2", "a/c"] {
                put(&port, key, "x").await;
            }
        }
        let port = Folder::open(folder.path(), true).unwrap();
        assert_eq!(page(&port, "a/b/", None, 10).await.0, ["a/b/1", "a/b/2"]);
        assert_eq!(page(&port, "a/nothing/", None, 10).await.0, [""; 0]);
        // What lies on the disk now is not looked at any more.
        std::fs::write(folder.path().join("a/b/3@"), "").unwrap();
        std::fs::remove_file(folder.path().join("a/b/1@")).unwrap();
        assert_eq!(page(&port, "a/b/", None, 10).await.0, ["a/b/1", "a/b/2"]);
        assert_eq!(port.head(&path("a/b/1")).await.unwrap().size, 1);
        assert!(is_absent(port.head(&path("a/b/3")).await));
        // What this process does is seen, also in folders that were not there.
        put(&port, "a/nothing/at/all", "xy").await;
        assert_eq!(page(&port, "a/nothing/", None, 10).await.0, ["a/nothing/at/all"]);
        port.delete(&path("a/b/2")).await.unwrap();
        assert_eq!(page(&port, "a/b/", None, 10).await.0, ["a/b/1"]);
        // Another registry may still write to its own part of an adopted folder.
        assert_eq!(page(&port, "docker/", None, 10).await.0, [""; 0]);
        std::fs::create_dir_all(folder.path().join("docker/x")).unwrap();
        std::fs::write(folder.path().join("docker/x/y@"), "").unwrap();
        assert_eq!(page(&port, "docker/", None, 10).await.0, ["docker/x/y"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_in_memory_is_what_is_on_the_disk() {
        for sync in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let port = Folder::open(folder.path(), sync).unwrap();
            put(&port, "store.json.1.a", "{}").await;
            let rounds = if sync { 60 } else { 400 };
            let work = (0..8u32).map(|task| {
                let port = port.clone();
                tokio::spawn(async move {
                    let mut state = task.wrapping_mul(0x9e37_79b9) | 1;
                    for _ in 0..rounds {
                        state ^= state << 13;
                        state ^= state >> 17;
                        state ^= state << 5;
                        let key = format!("r/{}/{}", state % 3, (state >> 8) % 7);
                        match (state >> 16) % 4 {
                            0 => port.delete(&path(&key)).await.unwrap(),
                            1 => drop(page(&port, &format!("r/{}/", state % 3), None, 100).await),
                            2 => drop(page(&port, "r/", None, 100).await),
                            _ => put(&port, &key, vec![0u8; (state % 90) as usize]).await,
                        }
                    }
                })
            });
            for task in work.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            both_see(&port, "r/").await;
            both_see(&port, "").await;
        }
    }

    #[tokio::test]
    async fn keys_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let port = Folder::open(folder.path(), true).unwrap();
        for key in ["a@b", "a b", "ä"] {
            assert!(port.put(&path(key), "x".into()).await.is_err(), "{key}");
        }
        assert!(port.put_part(&path("a"), &"../../x".to_owned(), 0, "x".into()).await.is_err());
    }
}
