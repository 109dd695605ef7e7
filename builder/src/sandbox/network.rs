//! A network of a command's own that leads out and not to the host: by `slirp4netns` or `pasta`, programs that carry packets
//! between a network namespace and sockets of their own.
//!
//! Both close the host's loopback device here, which they open by default. What stays open is what the host's network as a
//! whole is: other machines, and services of the host at an address that others reach too.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_bind, mount_change};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions, getppid, kill_process, set_parent_process_death_signal, waitpid};
use rustix::thread::UnshareFlags;

use super::error::{During, Failure};
use super::mounts::{attach, new_mount};
use super::system::{self, Fork};

/// The address that both programs answer questions for names at, with the host's own resolver.
const RESOLVER: &str = "10.0.2.3";

/// How long the program may take to set the network up.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Folders that nearly every machine has and these programs need nothing of: one becomes the place of the namespace's name.
const PLACES: [&str; 4] = ["/mnt", "/media", "/srv", "/tmp"];

/// As much of what the program says as is repeated, in bytes.
const SAID_MAX_BYTES: u64 = 2000;

/// Where such a program is: the first of the two that the `PATH` has.
#[must_use]
pub fn isolating_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    found("slirp4netns").or_else(|| found("pasta"))
}

/// What is to be installed where there is none.
pub const ISOLATING_PROGRAMS: &str = "slirp4netns or pasta (of the package `passt`)";

/// The process that will be the program, until the namespace is there.
#[derive(Debug)]
pub(super) struct Carrier {
    pid: Pid,
    go: File,
    said: File,
    program: PathBuf,
}

impl Carrier {
    /// To be called while the network is still the host's.
    pub(super) fn wait_for_namespace() -> Result<Self, Failure> {
        let what = || "preparing an isolated network".to_owned();
        let program = isolating_program()
            .ok_or_else(|| Failure::new(format!("{}: there is no {ISOLATING_PROGRAMS} in the PATH", what())))?;
        let (waiting, go) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(what)?;
        let said = File::from(memfd_create("fluyt-network", MemfdFlags::CLOEXEC).during(what)?);
        match system::fork().during(what)? {
            Fork::Child => {
                drop(go);
                let failure = carry(&program, waiting.into(), &said);
                let _ = writeln!(&said, "{failure}");
                system::exit_now(1)
            }
            Fork::Parent(pid) => Ok(Self { pid, go: go.into(), said, program }),
        }
    }

