use std::process::{Command, Stdio};

use super::*;

/// Runs a program of OpenSSH; `None` where it is not installed.
fn openssh(program: &str, arguments: &[&str], socket: Option<&Path>) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(socket) = socket {
        command.env("SSH_AUTH_SOCK", socket);
    }
    match command.output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(_) => {
            eprintln!("skipped: this test needs {program}");
            None
        }
    }
}

/// Makes a key with `ssh-keygen`, in OpenSSH's form or in one of PEM.
fn make(folder: &Path, kind: &str, bits: &str, form: &str, passphrase: &str) -> Option<PathBuf> {
    let path = folder.join(format!("{kind}{bits}{form}{}", passphrase.len()));
    let text = path.to_str().unwrap();
    let (made, said) =
        openssh("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", passphrase, "-C", "a comment", "-f", text], None)?;
    assert!(made, "{said}");
    if !form.is_empty() {
        let (made, said) =
            openssh("ssh-keygen", &["-q", "-p", "-m", form, "-P", passphrase, "-N", passphrase, "-f", text], None)?;
        assert!(made, "{said}");
    }
    Some(path)
}

/// Real clients list the keys and have them sign: `ssh-keygen -Y sign` takes its key from an agent, and verifies nothing
/// itself; `-Y verify` does.
#[test]
fn openssh_lists_and_uses_keys_of_every_kind_and_form() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (kind, bits, form) in [
        ("ed25519", "256", ""),
        ("rsa", "2048", ""),
        ("rsa", "3072", "PEM"),
        ("rsa", "2048", "PKCS8"),
        ("ecdsa", "256", ""),
        ("ecdsa", "384", ""),
        ("ecdsa", "521", ""),
        ("ecdsa", "256", "PEM"),
        ("ecdsa", "521", "PKCS8"),
    ] {
        let Some(path) = make(folder.path(), kind, bits, form, "") else { return };
        paths.push(path);
    }
    let served = Served::start(Keys::read(&paths).unwrap(), folder.path()).unwrap();
    let socket = served.socket();
    let (listed, said) = openssh("ssh-add", &["-L"], Some(&socket)).unwrap();
    assert!(listed, "{said}");
    assert_eq!(said.lines().count(), paths.len());
    let message = folder.path().join("message");
    fs::write(&message, "what is signed").unwrap();
    for path in &paths {
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        let blob = public.split(' ').nth(1).unwrap();
        assert!(said.contains(blob), "{} is not listed", path.display());
        // Without the private file beside it, only the agent can sign.
        let alone = folder.path().join("alone.pub");
        fs::write(&alone, &public).unwrap();
        let _ = fs::remove_file(folder.path().join("message.sig"));
        let (signed, said) = openssh(
            "ssh-keygen",
            &["-Y", "sign", "-n", "test", "-f", alone.to_str().unwrap(), message.to_str().unwrap()],
            Some(&socket),
        )
        .unwrap();
        assert!(signed, "{}: {said}", path.display());
        let signers = folder.path().join("signers");
        fs::write(&signers, format!("me {public}")).unwrap();
        let verified = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", "test", "-I", "me", "-f"])
            .arg(&signers)
            .arg("-s")
            .arg(folder.path().join("message.sig"))
            .stdin(fs::File::open(&message).unwrap())
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&verified.stdout));
    }
    // An agent of ours holds what it was given.
    let (added, _) = openssh("ssh-add", &[paths[0].to_str().unwrap()], Some(&socket)).unwrap();
    assert!(!added);
    let (removed, _) = openssh("ssh-add", &["-D"], Some(&socket)).unwrap();
    assert!(!removed);
    drop(served);
    assert!(!socket.exists());
}

#[test]
fn what_is_no_key_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| Keys::read(&[path.to_owned()]).unwrap_err().to_string();
    for form in ["", "PEM", "PKCS8"] {
        let Some(locked) = make(folder.path(), "rsa", "2048", form, "a secret") else { return };
        assert!(refusal(&locked).contains("is locked by a passphrase"), "{form}: {}", refusal(&locked));
        assert!(refusal(&locked.with_extension("pub")).contains("is no private key"));
    }
    let key = make(folder.path(), "ed25519", "256", "", "").unwrap();
    let text = fs::read_to_string(&key).unwrap();
    let cut = folder.path().join("cut");
    // However little of it is there, it is an error and no panic.
    for length in 0..text.len() - 2 {
        fs::write(&cut, &text[..length]).unwrap();
        assert!(refusal(&cut).starts_with(&cut.display().to_string()));
    }
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    for length in 0..bytes.len() {
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes[..length]);
        let text = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n");
        // What follows the comment is padding.
        if let Err(problem) = file::parse(&text, "x") {
            assert!(problem.contains("damaged") || problem.contains("passphrase"), "{length}: {problem}");
        } else {
            assert!(length > bytes.len() - 200, "{length}");
        }
    }
    assert!(refusal(folder.path()).contains("neither a key nor an agent's socket"));
    assert!(refusal(&folder.path().join("none")).starts_with("cannot read the key"));
}

#[test]
fn messages_that_make_no_sense_are_failures() {
    let keys = Keys(Vec::new());
    for message in [&[][..], &[0], &[FAILURE], &[SIGN_REQUEST], &[SIGN_REQUEST, 255, 255, 255, 255], &[27, 0, 0, 0, 0]]
    {
        assert_eq!(keys.answer(message), [FAILURE], "{message:?}");
    }
    assert_eq!(keys.answer(&[REQUEST_IDENTITIES]), [IDENTITIES, 0, 0, 0, 0]);
}
