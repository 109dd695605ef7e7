//! A store on a disk that is too small: what can be made again goes, what found it full is tried once more, and then one
//! error says what was needed. The disk is a small `tmpfs`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fluyt::blob::sha256;

#[path = "sources/repositories.rs"]
mod repositories;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "sources/server.rs"]
mod server;

use repositories::Repositories;

const MIB: usize = 1024 * 1024;

/// What Dockerfiles with a RUN begin with.
const BUSYBOX: &str =
    "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

/// A context, and a store on a disk of its own.
struct Place(tempfile::TempDir);

impl Place {
    /// `None`, with the reason told, where nothing can be mounted.
    fn new(size_mib: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            println!("skipped: a small disk needs root, and RUN /bin/busybox");
            return None;
        }
        let place = Self(tempfile::tempdir().unwrap());
        for folder in ["context", "store"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_mib}m"), "none"])
            .arg(place.path("store"))
            .status()
            .unwrap();
        assert!(mounted.success());
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of the context that no compression makes smaller.
    fn noise(&self, name: &str, seed: u64, size_bytes: usize) {
        let mut state = seed | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let bytes: Vec<u8> = words.take(size_bytes / 8).flatten().collect();
        fs::write(self.path("context").join(name), bytes).unwrap();
    }

    fn build(&self, dockerfile: &str, arguments: &[&str]) -> (Output, String) {
        fs::write(self.path("context/Dockerfile"), dockerfile).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.path("store")).env_remove("SOURCE_DATE_EPOCH");
        command.args(["build", "--progress", "plain"]).args(arguments).arg("context");
        let output = command.current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, said)
    }

    fn built(&self, dockerfile: &str) -> String {
        let (output, said) = self.build(dockerfile, &[]);
        assert!(output.status.success(), "{said}");
        said
    }

    /// The build made room and came to its end.
    fn built_after_pruning(&self, dockerfile: &str) {
        let said = self.built(dockerfile);
        assert!(said.contains("what can be made again was removed, and the step is tried once more"), "{said}");
        self.assert_whole();
    }

    /// The build says what is wrong, and leaves nothing half.
    fn refused(&self, dockerfile: &str, instruction: &str) {
        let (output, said) = self.build(dockerfile, &[]);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(output.stdout.is_empty());
        let error = &said[said.find("error: ").unwrap()..];
        assert!(error.starts_with(&format!("error: step `{instruction}")), "{error}");
        let store = self.path("store");
        let told =
            format!("caused by: the disk of the store {} is full: the step needs more than the ", store.display());
        assert!(error.contains(&told), "{error}");
        let do_this = ["hint: ", "free on the disk of", "fluyt prune --all", "--store DIR"];
        assert!(do_this.iter().all(|words| error.contains(words)), "{error}");
        assert_eq!(error.matches("error: ").count(), 1, "{error}");
        self.assert_whole();
    }

    /// Every blob is what its name says, and nothing is left of what was written half.
    fn assert_whole(&self) {
        for blob in fs::read_dir(self.path("store/blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            assert_eq!(sha256(&fs::read(blob.path()).unwrap()).digest(), blob.file_name().to_str().unwrap());
        }
        assert_eq!(fs::read_dir(self.path("store/tmp")).unwrap().count(), 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path("store")).status();
    }
}

#[test]
fn a_copy_that_finds_the_disk_full_prunes_and_is_tried_again() {
    let Some(place) = Place::new(24) else { return };
    place.noise("old", 1, 12 * MIB);
    place.noise("new", 2, 16 * MIB);
    place.noise("huge", 3, 40 * MIB);
    place.built("FROM scratch\nCOPY old /\n");
    place.built_after_pruning("FROM scratch\nCOPY new /\n");
    place.refused("FROM scratch\nCOPY huge /\n", "COPY huge");
    // What fits is still built.
    place.built("FROM scratch\nCOPY old /\n");
}

#[test]
fn what_a_name_needs_is_not_pruned_for_a_build() {
    let Some(place) = Place::new(24) else { return };
    place.noise("old", 1, 12 * MIB);
    place.noise("new", 2, 16 * MIB);
    let (output, said) = place.build("FROM scratch\nCOPY old /\n", &["-t", "kept"]);
    assert!(output.status.success(), "{said}");
    // A small record of what was read may go; the image's own layers, records and index do not.
    place.refused("FROM scratch\nCOPY new /\n", "COPY new");
    let (output, said) = place.build("FROM scratch\nCOPY old /\n", &["-t", "kept"]);
    assert!(output.status.success() && said.contains("CACHED"), "{said}");
}

