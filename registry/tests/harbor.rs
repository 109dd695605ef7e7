//! Tags from a Harbor: a server here answers as its `api/v2.0/swagger.yaml` says. No real one was there.

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, Uri};

use crate::app::{digest, image};
use crate::binary::{Server, command};

/// A page is shorter than what is asked for: how long the longest may be is the server's to say.
const PAGE_ITEMS: usize = 60;

/// Answers by path; everything it was asked.
#[derive(Clone, Default)]
struct Harbor {
    asked: Arc<Mutex<Vec<String>>>,
    artifacts: Arc<Vec<String>>,
}

async fn answer(State(harbor): State<Harbor>, headers: HeaderMap, uri: Uri) -> axum::response::Response {
    harbor.asked.lock().unwrap().push(uri.to_string());
    // robot:secret
    if headers.get("authorization").is_none_or(|value| value != "Basic cm9ib3Q6c2VjcmV0") {
        return (StatusCode::UNAUTHORIZED, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).into_response();
    }
    let page = uri.query().into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("page="));
    let page: usize = page.unwrap().parse().unwrap();
    let items: Vec<String> = match uri.path() {
        "/api/v2.0/projects" => vec![r#"{"project_id":1,"name":"team"}"#.into()],
        "/api/v2.0/projects/team/repositories" => {
            vec![r#"{"id":1,"name":"team/app/web","artifact_count":101}"#.into()]
        }
        "/api/v2.0/projects/team/repositories/app%252Fweb/artifacts" => harbor.artifacts.to_vec(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let items: Vec<String> = items.into_iter().skip((page - 1) * PAGE_ITEMS).take(PAGE_ITEMS).collect();
    format!("[{}]", items.join(",")).into_response()
}

/// A file of the other registry's store.
fn write(store: &Path, key: &str, content: &str) {
    let path = store.join("docker/registry/v2").join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn stored(store: &Path, content: &str) -> String {
    let digest = digest(content);
    write(store, &format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()), content);
    digest.hex().to_owned()
}

fn pushed(store: &Path, repo: &str, layer: &str, tag: &str) -> (String, String) {
    for blob in ["{}", layer] {
        let hex = stored(store, blob);
        write(store, &format!("repositories/{repo}/_layers/sha256/{hex}/link"), &format!("sha256:{hex}"));
    }
    let manifest = image(&[b"{}", layer.as_bytes()], "");
    let hex = stored(store, &manifest);
    let link = format!("sha256:{hex}");
    write(store, &format!("repositories/{repo}/_manifests/revisions/sha256/{hex}/link"), &link);
    write(store, &format!("repositories/{repo}/_manifests/tags/{tag}/current/link"), &link);
    (manifest, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_what_harbor_says_and_not_what_its_store_says() {
    let store = tempfile::tempdir().unwrap();
    let (one, one_digest) = pushed(store.path(), "team/app/web", "one", "deleted-in-harbor");
    let (two, two_digest) = pushed(store.path(), "team/app/web", "two", "v2");
    pushed(store.path(), "hidden/app", "three", "v3");
    let artifact = |digest: &str, tags: &str| {
        format!(r#"{{"type":"IMAGE","digest":"{digest}","push_time":"2026-03-01T10:00:00.123Z","tags":{tags}}}"#)
    };
    let mut artifacts = vec![artifact(
        &one_digest,
        r#"[{"id":1,"name":"v1","push_time":"2026-03-01T10:00:00.123Z"},{"id":2,"name":"stable","push_time":"2026-04-01T10:00:00.000Z"}]"#,
    )];
    // More than a page. What only Harbor's database has left is no tag.
    artifacts.extend((0..99).map(|n| artifact(&digest(n.to_string()).to_string(), "null")));
    artifacts.push(artifact(&two_digest, r#"[{"id":3,"name":"v2"}]"#));
    let harbor = Harbor { artifacts: Arc::new(artifacts), ..Harbor::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(harbor.clone());
    tokio::spawn(async { axum::serve(listener, router).await });
    let adopt = async |password: &str| -> Output {
        let mut command = command();
        command.args(["adopt", "--json", "--tags-from", &address, "--store"]).arg(store.path());
        command.env("HARBOR_USERNAME", "robot").env("HARBOR_PASSWORD", password);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };

    let refused = adopt("wrong").await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("401") && !said.contains("wrong"), "{said}");

    let output = adopt("secret").await;
    // One repository is left out, and that is said.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["manifests"], &report["tags"]), (&2.into(), &3.into()), "{report}");
    assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["problems"][0]["repository"], "hidden/app");
    assert!(
        harbor.asked.lock().unwrap().iter().any(|line| line.contains("app%252Fweb/artifacts?page=2&page_size=100"))
    );

    let server = Server::start(store.path(), &[]);
    for (tag, expected) in [("v1", Some(&one)), ("stable", Some(&one)), ("v2", Some(&two)), ("deleted-in-harbor", None)]
    {
        let request = format!("GET /v2/team/app/web/manifests/{tag} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.request(&request);
        match expected {
            Some(manifest) => assert!(answer.ends_with(manifest.as_str()), "{tag}: {answer}"),
            None => assert!(answer.starts_with("HTTP/1.1 404"), "{tag}: {answer}"),
        }
    }
}
