//! The rows, and how each is measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::content::{self, Blob, Blobs};
use crate::report::{self, Row, say};
use crate::server::{Program, Server, Subject};
use crate::wire::{self, Connection, Load, Outcome};

const REPO: &str = "bench/app";
const KB: u64 = 1000;
const MB: u64 = 1000 * KB;

/// The programs that are there.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) ours: Program,
    pub(crate) distribution: Option<Program>,
    pub(crate) nginx: Option<Program>,
}

impl Programs {
    pub(crate) fn get(&self, subject: Subject) -> Option<&Program> {
        match subject {
            Subject::Ours => Some(&self.ours),
            Subject::Distribution => self.distribution.as_ref(),
            Subject::Nginx => self.nginx.as_ref(),
        }
    }

    pub(crate) fn version(&self, subject: Subject) -> &str {
        self.get(subject).map_or("?", |program| &program.version)
    }
}

/// What is asked for in a GET.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Tag,
    Digest,
    Blob(u64),
}

/// A row of GETs; the goals are multiples of distribution, of what a client sees and of processor time.
struct GetRow(&'static str, Asked, usize, Option<f64>, Option<f64>);

const GETS: &[GetRow] = &[
    GetRow("manifest-tag-c1", Asked::Tag, 1, None, None),
    GetRow("manifest-tag-c64", Asked::Tag, 64, None, Some(5.0)),
    GetRow("manifest-digest-c1", Asked::Digest, 1, None, None),
    GetRow("manifest-digest-c64", Asked::Digest, 64, None, None),
    GetRow("blob-1kb-c1", Asked::Blob(KB), 1, None, None),
    GetRow("blob-1kb-c8", Asked::Blob(KB), 8, None, None),
    GetRow("blob-1kb-c64", Asked::Blob(KB), 64, Some(8.0), None),
    GetRow("blob-1mb-c1", Asked::Blob(MB), 1, None, None),
    GetRow("blob-1mb-c8", Asked::Blob(MB), 8, Some(3.5), None),
    GetRow("blob-256mb-c1", Asked::Blob(256 * MB), 1, Some(1.5), None),
    GetRow("blob-256mb-c8", Asked::Blob(256 * MB), 8, Some(1.5), None),
];

/// A row of pushes: blobs of a size, at a number of connections, in memory or on the disk. Which goal is not met, and why, is
/// said in `spec-tests/benches/registry`.
struct PushRow(&'static str, u64, usize, usize, bool, Option<f64>);

const PUSHES: &[PushRow] = &[
    PushRow("push-100kb-c1", 100 * KB, 200, 1, false, None),
    PushRow("push-100kb-c8", 100 * KB, 200, 8, false, Some(2.2)),
    PushRow("push-256mb-c1", 256 * MB, 1, 1, false, Some(2.0)),
    PushRow("push-256mb-c8", 256 * MB, 8, 8, false, None),
    PushRow("push-disk-100kb-c1", 100 * KB, 200, 1, true, None),
    PushRow("push-disk-100kb-c8", 100 * KB, 200, 8, true, Some(1.0)),
    PushRow("push-disk-256mb-c1", 256 * MB, 1, 1, true, None),
    PushRow("push-disk-256mb-c8", 256 * MB, 8, 8, true, None),
];

/// All that is measured.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) memory: PathBuf,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) runs: usize,
    pub(crate) time: Duration,
    pub(crate) log: bool,
    pub(crate) rows: Vec<String>,
}

type Figures = BTreeMap<Subject, Vec<f64>>;

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Measured {
    load: Load,
    cpu_seconds: f64,
}

/// The servers of the GET rows, filled, and what they were filled with.
struct Filled {
    servers: Vec<(Subject, Server)>,
    manifest_digest: String,
    manifest_bytes: u64,
    blobs: BTreeMap<u64, String>,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| name.starts_with(row.as_str()))
    }

    fn logging(&self) -> &'static str {
        if self.log { "access logs on" } else { "access logs off" }
    }

    /// Whether every row could be measured.
    pub(crate) fn run(&self) -> Outcome<bool> {
        let mut peaks = Figures::new();
        let mut whole = true;
        if GETS.iter().any(|row| self.wants(row.0)) {
            whole &= self.gets(&mut peaks)?;
        }
        for row in PUSHES.iter().filter(|row| self.wants(row.0)) {
            whole &= self.push(row, &mut peaks)?;
        }
        // The most that any of its servers had resident in this run.
        let most: Figures = peaks
            .into_iter()
            .map(|(subject, values)| (subject, values.into_iter().reduce(f64::max).into_iter().collect()))
            .collect();
        let row = Row {
            name: "peak-memory",
            unit: "MiB",
            flags: "VmHWM; the greatest of all rows of this run",
            more: false,
            peer: Subject::Distribution,
            goal: Some(1.0),
        };
        report::print(&row, &self.programs, &most);
        Ok(whole)
    }

    fn present(&self, subjects: &[Subject]) -> Vec<Subject> {
        subjects.iter().copied().filter(|subject| self.programs.get(*subject).is_some()).collect()
    }

    fn start(&self, subject: Subject, folder: &Path) -> Outcome<Server> {
        let program = self.programs.get(subject).ok_or_else(|| format!("no {}", subject.name()))?;
        Server::start(subject, program, folder, self.log)
    }

    fn gets(&self, peaks: &mut Figures) -> Outcome<bool> {
        let folder = self.memory.join("gets");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let filled = self.fill(&folder)?;
        let mut whole = true;
        for row in GETS.iter().filter(|row| self.wants(row.0)) {
            let GetRow(name, asked, connections, goal, cpu_goal) = *row;
            let (target, headers, expected) = match asked {
                Asked::Tag => (
                    format!("/v2/{REPO}/manifests/1"),
                    format!("Accept: {}\r\n", content::MANIFEST),
                    filled.manifest_bytes,
                ),
                Asked::Digest => (
                    format!("/v2/{REPO}/manifests/{}", filled.manifest_digest),
                    format!("Accept: {}\r\n", content::MANIFEST),
                    filled.manifest_bytes,
                ),
                Asked::Blob(size) => {
                    let digest = filled.blobs.get(&size).ok_or("a blob was not pushed")?;
                    (format!("/v2/{REPO}/blobs/{digest}"), String::new(), size)
                }
            };
            let (mut rate, mut cpu) = (Figures::new(), Figures::new());
            let small = expected < MB;
            // One round is not counted: caches and connections come to rest in it.
            for round in 0..=self.runs {
                for (subject, server) in &filled.servers {
                    let time = if round == 0 { self.time / 5 } else { self.time };
                    let before = server.cpu_seconds();
                    let load = match wire::get_load(server.address, &target, &headers, connections, expected, time) {
                        Ok(load) => load,
                        Err(error) => {
                            say(&format!("error: {name}, {}: {error}", subject.name()));
                            whole = false;
                            continue;
                        }
                    };
                    let measured = Measured { load, cpu_seconds: server.cpu_seconds() - before };
                    if round > 0 {
                        record(&mut rate, &mut cpu, *subject, measured, small);
                    }
                }
            }
            self.print(
                name,
                &format!("GET; {connections} connections; tmpfs; {}", self.logging()),
                (goal, cpu_goal),
                small,
                (&rate, &cpu),
            );
            if let Asked::Blob(size) = asked
                && filled.servers.iter().any(|(subject, _)| *subject == Subject::Nginx)
            {
                let goal = (size == 256 * MB).then_some(0.7);
                let unit = if small { "req/s" } else { "MB/s" };
                let flags = format!(
                    "GET; {connections} connections; tmpfs; {}; beside nginx (sendfile, 2 workers)",
                    self.logging()
                );
                let row =
                    Row { name: &format!("{name}-nginx"), unit, flags: &flags, more: true, peer: Subject::Nginx, goal };
                report::print(&row, &self.programs, &rate);
            }
        }
        for (subject, server) in &filled.servers {
            peaks.entry(*subject).or_default().push(server.peak_mib());
        }
        drop(filled);
        let _ = std::fs::remove_dir_all(&folder);
        Ok(whole)
    }

    fn print(
        &self,
        name: &str,
        flags: &str,
        goals: (Option<f64>, Option<f64>),
        small: bool,
        figures: (&Figures, &Figures),
    ) {
        let (rate_unit, cpu_unit) = if small { ("req/s", "CPU-s/1000 requests") } else { ("MB/s", "CPU-s/GB") };
        let peer = Subject::Distribution;
        let row = Row { name, unit: rate_unit, flags, more: true, peer, goal: goals.0 };
        report::print(&row, &self.programs, figures.0);
        let name = format!("{name}-cpu");
        let row = Row { name: &name, unit: cpu_unit, flags, more: false, peer, goal: goals.1 };
        report::print(&row, &self.programs, figures.1);
    }

    /// Starts all servers and pushes the same bytes to each.
    fn fill(&self, folder: &Path) -> Outcome<Filled> {
        let said = |error: std::io::Error| error.to_string();
        let mut sizes = Vec::new();
        for size in [KB, MB, 256 * MB] {
            sizes.push(Blobs::new(folder, size)?);
        }
        let made: Vec<(&Blobs, Blob)> = sizes.iter().map(|blobs| (blobs, blobs.blob("served"))).collect();
        let named: Vec<(&str, u64)> =
            made.iter().map(|(blobs, blob)| (blob.digest.as_str(), blobs.size_bytes())).collect();
        let config = *named.first().ok_or("no config")?;
        let bytes = content::manifest(config, named.get(1..).unwrap_or_default());
        let mut manifest_digest = String::new();
        let mut servers = Vec::new();
        for subject in self.present(&[Subject::Ours, Subject::Distribution, Subject::Nginx]) {
            let place = folder.join(subject.name());
            if subject == Subject::Nginx {
                let root = place.join("root/v2").join(REPO);
                std::fs::create_dir_all(root.join("blobs")).map_err(said)?;
                std::fs::create_dir_all(root.join("manifests")).map_err(said)?;
                for (blobs, blob) in &made {
                    blobs.write(blob, &root.join("blobs").join(&blob.digest))?;
                }
                std::fs::write(root.join("manifests/1"), &bytes).map_err(said)?;
                std::fs::write(root.join("manifests").join(&manifest_digest), &bytes).map_err(said)?;
                servers.push((subject, self.start(subject, &place)?));
                continue;
            }
            let server = self.start(subject, &place)?;
            let mut connection = Connection::open(server.address)?;
            for (blobs, blob) in &made {
                blobs.push(&mut connection, REPO, blob)?;
            }
            manifest_digest = content::put_manifest(server.address, REPO, "1", &bytes, folder)?;
            let (head, found) = connection.ask(
                "GET",
                &format!("/v2/{REPO}/manifests/1"),
                &format!("Accept: {}\r\n", content::MANIFEST),
                None,
            )?;
            content::expect("GET of a manifest", head.status, 200)?;
            if found != bytes {
                return Err(format!("{} does not serve the manifest that was put", subject.name()));
            }
            servers.push((subject, server));
        }
        let blobs = made.iter().map(|(blobs, blob)| (blobs.size_bytes(), blob.digest.clone())).collect();
        Ok(Filled { servers, manifest_digest, manifest_bytes: bytes.len() as u64, blobs })
    }

    fn push(&self, row: &PushRow, peaks: &mut Figures) -> Outcome<bool> {
        let PushRow(name, size, count, connections, on_disk, goal) = *row;
        let place = match (on_disk, &self.disk) {
            (false, _) => &self.memory,
            (true, Some(disk)) => disk,
            (true, None) => {
                say(&format!("{name}: not measured, no folder on a disk was given"));
                return Ok(false);
            }
        };
        let blobs = Blobs::new(&self.memory, size)?;
        let small = size < MB;
        let (mut rate, mut cpu) = (Figures::new(), Figures::new());
        for round in 0..=self.runs {
            for subject in self.present(&[Subject::Ours, Subject::Distribution]) {
                // A folder of its own for each run, so that none is slowed down by what was pushed before.
                let folder = place.join(format!("{name}-{round}-{}", subject.name()));
                std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
                if on_disk && subject == Subject::Distribution {
                    durable_names(&folder)?;
                }
                let server = self.start(subject, &folder)?;
                let made: Vec<Blob> =
                    (0..count).map(|number| blobs.blob(&format!("{name}-{round}-{number}"))).collect();
                let measured = pushed(&server, &blobs, &made, connections)?;
                peaks.entry(subject).or_default().push(server.peak_mib());
                drop(server);
                if round > 0 {
                    record(&mut rate, &mut cpu, subject, measured, small);
                }
                let _ = std::fs::remove_dir_all(&folder);
            }
            if on_disk {
                rustix::fs::sync();
            }
        }
        let durability = if on_disk {
            "disk, both synced before acknowledging: ours as it is, distribution's folder with chattr +D"
        } else {
            "tmpfs"
        };
        let flags = format!(
            "HEAD, POST, PATCH, PUT; {count} blobs; {connections} connections; {durability}; {}",
            self.logging()
        );
        self.print(name, &flags, (goal, None), small, (&rate, &cpu));
        Ok(true)
    }
}