#[test]
fn a_command_that_fills_the_disk_prunes_and_is_tried_again() {
    let Some(place) = Place::new(48) else { return };
    place.noise("old", 1, 24 * MIB);
    place.built("FROM scratch\nCOPY old /\n");
    let run = |mib: usize| format!("{BUSYBOX}RUN dd if=/dev/zero of=/big bs=1M count={mib}\n");
    place.built_after_pruning(&run(30));
    place.refused(&run(60), "RUN dd");
    // A command that fails for another reason is not taken for one that found the disk full.
    let (output, said) = place.build(&format!("{BUSYBOX}RUN echo No space left on device && exit 7\n"), &[]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("is full"), "{said}");
}

#[test]
fn a_layer_that_finds_no_room_beside_what_its_command_wrote_prunes_and_is_tried_again() {
    let Some(place) = Place::new(48) else { return };
    place.noise("old", 1, 20 * MIB);
    place.built("FROM scratch\nCOPY old /\n");
    // Its own files fit, and the layer made of them does not.
    let run = |mib: usize| format!("{BUSYBOX}RUN dd if=/dev/urandom of=/big bs=1M count={mib}\n");
    place.built_after_pruning(&run(16));
    place.refused(&run(30), "RUN dd");
}

#[test]
fn a_base_that_cannot_be_unpacked_prunes_and_is_tried_again() {
    let Some(place) = Place::new(48) else { return };
    place.noise("old", 1, 24 * MIB);
    // Small as a blob, large unpacked.
    fs::write(place.path("context/zeros"), vec![0; 30 * MIB]).unwrap();
    fs::write(place.path("context/more"), vec![0; 60 * MIB]).unwrap();
    place.built("FROM scratch\nCOPY old /\n");
    let base = |name: &str| format!("{BUSYBOX}COPY {name} /\nRUN true\n");
    place.built_after_pruning(&base("zeros"));
    place.refused(&base("more"), "RUN true");
}

#[test]
fn no_more_is_pruned_than_is_needed_and_cache_mounts_go_last() {
    let Some(place) = Place::new(64) else { return };
    place.noise("old", 1, 28 * MIB);
    place.noise("recent", 2, 6 * MIB);
    let run = |id: &str, mib: usize| {
        format!(
            "{BUSYBOX}RUN --mount=type=cache,id={id},target=/c echo line >> /c/log && cat /c/log && \
             dd if=/dev/zero of=/big bs=1M count={mib}\n"
        )
    };
    let mounts = || fs::read_dir(place.path("store/cache-mounts")).unwrap().count();
    let lines = |said: &str| said.lines().filter(|line| line.ends_with(" line")).count();
    place.built(&run("another", 0));
    place.built("FROM scratch\nCOPY old /\n");
    place.built("FROM scratch\nCOPY recent /\n");
    place.built(&run("own", 0));
    // That which was used least recently is enough: what came later stays, and the mount of the oldest build.
    let said = place.built(&run("own", 34));
    assert_eq!(said.matches("is tried once more").count(), 1, "{said}");
    assert!(place.built("FROM scratch\nCOPY recent /\n").contains("CACHED"));
    assert_eq!((mounts(), lines(&said)), (2, 2 + 3), "{said}");
    // All is not enough: then only the mount that the command uses is left.
    let (output, said) = place.build(&run("own", 70), &[]);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(mounts(), 1, "{said}");
    assert!(!place.built("FROM scratch\nCOPY recent /\n").contains("CACHED"));
    let said = place.built(&run("own", 1));
    assert!(lines(&said) > 5, "{said}");
    place.assert_whole();
}

/// A server that answers every request with a file of the context, as long as the test's process lives; its address.
fn served(file: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/file", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, content) = (stream.unwrap(), fs::read(&file).unwrap());
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                asked.push(byte[0]);
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            // Who has no room hangs up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    address
}

#[test]
fn what_is_fetched_finds_room_after_pruning() {
    let Some(place) = Place::new(24) else { return };
    place.noise("old", 1, 16 * MIB);
    place.noise("served", 2, 10 * MIB);
    let add = format!("FROM scratch\nADD {} /\n", served(place.path("context/served")));
    place.built("FROM scratch\nCOPY old /\n");
    let said = place.built(&add);
    assert!(said.contains("/file is tried once more with "), "{said}");
    place.assert_whole();
    // What is larger than the disk is one error.
    place.noise("served", 3, 30 * MIB);
    let (output, said) = place.build(&add, &[]);
    assert_eq!((output.status.code(), said.matches("error: ").count()), (Some(3), 1), "{said}");
    assert!(said.contains("the disk is full while") && said.contains("--store DIR"), "{said}");
    place.assert_whole();
}

