//! The text of a credentials file: Docker's `config.json` and podman's `auth.json` have the same form.
//!
//! Pure. Unknown fields and the order of all fields are kept when the text is written again.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::Credential;
use crate::reference::{DEFAULT_HOST, normal_host};

/// The key under which Docker itself looks for Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone)]
pub(super) struct CredentialFile(Map<String, Value>);

impl CredentialFile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err("expected a JSON object".to_owned()),
            // The error's place is told, its text is not: it may quote a secret.
            Err(error) => Err(format!("it is not JSON: look at line {}, column {}", error.line(), error.column())),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.0).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The name `X` of the helper `docker-credential-X` that is responsible for the registry.
    pub(super) fn helper(&self, host: &str, repository: &str) -> Option<String> {
        let own = self.object("credHelpers").and_then(|helpers| {
            let key = best_key(helpers.keys(), host, repository)?;
            helpers.get(key)?.as_str()
        });
        let name = own.or_else(|| self.0.get("credsStore")?.as_str())?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The entry of `auths` for the registry: the one with the longest matching namespace. `None` also for an empty
    /// entry, with which Docker marks that a helper has the credentials.
    pub(super) fn entry(&self, host: &str, repository: &str) -> Option<Result<Credential, String>> {
        let auths = self.object("auths")?;
        let key = best_key(auths.keys(), host, repository)?;
        read_entry(key, auths.get(key)?).transpose()
    }

    /// Puts user name and password under the registry's key, and removes other spellings of the same registry.
    pub(super) fn set(&mut self, host: &str, username: &str, password: &str) -> Result<(), String> {
        self.remove(host)?;
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let auths = self.0.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(auths) = auths else { return Err("its field `auths` is no object".to_owned()) };
        auths.insert(key_for(host).to_owned(), json!({ "auth": auth }));
        Ok(())
    }

    /// Removes all entries of the registry; whether there was one.
    pub(super) fn remove(&mut self, host: &str) -> Result<bool, String> {
        match self.0.get_mut("auths") {
            None => Ok(false),
            Some(Value::Object(auths)) => {
                let before = auths.len();
                auths.retain(|key, _| key_host(key) != (host, None));
                Ok(auths.len() != before)
            }
            Some(_) => Err("its field `auths` is no object".to_owned()),
        }
    }

    fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.0.get(name)?.as_object()
    }
}

/// The key that tools of all sorts find: Docker's own for Docker Hub, the host for all others.
pub(super) fn key_for(host: &str) -> &str {
    if host == DEFAULT_HOST { DOCKER_HUB_KEY } else { host }
}

/// A key's host and its namespace, if it has one. Old keys end in `/v1/` or `/v2/`, which is no namespace.
fn key_host(key: &str) -> (&str, Option<&str>) {
    let host = normal_host(key);
    if key.contains("://") {
        return (host, None);
    }
    let namespace = key.split_once('/').map(|(_, rest)| rest.trim_end_matches('/'));
    (host, namespace.filter(|namespace| !matches!(*namespace, "" | "v1" | "v2")))
}

fn best_key<'a>(keys: impl Iterator<Item = &'a String>, host: &str, repository: &str) -> Option<&'a String> {
    keys.filter_map(|key| {
        let (key_host, namespace) = key_host(key);
        let length = match namespace {
            None => 0,
            Some(namespace) => {
                let rest = repository.strip_prefix(namespace)?;
                (rest.is_empty() || rest.starts_with('/')).then_some(namespace.len())?
            }
        };
        // Of two spellings of one host, the exact one wins.
        (key_host == host).then_some(((length, key == host), key))
    })
    .max_by_key(|(rank, _)| *rank)
    .map(|(_, key)| key)
}

fn read_entry(key: &str, entry: &Value) -> Result<Option<Credential>, String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::RegistryToken(token.to_owned())));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::IdentityToken(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let decoded = decode(auth)
            .ok_or_else(|| format!("its entry `{key}` has an `auth` that is not base64 of `user:password`"))?;
        let (username, password) =
            decoded.split_once(':').ok_or_else(|| format!("its entry `{key}` has an `auth` without `:` inside"))?;
        // Old versions of Docker padded with zero bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credential::Password { username: username.to_owned(), password: password.to_owned() }));
    }
    Ok(text("username").map(|username| Credential::Password {
        username: username.to_owned(),
        password: text("password").unwrap_or_default().to_owned(),
    }))
}

