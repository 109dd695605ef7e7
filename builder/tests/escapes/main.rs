//! What a hostile Dockerfile may try, and what comes of it: the list in `attempts.rs`, tried in a real build on each way to
//! run commands that this machine has, and `ESCAPES.md`, the table made of it.
//!
//! Needs root, perl and busybox, and says `skipped` without them.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attempts;
mod rungs;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use attempts::{ALONE, ATTEMPTS, Attempt, Outcome, TOOLS};

const PERL: &str = "/usr/bin/perl";
const BUSYBOX: &str = "/usr/bin/busybox";

/// The calls that attempts make.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! numbers {
    ($($name:ident = $constant:ident),* $(,)?) => { [$((stringify!($name), libc::$constant)),*] };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const NUMBERS: &[(&str, i64)] = &numbers![
    acct = SYS_acct,
    add_key = SYS_add_key,
    adjtimex = SYS_adjtimex,
    bind = SYS_bind,
    bpf = SYS_bpf,
    capset = SYS_capset,
    clone = SYS_clone,
    clone3 = SYS_clone3,
    close = SYS_close,
    connect = SYS_connect,
    exit_group = SYS_exit_group,
    fcntl = SYS_fcntl,
    finit_module = SYS_finit_module,
    fsopen = SYS_fsopen,
    gettimeofday = SYS_gettimeofday,
    init_module = SYS_init_module,
    io_uring_setup = SYS_io_uring_setup,
    ioctl = SYS_ioctl,
    kexec_load = SYS_kexec_load,
    keyctl = SYS_keyctl,
    madvise = SYS_madvise,
    mknodat = SYS_mknodat,
    mmap = SYS_mmap,
    mount = SYS_mount,
    mount_setattr = SYS_mount_setattr,
    mprotect = SYS_mprotect,
    mremap = SYS_mremap,
    munmap = SYS_munmap,
    open_by_handle_at = SYS_open_by_handle_at,
    open_tree = SYS_open_tree,
    openat = SYS_openat,
    perf_event_open = SYS_perf_event_open,
    personality = SYS_personality,
    pidfd_getfd = SYS_pidfd_getfd,
    pidfd_open = SYS_pidfd_open,
    pidfd_send_signal = SYS_pidfd_send_signal,
    pivot_root = SYS_pivot_root,
    prlimit64 = SYS_prlimit64,
    process_vm_readv = SYS_process_vm_readv,
    process_vm_writev = SYS_process_vm_writev,
    ptrace = SYS_ptrace,
    quotactl = SYS_quotactl,
    read = SYS_read,
    reboot = SYS_reboot,
    renameat2 = SYS_renameat2,
    request_key = SYS_request_key,
    sched_setaffinity = SYS_sched_setaffinity,
    seccomp = SYS_seccomp,
    sendmmsg = SYS_sendmmsg,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    sethostname = SYS_sethostname,
    setns = SYS_setns,
    setsid = SYS_setsid,
    settimeofday = SYS_settimeofday,
    setxattr = SYS_setxattr,
    shmget = SYS_shmget,
    socket = SYS_socket,
    swapon = SYS_swapon,
    syslog = SYS_syslog,
    tgkill = SYS_tgkill,
    umount2 = SYS_umount2,
    unshare = SYS_unshare,
    userfaultfd = SYS_userfaultfd,
];

/// An ordinary user, without a name and without any right.
const USER: u32 = 4711;

/// A program as the user that a rung is for: all but one are tried as root.
fn command(rung: &str, program: &str) -> Command {
    if rung != "r6" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
    command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", program]);
    command
}

/// What stands on the host for attempts to reach for.
struct Host {
    folder: tempfile::TempDir,
    /// A word that nothing else on the machine has: a number of seconds, so that a process can wait for it.
    mark: String,
    facts: BTreeMap<&'static str, String>,
    sleeper: Child,
    shm: PathBuf,
    _descriptor: std::os::fd::OwnedFd,
    _listeners: (TcpListener, UnixListener, UnixDatagram),
}

