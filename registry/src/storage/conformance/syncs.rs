//! A folder on a disk whose syncs take long, or fail.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use tokio::time::timeout;

use super::suite::{is_absent, page, path, put, read};
use crate::storage::{Folder, Port};

const SOON: Duration = Duration::from_millis(100);

async fn list(port: &Folder, prefix: &str) -> object_store::Result<usize> {
    let page = port.list_paginated(Some(prefix), PaginatedListOptions::default()).await?;
    Ok(page.result.objects.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_what_is_not_on_the_disk_yet() {
    let folder = tempfile::tempdir().unwrap();
    let port = Folder::open(folder.path(), true).unwrap();
    put(&port, "a/b/before", "x").await;
    // Until the sender goes.
    let (release, released) = mpsc::channel::<()>();
    let (released, waiting) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
    let seen = waiting.clone();
    port.with_faults(move |what| {
        if what == "a/" || what == "a/b/" {
            seen.fetch_add(1, Ordering::Relaxed);
            let _ = released.lock().unwrap().recv();
        }
        Ok(())
    });
    let writers = ["a/b/new", "a/c/new"].map(|key| {
        let port = port.clone();
        tokio::spawn(async move { put(&port, key, "x").await })
    });
    while waiting.load(Ordering::Relaxed) < 1 || !folder.path().join("a/c/new@").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for key in ["a/b/new", "a/c/new"] {
        assert!(timeout(SOON, port.head(&path(key))).await.is_err(), "{key}");
    }
    for prefix in ["a/b/", "a/b/n", "a/c/", "a/", ""] {
        assert!(timeout(SOON, list(&port, prefix)).await.is_err(), "`{prefix}`");
    }
    // What is there since before is not kept waiting.
    timeout(SOON, port.head(&path("a/b/before"))).await.unwrap().unwrap();
    assert_eq!(timeout(SOON, list(&port, "a/b/b")).await.unwrap().unwrap(), 1);
    drop(release);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(page(&port, "a/", None, 10).await.0, ["a/b/before", "a/b/new", "a/c/new"]);
}

#[tokio::test]
async fn what_could_not_be_synced_is_synced_before_anyone_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = Folder::open(folder.path(), true).unwrap();
    put(&port, "a/x", "x").await;
    let (fails, syncs) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (failing, counted) = (fails.clone(), syncs.clone());
    port.with_faults(move |what| {
        counted.fetch_add(1, Ordering::Relaxed);
        if what == "a/" && failing.load(Ordering::Relaxed) { Err(io::Error::other("EIO")) } else { Ok(()) }
    });
    for key in ["a/y", "a/new/folder/z"] {
        port.put(&path(key), "y".into()).await.unwrap_err();
        port.head(&path(key)).await.unwrap_err();
    }
    list(&port, "a/new/folder/").await.unwrap_err();
    list(&port, "a/").await.unwrap_err();
    // It can be read: nothing is acknowledged by that.
    assert_eq!(read(&port, "a/y", None).await.unwrap(), "y");
    fails.store(false, Ordering::Relaxed);
    syncs.store(0, Ordering::Relaxed);
    port.head(&path("a/y")).await.unwrap();
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
    assert_eq!(list(&port, "a/").await.unwrap(), 3);
    let all = syncs.load(Ordering::Relaxed);
    list(&port, "a/").await.unwrap();
    port.head(&path("a/new/folder/z")).await.unwrap();
    assert_eq!(syncs.load(Ordering::Relaxed), all, "nothing is left to sync");
}

#[tokio::test]
async fn a_delete_that_takes_folders_away_syncs_the_one_they_were_in() {
    let folder = tempfile::tempdir().unwrap();
    let port = Folder::open(folder.path(), true).unwrap();
    for key in ["a/b/x", "a/c/d/x"] {
        put(&port, key, "x").await;
    }
    put(&port, "a/stays", "x").await;
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    port.with_faults(move |what| match what {
        "a/" if failing.load(Ordering::Relaxed) => Err(io::Error::other("EIO")),
        _ => Ok(()),
    });
    for key in ["a/b/x", "a/c/d/x"] {
        port.delete(&path(key)).await.unwrap_err();
        assert!(!folder.path().join(key).parent().unwrap().exists(), "{key}");
        // Who comes later and finds it gone says so only when that is on the disk.
        port.delete(&path(key)).await.unwrap_err();
    }
    fails.store(false, Ordering::Relaxed);
    for key in ["a/b/x", "a/c/d/x"] {
        port.delete(&path(key)).await.unwrap();
    }
}

#[tokio::test]
async fn parts_whose_sync_failed_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let port = Folder::open(folder.path(), true).unwrap();
    let fails = AtomicBool::new(true);
    // The system tells of it once.
    port.with_faults(move |what| match what {
        "@parts" if fails.swap(false, Ordering::Relaxed) => Err(io::Error::other("EIO")),
        _ => Ok(()),
    });
    let key = path("a/x");
    let id = port.create_multipart(&key).await.unwrap();
    let part = port.put_part(&key, &id, 0, "x".into()).await.unwrap();
    let error = port.complete_multipart(&key, &id, vec![part.clone()]).await.unwrap_err();
    assert!(error.to_string().contains("EIO"), "{error}");
    assert!(is_absent(port.complete_multipart(&key, &id, vec![part]).await));
    assert!(is_absent(port.head(&key).await));
    assert_eq!(port.unfinished_multiparts("", None).await.unwrap().unwrap().len(), 0);
}
