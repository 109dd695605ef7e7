//! What every port has to do for the registry, run on each of them: memory, the folder, and (`on_stores`) SeaweedFS,
//! fake-gcs-server and azurite through the drivers of `cloud`.
//!
//! What the registry relies on, and is held here: whatever was written, completed or deleted shows in the next read, head
//! and list; lists are in the order of bytes, take a raw prefix, and go on after any key, there or not; ranges; parts of an
//! upload from any client, in any order, by its id; a part's tag that is no longer the last one's is refused; an absent
//! object's deletion is no error; writers of different keys do not disturb each other.

use super::{Folder, Memory};

#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/on_stores.rs"]
mod on_stores;
#[path = "conformance/suite.rs"]
mod suite;
#[path = "conformance/syncs.rs"]
mod syncs;

use suite::{all, is_absent, page, path, put, read};

#[tokio::test]
async fn memory_conforms() {
    let memory = Memory::default();
    all(&memory, &memory).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::open(folder.path(), true).unwrap();
    all(&folder, &folder).await;
}

#[tokio::test]
async fn a_folder_without_syncing_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::open(folder.path(), false).unwrap();
    all(&folder, &folder).await;
}

mod folder {
    use crate::storage::Port;
    use object_store::ObjectStoreExt;
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

    #[tokio::test]
    async fn whoever_only_reads_reads_a_large_folder_once_for_a_list() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path(), false).unwrap();
        put(&held, "store.json.1.a", "{}").await;
        let all: Vec<String> = (10_000..11_500).map(|number| format!("a/{number}/x")).collect();
        for key in &all {
            put(&held, key, "").await;
        }
        let reader = Folder::open_read_only(folder.path()).unwrap();
        let (first, more) = page(&reader, "a/", None, 100).await;
        assert!(more);
        // Were the folder read for the next page, this would be in it.
        put(&held, "a/10200-/x", "").await;
        assert_eq!(page(&reader, "a/", first.last().map(String::as_str), 2000).await.0, all[100..]);
        // A list of its own begins with what is there now, as does one by which it went on from here.
        assert_eq!(page(&reader, "a/", None, 2000).await.0.len(), all.len() + 1);
        assert_eq!(page(&reader, "a/", first.last().map(String::as_str), 2000).await.0.len(), all.len() - 99);
    }

    #[tokio::test]
    async fn a_copy_of_a_store_without_its_empty_folders_has_no_unfinished_uploads() {
        let folder = tempfile::tempdir().unwrap();
        put(&Folder::open(folder.path(), true).unwrap(), "store.json.1.a", "{}").await;
        std::fs::remove_dir(folder.path().join("@parts")).unwrap();
        let reader = Folder::open_read_only(folder.path()).unwrap();
        assert_eq!(reader.unfinished_multiparts("", None).await.unwrap().unwrap().len(), 0);
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