impl Host {
    /// `None`, said aloud, where this cannot be tried.
    fn new(rung: &'static str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(PERL).exists() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: this test needs root, {PERL} and {BUSYBOX}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mark = format!("{}", 3_000_000 + std::process::id());
        let canary = folder.path().join("canary");
        fs::write(&canary, "the host's").unwrap();
        let mut sleeper = command(rung, "sleep");
        let sleeper = sleeper.arg(&mark).spawn().unwrap();
        let datagram = folder.path().join("datagram");
        let datagrams = UnixDatagram::bind(&datagram).unwrap();
        fs::set_permissions(&datagram, fs::Permissions::from_mode(0o666)).unwrap();
        let shm = Path::new("/dev/shm").join(&mark);
        fs::write(&shm, "the host's").unwrap();
        // A number that the attempts' own do not reach.
        let descriptor = rustix::io::fcntl_dupfd_cloexec(fs::File::open(folder.path()).unwrap(), 100).unwrap();
        let flags = rustix::io::FdFlags::empty();
        rustix::io::fcntl_setfd(&descriptor, flags).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let low = (600..1024u16).rev().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
        let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&mark).unwrap()).unwrap();
        let script = "print shmget($ARGV[0], 4096, 01666) // die $!";
        let made = Command::new(PERL).args(["-e", script, &mark]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let device = fs::metadata("/").unwrap().dev();
        let facts = BTreeMap::from([
            ("canary", canary.to_str().unwrap().to_owned()),
            ("mark", mark.clone()),
            ("survivor", format!("{mark}.5")),
            ("secret", "squeamish-ossifrage".to_owned()),
            ("pid", sleeper.id().to_string()),
            ("rung", rung.to_owned()),
            ("datagram", datagram.to_str().unwrap().to_owned()),
            ("shm", mark.clone()),
            ("disk", format!("{}:{}", libc::major(device), libc::minor(device))),
            ("descriptor", std::os::fd::AsRawFd::as_raw_fd(&descriptor).to_string()),
            ("port", tcp.local_addr().unwrap().port().to_string()),
            ("low", low.to_string()),
        ]);
        Some(Self { folder, mark, facts, sleeper, shm, _descriptor: descriptor, _listeners: (tcp, socket, datagrams) })
    }

    /// A perl program that makes these attempts and writes the words to the file that its argument names.
    fn program(&self, attempts: &[Attempt]) -> String {
        let mut text = String::from("our (%N, %H, @tries);\n");
        for (name, number) in NUMBERS {
            writeln!(text, "$N{{{name}}} = {number};").unwrap();
        }
        // Intel's machines alone have it.
        writeln!(text, "$N{{iopl}} = {};", if cfg!(target_arch = "x86_64") { 172 } else { -1 }).unwrap();
        for (name, fact) in &self.facts {
            writeln!(text, "$H{{{name}}} = '{fact}';").unwrap();
        }
        for Attempt { what, code, .. } in attempts {
            writeln!(text, "push @tries, [q^{what}^, sub {{ {code} }}];").unwrap();
        }
        text + TOOLS
    }

    /// A context with an image of busybox and perl that is as hostile as an image can be.
    fn context(&self) -> PathBuf {
        let context = self.folder.path().join("context");
        let root = context.join("root");
        for name in ["bin", "usr/bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for tool in ["sh", "true", "sleep", "cat"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        let needed = Command::new("ldd").arg(PERL).output().unwrap();
        let needed = String::from_utf8(needed.stdout).unwrap();
        let libraries = needed.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([PERL]) {
            let place = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(file, place).unwrap();
        }
        fs::write(root.join("shared"), "as it was").unwrap();
        std::os::unix::fs::symlink(format!("../../../../..{}", self.folder.path().display()), root.join("way-out"))
            .unwrap();
        let mut archive = tar::Builder::new(fs::File::create(context.join("brought.tar")).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Block);
        header.set_mode(0o666);
        header.set_size(0);
        let device = fs::metadata("/").unwrap().dev();
        header.set_device_major(libc::major(device)).unwrap();
        header.set_device_minor(libc::minor(device)).unwrap();
        archive.append_data(&mut header, "brought", std::io::empty()).unwrap();
        archive.finish().unwrap();
        let all: Vec<Attempt> = ATTEMPTS.iter().flat_map(|(_, attempts)| attempts.iter().copied()).collect();
        fs::write(context.join("attempts"), self.program(&all)).unwrap();
        fs::write(context.join("alone"), self.program(ALONE)).unwrap();
        fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
        context
    }

    /// The words that came of each attempt, on one rung.
    fn try_all(&self, rung: &str) -> Result<Words, String> {
        let context = self.context();
        let out = self.folder.path().join("out");
        if rung == "r6" {
            // No network can be made there, and the build says so.
            fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
            let said = self.build(rung, &context, &out).unwrap_err();
            assert!(said.contains("cannot make a network of its own"), "{said}");
            let alone = DOCKERFILE.lines().filter(|line| !line.contains("--network=none"));
            let alone: Vec<String> = alone.map(|line| line.replace("/results-alone ", "")).collect();
            fs::write(context.join("Dockerfile"), alone.join("\n")).unwrap();
        }
        self.build(rung, &context, &out)?;
        let words = |name: &str| -> BTreeMap<String, String> {
            let text = fs::read_to_string(out.join(name)).unwrap();
            text.lines().map(|line| line.split_once('\t').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
        };
        assert_eq!(fs::read_to_string(out.join("shared")).unwrap(), "as it was", "the layer below");
        assert!(!self.folder.path().join("of").exists(), "the mount left the image");
        assert!(Path::new(&format!("/proc/{}", self.sleeper.id())).exists(), "the host's process");
        assert!(!is_running(&self.facts["survivor"]), "a process outlived its step");
        let refused = || ALONE.iter().map(|attempt| (attempt.what.to_owned(), "build".to_owned())).collect();
        Ok(Words { on_host: words("results"), alone: if rung == "r6" { refused() } else { words("results-alone") } })
    }

    /// The error is what the build said.
    fn build(&self, rung: &str, context: &Path, out: &Path) -> Result<(), String> {
        if rung == "r6" {
            let owned = Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(self.folder.path()).status();
            assert!(owned.unwrap().success());
        }
        let built = command(rung, env!("CARGO_BIN_EXE_fluyt"))
            .args(["build", "--progress=plain", "--isolation", rung, "--secret", "id=token,env=TOKEN", "-o"])
            .arg(format!("type=local,dest={}", out.display()))
            .arg(context)
            .env("FLUYT_STORE", self.folder.path().join("store"))
            .env("TOKEN", &self.facts["secret"])
            .env("BUILDER", &self.mark)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if built.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
        let _ = fs::remove_file(&self.shm);
        let script = "my $id = shmget($ARGV[0], 0, 0); shmctl($id, 0, 0) if defined $id";
        let _ = Command::new(PERL).args(["-e", script, &self.mark]).status();
    }
}

const DOCKERFILE: &str = r#"FROM scratch AS base
COPY root/ /
ADD brought.tar /
COPY attempts alone /
FROM base AS told
RUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null
FROM told AS tried
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/memory --mount=type=tmpfs,target=/way-out/of/here ["/usr/bin/perl", "/attempts", "/results"]
RUN --network=none ["/usr/bin/perl", "/alone", "/results-alone"]
FROM scratch
COPY --from=tried /results /results-alone /
COPY --from=base /shared /
"#;

struct Words {
    on_host: BTreeMap<String, String>,
    alone: BTreeMap<String, String>,
}

/// Whether a process of this machine has this word in its command line.
fn is_running(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
    })
}

