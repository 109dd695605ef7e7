//! One image in several forms: compressions, times, media types and annotations, from one store and from fresh ones.
//!
//! The builds are real ones, with a RUN in busybox, and what they wrote is read by `gzip`, `zstd` and `tar`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A context, and stores to build it in.
struct Place {
    folder: tempfile::TempDir,
}

/// An image as an OCI layout has it.
struct Image {
    digest: String,
    manifest: Value,
    config: Value,
    layout: PathBuf,
}

impl Place {
    /// `None`, with the reason told, where RUN is not possible.
    fn new(dockerfile: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            println!("skipped: RUN needs root and /bin/busybox here");
            return None;
        }
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let context = place.path("context");
        std::fs::create_dir_all(context.join("src/deep")).unwrap();
        std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
        std::fs::write(context.join("src/a"), "a\n".repeat(1000)).unwrap();
        std::fs::write(context.join("src/deep/b"), "b\n").unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.path(store)).env_remove("SOURCE_DATE_EPOCH");
        command.arg("build").args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, store: &str, arguments: &[&str]) -> Output {
        self.command(store, arguments).output().unwrap()
    }

    /// Builds into a fresh layout, with `SOURCE_DATE_EPOCH` where there is an epoch.
    fn image(&self, store: &str, epoch: Option<i64>, arguments: &[&str]) -> Image {
        let layout = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        let mut command = self.command(store, &[arguments, &["-o", &output, "context"]].concat());
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        }
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Image::open(&layout)
    }
}

impl Image {
    fn open(layout: &Path) -> Self {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let layout = layout.to_owned();
        let manifest = json(&layout, &digest);
        let config = json(&layout, manifest["config"]["digest"].as_str().unwrap());
        Self { digest, manifest, config, layout }
    }

