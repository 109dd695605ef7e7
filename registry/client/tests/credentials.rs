//! Credentials files and helper programs, on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fluyt_client::{Credential, Environment, Erased, Keyring, Stored};

/// A program cannot be started while any process has it open for writing, and between its birth and its start a child has
/// all that its parent has: tests that write a program and start it take turns.
static PROGRAMS: Mutex<()> = Mutex::new(());

struct Home {
    folder: tempfile::TempDir,
    environment: Environment,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            home: Some(folder.path().join("home")),
            runtime_folder: Some(folder.path().join("run/containers")),
            path: Some(folder.path().join("bin").into_os_string()),
            ..Environment::default()
        };
        Self { folder, environment }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A helper that keeps its one credential in a file beside it.
    fn helper(&self, name: &str) {
        let script = r#"#!/bin/sh
here=$(dirname "$0")
read -r input || true
echo "$1 $input" >>"$here/log"
case $1 in
get) if [ -f "$here/kept" ]; then cat "$here/kept"; else echo "credentials not found in native keychain"; exit 1; fi ;;
store) echo "$input" >"$here/kept" ;;
erase) if [ -f "$here/kept" ]; then rm "$here/kept"; else echo "credentials not found in native keychain"; exit 1; fi ;;
esac
"#;
        let path = self.write(&format!("bin/docker-credential-{name}"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn keyring(&self) -> Keyring {
        Keyring::new(None, &self.environment)
    }
}

/// User and password found, where, and the notes; the home's path is left out.
fn found(home: &Home, keyring: &Keyring, host: &str, repository: &str) -> String {
    let lookup = keyring.find(host, repository);
    let mut parts = Vec::new();
    match lookup.found {
        Some(found) => {
            let secret = match found.credential {
                Credential::Password { username, password } => format!("{username} {password}"),
                Credential::IdentityToken(token) => format!("identity {token}"),
                Credential::RegistryToken(token) => format!("registry {token}"),
            };
            parts.push(format!("{secret} from {}", found.origin));
        }
        None => parts.push("none".to_owned()),
    }
    parts.extend(lookup.notes);
    parts.join("; ").replace(home.folder.path().to_str().unwrap(), "~")
}

fn auths(host: &str, login: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(login);
    format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)
}

#[test]
fn the_first_file_with_an_entry_wins() {
    let mut home = Home::new();
    home.write("home/.docker/config.json", &auths("one.example.org", "docker:1"));
    home.write("run/containers/auth.json", &auths("two.example.org", "session:2"));
    home.write("home/.config/containers/auth.json", &auths("three.example.org", "user:3"));
    let keyring = home.keyring();
    assert_eq!(found(&home, &keyring, "one.example.org", "x"), "docker 1 from ~/home/.docker/config.json");
    assert_eq!(found(&home, &keyring, "two.example.org", "x"), "session 2 from ~/run/containers/auth.json");
    assert_eq!(found(&home, &keyring, "three.example.org", "x"), "user 3 from ~/home/.config/containers/auth.json");
    assert_eq!(found(&home, &keyring, "four.example.org", "x"), "none");

    home.write("elsewhere/config.json", &auths("one.example.org", "moved:4"));
    home.environment.docker_config = Some(home.path("elsewhere"));
    assert_eq!(found(&home, &home.keyring(), "one.example.org", "x"), "moved 4 from ~/elsewhere/config.json");

    home.environment.registry_auth_file = Some(home.write("only.json", &auths("five.example.org", "only:5")));
    assert_eq!(found(&home, &home.keyring(), "five.example.org", "x"), "only 5 from ~/only.json");
    assert_eq!(found(&home, &home.keyring(), "one.example.org", "x"), "none");

    let given = home.write("given.json", &auths("quay.io/team", "team:6"));
    let keyring = Keyring::new(Some(&given), &home.environment);
    assert_eq!(found(&home, &keyring, "quay.io", "team/app"), "team 6 from ~/given.json");
    assert_eq!(found(&home, &keyring, "quay.io", "other/app"), "none");
    let missing = Keyring::new(Some(&home.path("missing.json")), &home.environment);
    assert_eq!(found(&home, &missing, "quay.io", "x"), "none; the credentials file ~/missing.json does not exist");
}

