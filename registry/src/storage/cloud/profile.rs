//! `~/.aws/config` and `~/.aws/credentials`: profiles as Amazon's own tools write them.
//!
//! ```text
//! [default]                 # both files
//! region = eu-west-1
//! [profile work]            # config; in credentials: [work]
//! aws_access_key_id = ...
//! s3 =                      # what is indented below a key belongs to that key, and is passed over
//!   max_concurrent_requests = 20
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// What a profile says; names are as in the files.
pub(super) type Profile = BTreeMap<String, String>;

/// Which profile, and where.
#[derive(Clone, Debug)]
pub(super) struct ProfileFiles {
    pub(super) name: String,
    /// Whether somebody asked for it: then it has to be there.
    pub(super) named: bool,
    config: Option<PathBuf>,
    credentials: Option<PathBuf>,
}

impl ProfileFiles {
    pub(super) fn new(variables: &BTreeMap<String, String>) -> Self {
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let name = set("AWS_PROFILE").or_else(|| set("AWS_DEFAULT_PROFILE"));
        let file = |variable: &str, default: &str| {
            let home = || set("HOME").map(|home| PathBuf::from(home).join(".aws").join(default));
            set(variable).map(PathBuf::from).or_else(home)
        };
        Self {
            named: name.is_some(),
            name: name.cloned().unwrap_or_else(|| "default".to_owned()),
            config: file("AWS_CONFIG_FILE", "config"),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        }
    }

    /// Both files' words on the profile; those of `credentials` count where both have some.
    pub(super) fn read(&self) -> Result<Profile, String> {
        let mut profile = Profile::new();
        let mut found = false;
        for (file, in_config) in [(&self.config, true), (&self.credentials, false)] {
            let Some(file) = file else { continue };
            let text = match std::fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("cannot read `{}`: {error}", file.display())),
            };
            if let Some(section) = section(&text, &self.name, in_config) {
                found = true;
                profile.extend(section);
            }
        }
        if self.named && !found {
            let show = |file: &Option<PathBuf>| file.as_ref().map_or("none".into(), |file| file.display().to_string());
            return Err(format!(
                "AWS_PROFILE is `{}`, and there is no such profile in `{}` or `{}`",
                self.name,
                show(&self.config),
                show(&self.credentials)
            ));
        }
        Ok(profile)
    }
}

/// The keys of one section; `None` when there is no such section.
fn section(text: &str, name: &str, in_config: bool) -> Option<Profile> {
    let is_ours = |title: &str| match title.strip_prefix("profile") {
        Some(rest) if in_config && rest.starts_with([' ', '\t']) => rest.trim() == name,
        _ => title == name && (!in_config || name == "default"),
    };
    let mut found: Option<Profile> = None;
    let mut inside = false;
    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) || indented {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = is_ours(title.trim());
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && let Some(profile) = &mut found
        {
            // A comment after a value begins with a space, as values may hold the character.
            let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default();
            profile.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// The keys that a profile holds, if any.
pub(super) fn credential(profile: &Profile) -> Option<AwsCredential> {
    let set = |name: &str| profile.get(name).filter(|value| !value.is_empty()).cloned();
    Some(AwsCredential {
        key_id: set("aws_access_key_id")?,
        secret_key: set("aws_secret_access_key")?,
        token: set("aws_session_token"),
    })
}

/// Reads the files again from time to time: programs that renew short-lived keys write them there.
#[derive(Debug)]
pub(super) struct ProfileCredentials {
    files: ProfileFiles,
    last: Mutex<(Instant, Arc<AwsCredential>)>,
}

const REREAD: Duration = Duration::from_secs(60);

impl ProfileCredentials {
    pub(super) fn new(files: ProfileFiles, first: AwsCredential) -> Self {
        Self { files, last: Mutex::new((Instant::now(), Arc::new(first))) }
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let failed = |what: String| object_store::Error::Generic { store: "S3", source: what.into() };
        let mut last = self.last.lock().map_err(|_| failed("reading credentials failed before".to_owned()))?;
        if last.0.elapsed() > REREAD {
            // A file that is just being replaced does not take the keys away that are in use.
            if let Some(credential) = self.files.read().ok().as_ref().and_then(credential) {
                last.1 = Arc::new(credential);
            }
            last.0 = Instant::now();
        }
        Ok(last.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# ours\n[default]\nregion = eu-west-1\ns3 =\n  region = no\n\n[profile work]\nregion=us-west-2 # near\naws_access_key_id = a\n[profile  other ]\nregion = x\n[work]\nregion = wrong\n";
    const CREDENTIALS: &str =
        "[work]\nAWS_ACCESS_KEY_ID = b\naws_secret_access_key = c/d=e#f\n; no\n[default]\naws_access_key_id=\n";

    fn in_folder(profile: Option<&str>) -> (tempfile::TempDir, ProfileFiles) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(".aws/config"), CONFIG).unwrap();
        std::fs::write(folder.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        let mut variables = BTreeMap::from([("HOME".to_owned(), folder.path().display().to_string())]);
        variables.extend(profile.map(|name| ("AWS_PROFILE".to_owned(), name.to_owned())));
        let files = ProfileFiles::new(&variables);
        (folder, files)
    }

    #[test]
    fn profiles_are_found_and_credentials_win() {
        let (_folder, files) = in_folder(Some("work"));
        let profile = files.read().unwrap();
        assert_eq!(profile.get("region").map(String::as_str), Some("us-west-2"));
        let credential = credential(&profile).unwrap();
        assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("b", "c/d=e#f"));
        let (_folder, files) = in_folder(Some("other"));
        assert_eq!(files.read().unwrap().get("region").map(String::as_str), Some("x"));
    }

    #[test]
    fn the_default_need_not_be_there_but_a_named_one_must() {
        let (_folder, files) = in_folder(None);
        let profile = files.read().unwrap();
        assert_eq!(profile.get("region").map(String::as_str), Some("eu-west-1"));
        assert!(credential(&profile).is_none());
        assert!(ProfileFiles::new(&BTreeMap::new()).read().unwrap().is_empty());
        let (_folder, files) = in_folder(Some("absent"));
        let error = files.read().unwrap_err();
        assert!(error.contains("absent") && error.contains(".aws/config"), "{error}");
    }

    #[tokio::test]
    async fn keys_that_were_renewed_are_taken_up() {
        let (folder, files) = in_folder(Some("work"));
        let first = credential(&files.read().unwrap()).unwrap();
        let provider = ProfileCredentials::new(files, first);
        std::fs::write(folder.path().join(".aws/credentials"), CREDENTIALS.replace("= b", "= renewed")).unwrap();
        assert_eq!(provider.get_credential().await.unwrap().key_id, "b");
        provider.last.lock().unwrap().0 = Instant::now() - 2 * REREAD;
        assert_eq!(provider.get_credential().await.unwrap().key_id, "renewed");
        std::fs::write(folder.path().join(".aws/credentials"), "[wo").unwrap();
        provider.last.lock().unwrap().0 = Instant::now() - 2 * REREAD;
        assert_eq!(provider.get_credential().await.unwrap().key_id, "renewed");
    }
}
