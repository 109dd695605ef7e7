//! Stores of real CNCF distribution registries, version 2 (Debian's) and 3, taken over in place.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use spec_tests::folder::TestDir;
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;
use spec_tests::samples::{self, Sample};
use spec_tests::target::{Access, Target};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A running registry of the other kind.
struct Other {
    child: Child,
    target: Target,
}

impl Other {
    fn start(program: &Path, folder: &Path, root: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("other.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            root.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.join("other.log")).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let target = Target::new(&format!("http://127.0.0.1:{port}"), Access::default());
        let other = Self { child, target };
        let answer = samples::patiently(|| other.target.request(http::Method::GET, "/v2/").try_send().ok());
        let log = || fs::read_to_string(folder.join("other.log")).unwrap();
        assert!(answer.is_some(), "the other registry does not answer:\n{}", log());
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn adopt(store: &Path, flags: &[&str]) -> Outcome {
    let mut command = Command::new(program::product("fluyt-registry"));
    command.arg("adopt").args(flags).arg("--store").arg(format!("file://{}", store.display()));
    program::finish(command)
}

fn index(of: &[&Sample]) -> Vec<u8> {
    let manifests: Vec<_> = of
        .iter()
        .map(|image| json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len()}))
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// Every manifest by name, as a client gets it, and every blob that it names.
type Images = BTreeMap<String, (String, Vec<u8>, BTreeMap<String, Vec<u8>>)>;

fn images(target: &Target, names: &[(&str, String)]) -> Images {
    let mut images = Images::new();
    for (repository, reference) in names {
        let answer = target.get(&format!("/v2/{repository}/manifests/{reference}")).expect_status(200);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let layers = body["layers"].as_array().cloned().unwrap_or_default();
        let blobs =
            body.get("config").into_iter().chain(&layers).map(|blob| blob["digest"].as_str().unwrap().to_owned());
        let blobs = blobs.map(|digest| {
            let blob = target.get(&format!("/v2/{repository}/blobs/{digest}")).expect_status(200);
            (digest, blob.body)
        });
        let media_type = answer.header("content-type").unwrap_or_default().to_owned();
        images.insert(format!("{repository} {reference}"), (media_type, answer.body.clone(), blobs.collect()));
    }
    images
}

fn takes_over(name: &str, program: PathBuf) {
    if !program.exists() {
        return program::skip(name, &format!("{} is not installed", program.display()));
    }
    let folder = TestDir::new();
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    let other = Other::start(&program, folder.path(), &root);
    let (one, two, three) = (Sample::new(1), Sample::new(2), Sample::new(3));
    one.push(&other.target, "team", "v1");
    one.push(&other.target, "team/app", "V1.0_x");
    two.push(&other.target, "team/app", "V1.0_x"); // moved: the old value has no tag any more
    three.push(&other.target, "team/app", "latest");
    let both = index(&[&two, &three]);
    let _ = samples::put_manifest(&other.target, "team/app", "multi", INDEX, &both).expect_status(201);
    let docker = String::from_utf8(one.manifest.clone()).unwrap().replace(MANIFEST, DOCKER_MANIFEST);
    let _ =
        samples::put_manifest(&other.target, "team", "docker", DOCKER_MANIFEST, docker.as_bytes()).expect_status(201);
    let mut names = vec![
        ("team", "v1".to_owned()),
        ("team", "docker".to_owned()),
        ("team/app", "V1.0_x".to_owned()),
        ("team/app", "latest".to_owned()),
        ("team/app", "multi".to_owned()),
        ("team/app", one.digest()),
        ("team/app", two.digest()),
        ("team/app", samples::digest(&both)),
    ];
    let before = images(&other.target, &names);

    // A server is not started by mistake on what it does not serve yet.
    let mut serve = Command::new(program::product("fluyt-registry"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(&root);
    let _ =
        program::finish(serve).expect_code(1).expect_message(&["CNCF distribution registry", "fluyt-registry adopt"]);

    let outcome = adopt(&root, &["--json"]).expect_code(0);
    let report: serde_json::Value = serde_json::from_str(outcome.text()).unwrap();
    assert_eq!(
        (&report["repositories"], &report["tags"], &report["problems"]),
        (&json!(2), &json!(5), &json!([])),
        "{report}"
    );
    let mut ours = Registry::start_on(&root);
    assert_eq!(images(&ours.target(), &names), before);
    assert!(!root.join("data").exists(), "bytes of blobs were copied");

    // Both go on.
    let four = Sample::new(4);
    four.push(&other.target, "team/app", "latest");
    four.push(&other.target, "new", "v1");
    two.push(&ours.target(), "team", "v1");
    let _ = ours.target().delete(&format!("/v2/team/app/manifests/{}", one.digest())).expect_status(202);
    assert_eq!(ours.stop(), Some(0));
    let _ = adopt(&root, &[]).expect_code(0);
    let mut ours = Registry::start_on(&root);
    let of_other = images(&other.target, &[("team/app", "latest".to_owned()), ("new", "v1".to_owned())]);
    assert_eq!(images(&ours.target(), &[("team/app", "latest".to_owned()), ("new", "v1".to_owned())]), of_other);
    assert_eq!(ours.target().get("/v2/team/manifests/v1").expect_status(200).body, two.manifest);
    let _ = ours.target().get(&format!("/v2/team/app/manifests/{}", one.digest())).expect_status(404);
    assert_eq!(ours.stop(), Some(0));

    drop(other);
    let _ = adopt(&root, &["--finish"]).expect_code(0);
    let _ = adopt(&root, &[]).expect_code(1).expect_message(&["is finished"]);
    let ours = Registry::start_on(&root);
    names.retain(|(repository, reference)| {
        (*repository, reference.as_str()) != ("team", "v1") && *reference != one.digest() && reference != "latest"
    });
    let after = images(&ours.target(), &names);
    assert!(after.iter().all(|(name, image)| before.get(name) == Some(image)));
}

#[test]
fn version_2_is_taken_over() {
    takes_over("version_2_is_taken_over", "/usr/bin/docker-registry".into());
}

#[test]
fn version_3_is_taken_over() {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| program::repository().join("target"), PathBuf::from);
    takes_over("version_3_is_taken_over", target.join("tools/registry"));
}
