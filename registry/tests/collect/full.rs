//! A file system that has no inode left: what makes room has to write before it frees.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use fluyt_registry::collect::{CollectSettings, Collector, Mode, Surroundings};
use fluyt_registry::storage::{Folder, Storage};

use crate::app::{MANIFEST, digest, image, router_on, send};
use crate::small_disk::SmallDisk;

const SOON: Duration = Duration::from_millis(5);

/// A registry that holds an image and a blob that no manifest names, and its collector.
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
async fn used_up() -> Option<(SmallDisk, Router, Collector)> {
    let Some(disk) = SmallDisk::mount(SmallDisk::FEW_INODES) else {
        eprintln!("skipped: this process may not mount a small file system");
        return None;
    };
    let folder = Folder::open(disk.path(), true).unwrap();
    let router = router_on(folder.clone()).await;
    let storage = Storage::open(folder, [7; 32]).await.unwrap();
    storage.write_reserve().await.unwrap();
    let settings = CollectSettings { grace: SOON, history: SOON, traces: SOON, ..CollectSettings::default() };
    let count = std::sync::atomic::AtomicU64::new(1);
    let surroundings = Surroundings {
        now: Arc::new(|| "2026-11-25T12:00:00Z".into()),
        random: Arc::new(move || {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let hash = digest(number.to_string());
            u128::from_str_radix(&hash.hex()[..32], 16).unwrap().to_be_bytes()
        }),
    };
    let collector = Collector::new(Arc::new(storage), settings, surroundings, Arc::default());
    for blob in ["kept", "unused"] {
        let line = format!("POST /v2/a/blobs/uploads/?digest={}", digest(blob));
        assert_eq!(send(&router, &line, &[], blob).await.status, 201);
    }
    let line = "PUT /v2/a/manifests/t";
    assert_eq!(send(&router, line, &[("content-type", MANIFEST)], image(&[b"kept"], "")).await.status, 201);
    tokio::time::sleep(4 * SOON).await;
    disk.use_up_inodes();
    let line = format!("POST /v2/a/blobs/uploads/?digest={}", digest("more"));
    assert_eq!(send(&router, &line, &[], "more").await.status, 507);
    Some((disk, router, collector))
}

#[tokio::test]
async fn collection_goes_on_where_no_inode_is_left() {
    for mode in [Mode::Whole, Mode::Slice] {
        let Some((_disk, router, collector)) = used_up().await else { return };
        let mut removed = Vec::new();
        // A slice is one of 256, and which were looked at cannot be noted as long as there is no inode.
        for _ in 0..if mode == Mode::Whole { 2 } else { 2000 } {
            let report = collector.run_once(mode).await.unwrap();
            assert_eq!(report.failures, Vec::<String>::new());
            removed.extend(report.removed);
        }
        let unused = digest("unused").to_string();
        let mut data = removed.iter().filter(|removal| removal.key.starts_with("data/"));
        assert!(data.any(|removal| removal.digest.as_deref() == Some(&unused)), "{mode:?}: {removed:?}");
        let kept = send(&router, &format!("GET /v2/a/blobs/{}", digest("kept")), &[], "").await;
        assert_eq!(kept.body, b"kept");
    }
}

#[tokio::test]
async fn an_image_can_be_deleted_where_no_inode_is_left() {
    let Some((_disk, router, _)) = used_up().await else { return };
    let line = format!("DELETE /v2/a/manifests/{}", digest(image(&[b"kept"], "")));
    let answer = send(&router, &line, &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    assert_eq!(send(&router, "GET /v2/a/manifests/t", &[], "").await.status, 404);
}