/// What is not as the list says.
fn unexpected(rung: &str, attempts: &[Attempt], words: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for attempt in attempts {
        let (Outcome::Refused(expected) | Outcome::Harmless(expected, _) | Outcome::Open(expected, _)) =
            rungs::outcome(rung, attempt);
        let word = words.get(attempt.what).map_or("nothing", String::as_str);
        if !expected.contains(&word) && !expected.contains(&"*") {
            found.push(format!("{}: expected {}, found {word}", attempt.what, expected.join(" or ")));
        }
    }
    found
}

#[test]
fn each_attempt_ends_as_the_list_says() {
    let mut found = Vec::new();
    let only = std::env::var("FLUYT_RUNGS").unwrap_or_default();
    for rung in rungs::COLUMNS.iter().filter(|rung| only.is_empty() || only.split(',').any(|one| one == **rung)) {
        // A fresh one: what another rung made stands in no store.
        let Some(host) = Host::new(rung) else { return };
        let words = match host.try_all(rung) {
            Ok(words) => words,
            Err(said) if said.contains("this machine") || said.contains("isolation") => {
                eprintln!("skipped: {rung} does not run here: {said}");
                continue;
            }
            Err(said) => panic!("{rung}: {said}"),
        };
        let all: Vec<Attempt> = ATTEMPTS.iter().flat_map(|(_, attempts)| attempts.iter().copied()).collect();
        for (attempts, words) in [(&*all, &words.on_host), (ALONE, &words.alone)] {
            found.extend(unexpected(rung, attempts, words).into_iter().map(|line| format!("{rung}: {line}")));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
