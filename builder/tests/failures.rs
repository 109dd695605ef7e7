//! Two steps that really failed are both reported, though the first failure stops what runs. A build in this process, so
//! that the test can hold it where the second command fails before anybody could stop it.
//!
//! Alone in its file: it waits until this process has no children.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluyt::blob::Store;
use fluyt::event::{Event, Sink};
use fluyt::pipeline::{self, ContextSource, Destination, ImageForm, Request, Workshop};
use fluyt::sandbox;
use fluyt::stop::Cancel;
use fluyt_client::{Client, Settings};

/// Hears failures; at the first it lets the other command fail too, and goes on when that has come to its end.
struct Holding {
    failed: Mutex<Vec<String>>,
    second: Arc<Mutex<Option<TcpStream>>>,
}

impl Sink for Holding {
    fn hear(&self, event: Event) {
        let Event::Failed { error, .. } = event else { return };
        let mut failed = self.failed.lock().unwrap();
        failed.push(error);
        if failed.len() == 1 {
            drop(self.second.lock().unwrap().take());
            let end = Instant::now() + Duration::from_secs(60);
            while has_children() {
                assert!(Instant::now() < end, "the second command does not end");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Whether a process that this one started is still there.
fn has_children() -> bool {
    let ours = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&*ours)
    })
}

#[test]
fn every_failure_that_happened_is_reported() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    sandbox::set_program(env!("CARGO_BIN_EXE_fluyt").into());
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Each command lives as long as its connection.
    let dockerfile = format!(
        "FROM scratch AS tools\nCOPY busybox /bin/busybox\n\
         FROM tools AS one\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"busybox timeout 60 busybox nc 127.0.0.1 {port}; exit 3\"]\n\
         FROM tools AS two\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"busybox timeout 60 busybox nc 127.0.0.1 {port}; exit 4\"]\n\
         FROM scratch\nCOPY --from=one /bin /one\nCOPY --from=two /bin /two\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let second = Arc::new(Mutex::new(None));
    let sink = Arc::new(Holding { failed: Mutex::default(), second: second.clone() });
    std::thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        *second.lock().unwrap() = Some(listener.accept().unwrap().0);
        // Only now does the first command end.
        drop(first);
    });

    let platform = pipeline::host_platform();
    let request = Request {
        context: ContextSource::Folder(context),
        copied: None,
        other_store: None,
        policies_off: false,
        contexts: std::collections::BTreeMap::new(),
        certificates: None,
        file: None,
        tags: Vec::new(),
        build_args: std::collections::BTreeMap::new(),
        target: None,
        platform: platform.clone(),
        build_platform: platform,
        labels: std::collections::BTreeMap::new(),
        destinations: vec![Destination::Store],
        form: ImageForm::default(),
        pull: false,
        explain: false,
        no_cache: false,
        no_cache_stages: std::collections::BTreeSet::new(),
        reproducible: false,
        normalize: false,
        epoch: None,
        network: fluyt::pipeline::Network::Default,
        conditions: fluyt::pipeline::Conditions::default(),
        resources: fluyt::sandbox::Resources::default(),
        allowed: fluyt::pipeline::Allowed::default(),
        secrets: fluyt::secrets::Secrets::default(),
        agents: std::collections::BTreeMap::new(),
        home: None,
        now: jiff::Timestamp::now(),
        isolation: fluyt::sandbox::Wish::default(),
    };
    let workshop = Workshop {
        store: Store::open(&folder.path().join("store")).unwrap(),
        client: Client::new(Settings::default()).unwrap(),
        cancel: Cancel::default(),
        stdout: || Box::new(std::io::sink()),
        stdin: || Box::new(std::io::empty()),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(pipeline::build(workshop, request, sink.clone())).unwrap_err();

    let mut failed = sink.failed.lock().unwrap().clone();
    failed.sort();
    assert_eq!(failed, ["the command exited with status 3", "the command exited with status 4"]);
    assert_eq!(error.others().len(), 1, "{error}");
    let mut told: Vec<String> = error.others().iter().chain([&error]).map(ToString::to_string).collect();
    told.sort();
    assert!(told[0].contains("stage `one` (Dockerfile:4)"), "{told:?}");
    assert!(told[1].contains("stage `two` (Dockerfile:6)"), "{told:?}");
}
