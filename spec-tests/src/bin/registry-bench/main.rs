//! The registry beside the CNCF's distribution and nginx: every row measured in turns, in one run.
//!
//! `spec-tests/benches/registry` builds or installs the three programs and calls this. It prints one JSON object for each row
//! and subject: `{row, subject, version, flags, unit, runs, median, min, max, ratio, goal, met}`. A row comes twice, as what a
//! client sees (requests or MB a second) and, with `-cpu` at its end, as the processor time of the server alone: load generator
//! and server share the machine, so that is the figure to trust. `ratio` says how much better than distribution, or than
//! nginx where the row's name ends in `-nginx`; above 1 is better.

mod content;
mod measure;
mod report;
mod server;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use measure::{Bench, Programs};
use server::Program;

/// Times the registry beside its peers. Called by `spec-tests/benches/registry`.
#[derive(Debug, Parser)]
#[command(name = "registry-bench")]
struct CommandLine {
    /// The registry's program.
    #[arg(long)]
    ours: PathBuf,
    /// distribution's program.
    #[arg(long)]
    distribution: Option<PathBuf>,
    /// Which version of it.
    #[arg(long, default_value = "?")]
    distribution_version: String,
    /// nginx.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Which version of it.
    #[arg(long, default_value = "?")]
    nginx_version: String,
    /// A folder in memory.
    #[arg(long)]
    memory: PathBuf,
    /// A folder on a disk.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// How often each row is measured.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long one measurement of a GET takes, in ms.
    #[arg(long, default_value_t = 1500)]
    time_ms: u64,
    /// Let both registries write their access log.
    #[arg(long)]
    log: bool,
    /// Only rows whose name begins so.
    rows: Vec<String>,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let program = |path: Option<PathBuf>, version: String| path.map(|path| Program { path, version });
    let version = std::process::Command::new(&line.ours).arg("--version").output();
    let version = version
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().rsplit(' ').next().unwrap_or("?").to_owned());
    let bench = Bench {
        programs: Programs {
            ours: Program { path: line.ours, version: version.unwrap_or_else(|_| "?".into()) },
            distribution: program(line.distribution, line.distribution_version),
            nginx: program(line.nginx, line.nginx_version),
        },
        memory: line.memory,
        disk: line.disk,
        runs: line.runs,
        time: Duration::from_millis(line.time_ms),
        log: line.log,
        rows: line.rows,
    };
    match bench.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::say(&format!("error: {error}"));
            ExitCode::from(3)
        }
    }
}