/// A repository is brought, checked out and kept as a tar, and the disk may be full at each.
#[test]
fn a_repository_finds_room_after_pruning() {
    for old_mib in [36, 28, 20] {
        let Some(place) = Place::new(40) else { return };
        place.noise("old", 1, old_mib * MIB);
        place.noise("tracked", 2, 8 * MIB);
        let repositories = Repositories::new();
        fs::create_dir(repositories.path("r")).unwrap();
        fs::rename(place.path("context/tracked"), repositories.path("r").join("tracked")).unwrap();
        repositories.commit("r", &[]);
        let server = repositories.serve(None);
        place.built("FROM scratch\nCOPY old /\n");
        let said = place.built(&format!("FROM scratch\nADD {} /\n", server.url("/r.git")));
        assert!(said.contains("/r.git is tried once more with "), "{old_mib} MiB: {said}");
        place.assert_whole();
        // What is larger than the disk is one error.
        let noise = fs::read(repositories.path("r").join("tracked")).unwrap();
        fs::write(repositories.path("r").join("more"), [&noise[1..], &noise[2..], &noise[3..], &noise[4..]].concat())
            .unwrap();
        repositories.commit("r", &[]);
        let (output, said) = place.build(&format!("FROM scratch\nADD {} /\n", server.url("/r.git")), &[]);
        assert_eq!((output.status.code(), said.matches("error: ").count()), (Some(3), 1), "{said}");
        assert!(said.contains("found the disk full") && said.contains("--store DIR"), "{said}");
        place.assert_whole();
    }
}

#[test]
fn a_base_that_is_brought_finds_room_after_pruning() {
    let Some(place) = Place::new(24) else { return };
    place.noise("base", 1, 12 * MIB);
    place.noise("old", 2, 16 * MIB);
    let layout = place.path("layout");
    fs::write(place.path("context/Dockerfile"), "FROM scratch\nCOPY base /\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", place.path("another")).args(["build", "-t", "base", "-o"]);
    command.arg(format!("type=oci,tar=false,dest={}", layout.display())).arg(place.path("context"));
    assert!(command.output().unwrap().status.success());
    place.built("FROM scratch\nCOPY old /\n");
    let base = format!("base=oci-layout://{}", layout.display());
    let (output, said) = place.build("FROM base\nCOPY Dockerfile /\n", &["--build-context", &base]);
    assert!(output.status.success() && said.contains("is tried once more with "), "{said}");
    place.assert_whole();
}

#[test]
fn an_export_to_the_stores_disk_finds_room_after_pruning() {
    let Some(place) = Place::new(24) else { return };
    place.noise("old", 1, 10 * MIB);
    place.noise("new", 2, 8 * MIB);
    place.built("FROM scratch\nCOPY old /\n");
    let out = place.path("store/out.tar");
    for kind in ["tar", "oci"] {
        let output = format!("type={kind},dest={}", out.display());
        let (built, said) = place.build("FROM scratch\nCOPY new /\n", &["-o", &output]);
        assert!(built.status.success(), "{kind}: {said}");
        if kind == "tar" {
            assert!(said.contains("the export to") && said.contains("is tried once more with "), "{said}");
        }
        assert!(fs::metadata(&out).unwrap().len() > 8_000_000);
        fs::remove_file(&out).unwrap();
    }
    place.assert_whole();
}

#[test]
fn a_disk_may_be_full_at_any_write() {
    let Some(place) = Place::new(16) else { return };
    place.noise("file", 1, 8 * 1024);
    let text = &format!("FROM scratch\nCOPY file /a\nCOPY file /b\nADD {} /c\n", served(place.path("context/file")));
    place.built(text);
    let exported = format!("type=oci,dest={}", place.path("store/out.tar").display());
    let prune = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        let output = command.args(["--store", place.path("store").to_str().unwrap(), "prune"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (mut refused, mut built) = (0, 0);
    for pages in 0..40 {
        prune();
        let filler = place.path("store/filler");
        let free = rustix::fs::statvfs(place.path("store").as_path()).unwrap();
        let size = free.f_bavail.saturating_sub(pages) * free.f_frsize;
        fs::write(&filler, vec![0; usize::try_from(size).unwrap()]).unwrap();
        let (output, said) = place.build(text, &["-o", &exported]);
        match output.status.code() {
            Some(0) => built += 1,
            Some(3) => {
                assert!(said.contains("is full"), "{pages} pages: {said}");
                let helps = ["--store DIR", "cannot write the result to"];
                assert!(helps.iter().any(|words| said.contains(words)), "{pages} pages: {said}");
                assert_eq!(said.matches("error: ").count(), 1, "{pages} pages: {said}");
                refused += 1;
            }
            other => panic!("{pages} pages: {other:?}: {said}"),
        }
        // Also a disk without a byte left can be pruned.
        prune();
        fs::remove_file(&filler).unwrap();
        let _ = fs::remove_file(place.path("store/out.tar"));
        place.assert_whole();
    }
    println!("{refused} refused, {built} built");
    assert!(refused > 3 && built > 3, "{refused} refused, {built} built");
    place.built(text);
}
