//! Mirrors: asked first, never relied upon.

use fluyt_client::{Client, ClientError, Pushed, Reference, Settings};

use crate::fixture::{Guard, Options, Registry, Trouble, sample, settings};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn client(origin: &Registry, mirrors: &[String]) -> Client {
    let mirrors = mirrors.iter().map(|mirror| (origin.host(), mirror.clone())).collect();
    Client::new(Settings { mirrors, ..settings() }).unwrap()
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_when_it_has_not() {
    let origin = Registry::start(Options::default()).await;
    let mirror = Registry::start(Options::default()).await;
    let client = client(&origin, &[format!("http://{}", mirror.host())]);
    mirror.add_manifest("a/b", "1", TYPE, "{}");
    origin.add_manifest("a/b", "2", TYPE, "{}");
    let blob = origin.add_blob("a/b", b"content");
    client.manifest(&origin.reference("a/b:1"), &[]).await.unwrap();
    assert_eq!(origin.log(), "");
    client.manifest(&origin.reference("a/b:2"), &[]).await.unwrap();
    client.resolve(&origin.reference("a/b:2")).await.unwrap();
    client.blob(&origin.reference("a/b"), &blob, &mut Vec::new(), &|_| ()).await.unwrap();
    let error = client.manifest(&origin.reference("a/b:3"), &[]).await.unwrap_err();
    assert!(matches!(&error, ClientError::NotFound { registry, .. } if *registry == origin.host()), "{error}");
    assert_eq!(mirror.log().lines().count(), 5);
    assert_eq!(origin.log().lines().count(), 4);
}

#[tokio::test]
async fn what_a_mirror_refuses_is_told_where_the_registry_cannot_be_reached() {
    let mirror = Registry::start(Options::default()).await;
    let away = "127.0.0.1:1".to_owned();
    let mirrors = vec![(away.clone(), format!("http://{}", mirror.host()))];
    let client = Client::new(Settings { mirrors, ..settings() }).unwrap();
    let reference = Reference::parse(&format!("{away}/a/b:1")).unwrap();
    for error in [client.manifest(&reference, &[]).await.unwrap_err(), client.resolve(&reference).await.unwrap_err()] {
        assert!(matches!(&error, ClientError::NotFound { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("registry `{}` does not have", mirror.host())), "{error}");
    }
    // A mirror that is ill has said nothing.
    mirror.trouble("GET", "/v2/", 100, Trouble::Answer(503, vec![], ""));
    let error = client.manifest(&reference, &[]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_mirror_that_is_gone_is_left_alone_for_a_while() {
    let origin = Registry::start(Options::default()).await;
    origin.add_manifest("a/b", "1", TYPE, "{}");
    let mirror = Registry::start(Options::default()).await;
    mirror.trouble("GET", "/v2/", 100, Trouble::Answer(503, vec![], ""));
    let client = client(&origin, &[format!("http://{}", mirror.host()), "http://127.0.0.1:1".to_owned()]);
    for _ in 0..3 {
        client.manifest(&origin.reference("a/b:1"), &[]).await.unwrap();
    }
    assert_eq!(mirror.log(), "GET /v2/a/b/manifests/1");
}

#[tokio::test]
async fn a_download_from_a_mirror_is_gone_on_with_at_the_registry() {
    let origin = Registry::start(Options::default()).await;
    let mirror = Registry::start(Options::default()).await;
    let content = sample(1_000_000, 1);
    let blob = origin.add_blob("a/b", &content);
    mirror.add_blob("a/b", &content);
    mirror.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(400_000));
    let mut sink = Vec::new();
    client(&origin, &[format!("http://{}", mirror.host())])
        .blob(&origin.reference("a/b"), &blob, &mut sink, &|_| ())
        .await
        .unwrap();
    assert!(sink == content);
    assert_eq!(origin.log(), "GET /v2/a/b/blobs/DIGEST range=bytes=400000-");
}

#[tokio::test]
async fn a_mirror_with_other_content_is_found_out() {
    let origin = Registry::start(Options::default()).await;
    let mirror = Registry::start(Options::default()).await;
    let digest = origin.add_manifest("a/b", "1", TYPE, "{\"right\":1}");
    mirror.add_manifest("a/b", &digest, TYPE, "{\"wrong\":1}");
    let client = client(&origin, &[format!("http://{}", mirror.host())]);
    let manifest = client.manifest(&origin.reference(&format!("a/b@{digest}")), &[]).await.unwrap();
    assert_eq!(manifest.bytes.as_ref(), b"{\"right\":1}");
}

#[tokio::test]
async fn a_mirror_that_gave_a_wrong_blob_is_named_and_not_asked_again() {
    let (right, wrong) = (sample(1_000_000, 1), sample(1_000_000, 2));
    // Some of it, all of it, or too much.
    for trouble in [Some(Trouble::CutAnswer(400_000)), None, Some(Trouble::EndEarly(usize::MAX))] {
        let origin = Registry::start(Options::default()).await;
        let mirror = Registry::start(Options::default()).await;
        let blob = origin.add_blob("a/b", &right);
        let is_long = matches!(trouble, Some(Trouble::EndEarly(_)));
        mirror.add_blob_as("a/b", &blob, &if is_long { wrong.repeat(2) } else { wrong.clone() });
        if let Some(trouble) = trouble {
            mirror.trouble("GET", "/blobs/", 1, trouble);
        }
        let client = client(&origin, &[format!("http://{}", mirror.host())]);
        let mut stream = client.blob_stream(&origin.reference("a/b"), &blob).await.unwrap();
        let error = loop {
            if let Err(error) = stream.chunk().await {
                break error;
            }
        };
        assert!(error.to_string().starts_with(&format!("registry `{}` sends ", mirror.host())), "{error}");
        assert!(stream.is_from_mirror());
        drop(stream);
        mirror.log();
        let mut sink = Vec::new();
        client.blob(&origin.reference("a/b"), &blob, &mut sink, &|_| ()).await.unwrap();
        assert!(sink == right);
        assert_eq!(mirror.log(), "");
    }
}

#[tokio::test]
async fn a_blob_is_copied_from_the_registry_where_the_mirror_has_a_wrong_one() {
    let (right, wrong) = (sample(1_000_000, 1), sample(1_000_000, 2));
    for wrong in [wrong.clone(), wrong.repeat(2)] {
        let origin = Registry::start(Options::default()).await;
        let mirror = Registry::start(Options::default()).await;
        let target = Registry::start(Options::default()).await;
        let blob = origin.add_blob("a/b", &right);
        mirror.add_blob_as("a/b", &blob, &wrong);
        let client = client(&origin, &[format!("http://{}", mirror.host())]);
        let to = target.reference("app");
        let copied = client.copy_blob(&origin.reference("a/b"), &to, &blob, &[], &|_| ()).await;
        assert_eq!(copied.unwrap(), Pushed::Uploaded);
        assert!(target.blob("app", &blob).unwrap() == right && !mirror.log().is_empty());
    }
}

#[tokio::test]
async fn pushing_goes_to_the_registry_and_a_mirror_gets_no_credentials_of_it() {
    let origin = Registry::start(Options { guard: Guard::Basic("me", "secret"), ..Options::default() }).await;
    let mirror = Registry::start(Options { guard: Guard::Basic("other", "secret"), ..Options::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, origin.host())).unwrap();
    let mirrors = vec![(origin.host(), format!("http://{}", mirror.host()))];
    let client = Client::new(Settings { mirrors, authfile: Some(file), ..settings() }).unwrap();
    client.push_manifest(&origin.reference("a/b:1"), TYPE, "{}".into()).await.unwrap();
    assert_eq!(mirror.log(), "");
    client.manifest(&origin.reference("a/b:1"), &[]).await.unwrap();
    assert_eq!(mirror.log(), "GET /v2/a/b/manifests/1");
}
