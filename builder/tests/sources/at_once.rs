//! What a build needs from elsewhere is asked for at the same time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluyt::blob::sha256;

use super::place::Place;
use super::repositories::{Repositories, backend};
use super::server::{Asked, Reply, Server};

/// How long every answer takes.
const DELAY: Duration = Duration::from_millis(1000);

/// How many base images are asked for at the same time at most.
const AT_A_TIME: usize = 8;

/// How long an answer waits for the other requests to be asked: git alone may take seconds to begin on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which requests were under way together. What counts is their order, and no clock.
#[derive(Clone, Default)]
struct Together(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// Answers wait until these have all been asked for.
    wanted: Vec<&'static str>,
    asked: Vec<String>,
    running: Vec<String>,
    most: usize,
    pairs: Vec<(String, String)>,
}

impl Together {
    /// Answers late.
    fn slowly(&self, asked: &Asked, answer: impl FnOnce() -> Reply) -> Reply {
        {
            let mut seen = self.0.lock().unwrap();
            let pairs: Vec<_> = seen.running.iter().map(|other| (other.clone(), asked.target.clone())).collect();
            seen.pairs.extend(pairs);
            seen.running.push(asked.target.clone());
            seen.asked.push(asked.target.clone());
            seen.most = seen.most.max(seen.running.len());
        }
        let asked_at = Instant::now();
        while asked_at.elapsed() < DELAY || !self.are_all_asked() && asked_at.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut seen = self.0.lock().unwrap();
        let position = seen.running.iter().position(|other| *other == asked.target).unwrap();
        seen.running.remove(position);
        drop(seen);
        answer()
    }

    fn are_all_asked(&self) -> bool {
        let seen = self.0.lock().unwrap();
        seen.wanted.iter().all(|name| seen.asked.iter().any(|target| target.contains(name)))
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    /// Whether requests for two things ran at the same time.
    fn have_met(&self, one: &str, other: &str) -> bool {
        let is = |pair: &(String, String), one: &str, other: &str| pair.0.contains(one) && pair.1.contains(other);
        self.0.lock().unwrap().pairs.iter().any(|pair| is(pair, one, other) || is(pair, other, one))
    }
}

/// A registry that has an image of nothing under every name but those with `absent`.
fn registry(together: &Together) -> Server {
    let arch = fluyt::pipeline::host_platform().architecture;
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[]}},"history":[]}}"#
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[]}}"#,
        sha256(config.as_bytes()),
        config.len()
    );
    let together = together.clone();
    Server::start(move |asked| {
        together.slowly(asked, || {
            if asked.target.contains("/absent") {
                Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)
            } else if asked.target.contains("/manifests/") {
                Reply::new(200, manifest.clone()).header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            } else if asked.target.contains("/blobs/") {
                Reply::new(200, config.clone())
            } else {
                Reply::new(200, "{}")
            }
        })
    })
}

/// A Dockerfile with a stage on each of these images.
fn stages(server: &Server, names: &[String]) -> String {
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        text.push_str(&format!("FROM {}/{name}:1 AS s{number}\nCOPY f /f{number}\n", server.address));
    }
    text.push_str("FROM scratch\n");
    for number in 0..names.len() {
        text.push_str(&format!("COPY --from=s{number} /f{number} /\n"));
    }
    text
}

#[test]
fn base_images_are_asked_for_together_and_told_in_order() {
    let together = Together::default();
    let server = registry(&together);
    let place = Place::new();
    place.write("context/f", "f");
    let names: Vec<String> = (0..12).map(|number| format!("base{number:02}")).collect();
    place.write("context/Dockerfile", stages(&server, &names));
    let built = place.build(&["context"]);
    assert_eq!(built.files.len(), names.len(), "{}", built.said);
    assert!((4..=AT_A_TIME).contains(&together.most()), "{}", together.most());
    assert!(together.have_met("/base00/manifests/", "/base01/manifests/"));
    let told: Vec<_> = built.said.lines().filter_map(|line| line.split_once("load metadata for ")).collect();
    let expected = names.iter().map(|name| format!("{}/{name}:1", server.address));
    assert_eq!(told.iter().map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn every_base_image_that_is_not_there_is_told() {
    let server = registry(&Together::default());
    let place = Place::new();
    place.write("context/f", "f");
    let names = ["absent1", "there", "absent2"].map(str::to_owned);
    place.write("context/Dockerfile", stages(&server, &names));
    let said = place.fail(1, &["context"], None);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    let about =
        |name: &str, line| format!("error: cannot get the base image {}/{name}:1 (Dockerfile:{line})", server.address);
    assert_eq!(errors, [about("absent1", 1), about("absent2", 5)], "{said}");
    assert_eq!(said.matches("caused by: ").count(), 2, "{said}");
}

#[test]
fn files_repositories_and_named_contexts_are_fetched_together() {
    let (together, repositories) = (Together::default(), Repositories::new());
    repositories.commit("r", &[("tracked", "git")]);
    together.0.lock().unwrap().wanted = vec!["/one", "/two", "/three", "/r.git"];
    let (slow, root) = (together.clone(), repositories.path(""));
    let server = Server::start(move |asked| {
        slow.slowly(asked, || match asked.target.contains(".git") {
            true => backend(&root, asked),
            false => Reply::new(200, asked.target.clone()),
        })
    });
    let place = Place::new();
    let text = "FROM scratch\nADD U/one /\nADD U/two /\nADD U/r.git /\nCOPY --from=named / /\n";
    place.write("context/Dockerfile", text.replace('U', &server.url("")));
    let built = place.build(&["--build-context", &format!("named={}", server.url("/three")), "context"]);
    let names: Vec<&str> = built.files.iter().filter_map(|line| line.split(' ').nth(3)).collect();
    assert_eq!(names, ["/context", "/one", "/tracked", "/two"], "{}", built.said);
    for (one, other) in [("/one", "/two"), ("/one", "/three"), ("/two", "/r.git"), ("/three", "/r.git")] {
        assert!(together.have_met(one, other), "{one} and {other}");
    }
}