#[test]
fn the_text_in_a_variable_comes_first() {
    let mut home = Home::new();
    home.write("home/.docker/config.json", &auths("one.example.org", "docker:1"));
    home.environment.docker_auth_config = Some(auths("one.example.org", "variable:2"));
    let keyring = home.keyring();
    let first = "variable 2 from the variable DOCKER_AUTH_CONFIG";
    assert_eq!(found(&home, &keyring, "one.example.org", "x"), first);
    assert_eq!(found(&home, &keyring, "two.example.org", "x"), "none");
    keyring.store("one.example.org", &login("stored")).unwrap();
    assert_eq!(found(&home, &keyring, "one.example.org", "x"), first);
    assert_eq!(["one.example.org", "two.example.org"].map(|host| keyring.variable_has(host)), [true, false]);
    assert!(fs::read_to_string(home.path("home/.docker/config.json")).unwrap().contains("bWU6c3RvcmVk"));
    let shown = format!("{keyring:?} {:?}", home.environment);
    assert!(!shown.contains("dmFyaWFibGU6Mg"), "{shown}");

    home.environment.registry_auth_file = Some(home.write("only.json", &auths("five.example.org", "only:5")));
    assert_eq!(found(&home, &home.keyring(), "one.example.org", "x"), first);
    assert_eq!(found(&home, &home.keyring(), "five.example.org", "x"), "only 5 from ~/only.json");
    let given = home.write("given.json", &auths("quay.io", "team:6"));
    let keyring = Keyring::new(Some(&given), &home.environment);
    assert_eq!(found(&home, &keyring, "one.example.org", "x"), "none");
    assert!(!keyring.variable_has("one.example.org"));

    home.environment.docker_auth_config = Some("{secret".to_owned());
    assert_eq!(
        found(&home, &home.keyring(), "five.example.org", "x"),
        "only 5 from ~/only.json; the variable DOCKER_AUTH_CONFIG cannot be used: it is not JSON: look at line 1, column 2"
    );
}

#[test]
fn what_cannot_be_read_is_a_note() {
    let home = Home::new();
    home.write("home/.docker/config.json", "{\"auths\": secret");
    home.write("run/containers/auth.json", &auths("a.example.org", "user:1"));
    fs::create_dir_all(home.path("home/.config/containers/auth.json")).unwrap();
    assert_eq!(
        found(&home, &home.keyring(), "a.example.org", "x"),
        "user 1 from ~/run/containers/auth.json; the credentials file ~/home/.docker/config.json cannot be used: it is not JSON: look at line 1, column 11"
    );
    assert_eq!(
        found(&home, &home.keyring(), "b.example.org", "x"),
        "none; the credentials file ~/home/.docker/config.json cannot be used: it is not JSON: look at line 1, column 11; the credentials file ~/home/.config/containers/auth.json cannot be used: it is not a regular file"
    );
}

