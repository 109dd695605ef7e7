//! A randomised simulation of the real service: replicas and their collectors on a store that delays, refuses, loses
//! answers, repeats writes, and on which replicas die at any request. Time is simulated, so a run of hours takes
//! milliseconds, and a seed says everything.
//!
//! When all has come to rest, and every collector has run again, what was acknowledged and not deleted is pulled back byte for
//! byte, no finished DELETE is undone, every tag has a value that it may have, and no garbage is left.
//!
//! ```text
//! FLUYT_SIM_SEEDS=10000 cargo test -p fluyt-registry --test sim        this many seeds, and counts of all that went wrong
//! FLUYT_SIM_SEED=17 cargo test -p fluyt-registry --test sim            one seed, with its history
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chance;
mod check;
mod client;
mod facts;
mod images;
mod store;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

use chance::Chance;
use client::Client;
use store::{Counts, Rates, Store};
use world::World;

/// Without a word on how many: enough to see that it works.
const SEEDS: u64 = 50;
/// With so many, everything has to have happened.
const MANY: u64 = 10_000;

/// One simulation; what was broken, and all that led to it.
fn simulate(seed: u64, counts: &Arc<Counts>) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut chance = Chance::new(seed);
        // What is still under way arrives before the grace time is over: that is what it is for.
        let grace = Duration::from_secs(*chance.pick(&[120, 600, 86_400]));
        let store = Store::new(chance.fork(), counts.clone(), grace / 3);
        let replicas = 1 + chance.below(3);
        let world = Arc::new(World::new(store.clone(), chance.fork(), counts.clone(), replicas, grace));
        let ran = AssertUnwindSafe(run(chance, world, grace)).catch_unwind().await;
        let result = ran.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        });
        match result {
            Ok(()) => Ok(store.asked()),
            Err(broken) => Err(format!("{}\nseed {seed}: {broken}", store.history())),
        }
    })
}

async fn run(mut chance: Chance, world: Arc<World>, grace: Duration) -> Result<(), String> {
    let trouble = *chance.pick(&[0, 20, 100]);
    let of = |chance: &mut Chance| if trouble == 0 { 0 } else { chance.below(trouble) };
    let rates = Rates {
        refused: of(&mut chance),
        lost: of(&mut chance),
        repeated: of(&mut chance),
        crash: of(&mut chance) / 2,
        slow: of(&mut chance),
    };
    world.store.set_rates(rates);
    let deletes = chance.below(3) > 0;
    let rest = grace * 2;
    let clients: Vec<_> = (0..2 + chance.below(4))
        .map(|name| {
            let client = Client { name: name as usize, world: world.clone(), chance: chance.fork(), deletes, rest };
            tokio::spawn(client.run())
        })
        .collect();
    let collectors: Vec<_> = (0..world.replicas())
        .map(|replica| {
            let (world, mut chance) = (world.clone(), chance.fork());
            tokio::spawn(async move {
                loop {
                    sleep(Duration::from_millis(chance.below(grace.as_millis() as u64))).await;
                    world.collect(replica, "while clients push").await;
                }
            })
        })
        .collect();
    for client in clients {
        if let Err(error) = client.await {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            return Err(text.unwrap_or_else(|| "a client panicked".into()));
        }
    }
    collectors.iter().for_each(tokio::task::JoinHandle::abort);
    world.store.set_rates(Rates::default());
    // What is under way arrives; then each collector finds everything old enough, twice.
    sleep(grace * 2).await;
    for _ in 0..3 {
        for replica in 0..world.replicas() {
            world.collect(replica, "afterwards").await;
        }
        sleep(grace * 2).await;
    }
    world.check().await
}

/// These many seeds from `first`, on both cores.
fn simulate_all(first: u64, seeds: u64, counts: &Arc<Counts>) -> (u64, Option<String>) {
    let (next, asked) = (AtomicU64::new(first), AtomicU64::new(0));
    let broken = std::sync::Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || broken.lock().unwrap().is_some() {
                        return;
                    }
                    match simulate(seed, counts) {
                        Ok(requests) => _ = asked.fetch_add(requests, Ordering::Relaxed),
                        Err(text) => *broken.lock().unwrap() = Some(text),
                    }
                }
            });
        }
    });
    (asked.into_inner(), broken.into_inner().unwrap())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What has to have happened for a long run to prove anything.
const EXPECTED: &[&str] = &[
    "refused Put",
    "refused Get",
    "refused Head",
    "refused List",
    "refused Delete",
    "answer lost Put",
    "answer lost Delete",
    "answer lost List",
    "repeated later Put",
    "repeated later Delete",
    "crash at Put",
    "crash at Get",
    "crash at Head",
    "crash at List",
    "crash at Delete",
    "crash at Part",
    "slow Put",
    "slow Delete",
    "while clients push: removed data",
    "while clients push: removed link",
    "while clients push: removed copy",
    "afterwards: removed data",
    "afterwards: removed link",
    "afterwards: removed copy",
    "manifest acknowledged",
    "delete acknowledged",
];

#[test]
fn what_is_acknowledged_is_kept_and_what_is_deleted_stays_away() {
    let counts = Arc::new(Counts::default());
    let first = number("FLUYT_SIM_SEED");
    let seeds = if first.is_some() { 1 } else { number("FLUYT_SIM_SEEDS").unwrap_or(SEEDS) };
    let (asked, broken) = simulate_all(first.unwrap_or(0), seeds, &counts);
    println!("{seeds} seeds, {asked} requests to the store");
    counts.lines().iter().for_each(|line| println!("{line}"));
    if let Some(broken) = broken {
        panic!("{broken}\nrepeat it with FLUYT_SIM_SEED");
    }
    if seeds >= MANY {
        let missing: Vec<_> = EXPECTED.iter().filter(|what| counts.get(what) == 0).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}
