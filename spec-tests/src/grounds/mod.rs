//! Grounds: places that commands are run in, from root on this machine to an ordinary user in a container that may nothing,
//! each with the rung that `fluyt` is expected to choose there.

mod container;
mod user;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::Value;

use self::container::Container;
use self::user::HostUser;
use crate::folder::TestDir;
use crate::program;

/// A kind of ground, and the rung expected of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    kind: Kind,
    /// The rung that is chosen there.
    pub rung: &'static str,
    /// Words that the fix of a refused rung holds there: the rung, and the words.
    pub fixes: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Root, on this machine.
    Root,
    /// An ordinary user of this machine, made for the test.
    User { subordinate: bool },
    /// `docker run` with these arguments.
    Docker { arguments: &'static [&'static str], volume: bool },
}

/// `docker run`, the store in a volume.
const fn docker(arguments: &'static [&'static str]) -> Kind {
    Kind::Docker { arguments, volume: true }
}

/// The same, the store on the container's own overlay.
const fn docker_alone(arguments: &'static [&'static str]) -> Kind {
    Kind::Docker { arguments, volume: false }
}

const fn plan(name: &'static str, kind: Kind, rung: &'static str) -> Plan {
    Plan { name, kind, rung, fixes: &[] }
}

const ROOT: Plan = plan("root", Kind::Root, "r1");

const UNCONFINED: &str = "--security-opt=seccomp=unconfined";
const PODMANS: &str = "--security-opt=seccomp=/usr/share/containers/seccomp.json";

/// All grounds, each with the rung that is chosen there today.
pub const ALL: &[Plan] = &[
    ROOT,
    plan("user-subids", Kind::User { subordinate: true }, "r2").fixed(&[("r1", "sudo")]),
    plan("user", Kind::User { subordinate: false }, "r3").fixed(&[("r1", "sudo")]),
    plan("docker", docker(&[]), "r4").fixed(&[("r1", "SYS_ADMIN")]),
    plan("docker-alone", docker_alone(&[]), "r4"),
    plan("docker-user", docker(&["--user=1000:1000"]), "r6"),
    plan("docker-drop-chown", docker(&["--cap-drop=CHOWN"]), "r6").fixed(&[("r4", "cap-drop")]),
    plan("docker-drop-mknod", docker(&["--cap-drop=MKNOD"]), "r6").fixed(&[("r4", "cap-drop")]),
    plan("docker-drop-all", docker(&["--cap-drop=ALL"]), "r6").fixed(&[("r4", "cap-drop")]),
    plan(
        "docker-restricted",
        docker(&["--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"]),
        "r6",
    ),
    plan("docker-unconfined-alone", docker_alone(&[UNCONFINED]), "r2"),
    plan("docker-unconfined", docker(&[UNCONFINED]), "r2"),
    plan("docker-unconfined-paths", docker(&[UNCONFINED, "--security-opt=systempaths=unconfined"]), "r2"),
    plan("docker-unconfined-user-alone", docker_alone(&[UNCONFINED, "--user=1000:1000"]), "r3"),
    plan("docker-unconfined-user", docker(&[UNCONFINED, "--user=1000:1000"]), "r3"),
    plan("docker-sysadmin-alone", docker_alone(&["--cap-add=SYS_ADMIN"]), "r1"),
    plan("docker-sysadmin", docker(&["--cap-add=SYS_ADMIN"]), "r1"),
    // Root that may mount and may not give up rights for good: in a user namespace it may.
    plan("docker-sysadmin-drop-setpcap", docker(&["--cap-add=SYS_ADMIN", "--cap-drop=SETPCAP"]), "r2"),
    plan("docker-small", docker(&["--memory=96m", "--memory-swap=96m"]), "r4"),
    plan("docker-small-sysadmin", docker(&["--memory=96m", "--memory-swap=96m", "--cap-add=SYS_ADMIN"]), "r1"),
    plan("podman", docker(&[PODMANS]), "r2"),
    plan("podman-user", docker(&[PODMANS, "--user=1000:1000"]), "r3"),
];

/// A ground to run commands on. Dropping it leaves nothing of it behind.
#[derive(Debug)]
pub struct Ground {
    /// What it is.
    pub plan: Plan,
    inside: Inside,
    folder: TestDir,
    stores: Option<TestDir>,
}

#[derive(Debug)]
enum Inside {
    Root,
    User(HostUser),
    Container(Container),
}

