//! Ctrl-C when the steps are done and the image is on its way out.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use fluyt::blob::sha256;

use super::arriving::is_below;
use super::place::Place;
use super::server::{Reply, Server};

/// Less than a stopped build may take to tidy up: one that takes no longer has stopped by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A build that runs, and what it says.
struct Running {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Running {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::of(place.command(arguments))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    fn interrupt(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::INT)
            .unwrap();
    }

    /// Ctrl-C, and waits until that is said to be heard.
    fn stop(&mut self) {
        self.interrupt();
        let mut line = String::new();
        while !line.contains("stopping; once more ends at once") {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it ended without a word");
        }
    }

    /// How it ended.
    fn code(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("panicked"), "{rest}");
        self.child.wait().unwrap().code()
    }
}

/// Files that no compression makes smaller, below `context/data`.
fn write_noise(place: &Place, files: u64, bytes_each: usize) {
    let mut state = 88_172_645_463_325_252_u64;
    for number in 0..files {
        let mut content = Vec::with_capacity(bytes_each);
        while content.len() < bytes_each {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend(state.to_le_bytes());
        }
        place.write(&format!("context/data/{number}"), content);
    }
    place.write("context/Dockerfile", "FROM scratch\nCOPY data /data\n");
}

fn images(place: &Place) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    let output = command.env("FLUYT_STORE", place.path("store")).arg("images").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A registry that has all blobs, and takes its time for a manifest.
fn slow_registry() -> Server {
    Server::start(|asked| {
        if asked.method == "PUT" {
            std::thread::sleep(Duration::from_secs(2));
        }
        Reply::new(if asked.method == "PUT" { 201 } else { 200 }, "")
    })
}

fn manifests_put(server: &Server) -> Vec<String> {
    server.asked().into_iter().filter(|asked| asked.method == "PUT").map(|asked| asked.target).collect()
}

/// A build whose first export goes to a pipe that nobody has read yet, with the other end of that pipe.
fn held_by_a_pipe(place: &Place, arguments: &[&str]) -> (Running, File) {
    write_noise(place, 4, 1024 * 1024);
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let running = Running::start(place, &[&["-o", "type=oci,dest=pipe"], arguments, &["context"]].concat());
    // Until the export opens the other end.
    (running, File::open(pipe).unwrap())
}

#[test]
fn nothing_comes_after_an_export_that_is_interrupted() {
    let (place, server) = (Place::new(), slow_registry());
    let name = format!("{}/a:1", server.address);
    let (mut running, mut pipe) = held_by_a_pipe(&place, &["-o", "type=tar,dest=after.tar", "--push", "-t", &name]);
    running.stop();
    // What was said is done right after.
    std::thread::sleep(Duration::from_millis(100));
    let read = std::io::copy(&mut pipe, &mut std::io::sink()).unwrap();
    assert!(read < 4 * 1024 * 1024, "the export went on: {read} bytes");
    assert_eq!(running.code(), Some(130));
    assert_eq!(names(&place.path("")), ["context", "pipe", "store"]);
    assert_eq!(manifests_put(&server), Vec::<String>::new());
    assert!(!images(&place).contains("/a:1"), "{}", images(&place));
}

#[test]
fn the_second_interrupt_ends_an_export_that_waits() {
    let place = Place::new();
    let (mut running, pipe) = held_by_a_pipe(&place, &[]);
    running.stop();
    let begun = Instant::now();
    running.interrupt();
    assert_eq!(running.code(), Some(130));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    drop(pipe);
}

#[test]
fn nothing_comes_after_a_push_that_is_interrupted() {
    let (place, server) = (Place::new(), slow_registry());
    write_noise(&place, 1, 1024);
    let tags = ["1", "2"].map(|tag| format!("{}/a:{tag}", server.address));
    let mut running = Running::start(&place, &["--push", "-t", &tags[0], "-t", &tags[1], "context"]);
    let begun = Instant::now();
    let mut put = Vec::new();
    while put.is_empty() {
        assert!(begun.elapsed().as_secs() < 20, "nothing is pushed");
        std::thread::sleep(Duration::from_millis(20));
        put = manifests_put(&server);
    }
    assert_eq!(put, ["/v2/a/manifests/1"]);
    running.stop();
    assert_eq!(running.code(), Some(130));
    assert_eq!(manifests_put(&server), Vec::<String>::new());
}

