//! What was typed and the environment, resolved once. The only file of this crate that reads the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fluyt_client::{Environment, Reference, RetryPolicy};

use super::args::RegistryArguments;
use super::failure::{Blame, Failure};
use crate::notation::{pairs, truth};
use crate::secrets::{Secret, Secrets, Value};
use crate::ssh_agent::{self, Keys, Served};

/// The folder of the store: `--store`, `FLUYT_STORE` (which clap would name in each line of usage, were it to read it), else the user's cache folder.
///
/// # Errors
/// When nothing of it is set.
pub fn store_folder(typed: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(folder) = typed {
        return Ok(folder.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("FLUYT_STORE") {
        return Ok(folder);
    }
    set("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("fluyt"))
        .ok_or_else(|| {
            Failure::new(Blame::Environment, "there is no folder for the store: neither HOME nor XDG_CACHE_HOME is set")
                .hint("name one with `--store DIR` or FLUYT_STORE")
        })
}

/// What the environment says of who reads standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `NO_COLOR` is set.
    pub no_colour: bool,
    /// The terminal can do nothing but print.
    pub dumb_terminal: bool,
    /// On GitHub Actions: the folder of the workspace, if it is known, and where the command runs below it.
    pub github_workspace: Option<(String, String)>,
    /// On GitLab CI.
    pub gitlab: bool,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn from_process() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let here = std::env::current_dir().unwrap_or_default();
        let github = set("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        let below = |workspace: String| {
            let below = here.strip_prefix(&workspace).map(|path| path.display().to_string()).unwrap_or_default();
            (workspace, below)
        };
        Self {
            no_colour: set("NO_COLOR").is_some(),
            dumb_terminal: set("TERM").is_some_and(|value| value == "dumb"),
            github_workspace: github.then(|| set("GITHUB_WORKSPACE").map(below).unwrap_or_default()),
            gitlab: set("GITLAB_CI").is_some_and(|value| value == "true"),
        }
    }
}

/// The registry client's settings.
#[must_use]
pub fn registries(typed: &RegistryArguments) -> fluyt_client::Settings {
    fluyt_client::Settings {
        insecure: typed.insecure_registry.clone(),
        skip_tls_verify: typed.skip_tls_verify_registry.clone(),
        certificates: typed
            .registry_certificate
            .iter()
            .map(|(host, file)| (host.clone(), PathBuf::from(file)))
            .collect(),
        mirrors: typed.registry_mirror.clone(),
        authfile: typed.authfile.clone(),
        environment: Environment::from_process(),
        retry: retry(typed.retry),
        ..fluyt_client::Settings::default()
    }
}

/// `--retry`: how often a request is tried after it failed, whatever the failure and whatever was under way.
fn retry(again: Option<u32>) -> RetryPolicy {
    let usual = RetryPolicy::default();
    match again {
        None => usual,
        Some(again) => {
            let attempts = again.saturating_add(1);
            RetryPolicy { attempts, connect_attempts: attempts, transfer_patience: Duration::ZERO, ..usual }
        }
    }
}

/// A variable of the environment, where it is set to something.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `K=V` as typed; `K` alone takes the environment's value and is left out where that has none, as Docker does.
///
/// # Errors
/// When a name is empty, or a value of the environment no text.
pub fn build_args(typed: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut values = BTreeMap::new();
    for text in typed.iter().filter(|text| !text.is_empty()) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), from_environment(text)?),
        };
        if name.is_empty() {
            return Err(
                Failure::usage(format!("`--build-arg {text}` has no name")).hint("write `--build-arg NAME=VALUE`")
            );
        }
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

fn from_environment(name: &str) -> Result<Option<String>, Failure> {
    let text = |value: std::ffi::OsString| {
        value.into_string().map_err(|_| {
            Failure::usage(format!("`--build-arg {name}`: the value of the variable {name} is no UTF-8 text"))
                .hint(format!("write the value: `--build-arg {name}=VALUE`"))
        })
    };
    std::env::var_os(name).map(text).transpose()
}

/// The build arguments that Docker's `config.json` gives every build: the proxies of its `default`, under both spellings.
/// What is typed goes before them.
///
/// # Errors
/// When the file is no JSON. One that is not there says nothing.
pub fn proxies(environment: &Environment, build_args: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    const KEYS: [(&str, &str); 5] = [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ];
    let home = || environment.home.as_ref().map(|home| home.join(".docker"));
    let Some(folder) = environment.docker_config.clone().or_else(home) else { return Ok(()) };
    let path = folder.join("config.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
    let config: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(Blame::User, format!("{} is no JSON, and may name proxies for commands", path.display()))
            .caused_by(&error)
            .hint("mend the file, or name a folder without one in DOCKER_CONFIG")
    })?;
    for (key, name) in KEYS {
        let value = config.pointer(&format!("/proxies/default/{key}")).and_then(serde_json::Value::as_str);
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let names = [name.to_owned(), name.to_ascii_lowercase()];
        // Whoever types one spelling means both.
        if names.iter().all(|name| !build_args.contains_key(name)) {
            build_args.extend(names.map(|name| (name, value.to_owned())));
        }
    }
    Ok(())
}