    /// The media types of the layers, shortened.
    fn types(&self) -> Vec<String> {
        let layers = self.manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()).collect()
    }

    fn diff_ids(&self) -> Vec<String> {
        let ids = self.config["rootfs"]["diff_ids"].as_array().unwrap();
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// What `tar` lists of a layer, after the program for its type has decompressed it: names with times.
    fn listing(&self, layer: usize) -> BTreeMap<String, i64> {
        let tar = self.tar(layer);
        let mut archive = tar::Archive::new(&tar[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                (name, i64::try_from(entry.header().mtime().unwrap()).unwrap())
            })
            .collect()
    }

    fn tar(&self, layer: usize) -> Vec<u8> {
        let descriptor = &self.manifest["layers"][layer];
        let file = blob(&self.layout, descriptor["digest"].as_str().unwrap());
        let media_type = descriptor["mediaType"].as_str().unwrap();
        let (program, arguments) = match media_type.rsplit(['+', '.']).next().unwrap() {
            "gzip" => ("gzip", ["-dc"]),
            "zstd" => ("zstd", ["-dc"]),
            _ => ("cat", ["-u"]),
        };
        let output = Command::new(program).args(arguments).stdin(std::fs::File::open(file).unwrap()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn json(layout: &Path, digest: &str) -> Value {
    serde_json::from_slice(&std::fs::read(blob(layout, digest)).unwrap()).unwrap()
}

/// A file that is another one whenever the RUN runs, and one that never is.
const RANDOM: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY src /src\n\
    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /proc/sys/kernel/random/uuid >/src/id\"]\n";
const SETTLED: &str = "FROM scratch AS made\nCOPY busybox /bin/busybox\nCOPY src /src\n\
    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo out >/src/deep/out\"]\n\
    FROM scratch\nWORKDIR /to/here\nCOPY src /src\nCOPY --from=made /src/deep/out /src/deep/\n";

#[test]
fn another_compression_runs_nothing_again_and_going_back_costs_nothing() {
    let Some(place) = Place::new(RANDOM) else { return };
    let gzip = place.image("store", None, &[]);
    assert_eq!(gzip.types(), ["tar+gzip", "tar+gzip", "tar+gzip"]);
    for (kind, level, media_type) in [
        ("zstd", "3", "tar+zstd"),
        ("uncompressed", "", "tar"),
        ("gzip-members", "", "tar+gzip"),
        ("zstd", "9", "tar+zstd"),
        ("gzip", "9", "tar+gzip"),
    ] {
        let mut arguments = vec!["--compression", kind];
        if !level.is_empty() {
            arguments.extend(["--compression-level", level]);
        }
        let other = place.image("store", None, &arguments);
        assert_eq!(other.types(), vec![media_type; 3], "{kind}");
        assert_eq!(other.config, gzip.config, "{kind}: the same tars, the same times");
        assert_ne!(other.digest, gzip.digest);
        for layer in 0..3 {
            assert_eq!(other.tar(layer), gzip.tar(layer), "{kind}: a real reader finds the same tar");
        }
        assert_eq!(place.image("store", None, &arguments).digest, other.digest, "{kind}: found again");
        assert_eq!(place.image("store", None, &[]).digest, gzip.digest, "back after {kind}");
    }
}

#[test]
fn the_epoch_after_real_times_gives_what_a_fresh_store_gives_and_back() {
    let Some(place) = Place::new(SETTLED) else { return };
    let (early, late) = (1_000_000_000, 1_700_000_000);
    let real = place.image("one", None, &[]);
    let after = place.image("one", Some(early), &[]);
    let fresh = place.image("two", Some(early), &["--compression", "zstd"]);
    assert_eq!(after.config, fresh.config);
    assert_eq!(place.image("two", Some(early), &[]).digest, after.digest, "gzip after zstd");
    assert_eq!(place.image("one", Some(early), &["--compression", "zstd"]).digest, fresh.digest, "zstd after gzip");
    for layer in 0..3 {
        assert!(after.listing(layer).values().all(|time| *time == early), "{:?}", after.listing(layer));
        assert!(real.listing(layer).values().all(|time| *time > late), "{:?}", real.listing(layer));
    }
    // From one epoch to a later one and back: the times that were cut off are known still.
    let later = place.image("one", Some(late), &[]);
    assert_eq!(later.digest, place.image("three", Some(late), &[]).digest);
    assert_eq!(place.image("three", Some(early), &[]).digest, after.digest);
    assert_eq!(place.image("one", Some(early), &[]).digest, after.digest);
    // Real times after an epoch: those of the check-out come back.
    let again = place.image("two", None, &[]);
    assert_eq!(again.listing(1)["src/a"], real.listing(1)["src/a"]);
    assert_eq!(place.image("one", None, &[]).digest, real.digest, "nothing of it ran again");
}

#[test]
fn with_an_epoch_only_a_changed_mode_runs_a_command_again() {
    let Some(place) = Place::new(RANDOM) else { return };
    let id = |image: &Image| {
        let tar = image.tar(2);
        let mut archive = tar::Archive::new(&tar[..]);
        let found = archive.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap().ends_with("id"));
        std::io::read_to_string(found.unwrap()).unwrap()
    };
    let first = place.image("store", Some(1_000_000_000), &[]);
    let second = place.image("store", Some(1_700_000_000), &["--compression", "zstd"]);
    assert_eq!(id(&first), id(&second), "another epoch and another compression");
    assert_ne!(first.diff_ids(), second.diff_ids());
    assert_eq!(place.image("store", Some(1_000_000_000), &[]).digest, first.digest);
}

/// The context's times and folder, the clock and the number of threads say nothing of what is built.
#[test]
fn with_an_epoch_checkouts_at_other_times_and_places_give_the_same_bytes() {
    let Some(place) = Place::new(SETTLED) else { return };
    // Longer than a block of the compressor.
    std::fs::write(place.path("context/src/long"), "0123456789\n".repeat(400_000)).unwrap();
    let epoch = 1_700_000_000;
    let first = place.image("one", Some(epoch), &[]);
    let copied = Command::new("cp").arg("-r").arg(place.path("context")).arg(place.path("other")).status().unwrap();
    assert!(copied.success());
    std::fs::remove_dir_all(place.path("context")).unwrap();
    std::fs::rename(place.path("other"), place.path("context")).unwrap();
    for (path, seconds) in [("src/a", 5), ("src/deep", 1_500_000_000), ("src/deep/b", 1_900_000_000), ("src", 77)] {
        let file = std::fs::File::open(place.path("context").join(path)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }
    let layout = place.path("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_fluyt"), "build", "-o", &output, "context"]);
    command.env("FLUYT_STORE", place.path("two")).env("SOURCE_DATE_EPOCH", epoch.to_string());
    let built = command.current_dir(place.folder.path()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert_eq!(Image::open(&layout).digest, first.digest);
}

#[test]
fn a_forced_compression_takes_the_base_along() {
    let Some(place) = Place::new("FROM scratch\nCOPY src /src\nCOPY busybox /b\n") else { return };
    let base = place.image("store", None, &["-t", "base"]);
    std::fs::write(place.path("context/Dockerfile"), "FROM base\nCOPY src/a /top\n").unwrap();
    let plain = place.image("store", None, &["--compression", "zstd"]);
    assert_eq!(plain.types(), ["tar+gzip", "tar+gzip", "tar+zstd"]);
    let forced = place.image("store", None, &["--compression", "zstd", "--force-compression"]);
    assert_eq!(forced.types(), ["tar+zstd"; 3]);
    assert_eq!(forced.config, plain.config);
    assert_eq!(forced.tar(1), base.tar(1));
    let again = place.run("store", &["--compression", "zstd", "--force-compression", "context"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap().trim(), forced.digest);
    // What takes time is told of.
    let packed = place.run("store", &["--compression", "uncompressed", "--progress", "plain", "context"]);
    let told = String::from_utf8(packed.stderr).unwrap();
    assert!(told.contains("[internal] write a cached layer (") && told.contains(") with other compression"), "{told}");
}

#[test]
fn media_types_annotations_and_names_are_as_asked() {
    let Some(place) = Place::new("FROM scratch\nCOPY src /src\n") else { return };
    let docker = place.path("docker");
    let output = format!("type=oci,tar=false,dest={},oci-mediatypes=false", docker.display());
    let built = place.run("store", &["-o", &output, "context"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let image = Image::open(&docker);
    assert_eq!(image.manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(image.manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    // BuildKit writes this pair too.
    let zstd = place.path("zstd");
    let output = format!("type=oci,tar=false,dest={},oci-mediatypes=false,compression=zstd", zstd.display());
    let built = place.run("store", &["-t", "zstd:1", "-o", &output, "-o", "files", "context"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let zstd = Image::open(&zstd);
    assert_eq!(zstd.manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.zstd");
    assert!(zstd.tar(0) == image.tar(0));
    assert_eq!(std::fs::read(place.path("files/src/deep/b")).unwrap(), b"b\n");
    std::fs::write(place.path("context/above"), "FROM zstd:1\nCOPY src/a /top\n").unwrap();
    let above = place.image("store", None, &["-f", "context/above"]);
    assert_eq!(above.types(), ["tar+zstd", "tar+gzip"]);

    let layout = place.path("annotated");
    let output =
        format!("type=oci,tar=false,dest={},annotation.b=attribute,name=app:1,name-canonical=true", layout.display());
    assert!(!place.run("store", &["-o", &output, "context"]).status.success(), "an OCI layout has no canonical name");
    let output = output.replace(",name-canonical=true", "");
    let flags = ["--annotation", "a=flag", "--annotation", "manifest-descriptor:c=d", "--annotation", "b=flag"];
    let built = place.run("store", &[&flags[..], &["--metadata-file", "meta.json", "-o", &output, "context"]].concat());
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let image = Image::open(&layout);
    assert_eq!(image.manifest["annotations"], serde_json::json!({"a": "flag", "b": "attribute"}));
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["c"], "d");
    let metadata: Value = serde_json::from_slice(&std::fs::read(place.path("meta.json")).unwrap()).unwrap();
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");
    let descriptor = &metadata["containerimage.descriptor"];
    assert_eq!((&descriptor["annotations"]["c"], &descriptor["digest"]), (&"d".into(), &image.digest.clone().into()));
    let reference = metadata["buildx.build.ref"].as_str().unwrap();
    assert_eq!(reference.split('/').map(str::len).collect::<Vec<_>>(), [5, 5, 25], "{reference}");
    assert!(metadata.get("buildx.build.warnings").is_none());
}

/// What scripts read of it, as BuildKit's exporters give it for an image without attestations.
#[test]
fn the_metadata_describe_the_image_as_buildx_does() {
    let Some(place) = Place::new("FROM scratch\nCOPY src /src\n") else { return };
    let created = "org.opencontainers.image.created";
    let descriptor = |arguments: &[&str], epoch: Option<&str>| {
        let mut command = place.command("store", &[arguments, &["--metadata-file", "meta.json", "context"]].concat());
        command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let metadata: Value = serde_json::from_slice(&std::fs::read(place.path("meta.json")).unwrap()).unwrap();
        metadata["containerimage.descriptor"].clone()
    };
    let store = descriptor(&["--platform", "linux/arm/v6"], None);
    assert_eq!(store["platform"], serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v6"}));
    let store = descriptor(&["--platform", "linux/arm64"], None);
    assert_eq!(store["platform"], serde_json::json!({"architecture": "arm64", "os": "linux"}));
    assert_eq!(store["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert!(store["size"].is_u64() && store.get("annotations").is_none(), "{store}");
    let archive = descriptor(&["-o", "type=oci,dest=a.tar"], Some("1700000000"));
    assert_eq!(archive["annotations"], serde_json::json!({created: "2023-11-14T22:13:20Z"}));
    let archive = descriptor(&["-o", "type=docker,dest=a.tar"], None);
    let time: jiff::Timestamp = archive["annotations"][created].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 600, "{time}");
}

#[test]
fn the_metadata_tell_warnings_to_who_asks() {
    use base64::Engine as _;
    let Some(place) = Place::new("FROM scratch\nCOPY src $NOWHERE/src\n") else { return };
    let warnings = |asked: &str| {
        let mut command = place.command("store", &["--metadata-file", "meta.json", "context"]);
        let built = command.env("BUILDX_METADATA_WARNINGS", asked).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let metadata: Value = serde_json::from_slice(&std::fs::read(place.path("meta.json")).unwrap()).unwrap();
        metadata.get("buildx.build.warnings").cloned()
    };
    // What Go's ParseBool takes for true.
    for asked in ["1", "t", "T", "TRUE", "true", "True"] {
        let rows = warnings(asked).unwrap();
        let [row] = &rows.as_array().unwrap()[..] else { panic!("{rows}") };
        let text = |value: &Value| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(&row["short"]), "UndefinedVar: Usage of undefined variable '$NOWHERE' (line 2)");
        assert_eq!(row["range"], serde_json::json!([{"start": {"line": 2}, "end": {"line": 2}}]));
        assert_eq!(row["sourceInfo"]["filename"], "Dockerfile");
        assert_eq!(text(&row["sourceInfo"]["data"]), "FROM scratch\nCOPY src $NOWHERE/src\n");
        assert!(!text(&row["detail"][0]).is_empty() && row["url"].as_str().unwrap().starts_with("https://"), "{row}");
    }
    for asked in ["0", "no", "yes", ""] {
        assert_eq!(warnings(asked), None, "{asked}");
    }
}

#[test]
fn outputs_that_want_different_images_are_refused_before_anything_runs() {
    let Some(place) = Place::new("FROM scratch\nCOPY absent /\n") else { return };
    for (arguments, word) in [
        (&["-o", "type=oci,dest=a,compression=zstd", "-o", "type=oci,dest=b"][..], "want different images"),
        (&["-o", "type=oci,dest=a,compression=estargz"], "estargz"),
        (&["-o", "type=oci,dest=a,rewrite-timestamp=true"], "no time to rewrite to"),
        (&["-o", "type=oci,dest=a,source-date-epoch=1", "-o", "type=tar,dest=b,source-date-epoch=1"], "no attribute"),
        (&["--compression", "gzip", "--compression-level", "11"], "levels 0 to 9"),
        (&["--annotation", "index:a=b"], "no index"),
    ] {
        let output = place.run("store", &[arguments, &["context"]].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
}

/// A store with a layer that was damaged since: the step runs again, and says so.
#[test]
fn a_damaged_blob_is_not_rewritten() {
    let Some(place) = Place::new("FROM scratch\nCOPY src /src\n") else { return };
    // Without an epoch the folder that COPY makes has the time of the build: another one where the second build runs it again.
    let first = place.image("store", Some(1_700_000_000), &[]);
    let digest = first.manifest["layers"][0]["digest"].as_str().unwrap();
    let path = place.path("store/blobs").join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let other = place.image("store", Some(1_700_000_000), &["--compression", "zstd"]);
    assert_eq!(other.config["rootfs"], first.config["rootfs"]);
}
