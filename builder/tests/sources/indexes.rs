//! Images and indexes as registries have them: nested, without platforms, for other machines, with odd configurations.

use std::collections::HashMap;

use fluyt::blob::sha256;
use serde_json::{Value, json};

use super::place::Place;
use super::server::{Reply, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a registry is going to serve: documents and blobs by digest, and tags.
#[derive(Default)]
struct Shelf {
    blobs: HashMap<String, (String, Vec<u8>)>,
    tags: HashMap<String, String>,
}

impl Shelf {
    fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (sha256(&bytes).to_string(), bytes.len());
        self.blobs.insert(digest.clone(), (media_type.to_owned(), bytes));
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    fn document(&mut self, media_type: &str, document: &Value) -> Value {
        self.put(media_type, document.to_string().into_bytes())
    }

    /// An image without layers, as BuildKit writes it.
    fn image(&mut self, config: &Value) -> Value {
        let config = self.document(CONFIG, config);
        self.document(MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": null}))
    }

    fn image_for(&mut self, architecture: &str) -> Value {
        let label = json!({"Labels": {"for": architecture}});
        let rootfs = json!({"type": "layers", "diff_ids": null});
        self.image(&json!({"architecture": architecture, "os": "linux", "config": label, "rootfs": rootfs}))
    }

    fn index(&mut self, rows: &[Value]) -> Value {
        self.document(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}))
    }

    /// An OCI layout whose index has these rows.
    fn layout(&self, place: &Place, name: &str, rows: &[Value]) {
        place.write(&format!("{name}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        place.write(&format!("{name}/index.json"), json!({"schemaVersion": 2, "manifests": rows}).to_string());
        for (digest, (_, bytes)) in &self.blobs {
            place.write(&format!("{name}/blobs/{}", digest.replace(':', "/")), bytes);
        }
    }

    fn tag(&mut self, repository: &str, row: &Value) {
        self.tags.insert(repository.to_owned(), row["digest"].as_str().unwrap().to_owned());
    }

    fn serve(self) -> Server {
        Server::start(move |asked| {
            let path = asked.target.split('?').next().unwrap_or_default();
            let Some((repository, key)) = path.trim_start_matches("/v2/").rsplit_once('/') else {
                return Reply::new(404, "{}");
            };
            let repository = repository.split('/').next().unwrap_or_default();
            let digest = if key.contains(':') { Some(key) } else { self.tags.get(repository).map(String::as_str) };
            match digest.and_then(|digest| self.blobs.get(digest)) {
                Some((media_type, bytes)) => Reply::new(200, bytes.clone()).header("Content-Type", media_type),
                None => Reply::new(404, "{}"),
            }
        })
    }
}

fn with_platform(row: &Value, platform: &Value) -> Value {
    let mut row = row.clone();
    row["platform"] = platform.clone();
    row
}

#[test]
fn images_are_found_where_indexes_are_odd() {
    let mut shelf = Shelf::default();
    let (amd64, arm64) = (shelf.image_for("amd64"), shelf.image_for("arm64"));
    let (old_name, of_32_bits) = (shelf.image_for("x86_64"), shelf.image_for("386"));
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let no_image = shelf.document(MANIFEST, &json!({"schemaVersion": 2, "config": amd64, "layers": []}));
    let mut rows: Vec<(&str, Vec<Value>)> = vec![
        ("noplat", vec![no_image, arm64.clone(), amd64.clone()]),
        ("oddplat", vec![with_platform(&arm64, &json!({})), with_platform(&amd64, &platform)]),
        ("oldname", vec![with_platform(&amd64, &json!({"os": "linux", "architecture": "x86_64"}))]),
        ("of32", vec![with_platform(&of_32_bits, &json!({"os": "linux", "architecture": "386"}))]),
        ("rowlies", vec![with_platform(&arm64, &platform)]),
    ];
    let inner = shelf.index(&[with_platform(&amd64, &platform)]);
    rows.push(("nested", vec![inner.clone()]));
    rows.push(("nested2", vec![with_platform(&inner, &platform)]));
    for (name, rows) in &rows {
        let index = shelf.index(rows);
        shelf.tag(name, &index);
    }
    let mut deep = inner;
    for _ in 0..4 {
        deep = shelf.index(&[deep]);
    }
    shelf.tag("deep", &deep);
    let none = shelf.index(std::slice::from_ref(&arm64));
    shelf.tag("none", &none);
    for (name, image) in [("x8664", &old_name), ("other", &arm64)] {
        shelf.tag(name, image);
    }
    let server = shelf.serve();
    let place = Place::new();
    place.write("context/f", "1");
    let build = |name: &str| {
        place.write("context/Dockerfile", format!("FROM {}/{name}:1\nCOPY f /f\n", server.address));
        let output = place.run(&["--platform", "linux/amd64", "-o", "type=oci,tar=false,dest=layout", "context"], None);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in rows.iter().map(|(name, _)| *name).chain(["x8664", "other"]) {
        let (code, said) = build(name);
        assert_eq!(code, Some(0), "{name}: {said}");
        let is_other = matches!(name, "rowlies" | "other" | "of32");
        assert_eq!(said.contains("InvalidBaseImagePlatform"), is_other, "{name}: {said}");
    }
    let (code, said) = build("deep");
    assert!(code == Some(3) && said.contains("its indexes name each other, more than 4 deep"), "{said}");
    let (code, said) = build("none");
    assert!(code == Some(1) && said.contains("has no variant for linux/amd64; it has linux/arm64"), "{said}");
}

#[test]
fn images_are_found_in_layouts_whose_indexes_are_odd() {
    let mut shelf = Shelf::default();
    let (amd64, arm64) = (shelf.image_for("amd64"), shelf.image_for("arm64"));
    let no_image = shelf.document(MANIFEST, &json!({"schemaVersion": 2, "config": amd64, "layers": []}));
    let inner = shelf.index(&[no_image.clone(), arm64.clone(), amd64.clone()]);
    let none = shelf.index(std::slice::from_ref(&arm64));
    let place = Place::new();
    for (name, rows) in [
        ("rows", vec![no_image, arm64.clone(), amd64.clone()]),
        ("nested", vec![none.clone(), inner]),
        ("none", vec![none]),
    ] {
        shelf.layout(&place, name, &rows);
    }
    place.write("context/Dockerfile", "FROM base\nCOPY f /f\n");
    place.write("context/f", "1");
    let build = |name: &str| {
        let base = format!("base=oci-layout://{name}");
        let output =
            place.run(&["--platform", "linux/amd64", "--build-context", &base, "-t", "built", "context"], None);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["rows", "nested"] {
        let (code, said) = build(name);
        assert!(code == Some(0) && !said.contains("InvalidBaseImagePlatform"), "{name}: {said}");
        let (code, told) = inspect(&place, &["built"]);
        assert!(code == Some(0) && told.contains("for=amd64"), "{name}: {told}");
    }
    let (code, said) = build("none");
    assert!(code == Some(1) && said.contains("its index has no image for linux/amd64"), "{said}");
}

fn inspect(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", place.path("store")).arg("inspect").args(arguments).current_dir(place.path(""));
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn what_a_build_takes_is_looked_into() {
    let mut shelf = Shelf::default();
    let (amd64, platform) =
        (shelf.image_for("amd64"), json!({"os": "linux", "architecture": "amd64", "variant": null}));
    let inner = shelf.index(&[with_platform(&amd64, &platform)]);
    let broken =
        shelf.document(MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": 1, "layers": []}));
    let place = Place::new();
    for (name, row) in [
        ("image", &amd64),
        ("nested", &shelf.index(std::slice::from_ref(&with_platform(&inner, &platform)))),
        ("broken", &broken),
    ] {
        shelf.layout(&place, name, std::slice::from_ref(row));
    }
    shelf.tag("image", &amd64);
    let server = shelf.serve();
    for name in ["./image", "./nested", &format!("{}/image:1", server.address)] {
        let (code, told) = inspect(&place, &["--platform", "linux/amd64", "--json", name]);
        assert_eq!(code, Some(0), "{name}: {told}");
        let shown: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&shown["layers"], &shown["manifest"]["layers"]), (&json!([]), &Value::Null), "as it is");
    }
    let (code, told) = inspect(&place, &["./broken"]);
    assert!(
        code == Some(3) && told.starts_with("error: cannot inspect ./broken: the image's manifest cannot be read"),
        "{told}"
    );
}

#[test]
fn a_base_hands_down_what_is_the_images_and_not_a_containers() {
    let mut shelf = Shelf::default();
    let config = json!({
        "architecture": "x86_64", "os": "linux", "os.version": "10.0.1", "os.features": ["win32k"], "docker_version": "20",
        "config": {"Hostname": "h", "AttachStdin": false, "Image": "sha256:abc", "MacAddress": "aa", "User": null,
            "Labels": {"a": null}, "Entrypoint": null, "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": null}, "history": null,
    });
    let image = shelf.image(&config);
    shelf.tag("base", &image);
    let server = shelf.serve();
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM {}/base:1\nUSER 1\n", server.address));
    let output = place.run(
        &[
            "--platform",
            "linux/amd64",
            "-o",
            "type=oci,tar=false,dest=layout",
            "--metadata-file",
            "told.json",
            "context",
        ],
        None,
    );
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&std::fs::read(place.path("told.json")).unwrap()).unwrap();
    let digest = told["containerimage.config.digest"].as_str().unwrap().replace(':', "/");
    let config: Value =
        serde_json::from_slice(&std::fs::read(place.path(&format!("layout/blobs/{digest}"))).unwrap()).unwrap();
    assert_eq!(config["architecture"], "amd64");
    assert_eq!((&config["os.version"], &config["os.features"]), (&json!("10.0.1"), &json!(["win32k"])));
    assert_eq!(config.get("docker_version"), None);
    let names: Vec<&String> = config["config"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["User", "Env", "Cmd", "Labels"]);
}

#[test]
fn an_index_of_indexes_is_pushed_from_the_inside_out() {
    let mut shelf = Shelf::default();
    let image = shelf.image_for("amd64");
    let inner = shelf.index(std::slice::from_ref(&image));
    let outer = shelf.index(std::slice::from_ref(&inner));
    let place = Place::new();
    let store = fluyt::blob::Store::open(&place.path("store")).unwrap();
    for (_, bytes) in shelf.blobs.values() {
        store.put(bytes).unwrap();
    }
    let server = Server::start(|asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
        _ => Reply::new(201, ""),
    });
    let name = format!("{}/app:1", server.address);
    store.tag(&name, serde_json::from_value(outer).unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fluyt"));
    let output = command.env("FLUYT_STORE", place.path("store")).args(["push", &name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = server.asked();
    let put: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.method == "PUT")
        .filter_map(|asked| asked.target.strip_prefix("/v2/app/manifests/"))
        .collect();
    assert_eq!(put, [image["digest"].as_str().unwrap(), inner["digest"].as_str().unwrap(), "1"]);
}
