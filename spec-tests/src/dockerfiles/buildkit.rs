//! The same case through `BuildKit`: a daemon of our own, and `buildctl` with the options that buildx would give it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::build::Built;
use super::case::Case;
use super::listing::{Description, describe};
use super::rig::Rig;
use crate::folder::TestDir;
use crate::image::Layout;
use crate::program;

/// How long the daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon. Dropping it stops it.
#[derive(Debug)]
pub struct Buildkit {
    child: Child,
    tools: PathBuf,
    folder: TestDir,
}

impl Buildkit {
    /// Starts the one in `tools`, whose registry for Docker Hub is the rig's.
    ///
    /// # Errors
    /// Why it cannot run here.
    ///
    /// # Panics
    /// When its folder cannot be written.
    pub fn start(tools: &Path, rig: &Rig) -> Result<Self, String> {
        if !tools.join("buildkitd").is_file() || !program::installed("runc") {
            return Err("buildkitd or runc is not installed".to_owned());
        }
        let folder = TestDir::new();
        let config = format!(
            "[registry.\"docker.io\"]\n  mirrors = [\"{host}\"]\n[registry.\"{host}\"]\n  http = true\n",
            host = rig.host()
        );
        let _ = folder.write("buildkitd.toml", config);
        let log = File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let child = Command::new(tools.join("buildkitd"))
            .arg("--config")
            .arg(folder.join("buildkitd.toml"))
            .arg("--root")
            .arg(folder.join("root"))
            .args(["--addr", &format!("unix://{}", folder.join("socket").display())])
            .args(["--oci-worker=true", "--containerd-worker=false", "--oci-worker-net=host"])
            .args(["--allow-insecure-entitlement=network.host", "--allow-insecure-entitlement=security.insecure"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let daemon = Self { child, tools: tools.to_owned(), folder };
        let start = Instant::now();
        while program::finish(daemon.buildctl(&["debug", "workers"])).code != Some(0) {
            if start.elapsed() > PATIENCE {
                return Err(format!("buildkitd does not answer: {}", daemon.log()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn buildctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.join("buildctl"));
        command.args(["--addr", &format!("unix://{}", self.folder.join("socket").display())]).args(arguments);
        command
    }

    /// Builds a case.
    ///
    /// # Errors
    /// What of its flags `buildctl` has no option for.
    ///
    /// # Panics
    /// When the case cannot be laid out.
    pub fn build(&self, case: &Case, rig: &Rig) -> Result<Built, String> {
        if case.context.is_some() || case.stdin.is_some() {
            return Err("a context that is no folder".to_owned());
        }
        let folder = case.lay_out();
        let context = folder.join("context");
        let options = Options::of(case, &context, rig)?;
        let tar = folder.join("image.tar");
        let mut command = self.buildctl(&["build", "--progress", "plain", "--frontend", "dockerfile.v0"]);
        let file = options.file.clone().unwrap_or_else(|| case.folder.join("Dockerfile"));
        let (place, name) = (file.parent().unwrap_or(Path::new("/")), file.file_name().unwrap_or_default());
        command
            .args(["--local", &format!("context={}", context.display())])
            .args(["--local", &format!("dockerfile={}", place.display())])
            .args(["--opt", &format!("filename={}", name.to_string_lossy())])
            .args(["--output", &format!("type=oci,dest={}", tar.display())])
            .args(&options.arguments)
            .envs(case.variables.iter().map(|(name, value)| (name, case.filled(value, &context, rig))))
            .env_remove("SSH_AUTH_SOCK")
            .current_dir(folder.path());
        let outcome = program::finish(command);
        let image = (outcome.code == Some(0))
            .then(|| describe(&Layout::unpack(&tar, &folder.join("layout")).image(None), &rig.bases));
        let text = image.as_ref().map_or(outcome.stdout, Description::text);
        Ok(Built { code: outcome.code.unwrap_or(-1), image, text, stderr: outcome.stderr })
    }
}

impl Drop for Buildkit {
    fn drop(&mut self) {
        let _ = program::run("kill", ["-TERM", &self.child.id().to_string()]);
        let _ = self.child.wait();
        // What it leaves mounted would keep its folder from being removed.
        let root = self.folder.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut below: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        below.retain(|path| path.starts_with(&root));
        for path in below.into_iter().rev() {
            let _ = program::run("umount", ["--lazy", path]);
        }
    }
}

/// A case's flags as `buildctl` takes them.
#[derive(Debug, Default)]
struct Options {
    arguments: Vec<String>,
    file: Option<PathBuf>,
    /// Of these the last option alone would count.
    hosts: Vec<String>,
    limits: Vec<String>,
}

impl Options {
    fn of(case: &Case, context: &Path, rig: &Rig) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = case.flags.iter().map(|flag| case.filled(flag, context, rig));
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word.clone(), None),
            };
            let switch = matches!(name.as_str(), "--no-cache" | "--pull" | "-q" | "--quiet" | "--explain");
            let value = match value {
                None if !switch => words.next().ok_or_else(|| format!("`{word}` has no value"))?,
                value => value.unwrap_or_default(),
            };
            options.take(&name, &value, case)?;
        }
        for (name, values) in [("add-hosts", &options.hosts.join(",")), ("ulimit", &options.limits.join(","))] {
            if !values.is_empty() {
                options.arguments.extend(["--opt".to_owned(), format!("{name}={values}")]);
            }
        }
        Ok(options)
    }

    fn opt(&mut self, text: String) {
        self.arguments.extend(["--opt".to_owned(), text]);
    }

    fn take(&mut self, name: &str, value: &str, case: &Case) -> Result<(), String> {
        match name {
            "--build-arg" => match value.split_once('=') {
                Some(_) => self.opt(format!("build-arg:{value}")),
                // As buildx: the environment's value, or nothing at all.
                None => {
                    if let Some((_, found)) = case.variables.iter().find(|(name, _)| name == value) {
                        self.opt(format!("build-arg:{value}={found}"));
                    }
                }
            },
            "--label" => self.opt(format!("label:{value}")),
            "--target" => self.opt(format!("target={value}")),
            "--platform" => self.opt(format!("platform={value}")),
            "--add-host" if value.contains('=') => self.hosts.push(value.to_owned()),
            "--add-host" => self.hosts.push(value.replacen(':', "=", 1)),
            "--ulimit" if value.contains(':') => self.limits.push(value.to_owned()),
            "--ulimit" => {
                let (limit, both) = value.split_once('=').ok_or_else(|| format!("`{value}` has no `=`"))?;
                self.limits.push(format!("{limit}={both}:{both}"));
            }
            "--shm-size" | "--cgroup-parent" => self.opt(format!("{}={value}", &name[2..])),
            "--network" => {
                self.opt(format!("force-network-mode={value}"));
                if value == "host" {
                    self.arguments.extend(["--allow", "network.host"].map(str::to_owned));
                }
            }
            "--secret" | "--ssh" | "--allow" => self.arguments.extend([name.to_owned(), value.to_owned()]),
            "--no-cache" => self.arguments.push("--no-cache".to_owned()),
            "--no-cache-filter" => self.opt(format!("no-cache={value}")),
            "--build-context" => {
                let (key, place) = value.split_once('=').ok_or_else(|| format!("`{value}` has no `=`"))?;
                if place.contains("://") {
                    self.opt(format!("context:{key}={place}"));
                } else {
                    self.opt(format!("context:{key}=local:{key}"));
                    self.arguments.extend(["--local".to_owned(), format!("{key}={place}")]);
                }
            }
            "-f" | "--file" => self.file = Some(PathBuf::from(value)),
            "--pull" | "-q" | "--quiet" | "--explain" | "-t" | "--tag" | "--progress" => {}
            other => return Err(format!("buildctl has nothing for `{other}`")),
        }
        Ok(())
    }
}
