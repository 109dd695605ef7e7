//! `--config FILE`: TOML whose keys are the flags of `serve`. What the file says becomes the flags' defaults, so the
//! environment and the command line win over it, and values are read by the same code.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use super::{CommandLine, variables};

/// What the command line, the environment and a configuration file say together.
#[derive(Debug)]
pub(crate) struct Given {
    /// What to do.
    pub(crate) command_line: CommandLine,
    /// `serve --print-config`: each setting with its source.
    pub(crate) printed: Option<String>,
}

/// Why it could not be read.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// The command line; or help, which was asked for.
    CommandLine(clap::Error),
    /// The configuration file, or a variable.
    Config(String),
}

/// One line of the file.
struct Setting {
    key: String,
    line: usize,
    values: Vec<String>,
}

/// Reads all of them.
pub(crate) fn read(arguments: Vec<OsString>) -> Result<Given, Wrong> {
    let mut command = CommandLine::command();
    let matches = command
        .try_get_matches_from_mut(&arguments)
        .map_err(|error| Wrong::CommandLine(with_usage(error, &arguments)))?;
    let (name, given) = matches.subcommand().map(|(name, given)| (name.to_owned(), given.clone())).unwrap_or_default();
    let has_store = |command: &clap::Command| command.get_arguments().any(|argument| argument.get_id() == "store");
    if command.find_subcommand(&name).is_some_and(has_store) {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        variables::wrong(&command, names).map_or(Ok(()), |told| Err(Wrong::Config(told)))?;
    }
    let Ok(Some(file)) = given.try_get_one::<PathBuf>("config") else { return finish(&matches, &name) };
    let settings = settings(file)?;
    let mut command = CommandLine::command();
    for setting in settings {
        let id = setting.key.replace('-', "_");
        // The file is for every command: each takes what concerns it.
        command = command.mut_subcommand(&name, |command| {
            if command.get_arguments().any(|argument| argument.get_id() == id.as_str()) {
                command.mut_arg(&id, |argument| argument.default_values(setting.values))
            } else {
                command
            }
        });
    }
    finish(&command.try_get_matches_from(&arguments).map_err(Wrong::CommandLine)?, &name)
}

/// What is missing, with the usage of the command: clap's own line would ask for each flag that the environment gives.
fn with_usage(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    if error.kind() == ErrorKind::MissingRequiredArgument {
        let mut all = CommandLine::command();
        all.build();
        let named = arguments.iter().skip(1).find(|word| all.find_subcommand(word).is_some());
        if let Some(command) = named.and_then(|name| all.find_subcommand_mut(name)) {
            error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
        }
    }
    error
}

fn finish(matches: &ArgMatches, name: &str) -> Result<Given, Wrong> {
    let command_line = CommandLine::from_arg_matches(matches).map_err(Wrong::CommandLine)?;
    let given = matches.subcommand_matches(name);
    let wanted = given.filter(|given| matches!(given.try_get_one::<bool>("print_config"), Ok(Some(true))));
    Ok(Given { command_line, printed: wanted.map(printed) })
}

/// The settings of a file, each seen to be a flag of `serve` with a value that it takes.
fn settings(file: &Path) -> Result<Vec<Setting>, Wrong> {
    let wrong = |line: usize, what: String| Wrong::Config(format!("{}:{line}: {what}", file.display()));
    let text = std::fs::read_to_string(file)
        .map_err(|error| Wrong::Config(format!("the configuration file {} cannot be read: {error}", file.display())))?;
    let line = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    let table = DeTable::parse(&text)
        .map_err(|error| wrong(line(error.span().map_or(0, |span| span.start)), error.message().to_owned()))?;
    let command = CommandLine::command();
    let serve = command.find_subcommand("serve").cloned().unwrap_or_default();
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line(key.span().start);
        let name = key.get_ref().as_ref();
        let Some(argument) = serve.get_arguments().find(|argument| argument.get_long() == Some(name)) else {
            return Err(wrong(line, format!("`{name}` is no setting: expected a flag of `serve` without its dashes")));
        };
        if matches!(name, "config" | "print-config") {
            return Err(wrong(line, format!("`{name}` is for the command line: it says nothing in the file")));
        }
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
        let values = values(value.get_ref())
            .filter(|values| !is_switch || matches!(value.get_ref(), DeValue::Boolean(_)) && !values.is_empty());
        let Some(values) = values else {
            let expected = if is_switch { "true or false" } else { "a string, a whole number, or a list of them" };
            return Err(wrong(line, format!("`{name}` has a value of another kind: expected {expected}")));
        };
        if !is_switch {
            // By itself, so that a value that is wrong is told with its line.
            let trial = values.iter().map(|value| format!("--{name}={value}"));
            let trial = ["serve".to_owned()].into_iter().chain(trial);
            if let Err(error) = serve.clone().no_binary_name(false).try_get_matches_from(trial) {
                let told = error.to_string();
                let first = told.lines().next().unwrap_or_default();
                return Err(wrong(line, first.trim_start_matches("error: ").to_owned()));
            }
        }
        settings.push(Setting { key: name.to_owned(), line, values });
    }
    settings.sort_by_key(|setting| setting.line);
    Ok(settings)
}

