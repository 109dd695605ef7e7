//! TLS: whose certificate is believed.

use std::fs;

use fluyt_client::{Client, ClientError, Environment, Settings};

use crate::fixture::{Options, Registry, Trouble, certificate, own_authority, settings};

fn tls_text(error: ClientError, registry: &Registry) -> String {
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    error.to_string().replace(&registry.host(), "127.0.0.1:PORT")
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_unless_a_setting_says_otherwise() {
    let own = certificate(&["127.0.0.1"]);
    let other = certificate(&["127.0.0.1"]);
    let registry = Registry::start_tls(Options::default(), &own).await;
    let folder = tempfile::tempdir().unwrap();
    let (own_file, other_file) = (folder.path().join("own.pem"), folder.path().join("other.pem"));
    fs::write(&own_file, &own.pem).unwrap();
    fs::write(&other_file, &other.pem).unwrap();
    let host = registry.host();

    let with = |settings: Settings| Client::new(settings).unwrap();
    let named = |file: &std::path::Path| Settings { certificates: vec![(host.clone(), file.to_owned())], ..settings() };
    with(named(&own_file)).ping(&host).await.unwrap();
    let error = with(named(&other_file)).ping(&host).await.unwrap_err();
    insta::assert_snapshot!(tls_text(error, &registry), @"no secure connection to `127.0.0.1:PORT`: its certificate is signed by an authority that is not trusted; give its CA with --registry-certificate HOST=FILE, or use --skip-tls-verify-registry HOST");
    with(Settings { skip_tls_verify: vec![host.clone()], ..settings() }).ping(&host).await.unwrap();

    // Docker's folders.
    let certs = folder.path().join("certs.d");
    fs::create_dir_all(certs.join(&host)).unwrap();
    fs::write(certs.join(&host).join("ca.crt"), &own.pem).unwrap();
    with(Settings { certificate_folders: vec![certs.clone()], ..settings() }).ping(&host).await.unwrap();
    fs::write(certs.join(&host).join("client.cert"), &own.pem).unwrap();
    let error = with(Settings { certificate_folders: vec![certs.clone()], ..settings() })
        .ping(&host)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("client.key is missing"), "{error}");
    fs::write(certs.join(&host).join("client.key"), &own.key).unwrap();
    with(Settings { certificate_folders: vec![certs], ..settings() }).ping(&host).await.unwrap();

    let error = with(named(&folder.path().join("none.pem"))).ping(&host).await.unwrap_err().to_string();
    assert!(error.contains("none.pem") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn the_system_store_is_the_variable_file() {
    let own = certificate(&["127.0.0.1"]);
    let other = certificate(&["elsewhere.example.org"]);
    let registry = Registry::start_tls(Options::default(), &own).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.pem");
    // An unusual entry does not spoil the others.
    fs::write(
        &file,
        format!("{}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}", other.pem, own.pem),
    )
    .unwrap();
    let mirror = |environment: Environment| {
        // A mirror by HTTPS is the way to speak TLS to this machine without a setting for it.
        let mirrors = vec![("quay.io".to_owned(), format!("https://{}", registry.host()))];
        Client::new(Settings { mirrors, environment, ..settings() }).unwrap()
    };
    registry.add_manifest("a/b", "1", "application/vnd.oci.image.manifest.v1+json", "{}");
    let reference = fluyt_client::Reference::parse("quay.io/a/b:1").unwrap();
    mirror(Environment { ssl_cert_file: Some(file), ..Environment::default() }).resolve(&reference).await.unwrap();
    let folders = folder.path().as_os_str().to_owned();
    mirror(Environment { ssl_cert_dir: Some(folders), ..Environment::default() }).resolve(&reference).await.unwrap();
}

#[tokio::test]
async fn no_store_at_all_matters_only_to_tls() {
    let own = certificate(&["127.0.0.1"]);
    let registry = Registry::start(Options::default()).await;
    let secure = Registry::start_tls(Options::default(), &own).await;
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let none = Some(folder.path().join("none").into_os_string());
    let environment = Environment { ssl_cert_file: Some(empty.clone()), ssl_cert_dir: none, ..Environment::default() };
    let client = Client::new(Settings { environment: environment.clone(), ..settings() }).unwrap();
    client.ping(&registry.host()).await.unwrap();
    let error = client.ping("registry.example.invalid").await.unwrap_err();
    let text = tls_text(error, &registry).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(text, @"no secure connection to `registry.example.invalid`: SSL_CERT_FILE names FOLDER/empty.pem, which holds no CA certificate; install the package `ca-certificates`, or name a file of CA certificates in SSL_CERT_FILE");
    // A registry with its own CA does not need the store.
    let file = folder.path().join("own.pem");
    fs::write(&file, &own.pem).unwrap();
    let certificates = vec![(secure.host(), file)];
    Client::new(Settings { environment, certificates, ..settings() }).unwrap().ping(&secure.host()).await.unwrap();
}

#[tokio::test]
async fn the_wrong_protocol_is_told_as_such() {
    let plain = Registry::start(Options::default()).await;
    let client = Client::new(Settings { skip_tls_verify: vec![plain.host()], ..settings() }).unwrap();
    let error = client.ping(&plain.host()).await.unwrap_err();
    insta::assert_snapshot!(tls_text(error, &plain), @"no secure connection to `127.0.0.1:PORT`: it does not speak TLS; if it speaks plain HTTP, name it with --insecure-registry HOST");
    let own = certificate(&["127.0.0.1"]);
    let secure = Registry::start_tls(Options::default(), &own).await;
    let error = Client::new(settings()).unwrap().ping(&secure.host()).await.unwrap_err();
    insta::assert_snapshot!(tls_text(error, &secure), @"no secure connection to `127.0.0.1:PORT`: it does not speak plain HTTP; if it speaks TLS, give its CA with --registry-certificate HOST=FILE, or use --skip-tls-verify-registry HOST");
}

#[tokio::test]
async fn tls_is_not_left_for_plain_http() {
    let own = certificate(&["127.0.0.1"]);
    let registry = Registry::start_tls(Options::default(), &own).await;
    let blob = registry.add_blob("a/b", b"content");
    let client = Client::new(Settings { skip_tls_verify: vec![registry.host()], ..settings() }).unwrap();
    let location = ("location", "http://storage.example.org/x?signature=secret".to_owned());
    registry.trouble("GET", "/blobs/", 1, Trouble::Answer(307, vec![location], ""));
    let error = client.blob(&registry.reference("a/b"), &blob, &mut Vec::new(), &|_| ()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("redirects") && text.contains("`http://storage.example.org`: that is plain HTTP"), "{text}");
    assert!(!format!("{text} {error:?}").contains("secret"));
    // A registry that does not know that a proxy speaks TLS for it.
    let same = ("location", format!("http://{}/v2/a/b/blobs/{}", registry.host(), blob.digest));
    registry.trouble("GET", "/blobs/", 1, Trouble::Answer(307, vec![same], ""));
    client.blob(&registry.reference("a/b"), &blob, &mut Vec::new(), &|_| ()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_believed_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.pem");
    for (names, works) in [(["127.0.0.1"], true), (["registry.example.org"], false)] {
        let own = own_authority(&names);
        let registry = Registry::start_tls(Options::default(), &own).await;
        std::fs::write(&file, &own.pem).unwrap();
        let certificates = vec![(registry.host(), file.clone())];
        let outcome = Client::new(Settings { certificates, ..settings() }).unwrap().ping(&registry.host()).await;
        assert_eq!(outcome.is_ok(), works, "{outcome:?}");
    }
    let registry = Registry::start_tls(Options::default(), &own_authority(&["127.0.0.1"])).await;
    let certificates = vec![(registry.host(), file)];
    let error = Client::new(Settings { certificates, ..settings() }).unwrap().ping(&registry.host()).await.unwrap_err();
    assert!(tls_text(error, &registry).contains("its certificate is its own authority, and not one that is trusted"));
}