/// Has the file system write changes of names at once: distribution syncs its files, and not the folders that name them.
fn durable_names(folder: &Path) -> Outcome<()> {
    let status = std::process::Command::new("chattr").arg("+D").arg(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("chattr +D {}: {other:?}", folder.display())),
    }
}

fn record(rate: &mut Figures, cpu: &mut Figures, subject: Subject, measured: Measured, small: bool) {
    let Measured { load, cpu_seconds } = measured;
    let (requests, gigabytes) = (load.requests as f64, load.bytes as f64 / 1e9);
    let (per_second, per_unit) = if small {
        (requests / load.seconds, cpu_seconds * 1000.0 / requests)
    } else {
        (gigabytes * 1000.0 / load.seconds, cpu_seconds / gigabytes)
    };
    rate.entry(subject).or_default().push(per_second);
    cpu.entry(subject).or_default().push(per_unit);
}

/// Pushes all blobs over some connections; a request here is a blob.
fn pushed(server: &Server, blobs: &Blobs, made: &[Blob], connections: usize) -> Outcome<Measured> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<String>> = Mutex::new(None);
    let before = server.cpu_seconds();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let work = || {
                    let mut connection = Connection::open(server.address)?;
                    while let Some(blob) = made.get(next.fetch_add(1, Ordering::Relaxed)) {
                        blobs.push(&mut connection, REPO, blob)?;
                    }
                    Ok(())
                };
                if let Err(error) = work()
                    && let Ok(mut failed) = failed.lock()
                {
                    *failed = Some(error);
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = server.cpu_seconds() - before;
    if let Ok(Some(error)) = failed.into_inner() {
        return Err(error);
    }
    let load = Load { requests: made.len() as u64, bytes: made.len() as u64 * blobs.size_bytes(), seconds };
    Ok(Measured { load, cpu_seconds })
}