/// What clap is to read; `None` for what no flag takes.
fn values(value: &DeValue<'_>) -> Option<Vec<String>> {
    Some(match value {
        DeValue::String(text) => vec![text.to_string()],
        DeValue::Integer(number) => vec![number.to_string()],
        DeValue::Boolean(switch) => vec![switch.to_string()],
        DeValue::Array(list) => {
            let one = |value: &toml::Spanned<DeValue<'_>>| match value.get_ref() {
                DeValue::Array(_) => None,
                value => values(value)?.pop(),
            };
            list.iter().map(one).collect::<Option<_>>()?
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

/// Each setting of `serve` as the file would have it, and where it comes from.
fn printed(given: &ArgMatches) -> String {
    let mut command = CommandLine::command();
    // Only then a switch has its default.
    command.build();
    let serve = command.find_subcommand("serve").cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for argument in serve.get_arguments() {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        if matches!(long, "config" | "print-config" | "help") {
            continue;
        }
        let values: Vec<String> = given
            .try_get_raw(id)
            .ok()
            .flatten()
            .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let is_default = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .eq(values.iter().cloned());
        let source = match given.value_source(id) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) if !is_default => "file",
            _ => "default",
        };
        let quoted = |value: &String| match (argument.get_action(), value.parse::<i64>()) {
            (ArgAction::SetTrue, _) | (_, Ok(_)) => value.clone(),
            _ => toml_string(value),
        };
        let value = match (argument.get_action(), values.as_slice()) {
            (ArgAction::Append, values) => format!("[{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
            (_, [value]) => quoted(value),
            _ => {
                lines.push(format!("# {long} is not set"));
                continue;
            }
        };
        lines.push(format!("{long} = {value} # {source}"));
    }
    lines.join("\n") + "\n"
}

/// As TOML's basic strings have it, which escape what JSON's do.
fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn given(config: &str, arguments: &[&str]) -> Result<Given, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let mut all = vec!["fluyt-registry".into(), "serve".into(), "--config".into(), file.clone().into_os_string()];
        all.extend(arguments.iter().map(OsString::from));
        read(all).map_err(|wrong| match wrong {
            Wrong::Config(told) => told.replace(&file.display().to_string(), "FILE"),
            Wrong::CommandLine(error) => error.to_string(),
        })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = "# ours\nlisten = \":7000\"\nno-sync = true\nmax-connections = 7\ntrusted-proxy = [\"10.0.0.0/8\", \"::1\"]\n";
        let Given { command_line, printed } = given(config, &["--listen", ":8000", "--print-config"]).unwrap();
        let Command::Serve(serve) = command_line.command else { panic!("another command") };
        assert_eq!(serve.listen.to_string(), "0.0.0.0:8000");
        assert!(serve.store.no_sync);
        assert_eq!(serve.access.max_connections.get(), 7);
        assert_eq!(serve.access.trusted_proxy.len(), 2);
        let printed = printed.unwrap();
        for line in [
            "listen = \":8000\" # command line",
            "no-sync = true # file",
            "max-connections = 7 # file",
            "trusted-proxy = [\"10.0.0.0/8\", \"::1\"] # file",
            "anonymous-pull = false # default",
            "# htpasswd is not set",
        ] {
            assert!(printed.lines().any(|found| found == line), "{line} is not in\n{printed}");
        }
        assert!(given(&printed, &[]).is_ok(), "what is printed can be read");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (config, expected) in [
            ("\nlissen = 1", "FILE:2: `lissen` is no setting: expected a flag of `serve` without its dashes"),
            ("no-sync = true\nlisten = \"x\"", "FILE:2: invalid value 'x' for '--listen <ADDRESS:PORT>'"),
            ("no-sync = 1", "FILE:1: `no-sync` has a value of another kind: expected true or false"),
            ("[listen]", "FILE:1: `listen` has a value of another kind: expected a string"),
            ("listen = ", "FILE:1: "),
            ("a = 1\n\na = 2", "FILE:3: duplicate key"),
            ("config = \"x\"", "FILE:1: `config` is for the command line"),
            ("max-connections = 0", "FILE:1: invalid value '0' for '--max-connections <N>'"),
            ("listen = [\":1\", \":2\"]", "FILE:1: "),
        ] {
            let told = given(config, &[]).map(drop).unwrap_err();
            assert!(told.starts_with(expected), "{told}");
        }
        let missing = read(["fluyt-registry", "serve", "--config", "/nowhere"].map(OsString::from).to_vec());
        let Err(Wrong::Config(told)) = missing else { panic!("{missing:?}") };
        assert!(told.starts_with("the configuration file /nowhere cannot be read: "), "{told}");
    }
}
