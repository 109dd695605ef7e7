//! Runs git: nobody is asked for a password, no file of the user's or the system's configures it, no hook runs, and no other
//! protocol is spoken than those that an address can name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use fluyt_client::without_password;
use rustix::process::{Pid, Signal, kill_process_group};

use super::GitError;
use crate::blob::Room;
use crate::stop::Cancel;

/// How often it is looked whether git has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A disk with less room than this is full for git, which writes whole blocks.
const FULL_BYTES: u64 = 1024 * 1024;

/// Most bytes of what git says that are kept.
const SAID_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Variables by which whoever runs a build may have told git about another repository, or to trust anybody.
const STRAY: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_SYSTEM",
    "GIT_DEFAULT_HASH",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_PROXY_COMMAND",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_SSL_NO_VERIFY",
    "GIT_WORK_TREE",
];

/// The variable in which [`TELL_USER`] finds who asks.
const USER: &str = "FLUYT_GIT_USER";

/// A credential helper: git asks it once a server refused nobody, so that a name which nobody asked for keeps no public
/// repository closed.
pub(super) const TELL_USER: &str =
    r#"!f() { test "$1" != get || printf 'username=%s\npassword=\n' "$FLUYT_GIT_USER"; }; f"#;

/// How git reaches a repository.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// Settings of git, as pairs; among them what a server is told of who asks.
    pub(super) settings: Vec<(String, String)>,
    /// Who asks, for a server that wants to know and needs no password: a token, or a mere name.
    pub(super) user: Option<String>,
    /// The agent's socket.
    pub(super) agent: Option<PathBuf>,
    /// Whether ssh may use what the user has: agent, keys and configuration.
    pub(super) users_own: bool,
    /// The user's folder, where the system would name ssh another.
    pub(super) home: Option<PathBuf>,
    /// Where hosts that nobody knew are noted, for this build alone.
    pub(super) known_hosts: PathBuf,
    /// CA certificates.
    pub(super) certificates: Option<PathBuf>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// Runs git in a folder.
pub(super) struct Git<'a> {
    pub(super) folder: &'a Path,
    pub(super) access: &'a Access,
    /// Ends it.
    pub(super) cancel: &'a Cancel,
}

