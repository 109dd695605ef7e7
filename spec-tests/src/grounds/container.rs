//! A container that `docker run` makes with the arguments that are to be tried.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Network, give};
use crate::docker::Dockerd;
use crate::folder::TestDir;
use crate::program;

/// Where `fluyt` is inside.
pub(super) const PROGRAM: &str = "/usr/bin/fluyt";
const IMAGE: &str = "fluyt-ground:test";

/// A running one. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Container {
    daemon: Arc<Dockerd>,
    name: String,
    user: u32,
}

impl Container {
    pub(super) fn start(test: &str, arguments: &[&str], network: Network, mounted: &[&Path]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for argument in arguments {
            if let Some(file) = argument.strip_prefix("--security-opt=seccomp=/")
                && !Path::new("/").join(file).is_file()
            {
                program::skip(test, &format!("there is no /{file}"));
                return None;
            }
        }
        let daemon = Dockerd::shared(test)?;
        if !program::all_installed(test, &["busybox", "tar"]) {
            return None;
        }
        load_image(&daemon);
        let name = format!("ground-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut words: Vec<OsString> = ["run", "--detach", "--name", &name].map(OsString::from).to_vec();
        words.push(if network == Network::Host { "--network=host" } else { "--network=none" }.into());
        words.extend(arguments.iter().map(OsString::from));
        let mut volume = |outside: &Path, inside: &Path, options: &str| {
            let mut text = OsString::from("--volume=");
            text.push(outside);
            text.push(":");
            text.push(inside);
            text.push(options);
            words.push(text);
        };
        volume(&program::product("fluyt"), Path::new(PROGRAM), ":ro");
        mounted.iter().for_each(|path| volume(path, path, ""));
        words.extend([IMAGE, "/bin/busybox", "sleep", "100000"].map(OsString::from));
        let _ = daemon.docker(&words).expect_success();
        let user =
            arguments.iter().find_map(|argument| argument.strip_prefix("--user=")?.split(':').next()?.parse().ok());
        Some(Self { daemon, name, user: user.unwrap_or(0) })
    }

    pub(super) fn user(&self) -> u32 {
        self.user
    }

    /// The user's home, on the container's own file system.
    pub(super) fn home(&self) -> PathBuf {
        PathBuf::from(if self.user == 0 { "/root" } else { "/home/app" })
    }

    /// `docker exec`, with the environment and the working folder of a command.
    pub(super) fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("docker");
        inside.env("DOCKER_HOST", self.daemon.host()).env_remove("DOCKER_CONTEXT").args(["exec", "--interactive"]);
        if let Some(folder) = command.get_current_dir() {
            inside.arg("--workdir").arg(folder);
        }
        for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            let mut text = name.to_owned();
            text.push("=");
            text.push(value);
            inside.arg("--env").arg(text);
        }
        inside.arg(&self.name).arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.daemon.docker(["rm", "--force", "--volumes", &self.name]);
    }
}

/// Busybox and the libraries of `fluyt`, as the daemon's image.
fn load_image(daemon: &Dockerd) {
    static LOADING: Mutex<()> = Mutex::new(());
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if daemon.docker(["image", "inspect", IMAGE]).code == Some(0) {
        return;
    }
    let folder = TestDir::new();
    for name in ["bin", "usr/bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/app", "var/tmp"] {
        let _ = folder.folder(&format!("root/{name}"));
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let busybox = busybox.expect("busybox-static, which spec-tests/run installs");
    let _ = fs::copy(busybox, folder.join("root/bin/busybox")).expect("a copy of busybox");
    for applet in program::run(busybox, ["--list"]).expect_success().stdout.lines().filter(|name| *name != "busybox") {
        symlink("busybox", folder.join("root/bin").join(applet)).expect("a link for an applet");
    }
    // A static program has none.
    let libraries = program::run("ldd", [program::product("fluyt")]).stdout;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = folder.join(&format!("root{path}"));
        fs::create_dir_all(inside.parent().unwrap_or(folder.path())).expect("the folder of a library");
        let _ = fs::copy(path, inside).expect("a copy of a library");
    }
    // As every image that talks to registries has it.
    if let Ok(authorities) = fs::read("/etc/ssl/certs/ca-certificates.crt") {
        let _ = folder.write("root/etc/ssl/certs/ca-certificates.crt", authorities);
    }
    let _ = folder.write("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n");
    let _ = folder.write("root/etc/group", "root:x:0:\napp:x:1000:\n");
    give(&folder.join("root/home/app"), 1000);
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(folder.join(&format!("root/{name}")), fs::Permissions::from_mode(0o1777)).expect("a mode");
    }
    let (archive, root) = (folder.join("image.tar"), folder.join("root"));
    let _ = program::run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), archive.as_os_str(), ".".as_ref()])
        .expect_success();
    let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let _ = daemon.docker(["import", "--change", path, &archive.to_string_lossy(), IMAGE]).expect_success();
}
