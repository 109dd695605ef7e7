//! Whose keys requests to S3 are signed with, where no variable holds them: web identity, a container's address, an
//! instance's metadata. What hands the keys out, and the store, are one small server here, which notes what it is asked.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs};

/// Hands out keys, and is an empty bucket.
struct Cloud {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Cloud {
    /// Over TLS: with a certificate that nobody knows, in `authority.pem`.
    fn start(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = tls.then(|| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(folder.path().join("authority.pem"), made.cert.pem()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key);
            Arc::new(config.unwrap())
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = seen.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, config, noted) = (stream.unwrap(), config.clone(), noted.clone());
                std::thread::spawn(move || match config {
                    Some(config) => {
                        answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &noted);
                    }
                    None => answer(stream, &noted),
                });
            }
        });
        Self { port, seen, folder }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// What `check-store` said, and how the first list was signed: the key's id and the session's token.
    fn check(&self, scheme: &str, variables: &[(&str, &str)]) -> (String, Option<(String, String)>) {
        self.seen.lock().unwrap().clear();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt-registry"));
        command.args(["check-store", "s3://bucket/prefix"]).env_clear().env("AWS_REGION", "us-east-1");
        if scheme == "https" {
            command.arg("--store-ca").arg(self.folder.path().join("authority.pem"));
        }
        command.env("AWS_ENDPOINT_URL", self.url(scheme)).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("panicked"), "{said}");
        let seen = self.seen.lock().unwrap();
        let list = seen.iter().find(|request| request.contains("list-type=2"));
        let signed = list.map(|list| {
            let field = |begin: &str, end: &[char]| {
                let rest = list.split_once(begin).map(|(_, rest)| rest).unwrap_or_default();
                rest.split(end).next().unwrap_or_default().to_owned()
            };
            (field("Credential=", &['/']), field("x-amz-security-token: ", &['\r', '\n']))
        });
        (said, signed)
    }

    fn expect(&self, scheme: &str, variables: &[(&str, &str)], key: &str) {
        let (said, signed) = self.check(scheme, variables);
        let expected = (key.to_owned(), format!("token of {key}"));
        assert_eq!(signed, Some(expected), "{variables:?}: {said}\n{:#?}", self.seen.lock().unwrap());
        assert!(said.contains("access") && said.contains("answers"), "{said}");
    }
}