    /// Connects the caller's namespace; returns when there is a way out of it.
    pub(super) fn connect(&mut self) -> Result<(), Failure> {
        self.go.write_all(b"!").during(|| "starting the isolated network".to_owned())?;
        let deadline = Instant::now() + READY_WITHIN;
        while !has_way_out() {
            let ended = waitpid(Some(self.pid), WaitOptions::NOHANG).is_ok_and(|status| status.is_some());
            if ended || Instant::now() > deadline {
                let why = if ended { "it ended" } else { "no route appeared within 10 seconds" };
                let said = self.said();
                let program = self.program.display();
                return Err(Failure::new(format!(
                    "setting up an isolated network by {program}: {why}; it said: {said}"
                )));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    fn said(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.said.seek(SeekFrom::Start(0));
        let _ = (&mut self.said).take(SAID_MAX_BYTES).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.ends_with("bytes to syslog"));
        lines.collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Becomes the program; returns only when that failed.
fn carry(program: &Path, mut waiting: File, said: &File) -> Failure {
    match prepare(&mut waiting) {
        Ok(namespace) => {
            let (Ok(out), Ok(err)) = (said.try_clone(), said.try_clone()) else {
                return Failure::new("no descriptor is left");
            };
            let error = Command::new(program)
                .args(arguments(program, &namespace))
                .stdin(Stdio::null())
                .stdout(Stdio::from(OwnedFd::from(out)))
                .stderr(Stdio::from(OwnedFd::from(err)))
                .exec();
            Failure::new(format!("{} cannot be started: {error}", program.display()))
        }
        Err(failure) => failure,
    }
}

/// Gives the parent's new namespace a name that anybody may open: its name in `/proc` is for those who may trace the parent,
/// and `pasta` gives up that right before it looks.
fn prepare(waiting: &mut File) -> Result<PathBuf, Failure> {
    let what = || "naming the network namespace".to_owned();
    set_parent_process_death_signal(Some(Signal::KILL)).during(what)?;
    system::unshare(UnshareFlags::NEWNS).during(what)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).during(what)?;
    let place = PLACES.iter().map(Path::new).find(|place| place.is_dir());
    let place = place.ok_or_else(|| Failure::new(format!("{}: there is no folder for it", what())))?;
    attach(new_mount("tmpfs", &[("mode", "755")], MountAttrFlags::MOUNT_ATTR_NODEV)?, place)?;
    let name = place.join("namespace");
    File::create(&name).during(what)?;
    let mut told = [0];
    waiting.read_exact(&mut told).during(what)?;
    let parent = getppid().ok_or_else(|| Failure::new("the stage is gone"))?;
    mount_bind(format!("/proc/{}/ns/net", parent.as_raw_nonzero()), &name).during(what)?;
    Ok(name)
}

fn arguments(program: &Path, namespace: &Path) -> Vec<OsString> {
    let is_pasta = program.file_name().is_some_and(|name| name == "pasta");
    let words = if is_pasta {
        // Nothing is forwarded in either direction but connections that the command makes. As root it would become
        // `nobody`, who cannot enter the namespace.
        let closed = "--foreground --config-net --no-map-gw -t none -u none -T none -U none --netns-only --runas 0";
        format!("{closed} --dns-forward {RESOLVER} --netns")
    } else {
        "--configure --mtu=65520 --disable-host-loopback --netns-type=path".to_owned()
    };
    let mut words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    words.push(namespace.into());
    if !is_pasta {
        words.push("tap0".into());
    }
    words
}

/// Whether the caller's namespace has a route to everywhere.
fn has_way_out() -> bool {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let old = read("/proc/self/net/route").lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    old || read("/proc/self/net/ipv6_route").lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first().is_some_and(|to| to.bytes().all(|digit| digit == b'0'))
            && words.get(1) == Some(&"00")
            && words.last() != Some(&"lo")
    })
}

/// What a command in a network of its own is told of name servers: those of the host that it can reach, and without any, the
/// resolver of the program that carries its packets.
///
/// `host` is the host's `/etc/resolv.conf`, and `behind` the file that systemd-resolved keeps for the servers behind its own.
#[must_use]
pub fn reachable_resolvers(host: &[u8], behind: &[u8]) -> Vec<u8> {
    let (host, behind) = (String::from_utf8_lossy(host), String::from_utf8_lossy(behind));
    let server = |line: &str| -> Option<String> {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default().to_owned())
    };
    let reachable = |server: &String| {
        let bare = server.split('%').next().unwrap_or_default();
        // An address with a device's name is one of the host's own link.
        bare.parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
            && !server.contains('%')
    };
    let mut servers: Vec<String> = host.lines().filter_map(server).filter(reachable).collect();
    if servers.is_empty() {
        servers = behind.lines().filter_map(server).filter(reachable).collect();
    }
    if servers.is_empty() {
        servers.push(RESOLVER.to_owned());
    }
    let mut text = String::new();
    for line in host.lines().filter(|line| server(line).is_none()) {
        text.push_str(line);
        text.push('\n');
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_the_host_itself_are_left_out() {
        let read = |host: &str, behind: &str| {
            String::from_utf8(reachable_resolvers(host.as_bytes(), behind.as_bytes())).unwrap()
        };
        assert_eq!(read("nameserver 192.0.2.1\n", ""), "nameserver 192.0.2.1\n");
        assert_eq!(
            read("search a.b\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.1\noptions x\n", ""),
            "search a.b\noptions x\nnameserver 192.0.2.1\n"
        );
        let behind = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        assert_eq!(read("nameserver 127.0.0.53\n", behind), "nameserver 2001:db8::1\n");
        assert_eq!(read("nameserver 127.0.0.53\n", ""), "nameserver 10.0.2.3\n");
        assert_eq!(read("", ""), "nameserver 10.0.2.3\n");
        assert_eq!(read("nameserver\nnameserver x\n", ""), "nameserver 10.0.2.3\n");
    }
}
