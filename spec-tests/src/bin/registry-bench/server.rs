//! The servers that are compared: started with their folder, asked what they have used, and ended.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::wire::Outcome;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subject {
    Ours,
    Distribution,
    Nginx,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "fluyt-registry",
            Self::Distribution => "distribution",
            Self::Nginx => "nginx",
        }
    }
}

/// A program and its version, or why it is not there.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked to, and not when it is killed.
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(10) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server that keeps its bytes below `folder`.
    pub(crate) fn start(subject: Subject, program: &Program, folder: &Path, log: bool) -> Outcome<Self> {
        let said = |error: std::io::Error| format!("cannot start {}: {error}", program.path.display());
        std::fs::create_dir_all(folder).map_err(said)?;
        let errors = File::create(folder.join("log")).map_err(said)?;
        let mut command = Command::new(&program.path);
        command.stdin(Stdio::null()).stderr(errors).env_remove("RUST_LOG");
        let address = match subject {
            Subject::Ours => {
                let store = format!("file://{}/store", folder.display());
                command.args(["serve", "--listen", "127.0.0.1:0", "--store", &store]).stdout(Stdio::piped());
                if !log {
                    command.env("RUST_LOG", "error");
                }
                None
            }
            Subject::Distribution => {
                let address = free_address().map_err(said)?;
                let logging =
                    if log { "log: {level: info}" } else { "log: {level: error, accesslog: {disabled: true}}" };
                let config = format!(
                    "version: 0.1\n{logging}\nstorage: {{filesystem: {{rootdirectory: {}/store}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
                    folder.display()
                );
                let path = folder.join("config.yml");
                std::fs::write(&path, config).map_err(said)?;
                command.arg("serve").arg(path).env("OTEL_TRACES_EXPORTER", "none").stdout(Stdio::null());
                Some(address)
            }
            Subject::Nginx => {
                let address = free_address().map_err(said)?;
                let folder = folder.display();
                let config = format!(
                    "daemon off; user root; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;\n\
                     events {{ worker_connections 1024; }}\n\
                     http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; default_type application/octet-stream;\n\
                     client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
                     server {{ listen {address}; root {folder}/root; }} }}\n"
                );
                let path = PathBuf::from(format!("{folder}/nginx.conf"));
                std::fs::write(&path, config).map_err(said)?;
                command.arg("-c").arg(path).stdout(Stdio::null());
                Some(address)
            }
        };
        let mut child = command.spawn().map_err(said)?;
        let address = match address {
            Some(address) => address,
            None => match first_address(&mut child) {
                Ok(address) => address,
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
            },
        };
        let mut server = Self { child, address };
        let asked = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = !matches!(server.child.try_wait(), Ok(None));
            if ended || asked.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("{} does not listen on {address}: {}", subject.name(), log.trim()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Its process and those that it started.
    fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Seconds of processor time used so far, in user and system mode together.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        // `utime` and `stime` count in hundredths on Linux, whatever the kernel's own tick is.
        const TICKS: f64 = 100.0;
        let ticks = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<u64> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0))
                .collect();
            fields.get(11).copied().unwrap_or(0) + fields.get(12).copied().unwrap_or(0)
        };
        self.pids().iter().map(ticks).sum::<u64>() as f64 / TICKS
    }

    /// Most memory that was resident, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        let peak = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0)
        };
        self.pids().iter().map(peak).sum::<f64>() / 1024.0
    }
}

/// Asked of the system and freed again: these servers have no port 0.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn first_address(child: &mut Child) -> Outcome<SocketAddr> {
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next()?.trim().parse().ok());
    address.ok_or_else(|| format!("fluyt-registry said `{}` where its address was expected", line.trim()))
}
