//! Object stores to test against: SeaweedFS (S3), fake-gcs-server (GCS) and azurite (Azure), each on free ports of
//! 127.0.0.1. Only std is used, so that the tests of the registry's crate take this file in too.
//!
//! `need_stores` of `needs.sh` installs them into `target/tools`. A test that needs one that is not there says so with
//! [`skipped`] and ends. One server serves all tests of a test binary; each test makes itself a bucket.
//!
//! ```no_run
//! use spec_tests::stores::{Seaweed, skipped};
//!
//! let Some(server) = Seaweed::shared() else { return skipped("my test", "SeaweedFS") };
//! let bucket = server.bucket();
//! std::process::Command::new("fluyt-registry")
//!     .args(["serve", "--listen", "127.0.0.1:0", "--store", &format!("s3://{bucket}/some/prefix")])
//!     .envs(server.variables());
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a test cannot run because a store is not there. `spec-tests/run` counts it as skipped then, not as passed.
pub fn skipped(test: &str, store: &str) {
    let reason = format!("{test}: {store} is not installed (`./spec-tests/run stores` does it)");
    if let Some(file) = std::env::var_os("FLUYT_SPEC_TESTS_SKIPS") {
        let mut file = File::options().append(true).create(true).open(file).expect("the file of skips");
        writeln!(file, "{reason}").expect("the file of skips");
    } else {
        let _ = writeln!(std::io::stdout(), "skipped: {reason}");
    }
}

/// Where the scripts put what they build and fetch.
fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || {
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
            let root = manifest.ancestors().find(|folder| folder.join("Cargo.lock").exists());
            root.unwrap_or(manifest).join("target")
        },
        PathBuf::from,
    );
    target.join("tools")
}

/// A process that ends with the one that started it, however that ends.
#[derive(Debug)]
struct Server {
    shell: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts `program` with its output in `log` of a folder of its own. Whatever it is told comes from `arguments`.
    fn start(name: &str, arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fluyt-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the server");
        let log = File::create(folder.join("log")).expect("a log");
        let arguments = arguments(&folder);
        // The shell reads until the pipe breaks, which it does when this process is gone, even by SIGKILL.
        let script = r#"folder=$1; shift; "$@" </dev/null & read -r _; kill -9 $!; wait $!; rm -rf "$folder""#;
        let shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&folder)
            .args(arguments)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("sh runs");
        Self { shell, folder }
    }

    /// Waits until `address` answers an HTTP request.
    fn wait(&mut self, address: SocketAddr, path: &str) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if request(address, "GET", path, "").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// One plain HTTP/1.0 request; the answer's status and body. `None`: nobody answers.
fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let kind = if body.starts_with('{') { "Content-Type: application/json\r\n" } else { "" };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{kind}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A server that resets instead of closing has answered all the same.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The first of `count` neighbouring ports, each of which is free, and free again `also` higher. None is given out twice.
fn free_ports(count: u16, also: u16) -> u16 {
    // Below the range that the system gives out by itself, and not the same for two processes.
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().expect("nobody panicked");
    let mut base = next.unwrap_or_else(|| 12_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0));
    for _ in 0..1_000 {
        let free = |port: u16| TcpListener::bind(local(port)).is_ok();
        if (base..base + count).all(|port| free(port) && (also == 0 || free(port + also))) {
            *next = Some(base + count);
            return base;
        }
        base = if base > 22_000 { 12_000 } else { base + count };
    }
    panic!("no {count} free ports in a row");
}

fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// SeaweedFS: a real S3 server, with signatures, part sizes and errors as S3 has them.
#[derive(Debug)]
pub struct Seaweed {
    s3: SocketAddr,
    filer: SocketAddr,
    _server: Server,
}