/// One request a connection: the head as it came goes into `seen`.
fn answer(mut stream: impl Read + Write, seen: &Mutex<Vec<String>>) {
    let mut head = String::new();
    {
        let mut reader = BufReader::new(&mut stream);
        while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
    }
    // A handshake that came to nothing.
    if head.is_empty() {
        return;
    }
    let keys = |id: &str| {
        format!(
            r#"{{"AccessKeyId":"{id}","SecretAccessKey":"secret","Token":"token of {id}","Expiration":"2099-01-01T00:00:00Z"}}"#
        )
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let has = |line: &str| head.to_ascii_lowercase().lines().any(|found| found == line.to_ascii_lowercase());
    let body = if path.contains("WebIdentityToken=a.signed.statement") {
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ROLE</AccessKeyId>\
         <SecretAccessKey>secret</SecretAccessKey><SessionToken>token of ROLE</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
            .to_owned()
    } else if path.ends_with("/latest/api/token") && head.starts_with("PUT") {
        "for this session".to_owned()
    } else if path.ends_with("/security-credentials/") && has("x-aws-ec2-metadata-token: for this session") {
        "role-of-the-instance".to_owned()
    } else if path.ends_with("/security-credentials/role-of-the-instance") {
        keys("INSTANCE")
    } else if path == "/guarded" && has("authorization: may have keys") {
        keys("GUARDED")
    } else if path == "/open" {
        keys("OPEN")
    } else if path.contains("list-type=2") {
        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_owned()
    } else {
        String::new()
    };
    seen.lock().unwrap().push(head);
    let status = if body.is_empty() { "403 Forbidden" } else { "200 OK" };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.flush();
}

#[test]
fn a_role_by_web_identity() {
    // Over TLS both, by an authority that only `--store-ca` names.
    let cloud = Cloud::start(true);
    let (token, sts) = (cloud.file("token", "a.signed.statement"), cloud.url("https"));
    let role = [("AWS_ENDPOINT_URL_STS", sts.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/registry")];
    cloud.expect("https", &[role[0], role[1], ("AWS_WEB_IDENTITY_TOKEN_FILE", &token)], "ROLE");
    // As a profile names it.
    let text = format!("[profile work]\nrole_arn = arn:aws:iam::1:role/registry\nweb_identity_token_file = {token}\n");
    let config = cloud.file("config", &text);
    cloud.expect("https", &[role[0], ("AWS_CONFIG_FILE", &config), ("AWS_PROFILE", "work")], "ROLE");
    // Who gets no keys hears which address gave none.
    let wrong = cloud.file("wrong", "forged");
    let (said, signed) = cloud.check("https", &[role[0], role[1], ("AWS_WEB_IDENTITY_TOKEN_FILE", &wrong)]);
    assert_eq!(signed, None);
    assert!(said.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && said.contains(&sts), "{said}");
    assert!(!said.contains("forged"), "{said}");
    let nobody = [("AWS_ENDPOINT_URL_STS", "https://localhost:1"), role[1], ("AWS_WEB_IDENTITY_TOKEN_FILE", &wrong)];
    let (said, _) = cloud.check("https", &nobody);
    assert!(said.contains("no keys come from https://localhost:1"), "{said}");
    assert!(!said.contains("forged"), "{said}");
    // The statement is as good as a key.
    let clear = [("AWS_ENDPOINT_URL_STS", "http://localhost:1"), role[1], ("AWS_WEB_IDENTITY_TOKEN_FILE", &token)];
    let (said, _) = cloud.check("https", &clear);
    assert!(said.contains("AWS_ENDPOINT_URL_STS is `http://localhost:1`") && said.contains("https"), "{said}");
}

#[test]
fn an_authority_that_nobody_named_is_not_trusted() {
    let cloud = Cloud::start(true);
    let output = Command::new(env!("CARGO_BIN_EXE_fluyt-registry"))
        .args(["check-store", "s3://bucket/prefix"])
        .env_clear()
        .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")])
        .env("AWS_ENDPOINT_URL", cloud.url("https"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is not trusted") && said.contains("--store-ca FILE"), "{said}");
    assert_eq!(cloud.seen.lock().unwrap().len(), 0, "something was sent all the same");
}

#[test]
fn keys_of_an_instance() {
    let cloud = Cloud::start(false);
    // Amazon's own name for the variable, and object_store's.
    for name in ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"] {
        cloud.expect("http", &[(name, &cloud.url("http"))], "INSTANCE");
    }
}

#[test]
fn keys_of_a_container() {
    let cloud = Cloud::start(false);
    let (guarded, open) = (format!("{}/guarded", cloud.url("http")), format!("{}/open", cloud.url("http")));
    let address = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    for text in ["may have keys", "may have keys\n"] {
        let file = cloud.file("token", text);
        cloud.expect("http", &[(address, &guarded), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)], "GUARDED");
    }
    cloud.expect("http", &[(address, &guarded), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "may have keys")], "GUARDED");
    cloud.expect("http", &[(address, &open)], "OPEN");
    let (said, signed) = cloud.check("http", &[(address, &guarded)]);
    assert_eq!(signed, None);
    assert!(said.contains(&guarded) && said.contains("403"), "{said}");
    // Keys do not travel in the clear.
    let (said, _) = cloud.check("http", &[(address, "http://keys.example.com/")]);
    assert!(said.contains(address) && said.contains("expected https"), "{said}");
}
