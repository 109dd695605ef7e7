//! Runs `docker-credential-X`: the protocol of Docker's credential helpers, JSON over standard input and output.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Credential;
use super::file::{DOCKER_HUB_KEY, key_for};
use crate::reference::DEFAULT_HOST;

/// Most bytes that are read of a helper's answer.
const ANSWER_MAX_BYTES: u64 = 1024 * 1024;
/// A helper may ask a person to unlock a keyring; longer than this nobody is there.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the output of a helper that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// A helper program, found on a search path.
pub(super) struct Program {
    file_name: String,
    path: PathBuf,
}

impl Program {
    /// Finds `docker-credential-NAME` on `search_path`.
    pub(super) fn find(name: &str, search_path: Option<&OsStr>) -> Result<Self, String> {
        // The name comes from a file: it must not lead to another folder.
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err("its name may hold letters, digits, `.`, `_` and `-` only".to_owned());
        }
        let file_name = file_name(name);
        let folders = search_path.map(std::env::split_paths).into_iter().flatten();
        let path = folders
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&file_name))
            .find(|path| is_program(path));
        match path {
            Some(path) => Ok(Self { file_name, path }),
            None => Err("no such program on PATH".to_owned()),
        }
    }

    /// `get`: the credentials of a registry, or `None` when it has none.
    pub(super) fn get(&self, host: &str) -> Result<Option<Credential>, String> {
        // Docker asks for the Hub by its old address, podman by its name: either may have stored it.
        let spellings: &[&str] = if host == DEFAULT_HOST { &[DOCKER_HUB_KEY, DEFAULT_HOST] } else { &[host] };
        for spelling in spellings {
            let (success, output) = self.run("get", spelling.as_bytes())?;
            if !success {
                if says_that_it_has_none(&output) {
                    continue;
                }
                return Err(first_line(&output));
            }
            let answer: Answer = serde_json::from_slice(&output)
                .map_err(|_| "its answer to `get` is not the JSON of a credential".to_owned())?;
            if answer.username.is_empty() && answer.secret.is_empty() {
                continue;
            }
            return Ok(Some(match answer.username.as_str() {
                "<token>" => Credential::IdentityToken(answer.secret),
                _ => Credential::Password { username: answer.username, password: answer.secret },
            }));
        }
        Ok(None)
    }

    /// `store`: keeps user name and password.
    pub(super) fn store(&self, host: &str, username: &str, password: &str) -> Result<(), String> {
        let input =
            serde_json::json!({ "ServerURL": key_for(host), "Username": username, "Secret": password }).to_string();
        let (success, output) = self.run("store", input.as_bytes())?;
        if success { Ok(()) } else { Err(first_line(&output)) }
    }

    /// `erase`: whether there was something to erase.
    pub(super) fn erase(&self, host: &str) -> Result<bool, String> {
        let (success, output) = self.run("erase", key_for(host).as_bytes())?;
        match success {
            true => Ok(true),
            false if says_that_it_has_none(&output) => Ok(false),
            false => Err(first_line(&output)),
        }
    }

    fn run(&self, action: &str, input: &[u8]) -> Result<(bool, Vec<u8>), String> {
        let mut child = Command::new(&self.path)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let output = child.stdout.take();
        let (sender, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(output) = output {
                // What was read before an error is still the helper's word.
                let _ = output.take(ANSWER_MAX_BYTES).read_to_end(&mut bytes);
            }
            // Fails only when nobody waits any more.
            let _ = sender.send(bytes);
        });
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input has closed the pipe; its status tells how it went.
            let _ = stdin.write_all(input);
        }
        let success = wait(&mut child, &self.file_name)?;
        // Something that the helper left running may hold its output open.
        let bytes = answer.recv_timeout(LAST_WORDS).map_err(|_| "its output stays open after its end".to_owned())?;
        Ok((success, bytes))
    }
}

/// The name of the program of a helper.
pub(super) fn file_name(name: &str) -> String {
    let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
    format!("docker-credential-{shown}")
}

fn is_program(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn wait(child: &mut Child, program: &str) -> Result<bool, String> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if start.elapsed() < PATIENCE => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Ok(None) => {
                // It may be gone by now, which is as well.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{program}` gave no answer for {} s and was stopped", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The words with which helpers say that they have nothing for a registry; there is no other sign.
fn says_that_it_has_none(output: &[u8]) -> bool {
    let text = String::from_utf8_lossy(output).to_ascii_lowercase();
    text.contains("credentials not found")
        || text.contains("no credentials")
        || text.contains("not be found in the keychain")
}

/// What a failed helper said. Only failures are quoted: on success the output is the secret.
fn first_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => crate::quote::clean(line),
        _ => "it ended with an error and said nothing".to_owned(),
    }
}
