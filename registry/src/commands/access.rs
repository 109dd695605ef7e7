//! The files of `--htpasswd`, `--tls-cert` and `--tls-key`, read now and whenever they change.

use std::sync::Arc;

use fluyt_registry::auth::{Accounts, Authorizer, Passwords, TokenKeys, Users};
use fluyt_registry::http::Tls;
use fluyt_registry::storage::Storage;

use super::Failure;
use super::reload::Files;
use crate::settings::AccessSettings;

/// Who may do what.
pub(crate) fn authorizer(access: &AccessSettings, storage: &Storage) -> Result<Authorizer, Failure> {
    let Some(path) = &access.htpasswd else {
        if access.anonymous_pull {
            let what = "--anonymous-pull says what those may do who are no user: give the users with --htpasswd too";
            return Err(Failure::User(what.into()));
        }
        return Ok(Authorizer::Everyone);
    };
    let what = "the password file";
    let (files, mut contents) = Files::read(what, &[path])?;
    let users = users(&contents.pop().unwrap_or_default())
        .map_err(|error| Failure::User(format!("{what} {}: {error}", path.display()).into()))?;
    if users.count() == 0 {
        tracing::warn!(files = files.names(), "the password file holds no user: nobody can log in");
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| Failure::Environment(error.into()))?;
    // Half of the processors, so that logins do not stop who is logged in.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let accounts = Arc::new(Accounts {
        passwords: Passwords::new(users, key, processors / 2),
        anonymous_pull: access.anonymous_pull,
        token_keys: TokenKeys::new(storage.upload_keys()),
    });
    let watched = accounts.clone();
    files.watch(what, move |mut contents| {
        watched.passwords.replace(self::users(&contents.pop().unwrap_or_default())?);
        Ok(())
    });
    Ok(Authorizer::Accounts(accounts))
}

fn users(content: &[u8]) -> Result<Users, Box<dyn std::error::Error + Send + Sync>> {
    let text = std::str::from_utf8(content).map_err(|error| format!("it is not UTF-8: {error}"))?;
    Ok(Users::parse(text)?)
}

/// The certificate; `None`: plain HTTP.
pub(crate) fn tls(access: &AccessSettings) -> Result<Option<Tls>, Failure> {
    let (certificate, key) = match (&access.tls_cert, &access.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => return Err(Failure::User("--tls-cert needs its private key: give --tls-key too".into())),
        (None, Some(_)) => return Err(Failure::User("--tls-key needs its certificate: give --tls-cert too".into())),
    };
    let what = "the certificate or its key";
    let (files, contents) = Files::read(what, &[certificate, key])?;
    let pair = |contents: Vec<Vec<u8>>| <[Vec<u8>; 2]>::try_from(contents).unwrap_or_default();
    let [certificate, key] = pair(contents);
    let tls = Tls::new(&certificate, &key)
        .map_err(|error| Failure::User(format!("{error} (files {})", files.names()).into()))?;
    let watched = tls.clone();
    files.watch("the certificate", move |contents| {
        let [certificate, key] = pair(contents);
        Ok(watched.replace(&certificate, &key)?)
    });
    Ok(Some(tls))
}
