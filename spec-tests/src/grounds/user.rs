//! An ordinary user of this machine, made for a test and gone with it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread, time::Duration};

use crate::folder::TestDir;
use crate::program::{self, Outcome};

/// What all their names begin with: the process that made one follows.
const PREFIX: &str = "fluyt-t";

/// The user.
#[derive(Debug)]
pub(super) struct HostUser {
    name: String,
    id: u32,
    program: PathBuf,
}

impl HostUser {
    /// Makes one, with or without subordinate ids.
    pub(super) fn make(test: &str, subordinate: bool, folder: &TestDir) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !program::all_installed(test, &["useradd", "userdel", "usermod"]) {
            return None;
        }
        if subordinate && !program::all_installed(test, &["newuidmap"]) {
            return None;
        }
        remove_forgotten();
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = folder.join("home");
        let _ = change(&["useradd", "--create-home", "--home-dir", &home.to_string_lossy(), &name]).expect_success();
        let id = program::run("id", ["-u", &name]).expect_success().text().parse().expect("a number of a user");
        let mut user = Self { name, id, program: PathBuf::new() };
        // useradd gives ids to ordinary users on most systems, and not on all.
        let given = user.has("/etc/subuid") && user.has("/etc/subgid");
        let ids = "1000000-1065535";
        if subordinate && !given {
            let _ = change(&["usermod", "--add-subuids", ids, "--add-subgids", ids, &user.name]).expect_success();
        }
        for (file, option) in [("/etc/subuid", "--del-subuids"), ("/etc/subgid", "--del-subgids")] {
            for range in user.ranges(file).into_iter().filter(|_| !subordinate) {
                let _ = change(&["usermod", option, &range, &user.name]).expect_success();
            }
        }
        user.program = user.readable(program::product("fluyt"), folder);
        Some(user)
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// As this user, without groups.
    pub(super) fn command(&self, mut command: Command) -> Command {
        command.uid(self.id).gid(self.id);
        command.env("USER", &self.name).env("LOGNAME", &self.name);
        command
    }

    /// A program's path as this user can run it: a copy where the original lies in a folder that is closed to others.
    fn readable(&self, program: PathBuf, folder: &TestDir) -> PathBuf {
        let mut trial = Command::new("test");
        trial.arg("-x").arg(&program);
        // The folder is not the user's yet.
        trial.current_dir("/");
        if program::finish(self.command(trial)).code == Some(0) {
            return program;
        }
        let copy = folder.join("fluyt");
        let _ = fs::copy(program, &copy).expect("a copy of the program");
        copy
    }

    fn ranges(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let range = |line: &str| {
            let mut fields = line.split(':');
            let (name, first, count) =
                (fields.next()?, fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
            (name == self.name).then(|| format!("{first}-{}", first + count - 1))
        };
        text.lines().filter_map(range).collect()
    }

    fn has(&self, file: &str) -> bool {
        !self.ranges(file).is_empty()
    }
}

impl Drop for HostUser {
    fn drop(&mut self) {
        let _ = change(&["userdel", &self.name]);
    }
}

/// One of shadow's programs. It refuses while another one holds the lock, as when two tests make users.
fn change(words: &[&str]) -> Outcome {
    for _ in 0..50 {
        let outcome = program::run(words[0], &words[1..]);
        if !outcome.stderr.contains("lock") {
            return outcome;
        }
        thread::sleep(Duration::from_millis(100));
    }
    program::run(words[0], &words[1..])
}

/// Takes away the users of tests that were killed.
fn remove_forgotten() {
    for line in fs::read_to_string("/etc/passwd").unwrap_or_default().lines() {
        let name = line.split(':').next().unwrap_or_default();
        let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(process).exists() {
            let _ = change(&["userdel", name]);
        }
    }
}