#[test]
fn a_push_that_hangs_is_given_up_at_once() {
    let place = Place::new();
    let server = Server::start(|asked| {
        std::thread::sleep(Duration::from_secs(if asked.method == "POST" { 30 } else { 0 }));
        Reply::new(404, "")
    });
    write_noise(&place, 1, 1024);
    let mut running = Running::start(&place, &["--push", "-t", &format!("{}/a:1", server.address), "context"]);
    let begun = Instant::now();
    while !server.asked().iter().any(|asked| asked.method == "POST") {
        assert!(begun.elapsed().as_secs() < 20, "nothing is pushed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    running.stop();
    assert_eq!(running.code(), Some(130));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// Files and folders, new and there before; interrupted once, and twice.
#[test]
fn an_export_that_is_interrupted_leaves_nothing_half_written() {
    let place = Place::new();
    write_noise(&place, 40, 4 * 1024 * 1024);
    place.build(&["context"]);
    fs::remove_file(place.path("result.tar")).unwrap();
    for twice in [false, true] {
        for output in [
            "type=tar,dest=out/result",
            "type=oci,dest=out/result",
            "type=oci,tar=false,dest=out/result",
            "type=local,dest=out/result",
            "type=local,dest=out",
        ] {
            fs::create_dir(place.path("out")).unwrap();
            let mut running = Running::start(&place, &["-o", output, "context"]);
            let begun = Instant::now();
            while !names(&place.path("out")).iter().any(|name| name.starts_with('.')) {
                assert!(begun.elapsed().as_secs() < 20, "{output}: nothing is written");
            }
            if twice {
                running.stop();
            }
            running.interrupt();
            assert_eq!(running.code(), Some(130), "{output}");
            assert_eq!(names(&place.path("out")), Vec::<String>::new(), "{output}");
            fs::remove_dir(place.path("out")).unwrap();
        }
    }
}

/// How many pieces `zeros` are made of.
const PIECES: u64 = 40;

const PIECE_BYTES: u64 = 64 * 1024 * 1024;

/// More zeros than anyone reads in the time that a test takes, as gzip.
fn zeros() -> Vec<u8> {
    let bytes = usize::try_from(PIECE_BYTES).unwrap();
    gzip(&vec![0; bytes]).repeat(usize::try_from(PIECES).unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A registry of one image of one layer, which nobody unpacks to its end: its diff id is another's.
fn registry(layer: Vec<u8>, kind: &str) -> Server {
    let (digest, size) = (sha256(&layer).to_string(), layer.len());
    let arch = fluyt::pipeline::host_platform().architecture;
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
    );
    let (of_config, config_size) = (sha256(config.as_bytes()), config.len());
    let of_oci = "application/vnd.oci.image";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{of_oci}.manifest.v1+json","config":{{"mediaType":"{of_oci}.config.v1+json","digest":"{of_config}","size":{config_size}}},"layers":[{{"mediaType":"{of_oci}.layer.v1.{kind}","digest":"{digest}","size":{size}}}]}}"#
    );
    let media_type = format!("{of_oci}.manifest.v1+json");
    Server::start(move |asked| match asked.target.rsplit('/').next().unwrap_or_default() {
        last if last == digest => Reply::new(200, layer.clone()),
        last if last.starts_with("sha256:") => Reply::new(200, config.clone()),
        "1" => Reply::new(200, manifest.clone()).header("Content-Type", &media_type),
        _ => Reply::new(200, ""),
    })
}

fn pull(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", place.path("store")).arg("pull").args(arguments).current_dir(place.path(""));
    command
}

/// Waits for a file below the store, and stops the build then.
fn stop_when(place: &Place, mut running: Running, is_there: impl Fn(&Path) -> bool) {
    let begun = Instant::now();
    while !is_there(&place.path("store")) {
        assert!(begun.elapsed().as_secs() < 20, "it does not come so far");
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    running.stop();
    assert_eq!(running.code(), Some(130));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// All of the file is here, and only then is it inflated.
#[test]
fn a_fetched_file_is_inflated_no_further_once_the_build_is_stopped() {
    let (place, zeros) = (Place::new(), zeros());
    let server = Server::start(move |_| Reply::new(200, zeros.clone()).header("Content-Encoding", "gzip"));
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/zeros")));
    let running = Running::start(&place, &["context"]);
    stop_when(&place, running, |store| {
        fs::read_dir(store.join("blobs/sha256")).is_ok_and(|mut blobs| blobs.next().is_some())
    });
}

/// A layer that is in the store, so that no transfer of it ends.
#[test]
fn a_layer_is_unpacked_no_further_once_the_build_is_stopped() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: RUN needs root here");
        return;
    }
    let place = Place::new();
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(PIECES * PIECE_BYTES);
    header.set_mode(0o644);
    header.set_cksum();
    let server = registry([gzip(header.as_bytes()), zeros(), gzip(&[0; 1024])].concat(), "tar+gzip");
    let name = format!("{}/zeros:1", server.address);
    assert!(pull(&place, &["-q", &name]).stdout(Stdio::null()).status().unwrap().success());
    place.write("context/Dockerfile", format!("FROM {name}\nRUN [\"/none\"]\n"));
    let running = Running::start(&place, &["context"]);
    stop_when(&place, running, |store| is_below(store, "zeros"));
}

#[test]
fn a_pull_into_a_file_or_folder_that_is_interrupted_leaves_nothing_half_written() {
    let (place, server) = (Place::new(), registry(vec![7; 400 * 1024 * 1024], "tar"));
    let name = format!("{}/large:1", server.address);
    assert!(pull(&place, &["-q", &name]).stdout(Stdio::null()).status().unwrap().success());
    for output in ["out/image.tar", "out/image"] {
        fs::create_dir(place.path("out")).unwrap();
        let running = Running::of(pull(&place, &["-o", output, &name]));
        let begun = Instant::now();
        while !names(&place.path("out")).iter().any(|name| name.starts_with('.')) {
            assert!(begun.elapsed().as_secs() < 20, "{output}: nothing is written");
        }
        running.interrupt();
        assert_eq!(running.code(), Some(130), "{output}");
        assert_eq!(names(&place.path("out")), Vec::<String>::new(), "{output}");
        fs::remove_dir(place.path("out")).unwrap();
    }
}

/// A registry that takes a connection and says nothing, as behind a broken balancer.
#[test]
fn a_push_to_a_registry_that_is_silent_ends_at_once() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app:1", silent.local_addr().unwrap());
    place.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    assert!(place.command(&["-t", &name, "context"]).stdout(Stdio::null()).status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", place.path("store")).args(["push", &name]);
    let mut running = Running::of(command);
    let _connection = silent.accept().unwrap();
    let begun = Instant::now();
    running.stop();
    assert_eq!(running.code(), Some(130));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}
