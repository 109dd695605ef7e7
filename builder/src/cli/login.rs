//! `fluyt login` and `fluyt logout`.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use fluyt_client::{Client, Credential, Erased, Keyring, LoginCheck, Stored};

use super::args::{LoginArguments, LogoutArguments, RegistryArguments};
use super::build::of_path;
use super::failure::{Blame, Failure};
use super::{output, settings};
use crate::pipeline::remote_fault;
use crate::remote::RemoteError;

pub(super) async fn login(typed: LoginArguments) -> Result<(), Failure> {
    let client = Client::new(settings::registries(&typed.registries))
        .map_err(|error| Failure::from_error(Blame::Usage, &error))?;
    client.tell_of_warnings(|text| output::message(&format!("warning: {text}\n")));
    let username = match &typed.username {
        Some(name) => name.clone(),
        None if typed.password_stdin => {
            return Err(Failure::usage("`--password-stdin` needs `--username`"));
        }
        None => prompt("Username: ")?,
    };
    let password = match &typed.password {
        Some(password) => {
            output::message("warning: a password on the command line can be seen by others; use --password-stdin\n");
            password.clone()
        }
        None if typed.password_stdin => password_from_stdin()?,
        None => hidden_prompt("Password: ")?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::usage("the name and the password must not be empty"));
    }
    let credential = Credential::Password { username, password };
    let host = fluyt_client::normal_host(&typed.registry).to_owned();
    let check = client.check_login(&host, &credential).await.map_err(|error| {
        let error = RemoteError::from(error);
        Failure::new(remote_fault(&error).into(), format!("cannot log in to {host}")).caused_by(&error)
    })?;
    if check == LoginCheck::NotNeeded {
        output::message(&format!("warning: {host} asks for no credentials, so that these could not be checked\n"));
    }
    let stored = client.keyring().store(&host, &credential).map_err(|error| {
        Failure::new(of_path(&error), format!("cannot keep the credentials for {host}")).caused_by(&error)
    })?;
    let kept = match stored {
        Stored::File(path) => {
            format!("the credentials are in {}, where whoever reads that file reads them", path.display())
        }
        Stored::Helper(program) => format!("{program} keeps the credentials"),
    };
    output::message(&format!("logged in to {host}; {kept}\n"));
    warn_of_variable(client.keyring(), &host);
    Ok(())
}

pub(super) fn logout(typed: &LogoutArguments) -> Result<(), Failure> {
    let registries = RegistryArguments {
        retry: None,
        authfile: typed.authfile.clone(),
        insecure_registry: Vec::new(),
        skip_tls_verify_registry: Vec::new(),
        registry_certificate: Vec::new(),
        registry_mirror: Vec::new(),
    };
    let settings = settings::registries(&registries);
    let host = fluyt_client::normal_host(&typed.registry).to_owned();
    let keyring = Keyring::new(settings.authfile.as_deref(), &settings.environment);
    let Erased { files, helpers } = keyring.erase(&host).map_err(|error| {
        Failure::new(of_path(&error), format!("cannot forget the credentials for {host}")).caused_by(&error)
    })?;
    let places: Vec<String> = files.iter().map(|path| path.display().to_string()).chain(helpers).collect();
    output::message(&match places.is_empty() {
        true => format!("there were no credentials for {host}\n"),
        false => format!("logged out of {host}; removed from {}\n", places.join(", ")),
    });
    warn_of_variable(&keyring, &host);
    Ok(())
}

/// Without it, what was stored or removed seems to have no effect.
fn warn_of_variable(keyring: &Keyring, host: &str) {
    if keyring.variable_has(host) {
        output::message(&format!(
            "warning: the variable DOCKER_AUTH_CONFIG has credentials for {host}, which go before those stored\n"
        ));
    }
}

/// Asks on the terminal.
fn prompt(question: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on").hint("give `--username NAME --password-stdin`"));
    }
    output::message(question);
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal without showing what is typed.
fn hidden_prompt(question: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).ok();
    if let Some(mut hidden) = shown.clone() {
        hidden.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &hidden);
    }
    let answer = prompt(question);
    if let Some(shown) = shown {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &shown);
        output::message("\n");
    }
    answer
}

/// Longest password that is read, in bytes; a token of some clouds has some kB.
const PASSWORD_SIZE_MAX_BYTES: u64 = 64 * 1024;

fn password_from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(PASSWORD_SIZE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::from_error(Blame::Usage, &error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
