//! The brake, the background task and its cost, and what is told of it all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fluyt_registry::collect::{CollectSettings, Mode, Rhythm};
use fluyt_registry::protocol::DataId;
use fluyt_registry::storage::{Storage, StoreTime};

use super::{DAY, HOUR, Place};
use crate::app::digest;

impl Place {
    /// So many data objects that nothing names, spread over the slices.
    async fn unlinked_data(&self, count: u32) {
        let storage = Storage::open(self.store.clone(), [7; 32]).await.unwrap();
        for number in 0..count {
            let data = DataId::Known(digest(number.to_be_bytes()), "0a".parse().unwrap());
            storage.put_data(&data, vec![Bytes::from_static(b"x")]).await.unwrap();
        }
        self.store.pass_time(DAY + HOUR);
    }

    async fn data(&self) -> usize {
        self.keys_with("data/").await.len()
    }
}

#[tokio::test]
async fn a_pass_that_would_remove_too_much_waits_for_a_word() {
    let place = Place::new().await;
    place.unlinked_data(1300).await;
    let report = place.collect().await;
    // Slice by slice, until there are a thousand.
    let left = place.data().await;
    assert!((300..320).contains(&left), "{left} of 1300 are left");
    assert_eq!((report.held, report.brake_limit), (left as u64, 1000));
    assert!(report.to_string().contains("gc --confirm"), "{report}");
    assert_eq!(place.metrics.collector.brake.get(), 1);
    assert!(place.metrics.collector.oldest_candidate_seconds.get() > 24.0 * 3600.0);
    // Another replica gives the word, and the next pass honours it.
    place.collector().await.confirm().await.unwrap();
    let report = place.collect().await;
    assert_eq!((place.data().await, report.held), (0, 0));
    assert_eq!(place.metrics.collector.brake.get(), 0);
    // It holds for a week, no longer.
    place.store.pass_time(9 * DAY);
    place.collect().await;
    assert_eq!(place.keys_with("gc/confirm/").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_round_of_slices_brakes_over_all_replicas() {
    let place = Place::new().await;
    place.unlinked_data(1300).await;
    let mut held = 0;
    for _ in 0..256 {
        // Each slice by another one.
        held += place.collector().await.run_once(Mode::Slice).await.unwrap().held;
    }
    let left = place.data().await;
    assert!((300..320).contains(&left), "{left} of 1300 are left");
    assert_eq!(held, left as u64);
    assert_eq!(place.metrics.collector.brake.get(), 1);
    place.collector().await.confirm().await.unwrap();
    for _ in 0..256 {
        place.collector().await.run_once(Mode::Slice).await.unwrap();
    }
    assert_eq!(place.data().await, 0);
    assert_eq!(place.metrics.collector.brake.get(), 0);
}

#[tokio::test]
async fn a_larger_store_may_lose_more() {
    let place = Place::with(CollectSettings { brake_percent: 100, ..CollectSettings::default() }).await;
    place.unlinked_data(1300).await;
    let report = place.collect().await;
    assert_eq!((place.data().await, report.held), (0, 0));
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_what_would_go() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    place.app.blob("a", b"unnamed").await;
    place.unlinked_data(3).await;
    let before = place.app.keys().await;
    place.watched.requests();
    let now = StoreTime(1_800_000_000_000).minus(DAY).0 + 3 * 24 * 60 * 60 * 1000;
    let report = place.collector().await.run_once(Mode::DryRun { now: StoreTime(now) }).await.unwrap();
    assert_eq!(place.app.keys().await, before);
    let asked = place.watched.requests();
    // Opening the store is no part of it.
    assert!(
        asked.iter().all(|asked| asked.starts_with("list ") || asked.starts_with("get ") || asked.starts_with("head ")),
        "{asked:?}"
    );
    assert_eq!(report.removed.len(), 4, "{report}");
    assert!(report.to_string().starts_with("looked at"), "{report}");
    assert!(report.to_string().contains("would remove 4 objects"), "{report}");
    assert!(report.to_string().contains("a blob that no manifest of the repository names"), "{report}");
}

/// What `requests` says, by kind.
fn by_kind(requests: &[String]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in requests {
        let (kind, key) = request.split_once(' ').unwrap();
        let what = key.split('/').next().unwrap();
        *kinds.entry(format!("{kind} {what}")).or_default() += 1;
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_asks_the_store_twenty_times_an_hour() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    let collector = Arc::new(place.collector().await);
    place.watched.requests();
    let task = tokio::spawn(collector.background(Rhythm::default()));
    // A week: the whole store is looked at once.
    let hours = 7 * 24;
    for _ in 0..hours {
        tokio::time::sleep(HOUR).await;
        place.store.pass_time(HOUR);
    }
    task.abort();
    let requests = place.watched.requests();
    let an_hour = requests.len() as f64 / f64::from(hours);
    assert!(an_hour <= 20.0, "{an_hour} requests an hour: {:#?}", by_kind(&requests));
    println!("{an_hour:.1} requests an hour");
    assert!(an_hour > 5.0, "{an_hour} requests an hour: does it run?");
    let looked_at: std::collections::BTreeSet<_> =
        requests.iter().filter(|request| request.starts_with("list data/")).collect();
    assert!(looked_at.len() > 200, "only {} slices were looked at in a week", looked_at.len());
}

#[tokio::test(start_paused = true)]
async fn the_background_task_collects() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    // The data of this one is the first's, and its own a hinted one.
    place.app.pushed_image("b", "t").await;
    place.app.blob("c", b"unnamed").await;
    let task = tokio::spawn(Arc::new(place.collector().await).background(Rhythm::default()));
    assert_eq!(place.data().await, 5);
    place.store.pass_time(DAY + HOUR);
    tokio::time::sleep(HOUR).await;
    assert_eq!(place.data().await, 3);
    for _ in 0..3 * 7 * 24 {
        tokio::time::sleep(HOUR).await;
        place.store.pass_time(HOUR);
    }
    task.abort();
    assert_eq!(place.data().await, 2);
    let removed = place.metrics.encode();
    assert!(removed.contains(r#"collector_removed_objects_total{kind="data"} 3"#), "{removed}");
}