impl Plan {
    const fn fixed(mut self, fixes: &'static [(&'static str, &'static str)]) -> Self {
        self.fixes = fixes;
        self
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|plan| plan.name == name)
    }

    /// Makes the ground, with the network of this machine or with none; `None`, said as a skip of `test`, where that cannot be.
    ///
    /// # Panics
    /// When it should be possible and is not.
    #[must_use]
    pub fn enter(self, test: &str, network: Network) -> Option<Ground> {
        let test = format!("{test} ({})", self.name);
        if !program::is_root(&test) {
            return None;
        }
        let folder = TestDir::new();
        let memory = PathBuf::from("/dev/shm");
        let has_stores = !matches!(self.kind, Kind::Docker { volume: false, .. });
        let stores = has_stores.then(|| if memory.is_dir() { TestDir::new_in(&memory) } else { TestDir::new() });
        let inside = match self.kind {
            Kind::Root => Inside::Root,
            Kind::User { subordinate } => Inside::User(HostUser::make(&test, subordinate, &folder)?),
            Kind::Docker { arguments, .. } => {
                let mut mounted = vec![folder.path()];
                mounted.extend(stores.as_ref().map(TestDir::path));
                Inside::Container(Container::start(&test, arguments, network, &mounted)?)
            }
        };
        let ground = Ground { plan: self, inside, folder, stores };
        for folder in [Some(&ground.folder), ground.stores.as_ref()].into_iter().flatten() {
            ground.give(folder.path());
        }
        Some(ground)
    }
}

/// The network of a ground's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// This machine's: a registry of the test can be asked.
    Host,
    /// One of its own that leads nowhere, as near as a test comes to Docker's usual one.
    Own,
}

impl Ground {
    /// Root on this machine.
    #[must_use]
    pub fn root() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let stores = if memory.is_dir() { TestDir::new_in(&memory) } else { TestDir::new() };
        Self { plan: ROOT, inside: Inside::Root, folder: TestDir::new(), stores: Some(stores) }
    }

    /// Whether commands run here as this process does.
    #[must_use]
    pub fn is_root(&self) -> bool {
        matches!(self.inside, Inside::Root)
    }

    /// A new folder that the ground's commands can read and write, under the same name as here.
    #[must_use]
    pub fn new_folder(&self) -> TestDir {
        let folder = TestDir::new_in(self.folder.path());
        self.give(folder.path());
        folder
    }

    /// Where a store may be.
    #[must_use]
    pub fn store(&self, name: &str) -> PathBuf {
        match (&self.stores, &self.inside) {
            (Some(folder), _) => folder.join(name),
            (None, Inside::Container(container)) => container.home().join(name),
            (None, _) => self.folder.join(name),
        }
    }

    /// Removes a store, or any other path of the ground's.
    pub fn remove(&self, path: &Path) {
        match (&self.stores, &self.inside) {
            (None, Inside::Container(_)) => {
                let mut command = Command::new("/bin/busybox");
                command.args(["rm", "-rf"]).arg(path);
                let _ = program::finish(self.command(command));
            }
            _ => {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    /// The program of the product that runs here.
    #[must_use]
    pub fn fluyt(&self) -> PathBuf {
        match &self.inside {
            Inside::Root => program::product("fluyt"),
            Inside::User(user) => user.program().to_owned(),
            Inside::Container(_) => PathBuf::from(container::PROGRAM),
        }
    }

    /// Gives all below a path to who runs commands here, with nothing else of it changed.
    pub fn give(&self, path: &Path) {
        let id = match &self.inside {
            Inside::Root => return,
            Inside::User(user) => user.id(),
            Inside::Container(container) => container.user(),
        };
        give(path, id);
    }

    /// A command as it is run here.
    #[must_use]
    pub fn command(&self, command: Command) -> Command {
        match &self.inside {
            Inside::Root => command,
            Inside::User(user) => user.command(command),
            Inside::Container(container) => container.command(&command),
        }
    }

    /// What `fluyt doctor --json` says here, after it said something in words.
    ///
    /// # Panics
    /// When it says nothing that can be read.
    #[must_use]
    pub fn doctor(&self) -> (Value, String) {
        let run = |arguments: &[&str]| {
            let mut command = Command::new(self.fluyt());
            command.arg("doctor").args(arguments).current_dir(self.folder.path());
            command.env("FLUYT_STORE", self.store("doctor")).env("HOME", self.folder.path());
            program::finish(self.command(command)).expect_success().stdout
        };
        let (json, words) = (run(&["--json"]), run(&[]));
        (serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}")), words)
    }
}

/// As `chown -hR`, but what a change of owner takes away (setuid, capabilities) stays.
fn give(path: &Path, id: u32) {
    const CAPABILITY: &str = "security.capability";
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let mut value = [0; 64];
    let capability = lgetxattr(path, CAPABILITY, &mut value).unwrap_or(0);
    lchown(path, Some(id), Some(id)).expect("to change an owner as root");
    if !metadata.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777)).expect("to set a mode as root");
    }
    if capability > 0 {
        lsetxattr(path, CAPABILITY, &value[..capability], XattrFlags::empty()).expect("to set a capability as root");
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), id);
        }
    }
}