#[test]
fn a_helper_is_asked() {
    let _turn = PROGRAMS.lock().unwrap();
    let home = Home::new();
    home.helper("kept");
    home.write(
        "home/.docker/config.json",
        r#"{"credHelpers":{"gcr.io":"kept","docker.io":"kept"},"auths":{"gcr.io":{"auth":"ZmlsZTox"}}}"#,
    );
    let keyring = home.keyring();
    // It has nothing: the file's own entry counts.
    assert_eq!(found(&home, &keyring, "gcr.io", "x"), "file 1 from ~/home/.docker/config.json");
    home.write("bin/kept", r#"{"ServerURL":"gcr.io","Username":"_json_key","Secret":"s3"}"#);
    assert_eq!(
        found(&home, &keyring, "gcr.io", "x"),
        "_json_key s3 from `docker-credential-kept` named in ~/home/.docker/config.json"
    );
    home.write("bin/kept", r#"{"ServerURL":"gcr.io","Username":"<token>","Secret":"s4"}"#);
    assert_eq!(
        found(&home, &keyring, "docker.io", "x"),
        "identity s4 from `docker-credential-kept` named in ~/home/.docker/config.json"
    );
    let log = fs::read_to_string(home.path("bin/log")).unwrap();
    assert_eq!(log, "get gcr.io\nget gcr.io\nget https://index.docker.io/v1/\n");
}

#[test]
fn a_helper_that_fails_is_a_note() {
    let _turn = PROGRAMS.lock().unwrap();
    let home = Home::new();
    home.write("home/.docker/config.json", r#"{"credsStore":"desktop"}"#);
    assert_eq!(
        found(&home, &home.keyring(), "a.example.org", "x"),
        "none; the credential helper `docker-credential-desktop` named in ~/home/.docker/config.json failed: no such program on PATH"
    );
    home.write("home/.docker/config.json", r#"{"credsStore":"../../evil"}"#);
    assert_eq!(
        found(&home, &home.keyring(), "a.example.org", "x"),
        "none; the credential helper `docker-credential-../../evil` named in ~/home/.docker/config.json failed: its name may hold letters, digits, `.`, `_` and `-` only"
    );
    for (script, problem) in [
        ("#!/bin/sh\necho 'keyring is locked'\nexit 1\n", "keyring is locked"),
        ("#!/bin/sh\nexit 3\n", "it ended with an error and said nothing"),
        ("#!/bin/sh\nsleep 6 &\necho '{}'\n", "its output stays open after its end"),
        ("#!/bin/sh\necho not-json-but-secret\n", "its answer to `get` is not the JSON of a credential"),
    ] {
        let path = home.write("bin/docker-credential-bad", script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        home.write("home/.docker/config.json", r#"{"credsStore":"bad"}"#);
        let expected = format!(
            "none; the credential helper `docker-credential-bad` named in ~/home/.docker/config.json failed: {problem}"
        );
        assert_eq!(found(&home, &home.keyring(), "a.example.org", "x"), expected);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn login(password: &str) -> Credential {
    Credential::Password { username: "me".to_owned(), password: password.to_owned() }
}

#[test]
fn credentials_are_stored_in_the_file_and_removed() {
    let home = Home::new();
    let file = home.path("home/.docker/config.json");
    let keyring = home.keyring();
    assert_eq!(keyring.store("docker.io", &login("one")).unwrap(), Stored::File(file.clone()));
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(fs::read_to_string(&file).unwrap().contains("https://index.docker.io/v1/"));
    assert_eq!(found(&home, &keyring, "docker.io", "library/x"), "me one from ~/home/.docker/config.json");

    fs::write(&file, r#"{"psFormat":"table","auths":{"quay.io":{"auth":"YTpi"}},"plugins":{"x":{}}}"#).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    keyring.store("quay.io", &login("two")).unwrap();
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("psFormat") && text.contains("plugins") && !text.contains("YTpi"), "{text}");
    assert_eq!(keyring.erase("quay.io").unwrap(), Erased { files: vec![file.clone()], helpers: vec![] });
    assert_eq!(keyring.erase("quay.io").unwrap(), Erased::default());
    assert!(fs::read_to_string(&file).unwrap().contains("psFormat"));
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_linked_file_stays_where_it_is() {
    let home = Home::new();
    let real = home.write("dotfiles/config.json", "{}");
    fs::create_dir_all(home.path("home/.docker")).unwrap();
    std::os::unix::fs::symlink(&real, home.path("home/.docker/config.json")).unwrap();
    home.keyring().store("quay.io", &login("one")).unwrap();
    assert!(fs::symlink_metadata(home.path("home/.docker/config.json")).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("quay.io"));
}

#[test]
fn credentials_are_stored_through_a_helper() {
    let _turn = PROGRAMS.lock().unwrap();
    let home = Home::new();
    home.helper("kept");
    let text = r#"{"credsStore":"kept"}"#;
    let file = home.write("home/.docker/config.json", text);
    let keyring = home.keyring();
    assert_eq!(
        keyring.store("quay.io", &login("secret")).unwrap(),
        Stored::Helper("docker-credential-kept".to_owned())
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(
        found(&home, &keyring, "quay.io", "x"),
        "me secret from `docker-credential-kept` named in ~/home/.docker/config.json"
    );
    assert_eq!(keyring.erase("quay.io").unwrap().helpers, ["docker-credential-kept"]);
    assert_eq!(keyring.erase("quay.io").unwrap(), Erased::default());
    assert_eq!(found(&home, &keyring, "quay.io", "x"), "none");
}

#[test]
fn what_cannot_be_stored_is_told() {
    let nowhere = Keyring::new(None, &Environment::default());
    assert_eq!(
        nowhere.store("quay.io", &login("x")).unwrap_err().to_string(),
        "there is no place for credentials: set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE, or give --authfile"
    );
    let home = Home::new();
    let file = home.write("home/.docker/config.json", "not json");
    let error = home.keyring().store("quay.io", &login("hidden")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hidden"));
    assert_eq!(fs::read_to_string(file).unwrap(), "not json");
    assert!(home.keyring().store("quay.io", &Credential::IdentityToken("x".to_owned())).is_err());
}