fn decode(auth: &str) -> Option<String> {
    let auth = auth.trim();
    let bytes = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|engine| engine.decode(auth).ok())?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
  "auths": {
    "https://index.docker.io/v1/": { "auth": "aHViOnNlY3JldDE=" },
    "quay.io": { "auth": "cXVheTpzZWNyZXQy" },
    "quay.io/team": { "auth": "dGVhbTpzZWNyZXQz" },
    "quay.io/team/app": { "auth": "YXBwOnNlY3JldDQ=" },
    "old.example.org/v1/": { "username": "plain", "password": "secret5" },
    "in-helper.example.org": {},
    "token.example.org": { "auth": "PHRva2VuPjo=", "identitytoken": "secret6" },
    "bearer.example.org": { "registrytoken": "secret7" },
    "bad.example.org": { "auth": "%%%" },
    "bad2.example.org": { "auth": "bm9jb2xvbg==" },
    "localhost:5000": { "auth": "bG9jYWw6YTpiOmM=" }
  },
  "credHelpers": { "gcr.io": "gcloud", "https://index.docker.io/v1/": "hub" },
  "HttpHeaders": { "X": "y" }
}"#;

    fn entry(host: &str, repository: &str) -> String {
        match CredentialFile::parse(FILE).unwrap().entry(host, repository) {
            None => "-".to_owned(),
            Some(Ok(Credential::Password { username, password })) => format!("{username} {password}"),
            Some(Ok(Credential::IdentityToken(token))) => format!("identity {token}"),
            Some(Ok(Credential::RegistryToken(token))) => format!("registry {token}"),
            Some(Err(problem)) => problem,
        }
    }

    #[test]
    fn entries_are_found_by_host_and_namespace() {
        let table = [
            ("docker.io", "library/alpine", "hub secret1"),
            ("quay.io", "other/x", "quay secret2"),
            ("quay.io", "teams/x", "quay secret2"),
            ("quay.io", "team/x", "team secret3"),
            ("quay.io", "team", "team secret3"),
            ("quay.io", "team/app", "app secret4"),
            ("quay.io", "team/app/deep", "app secret4"),
            ("quay.io", "team/apps", "team secret3"),
            ("old.example.org", "x", "plain secret5"),
            ("in-helper.example.org", "x", "-"),
            ("token.example.org", "x", "identity secret6"),
            ("bearer.example.org", "x", "registry secret7"),
            ("bad.example.org", "x", "its entry `bad.example.org` has an `auth` that is not base64 of `user:password`"),
            ("bad2.example.org", "x", "its entry `bad2.example.org` has an `auth` without `:` inside"),
            ("localhost:5000", "x", "local a:b:c"),
            ("localhost", "x", "-"),
            ("nowhere.example.org", "x", "-"),
        ];
        for (host, repository, expected) in table {
            assert_eq!(entry(host, repository), expected, "{host}/{repository}");
        }
    }

    #[test]
    fn helpers_are_found() {
        let file = CredentialFile::parse(FILE).unwrap();
        assert_eq!(file.helper("gcr.io", "x").as_deref(), Some("gcloud"));
        assert_eq!(file.helper("docker.io", "x").as_deref(), Some("hub"));
        assert_eq!(file.helper("quay.io", "x"), None);
        let all = CredentialFile::parse(r#"{"credsStore":"pass","credHelpers":{"quay.io":""}}"#).unwrap();
        assert_eq!(all.helper("any.example.org", "x").as_deref(), Some("pass"));
        assert_eq!(all.helper("quay.io", "x"), None);
    }

    #[test]
    fn writing_keeps_what_it_does_not_know() {
        let mut file = CredentialFile::parse(
            r#"{"z":1,"auths":{"docker.io":{"auth":"eDp5"},"quay.io":{"email":"e"}},"a":{"b":[2]}}"#,
        )
        .unwrap();
        file.set("docker.io", "me", "pass:word").unwrap();
        insta::assert_snapshot!(file.text(), @r#"
        {
          "z": 1,
          "auths": {
            "quay.io": {
              "email": "e"
            },
            "https://index.docker.io/v1/": {
              "auth": "bWU6cGFzczp3b3Jk"
            }
          },
          "a": {
            "b": [
              2
            ]
          }
        }
        "#);
        assert!(file.remove("docker.io").unwrap());
        assert!(!file.remove("docker.io").unwrap());
        assert!(file.entry("quay.io", "x").is_none());
        assert!(CredentialFile::parse(r#"{"auths":[]}"#).unwrap().set("a.b", "u", "p").is_err());
    }

    #[test]
    fn a_broken_file_is_told_without_its_content() {
        let problem = CredentialFile::parse("{\"auths\": {\"x\": secret}}").err().unwrap();
        assert_eq!(problem, "it is not JSON: look at line 1, column 17");
        assert_eq!(CredentialFile::parse("[]").err().unwrap(), "expected a JSON object");
        assert!(CredentialFile::parse(" \n").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn what_is_stored_is_found(username in "[a-zA-Z0-9@. é€-]{1,20}", password in "[ -~é€]{0,20}", host in "[a-z]{1,8}\\.org(:[0-9]{1,4})?") {
            let mut file = CredentialFile::parse(FILE).unwrap();
            file.set(&host, &username, &password).unwrap();
            let file = CredentialFile::parse(&file.text()).unwrap();
            proptest::prop_assert_eq!(file.entry(&host, "any/thing"), Some(Ok(Credential::Password { username, password })));
        }
    }
}
