//! The binary on a real S3 server: what it says of a store that it cannot use, and what `check-store` finds.

use std::process::{Command, Output};

#[path = "../../spec-tests/src/stores.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod stores;

use stores::{Seaweed, skipped};

fn run(arguments: &[&str], variables: Vec<(&'static str, String)>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluyt-registry"))
        .args(arguments)
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables)
        .output()
        .unwrap()
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_what_to_do() {
    let Some(server) = Seaweed::shared() else {
        return skipped("a_store_that_cannot_be_used_is_named_with_what_to_do", "SeaweedFS");
    };
    let (endpoint, store) = (server.endpoint(), format!("s3://{}/x", server.bucket()));
    let with = |changes: &[(&'static str, &str)]| {
        let mut variables = server.variables();
        for (name, value) in changes {
            variables.retain(|(other, _)| other != name);
            variables.push((name, (*value).to_owned()));
        }
        variables
    };
    let https = endpoint.replace("http:", "https:");
    for (store, variables, expected) in [
        ("s3://no-such-bucket", with(&[]), "there is no bucket `no-such-bucket` at"),
        (&store, with(&[("AWS_SECRET_ACCESS_KEY", "wrong")]), "refuses the signature of the key testkey"),
        (&store, with(&[("AWS_ACCESS_KEY_ID", "wrong")]), "does not know the key wrong"),
        (&store, with(&[("AWS_ACCESS_KEY_ID", "")]), "AWS_ACCESS_KEY_ID is not: set both"),
        (&store, with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")]), "there are no credentials"),
        (&store, with(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]), "cannot reach http://127.0.0.1:1"),
        (&store, with(&[("AWS_ENDPOINT_URL", &https)]), "cannot reach https://127.0.0.1"),
        (&store, with(&[("AWS_ENDPOINT_URL", "http://s3.example.com")]), "allow it with AWS_ALLOW_HTTP=true"),
        (&store, with(&[("AWS_ENDPOINT_URL", "nowhere")]), "expected a URL"),
    ] {
        let output = run(&["serve", "--listen", "127.0.0.1:0", "--store", store], variables);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        let message = message.lines().last().unwrap_or_default();
        assert!(
            message.starts_with(&format!("error: cannot use {store}: ")) && message.contains(expected),
            "{message}"
        );
        assert!(!message.contains(Seaweed::SECRET_KEY), "{message}");
    }
}

#[test]
fn check_store_passes_an_honest_server_and_leaves_nothing() {
    let Some(server) = Seaweed::shared() else {
        return skipped("check_store_passes_an_honest_server_and_leaves_nothing", "SeaweedFS");
    };
    let store = format!("s3://{}/x", server.bucket());
    for _ in 0..2 {
        let output = run(&["check-store", &store, "--json"], server.variables());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        let outcome = |name: &str| {
            let checks = report["checks"].as_array().unwrap();
            checks.iter().find(|check| check["name"] == name).map(|check| check["outcome"].as_str().unwrap().to_owned())
        };
        for name in
            ["access", "objects", "lists", "ranges", "deletes", "uploads in parts", "stale parts", "signed addresses"]
        {
            assert_eq!(outcome(name).as_deref(), Some("passed"), "{name}: {report:#}");
        }
        // It sorts by segments.
        assert_eq!(outcome("order of lists").as_deref(), Some("warning"), "{report:#}");
        // What the first run wrote would be counted by the second.
        let removed = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "cleaning up").unwrap();
        assert!(removed["detail"].as_str().unwrap().starts_with("removed the 18 objects"), "{report:#}");
    }
}

#[test]
fn check_store_says_which_permissions_are_missing() {
    let Some(server) = Seaweed::shared() else {
        return skipped("check_store_says_which_permissions_are_missing", "SeaweedFS");
    };
    let store = format!("s3://{}/x", server.bucket());
    let mut variables = server.variables();
    for (name, value) in &mut variables {
        match *name {
            "AWS_ACCESS_KEY_ID" => *value = Seaweed::READER.to_owned(),
            "AWS_SECRET_ACCESS_KEY" => *value = Seaweed::READER.to_owned(),
            _ => {}
        }
    }
    let output = run(&["check-store", &store], variables.clone());
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("FINDING") && report.contains("it needs s3:ListBucket on the bucket"), "{report}");
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--store", &store], variables);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("`fluyt-registry check-store"), "{message}");
}

#[test]
fn check_store_takes_folders_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["check-store", folder.path().to_str().unwrap()], Vec::new());
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("ok  file system") && report.contains(": 0 findings"), "{report}");
    assert!(!folder.path().join("check-store").exists());
    let output = run(&["check-store", "memory:"], Vec::new());
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("warning  durability"));
}