impl Seaweed {
    /// The key that it knows.
    pub const ACCESS_KEY: &'static str = "testkey";
    /// Its secret.
    pub const SECRET_KEY: &'static str = "testsecretkey12345";
    /// A key, and its secret, with which nothing can be written.
    pub const READER: &'static str = "reader";
    /// A bucket that everyone may use without a key.
    pub const OPEN_BUCKET: &'static str = "open-to-all";

    /// The one that all tests of this binary share; `None` when it is not installed.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Seaweed>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Starts one; `None` when it is not installed.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start() -> Option<Self> {
        let weed = tools().join("python/bin/weed");
        if !weed.exists() {
            return None;
        }
        // Each of its ports takes another one, 10,000 higher, for gRPC.
        let base = free_ports(4, 10_000);
        let (master, volume, filer, s3) = (base, base + 1, base + 2, base + 3);
        let mut server = Server::start("seaweedfs", |folder| {
            let keys = format!(
                r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{0}","secretKey":"{1}"}}],"actions":["Admin","Read","Write","List","Tagging"]}},{{"name":"anonymous","actions":["Read:{2}","Write:{2}","List:{2}"]}},{{"name":"r","credentials":[{{"accessKey":"{3}","secretKey":"{3}"}}],"actions":["Read","List"]}}]}}"#,
                Self::ACCESS_KEY,
                Self::SECRET_KEY,
                Self::OPEN_BUCKET,
                Self::READER
            );
            fs::write(folder.join("s3.json"), keys).expect("its keys");
            fs::create_dir_all(folder.join("data")).expect("its folder");
            let mut arguments = vec![weed.display().to_string()];
            arguments.extend(
                [
                    "server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir=data -s3 -s3.config=s3.json",
                    "-s3.port.iceberg=0 -s3.port.lance=0 -volume.preStopSeconds=1 -volume.max=50",
                    "-master.volumeSizeLimitMB=256 -master.volumePreallocate=false",
                ]
                .iter()
                .flat_map(|line| line.split(' '))
                .map(str::to_owned),
            );
            let ports = [("master.port", master), ("volume.port", volume), ("filer.port", filer), ("s3.port", s3)];
            arguments.extend(ports.iter().map(|(flag, port)| format!("-{flag}={port}")));
            arguments
        });
        let up = server.wait(local(filer), "/") && server.wait(local(s3), "/");
        assert!(up, "SeaweedFS did not come up; its log:\n{}", server.log());
        let seaweed = Self { s3: local(s3), filer: local(filer), _server: server };
        // It answers before it can store: the first bucket that takes an object says that it can.
        seaweed.make_bucket(Self::OPEN_BUCKET);
        let start = Instant::now();
        let path = format!("/buckets/{}/ready", Self::OPEN_BUCKET);
        while request(seaweed.filer, "PUT", &path, "x").is_none_or(|(status, _)| status != 201) {
            assert!(start.elapsed() < PATIENCE, "SeaweedFS stores nothing; its log:\n{}", seaweed._server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(seaweed)
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// Makes a bucket; its name.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn bucket(&self) -> String {
        let name = unique("bucket");
        self.make_bucket(&name);
        name
    }

    fn make_bucket(&self, name: &str) {
        // To the filer a bucket is a folder.
        let start = Instant::now();
        loop {
            match request(self.filer, "POST", &format!("/buckets/{name}/"), "") {
                Some((200..=299, _)) => return,
                answer if start.elapsed() > PATIENCE => panic!("SeaweedFS makes no bucket: {answer:?}"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// What names the server and its key to a client.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }
}

/// fake-gcs-server: GCS without signatures or permissions.
#[derive(Debug)]
pub struct FakeGcs {
    address: SocketAddr,
    _server: Server,
}

impl FakeGcs {
    /// The one that all tests of this binary share; `None` when it is not installed.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<FakeGcs>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Starts one; `None` when it is not installed.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start() -> Option<Self> {
        let program = tools().join("fake-gcs-server");
        if !program.exists() {
            return None;
        }
        let port = free_ports(1, 0);
        let mut server = Server::start("gcs", |_| {
            let flags = ["-scheme=http", "-host=127.0.0.1", "-backend=memory", "-log-level=warn"];
            let mut arguments = vec![program.display().to_string()];
            arguments.extend(flags.map(str::to_owned));
            arguments.extend([format!("-port={port}"), format!("-public-host=127.0.0.1:{port}")]);
            arguments
        });
        let up = server.wait(local(port), "/storage/v1/b");
        assert!(up, "fake-gcs-server did not come up; its log:\n{}", server.log());
        Some(Self { address: local(port), _server: server })
    }

    /// Makes a bucket; its name.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn bucket(&self) -> String {
        let name = unique("bucket");
        let answer = request(self.address, "POST", "/storage/v1/b?project=test", &format!(r#"{{"name":"{name}"}}"#));
        assert!(matches!(answer, Some((200..=299, _))), "fake-gcs-server makes no bucket: {answer:?}");
        name
    }

    /// Puts an object into a bucket, which it has no XML API for.
    ///
    /// # Panics
    /// When it cannot.
    pub fn put(&self, bucket: &str, key: &str, content: &str) {
        let name: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
        let answer = request(self.address, "POST", &path, content);
        assert!(matches!(answer, Some((200..=299, _))), "fake-gcs-server takes no object: {answer:?}");
    }

    /// What names the server to a client.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("STORAGE_EMULATOR_HOST", format!("http://{}", self.address))]
    }
}

/// azurite: Microsoft's emulator of Azure blob storage.
#[derive(Debug)]
pub struct Azurite {
    address: SocketAddr,
    _server: Server,
}

impl Azurite {
    /// The account that it knows, as Microsoft documents it for everyone.
    const ACCOUNT: &'static str = "devstoreaccount1";
    /// Its key, as public as its name.
    const KEY: &'static str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    /// Lets whoever has it make containers until 2099: made from the key.
    const MAY_MAKE: &'static str = "sv=2021-06-08&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&sig=u%2FLFtFLkfWjYfS4M8%2FKu3Opbo%2FBzqJ3%2FD2inU3wCMrg%3D";

    /// The one that all tests of this binary share; `None` when it is not installed.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Azurite>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Starts one; `None` when it is not installed.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start() -> Option<Self> {
        let program = tools().join("azurite/node_modules/.bin/azurite-blob");
        if !program.exists() {
            return None;
        }
        let port = free_ports(1, 0);
        let mut server = Server::start("azurite", |_| {
            let mut arguments = vec![program.display().to_string()];
            arguments.extend(["--silent", "--inMemoryPersistence", "--disableTelemetry"].map(str::to_owned));
            arguments.extend(["--blobHost".to_owned(), "127.0.0.1".to_owned()]);
            arguments.extend(["--blobPort".to_owned(), port.to_string()]);
            // On a busy machine it needs longer than its 5 s for a batch of deletions.
            arguments.extend(["--blobKeepAliveTimeout".to_owned(), "60".to_owned()]);
            arguments
        });
        let up = server.wait(local(port), "/");
        assert!(up, "azurite did not come up; its log:\n{}", server.log());
        Some(Self { address: local(port), _server: server })
    }

    /// Makes a container; its name.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn container(&self) -> String {
        let name = unique("container");
        let path = format!("/{}/{name}?restype=container&{}", Self::ACCOUNT, Self::MAY_MAKE);
        let answer = request(self.address, "PUT", &path, "");
        assert!(matches!(answer, Some((200..=299, _))), "azurite makes no container: {answer:?}");
        name
    }

    /// What names the server and its account to a client.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let (account, key) = (Self::ACCOUNT, Self::KEY);
        vec![(
            "AZURE_STORAGE_CONNECTION_STRING",
            format!(
                "DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint=http://{}/{account};",
                self.address
            ),
        )]
    }
}
