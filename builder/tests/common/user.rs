//! An ordinary user with subordinate ids, made for one test.
//!
//! Needs root, `useradd`, `setpriv`, `newuidmap` and a static busybox, and says `skipped` without them.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(unreachable_pub, reason = "a module of each test, and of no crate")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const BUSYBOX: &str = "/usr/bin/busybox";

/// A user of this test alone, with a folder that others can enter.
pub struct User {
    pub name: String,
    pub folder: tempfile::TempDir,
}

impl User {
    /// `None`, said aloud, where there can be none.
    pub fn new() -> Option<Self> {
        let has = |program: &str| {
            ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).exists())
        };
        let needed = ["busybox", "useradd", "userdel", "usermod", "setpriv", "newuidmap", "newgidmap"];
        if !rustix::process::geteuid().is_root() || !needed.iter().all(|program| has(program)) {
            eprintln!("skipped: this test needs root, {}", needed.join(", "));
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fl{}x{number}", std::process::id());
        // Some disks take seconds to forget what a test leaves.
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let user = Self { name, folder };
        accounts(Command::new("useradd").args(["--no-create-home", "--home-dir", "/nonexistent"]).arg(&user.name));
        if !fs::read_to_string("/etc/subuid").unwrap_or_default().contains(&format!("{}:", user.name)) {
            let first = 2_000_000 + (std::process::id() % 10_000) * 200_000 + number * 65536;
            let range = format!("{first}-{}", first + 65535);
            accounts(Command::new("usermod").args(["--add-subuids", &range, "--add-subgids", &range]).arg(&user.name));
        }
        fs::copy(env!("CARGO_BIN_EXE_fluyt"), user.path("fluyt")).unwrap();
        fs::create_dir(user.path("store")).unwrap();
        let id = Command::new("id").args(["-u", &user.name]).output().unwrap();
        let id: u32 = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
        std::os::unix::fs::chown(user.path("store"), Some(id), None).unwrap();
        Some(user)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A context with a busybox, and this after the steps that install it.
    pub fn context(&self, text: &str) -> PathBuf {
        let context = self.path("context");
        fs::create_dir_all(&context).unwrap();
        fs::copy(BUSYBOX, context.join("busybox")).unwrap();
        let text = format!(
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{text}"
        );
        fs::write(context.join("Dockerfile"), text).unwrap();
        context
    }

    /// `fluyt` as this user, with a store of the user's.
    pub fn fluyt(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.name)).arg(format!("--regid={}", self.name)).arg("--init-groups");
        command.arg(self.path("fluyt")).arg("--store").arg(self.path("store"));
        command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub fn build(&self, context: &Path) -> Output {
        self.fluyt().args(["build", "--reproducible", "--progress=plain"]).arg(context).output().unwrap()
    }

    /// All that is left in the store of this folder.
    pub fn left(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("store").join(folder));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        accounts(Command::new("userdel").arg(&self.name));
    }
}

/// Changes the list of users, once nobody else is at it.
fn accounts(command: &mut Command) {
    let start = Instant::now();
    loop {
        let output = command.output().unwrap();
        if output.status.success() {
            return;
        }
        let said = text(&output);
        let in_use = said.contains("cannot lock") || said.contains("currently used by process");
        if !in_use || start.elapsed() > Duration::from_secs(30) {
            eprintln!("{command:?}: {said}");
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a command said.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