/// `--secret` as typed, each read now.
///
/// # Errors
/// When a key is unknown, and when there is no such file or variable.
pub fn secrets(typed: &[String]) -> Result<Secrets, Failure> {
    typed.iter().filter(|text| !text.is_empty()).map(|text| secret(text)).collect()
}

fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let wrong = |problem: &str| {
        Failure::usage(format!("`--secret {text}`: {problem}"))
            .hint("write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`")
    };
    let (mut id, mut file, mut variable, mut kind, mut searched) = (None, None, None, None, true);
    let fields = pairs(text).map_err(|problem: String| wrong(&problem))?;
    for (key, value) in &fields {
        let value = value.as_str();
        match key.as_str() {
            "type" => kind = Some(value),
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            "scan" => {
                searched = match value {
                    "on" => true,
                    "off" => false,
                    other => return Err(wrong(&format!("expected `scan=on` or `scan=off`, found `{other}`"))),
                }
            }
            other => {
                return Err(wrong(&format!("unexpected key `{other}`: expected `id`, `src`, `env`, `type` or `scan`")));
            }
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no `id`"))?;
    let in_environment = match (kind, file, variable) {
        (_, Some(_), Some(_)) => return Err(wrong("it takes `src` or `env`, not both")),
        (Some("env"), source, variable) => Some(variable.or(source).unwrap_or(id)),
        (None, None, Some(variable)) => Some(variable),
        (None, None, None) if std::env::var_os(id).is_some() => Some(id),
        (Some("file") | None, _, None) => None,
        _ => return Err(wrong("expected `type=file` or `type=env`")),
    };
    if let Some(variable) = in_environment {
        // Left to the steps, as buildx does: CI passes secrets that not every run has.
        let value = match std::env::var(variable) {
            Ok(value) => value,
            Err(std::env::VarError::NotPresent) => {
                let value = Value::Unset { variable: variable.to_owned() };
                return Ok((id.to_owned(), Secret { value, searched }));
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(wrong(&format!("the value of the variable {variable} is no UTF-8 text")));
            }
        };
        return Ok((id.to_owned(), Secret { searched, ..Secret::of(value.as_bytes()) }));
    }
    let file = PathBuf::from(file.unwrap_or(id));
    if !file.is_file() {
        return Err(wrong(&format!("there is no file {}", file.display())));
    }
    let secret = Secret { searched, ..Secret::file(&file) };
    match &secret.value {
        Value::Unreadable { source, .. } => {
            Err(wrong(&format!("the file {} cannot be read", file.display())).caused_by(source.as_ref()))
        }
        _ => Ok((id.to_owned(), secret)),
    }
}

/// `--ssh` as typed: agents' sockets by id, and the agents of our own behind those that are for keys in files. `NAME` alone
/// is the agent of `SSH_AUTH_SOCK`.
///
/// # Errors
/// When there is no such socket, or a key that cannot be used.
pub fn agents(typed: &[String]) -> Result<(BTreeMap<String, PathBuf>, Vec<Served>), Failure> {
    let (mut agents, mut own) = (BTreeMap::new(), Vec::new());
    for text in typed.iter().filter(|text| !text.is_empty()) {
        let (id, socket) = agent(text, &mut own)?;
        if agents.insert(id.clone(), socket).is_some() {
            return Err(Failure::usage(format!("`--ssh {text}`: there is an agent `{id}` already"))
                .hint("name several keys for one agent with commas: `--ssh NAME=KEYFILE,KEYFILE`"));
        }
    }
    Ok((agents, own))
}

fn agent(text: &str, own: &mut Vec<Served>) -> Result<(String, PathBuf), Failure> {
    let wrong = |problem: &str| Failure::usage(format!("`--ssh {text}`: {problem}"));
    let (id, paths) = text.split_once('=').map_or((text, ""), |(id, paths)| (id, paths));
    let id = if id.is_empty() { "default" } else { id }.to_owned();
    let mut paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if paths.is_empty() {
        let from_environment = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        paths.push(from_environment.ok_or_else(|| {
            wrong("SSH_AUTH_SOCK is not set")
                .hint("start an agent with `eval $(ssh-agent)`, or give a key: `--ssh NAME=KEYFILE`")
        })?);
    }
    match (paths.iter().any(|path| ssh_agent::is_socket(path)), paths.len()) {
        (true, 1) => return Ok((id, paths.remove(0))),
        (true, _) => return Err(wrong("it takes one agent's socket, or keys in files, not both")),
        (false, _) => {}
    }
    let failed = |error: &ssh_agent::KeyError| wrong("no agent can be made of it").caused_by(error);
    let keys = Keys::read(&paths).map_err(|error| failed(&error))?;
    let served = Served::start(keys, &std::env::temp_dir()).map_err(|error| failed(&error))?;
    let socket = served.socket();
    own.push(served);
    Ok((id, socket))
}

/// `SOURCE_DATE_EPOCH`: seconds since 1970. A build argument of that name goes before the environment's, and an empty
/// value is none.
///
/// # Errors
/// When it is no number.
pub fn epoch(build_args: &BTreeMap<String, String>) -> Result<Option<i64>, Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let text = build_args.get(NAME).cloned().or_else(|| std::env::var(NAME).ok()).filter(|text| !text.is_empty());
    text.map(|text| moment(NAME, &text)).transpose()
}