impl Git<'_> {
    /// Runs git with these arguments and gives what it prints.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String, GitError> {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.folder).args(arguments);
        self.environment(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let what = || {
            let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
            words.first().cloned().unwrap_or_default()
        };
        let mut child = command.spawn().map_err(|source| GitError::NoProgram { source })?;
        let (stdout, stderr) = (listen(child.stdout.take()), listen(child.stderr.take()));
        let status = self.wait(&mut child)?;
        let (printed, said) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        match status.success() {
            true => Ok(printed),
            false if self.found_disk_full(&said) => {
                let source = rustix::io::Errno::NOSPC.into();
                Err(GitError::DiskFull { what: what(), said: told(&said), source })
            }
            false => Err(GitError::Failed { what: what(), said: told(&said) }),
        }
    }

    /// Whether git failed for want of room. Of a check-out it says only which files it could not write, and those that it
    /// wrote are still there.
    fn found_disk_full(&self, said: &str) -> bool {
        let by_words = ["No space left on device", "Disk quota exceeded", "Out of diskspace"];
        let room = || Room::of(self.folder).is_ok_and(|room| room.free_bytes < FULL_BYTES || room.lacks_files());
        by_words.iter().any(|words| said.contains(words)) || (said.contains("unable to ") && room())
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, GitError> {
        loop {
            if let Some(status) = child.try_wait().map_err(|source| GitError::NoProgram { source })? {
                return Ok(status);
            }
            if let Err(stopped) = self.cancel.check() {
                // With it go its helpers, which speak to the server.
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                return Err(stopped.into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn environment(&self, command: &mut Command) {
        for name in STRAY {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "").env("SSH_ASKPASS", "");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        // Submodules may be reached otherwise than what they are a part of.
        let may_use_ssh = self.access.users_own || self.access.agent.is_some();
        let protocols = if may_use_ssh { "http:https:ssh:git" } else { "http:https:git" };
        command.env("GIT_ALLOW_PROTOCOL", protocols).env("GIT_SSH_COMMAND", self.ssh());
        if !self.access.users_own {
            // In the user's folder git would find passwords for HTTP too, in `.netrc`.
            command.env_remove("SSH_AUTH_SOCK").env("HOME", "/dev/null");
        }
        if let Some(agent) = &self.access.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some(certificates) = &self.access.certificates {
            command.env("GIT_SSL_CAINFO", certificates);
        }
        let own = [
            ("core.hooksPath", "/dev/null"),
            ("init.defaultBranch", "master"),
            ("advice.detachedHead", "false"),
            ("gc.auto", "0"),
            // A server that is silent for a minute is gone.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "60"),
            ("safe.directory", "*"),
        ];
        let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = own.chain(self.access.settings.iter().cloned());
        let settings: Vec<String> = settings.map(|(name, value)| quoted(&format!("{name}={value}"))).collect();
        // In the environment, which others on this machine cannot read, unlike arguments; and in this variable of it, which
        // git keeps for submodules, unlike GIT_CONFIG_COUNT. Name and value are quoted together: git before 2.31 reads no
        // other form, and later ones read both.
        command.env("GIT_CONFIG_PARAMETERS", settings.join(" "));
        if let Some(user) = &self.access.user {
            command.env(USER, user);
        }
    }

    /// How ssh is run: a host that is known must be who it was; one that nobody knew is taken for this build, as the
    /// reference takes it, and noted nowhere else. Keys are the agent's alone, but where the user's own do.
    fn ssh(&self) -> String {
        let folder = self.access.home.as_ref().map(|home| home.join(".ssh"));
        let of_user = |name: &str| match &folder {
            Some(folder) => option_value(&folder.join(name)),
            None => format!("~/.ssh/{name}"),
        };
        let known_hosts = [option_value(&self.access.known_hosts), of_user("known_hosts"), of_user("known_hosts2")];
        let mut options = vec![format!("UserKnownHostsFile={}", known_hosts.join(" "))];
        options.extend(SSH_OPTIONS.map(str::to_owned));
        let nothing = || PathBuf::from("/dev/null");
        let configuration = match (self.access.users_own, &folder) {
            (false, _) => {
                options.extend(["IdentityFile=none", "ControlPath=none"].map(str::to_owned));
                Some(nothing())
            }
            (true, None) => None,
            // Without the system's: its files belong to a root whom this namespace does not know, and ssh refuses those.
            (true, Some(folder)) => {
                let there = IDENTITIES.into_iter().filter(|name| File::open(folder.join(name)).is_ok());
                options.extend(there.map(|name| format!("IdentityFile={}", of_user(name))));
                Some(folder.join("config")).filter(|file| File::open(file).is_ok()).or_else(|| Some(nothing()))
            }
        };
        let configuration = configuration.map(|file| format!(" -F {}", quoted(&file.to_string_lossy())));
        let options = options.iter().map(|option| format!(" -o {}", quoted(option)));
        ["ssh".to_owned()].into_iter().chain(configuration).chain(options).collect()
    }
}

/// What ssh is told in any case.
const SSH_OPTIONS: [&str; 5] = [
    "BatchMode=yes",
    "ConnectTimeout=20",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "StrictHostKeyChecking=accept-new",
];

/// The files of a user's keys that ssh looks for by itself.
const IDENTITIES: [&str; 7] = ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa"];

/// A path as an option of ssh holds it.
fn option_value(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%"))
}

/// As a shell reads it, and git what it was told by `-c`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn listen(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(SAID_MAX_BYTES).read_to_end(&mut bytes);
            // A program whose pipe is full would wait for ever.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What git and ssh say whatever is wrong.
const USUAL: [&str; 6] = [
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "Cloning into",
    "Warning: Permanently added",
    "hint:",
    "@@@@@@",
];

/// The lines in which git says what is wrong, without passwords.
fn told(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let (errors, others): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| ["fatal: ", "error: ", "remote: "].iter().any(|start| line.starts_with(start)));
    // Of ssh, git says only that it failed; why, ssh says itself.
    let by_ssh = errors.iter().any(|line| line.contains("Could not read from remote repository"));
    let chosen = match (errors.is_empty(), by_ssh) {
        (true, _) => others,
        (false, true) => {
            let told: Vec<&str> =
                others.into_iter().filter(|line| !USUAL.iter().any(|words| line.contains(words))).collect();
            if told.is_empty() { errors } else { told }
        }
        (false, false) => errors,
    };
    let text = chosen.into_iter().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it said nothing".to_owned() } else { without_password(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_may_use() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("it's");
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
        std::fs::write(home.join(".ssh/id_rsa"), "").unwrap();
        let ssh = |users_own: bool, home: Option<&Path>| {
            let access = Access {
                users_own,
                home: home.map(Path::to_owned),
                known_hosts: PathBuf::from("/the 1%/known_hosts"),
                ..Access::default()
            };
            let made = Git { folder: folder.path(), access: &access, cancel: &Cancel::new() }.ssh();
            // As a shell would read it.
            let words = Command::new("sh").args(["-c", &format!("printf '%s\\n' {made}")]).output().unwrap();
            let words = String::from_utf8(words.stdout).unwrap().replace(folder.path().to_str().unwrap(), "");
            let always = SSH_OPTIONS.map(|option| format!("-o\n{option}\n")).concat();
            words.replace(&always, "...\n").replace("\n-o\n", "\n-o ").replace("-F\n", "-F ")
        };
        insta::assert_snapshot!(ssh(true, None), @r#"
        ssh
        -o UserKnownHostsFile="/the 1%%/known_hosts" ~/.ssh/known_hosts ~/.ssh/known_hosts2
        ...
        "#);
        insta::assert_snapshot!(ssh(false, None), @r#"
        ssh
        -F /dev/null
        -o UserKnownHostsFile="/the 1%%/known_hosts" ~/.ssh/known_hosts ~/.ssh/known_hosts2
        ...
        -o IdentityFile=none
        -o ControlPath=none
        "#);
        insta::assert_snapshot!(ssh(false, Some(&home)), @r#"
        ssh
        -F /dev/null
        -o UserKnownHostsFile="/the 1%%/known_hosts" "/it's/.ssh/known_hosts" "/it's/.ssh/known_hosts2"
        ...
        -o IdentityFile=none
        -o ControlPath=none
        "#);
        insta::assert_snapshot!(ssh(true, Some(&home)), @r#"
        ssh
        -F /dev/null
        -o UserKnownHostsFile="/the 1%%/known_hosts" "/it's/.ssh/known_hosts" "/it's/.ssh/known_hosts2"
        ...
        -o IdentityFile="/it's/.ssh/id_rsa"
        "#);
        std::fs::write(home.join(".ssh/config"), "").unwrap();
        assert!(ssh(true, Some(&home)).starts_with("ssh\n-F /it's/.ssh/config\n-o "));
    }

    /// git 2.30 says "bogus format" to a name and a value that are quoted apart.
    #[test]
    fn settings_are_written_as_every_git_reads_them() {
        let settings = vec![("http.https://h/.extraheader".to_owned(), "it's".to_owned())];
        let access = Access { settings, ..Access::default() };
        let mut command = Command::new("git");
        Git { folder: Path::new("/"), access: &access, cancel: &Cancel::new() }.environment(&mut command);
        let settings = command.get_envs().find(|(name, _)| *name == "GIT_CONFIG_PARAMETERS").unwrap().1.unwrap();
        let settings = settings.to_str().unwrap();
        assert!(settings.ends_with(r" 'http.https://h/.extraheader=it'\''s'"), "{settings}");
        assert!(!settings.contains("'='"), "{settings}");
    }

    #[test]
    fn why_ssh_failed_is_told_rather_than_that_it_did() {
        let said = "ssh: connect to host 127.0.0.1 port 22: Connection refused\r\n\
                    fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n\
                    and the repository exists.\n";
        assert_eq!(told(said), "ssh: connect to host 127.0.0.1 port 22: Connection refused");
        let said = "Warning: Permanently added 'h' (ED25519) to the list of known hosts.\ngit@h: Permission denied (publickey).\n\
                    fatal: Could not read from remote repository.\n";
        assert_eq!(told(said), "git@h: Permission denied (publickey).");
        assert_eq!(told("Cloning into 'a'...\nfatal: not found\n"), "fatal: not found");
        assert_eq!(
            told("fatal: Could not read from remote repository.\n"),
            "fatal: Could not read from remote repository."
        );
        assert_eq!(told(""), "it said nothing");
    }
}
