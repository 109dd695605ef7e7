//! Stores of real CNCF distribution registries, version 2 (Debian's) and 3, taken over in place: a folder, and a bucket.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use spec_tests::folder::TestDir;
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;
use spec_tests::samples::{self, Sample};
use spec_tests::stores::{Seaweed, skipped};
use spec_tests::target::{Access, Target};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A running registry of the other kind.
struct Other {
    child: Child,
    target: Target,
}

/// What both registries store in.
struct Place {
    /// As the other one's configuration names it.
    storage: String,
    /// As ours does.
    url: String,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    fn folder(root: &Path) -> Self {
        let root = root.display();
        let storage = format!("filesystem: {{rootdirectory: {root}}}");
        Self { storage, url: format!("file://{root}"), variables: Vec::new() }
    }

    fn bucket(server: &Seaweed) -> Self {
        let bucket = server.bucket();
        let (endpoint, key, secret) = (server.endpoint(), Seaweed::ACCESS_KEY, Seaweed::SECRET_KEY);
        let storage = format!(
            "s3: {{region: us-east-1, regionendpoint: '{endpoint}', bucket: {bucket}, rootdirectory: /images, accesskey: {key}, secretkey: {secret}, secure: false, forcepathstyle: true}}"
        );
        Self { storage, url: format!("s3://{bucket}/images"), variables: server.variables() }
    }

    fn ours(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(program::product("fluyt-registry"));
        command.args(arguments).args(["--store", &self.url]).envs(self.variables.iter().cloned());
        program::finish(command)
    }

    fn adopt(&self, flags: &[&str]) -> Outcome {
        self.ours(&[&["adopt"], flags].concat())
    }

    fn serve(&self) -> Registry {
        Registry::start_at(&self.url, &[], &self.variables)
    }
}

impl Other {
    fn start(program: &Path, folder: &Path, place: &Place) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("other.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  {}\n  delete: {{enabled: true}}\n  redirect: {{disable: true}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            place.storage
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

fn takes_over_a_folder(name: &str, program: &Path) {
    if !program.exists() {
        return program::skip(name, &format!("{} is not installed", program.display()));
    }
    let folder = TestDir::new();
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    takes_over(program, &folder, &Place::folder(&root), Some(&root));
}

fn takes_over(program: &Path, folder: &TestDir, place: &Place, root: Option<&Path>) {
    let other = Other::start(program, folder.path(), place);
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

    if root.is_some() {
        // A server is not started by mistake on what it does not serve yet.
        let outcome = place.ours(&["serve", "--listen", "127.0.0.1:0"]).expect_code(1);
        let _ = outcome.expect_message(&["CNCF distribution registry", "fluyt-registry adopt"]);
    }

    let outcome = place.adopt(&["--json"]).expect_code(0);
    let report: serde_json::Value = serde_json::from_str(outcome.text()).unwrap();
    assert_eq!(
        (&report["repositories"], &report["tags"], &report["problems"]),
        (&json!(2), &json!(5), &json!([])),
        "{report}"
    );
    let mut ours = place.serve();
    assert_eq!(images(&ours.target(), &names), before);
    let checked: serde_json::Value =
        serde_json::from_str(place.ours(&["fsck", "--json"]).expect_code(0).text()).unwrap();
    assert_eq!(checked["checked"]["data"], json!(0), "bytes of blobs were copied: {checked:#}");

    // Both go on.
    let four = Sample::new(4);
    four.push(&other.target, "team/app", "latest");
    four.push(&other.target, "new", "v1");
    two.push(&ours.target(), "team", "v1");
    let _ = ours.target().delete(&format!("/v2/team/app/manifests/{}", one.digest())).expect_status(202);
    assert_eq!(ours.stop(), Some(0));
    let _ = place.adopt(&[]).expect_code(0);
    let mut ours = place.serve();
    let of_other = images(&other.target, &[("team/app", "latest".to_owned()), ("new", "v1".to_owned())]);
    assert_eq!(images(&ours.target(), &[("team/app", "latest".to_owned()), ("new", "v1".to_owned())]), of_other);
    assert_eq!(ours.target().get("/v2/team/manifests/v1").expect_status(200).body, two.manifest);
    let _ = ours.target().get(&format!("/v2/team/app/manifests/{}", one.digest())).expect_status(404);
    assert_eq!(ours.stop(), Some(0));

    drop(other);
    let _ = place.adopt(&["--finish"]).expect_code(0);
    let _ = place.adopt(&[]).expect_code(1).expect_message(&["is finished"]);
    let ours = place.serve();
    names.retain(|(repository, reference)| {
        (*repository, reference.as_str()) != ("team", "v1") && *reference != one.digest() && reference != "latest"
    });
    let after = images(&ours.target(), &names);
    assert!(after.iter().all(|(name, image)| before.get(name) == Some(image)));

    // What nobody needs any more goes from where the other registry put it, the rest stays there.
    let _ = ours.target().delete("/v2/new/manifests/v1").expect_status(202);
    let _ = ours.target().delete(&format!("/v2/team/app/manifests/{}", four.digest())).expect_status(202);
    let _ = ours.target().delete(&format!("/v2/new/manifests/{}", four.digest())).expect_status(202);
    let key = |blob: &[u8]| {
        let digest = samples::digest(blob).replace("sha256:", "");
        format!("docker/registry/v2/blobs/sha256/{digest:.2}/{digest}/data")
    };
    let collect = ["gc", "--once", "--grace", "0s", "--history-days", "0", "--json"];
    // A bucket's clock may tell whole seconds, and what is as old as the pass is not older than it.
    std::thread::sleep(Duration::from_millis(1100));
    let removed = [place.ours(&collect), place.ours(&collect)].map(|outcome| outcome.expect_code(0).stdout).concat();
    assert!(removed.contains(&key(&four.layer)) && !removed.contains(&key(&three.layer)), "{removed}");
    if let Some(root) = root {
        assert!(!root.join(key(&four.layer)).exists() && root.join(key(&three.layer)).exists());
    }
    let after = images(&ours.target(), &names);
    assert!(after.iter().all(|(name, image)| before.get(name) == Some(image)));
}

#[test]
fn version_2_is_taken_over() {
    takes_over_a_folder("version_2_is_taken_over", Path::new("/usr/bin/docker-registry"));
}

fn version_3() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| program::repository().join("target"), PathBuf::from);
    target.join("tools/registry")
}

#[test]
fn version_3_is_taken_over() {
    takes_over_a_folder("version_3_is_taken_over", &version_3());
}

/// Debian's version 2 knows folders only.
#[test]
fn a_bucket_of_version_3_is_taken_over() {
    let (test, program) = ("a_bucket_of_version_3_is_taken_over", version_3());
    if !program.exists() {
        return program::skip(test, &format!("{} is not installed", program.display()));
    }
    let Some(server) = Seaweed::shared() else { return skipped(test, "SeaweedFS") };
    takes_over(&program, &TestDir::new(), &Place::bucket(server), None);
}