/// `source-date-epoch=` of an output.
///
/// # Errors
/// When it is no number.
pub fn seconds(text: &str) -> Result<i64, Failure> {
    moment("source-date-epoch", text)
}

fn moment(name: &str, text: &str) -> Result<i64, Failure> {
    text.parse::<i64>().ok().filter(|seconds| *seconds >= 0).ok_or_else(|| {
        Failure::usage(format!("{name} is `{text}`: expected seconds since 1970"))
            .hint("`git log -1 --format=%ct` prints the time of a commit in that form")
    })
}

/// Whether `--metadata-file` tells the build's warnings too, as buildx asks it.
#[must_use]
pub fn metadata_has_warnings() -> bool {
    variable("BUILDX_METADATA_WARNINGS").is_some_and(|text| truth(&text) == Some(true))
}

/// A reference as typed.
///
/// # Errors
/// When it is none; the message says what is wrong with it.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error| Failure::from_error(Blame::Usage, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_dockers_configuration_are_arguments_of_every_build() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment { docker_config: Some(folder.path().to_owned()), ..Environment::default() };
        let read = |text: &str, typed: &[(&str, &str)]| {
            std::fs::write(folder.path().join("config.json"), text).unwrap();
            let mut values: BTreeMap<String, String> =
                typed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            proxies(&environment, &mut values)
                .map(|()| values.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        };
        let text = r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"","allProxy":7},"tcp://a":{"httpsProxy":"x"}}}"#;
        assert_eq!(read(text, &[]).unwrap(), ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
        assert_eq!(read(text, &[("http_proxy", "mine")]).unwrap(), ["http_proxy=mine"]);
        assert_eq!(read("{}", &[]).unwrap(), Vec::<String>::new());
        assert!(read("{", &[]).unwrap_err().message.contains("is no JSON"));
        std::fs::remove_file(folder.path().join("config.json")).unwrap();
        assert!(proxies(&environment, &mut BTreeMap::new()).is_ok());
    }

    #[test]
    fn a_secret_of_a_variable_that_is_not_set_is_left_to_the_steps() {
        let secrets = secrets(&["id=x,env=FLUYT_TEST_OF_NO_VARIABLE".to_owned()]).unwrap();
        let value = secrets.get("x").map(|secret| &secret.value);
        assert!(matches!(value, Some(Value::Unset { variable }) if variable == "FLUYT_TEST_OF_NO_VARIABLE"));
        assert!(super::secrets(&["id=x,src=/nowhere".to_owned()]).is_err());
        // Nothing is at the start of a process's memory.
        let failure = super::secrets(&["id=x,src=/proc/self/mem".to_owned()]).unwrap_err();
        assert_eq!((failure.blame, failure.causes.len()), (Blame::Usage, 1), "{failure:?}");
        assert!(failure.message.ends_with("the file /proc/self/mem cannot be read"), "{failure:?}");
    }

    #[test]
    fn retry_counts_what_comes_after_the_first_attempt() {
        let attempts = |again| (retry(again).attempts, retry(again).connect_attempts);
        assert_eq!(attempts(None), (5, 3));
        assert_eq!(attempts(Some(0)), (1, 1));
        assert_eq!(attempts(Some(9)), (10, 10));
        assert_eq!((retry(None).transfer_patience.as_secs(), retry(Some(9)).transfer_patience.as_secs()), (30, 0));
    }
}
