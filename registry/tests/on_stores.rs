//! The binary on a real S3 server: what it says of a store that it cannot use, and what `check-store` finds.

use std::process::{Command, Output};

#[path = "../../spec-tests/src/stores.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod stores;

#[path = "../../spec-tests/src/proxy.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod proxy;

use proxy::{Fault, Proxy};
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
    assert!(
        report.contains("FINDING")
            && report.contains("it needs s3:ListBucket and s3:ListBucketMultipartUploads on the bucket"),
        "{report}"
    );
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

/// A list of what begins with the prefix that a request asks for.
fn list(path: &str, names: &[&str]) -> Fault {
    let prefix = path.split(['?', '&']).find_map(|parameter| parameter.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let stamp = "<LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size>";
    let entries = names.iter().map(|name| format!("<Contents><Key>{prefix}{name}</Key>{stamp}</Contents>"));
    let entries: String = entries.collect();
    let body = format!("<ListBucketResult>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>");
    Fault::Answered("200 OK", body)
}

/// The path without its parameters.
fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

fn is_list_of(path: &str, prefix: &str) -> bool {
    path.contains("list-type=2") && path.contains(&format!("%2F{}", prefix.replace('/', "%2F")))
}

fn is_get_of(method: &str, path: &str, name: &str) -> bool {
    method == "GET" && bare(path).ends_with(&format!("/{name}")) && !path.contains("X-Amz-")
}

/// What a store does wrong, by the check that has to find it.
type Lie = fn(&str, &str) -> Fault;
#[rustfmt::skip]
const LIES: &[(&str, &str, &str, Lie)] = &[
    ("objects", "FINDING", "came back changed, as 7 bytes", |method, path| match is_get_of(method, path, "object") {
        true => Fault::Refused("200 OK", "changed"),
        false => Fault::None,
    }),
    ("objects", "FINDING", "an object of 7 bytes is said to have 9", |method, path| match method == "HEAD" && bare(path).ends_with("/object") {
        true => Fault::Refused("200 OK", "123456789"),
        false => Fault::None,
    }),
    ("absent objects", "FINDING", "an object that was never written succeeds", |_, path| match bare(path).ends_with("/never") {
        true => Fault::Refused("200 OK", ""),
        false => Fault::None,
    }),
    ("ranges", "FINDING", "reading an object", |method, path| match is_get_of(method, path, "ranges") {
        true => Fault::Refused("200 OK", "all of it, whatever was asked for"),
        false => Fault::None,
    }),
    ("lists", "FINDING", "lists are late", |_, path| match is_list_of(path, "l/") {
        true => list(path, &[]),
        false => Fault::None,
    }),
    // It sorts by segments, and hides that where it was asked for the order.
    ("lists", "FINDING", "a list is not in the order of bytes", |_, path| match is_list_of(path, "order/") {
        true => list(path, &["a!", "a/b"]),
        false => Fault::None,
    }),
    ("deletes", "FINDING", "after a deletion a list holds", |_, path| match is_list_of(path, "d/") {
        true => list(path, &["gone", "stays"]),
        false => Fault::None,
    }),
    ("deletes", "FINDING", "can still be read after its deletion", |method, path| match is_get_of(method, path, "gone") {
        true => Fault::Refused("200 OK", "x"),
        false => Fault::None,
    }),
    ("uploads in parts", "FINDING", "shows before it is completed", |method, path| match method == "HEAD" && bare(path).ends_with("/parts") {
        true => Fault::Refused("200 OK", ""),
        false => Fault::None,
    }),
    ("uploads in parts", "FINDING", "came back changed", |method, path| match is_get_of(method, path, "parts") {
        true => Fault::Refused("200 OK", "last"),
        false => Fault::None,
    }),
    ("stale parts", "FINDING", "two clients that continue one upload would mix their bytes", |method, path| {
        if method == "POST" && bare(path).ends_with("/stale") && path.contains("uploadId=") {
            let done = "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>";
            return Fault::Refused("200 OK", done);
        }
        if is_get_of(method, path, "stale") { Fault::Refused("200 OK", "the part of somebody else") } else { Fault::None }
    }),
    ("signed addresses", "FINDING", "this store does not check signatures", |_, path| match path.contains("X-Amz-Signature") {
        true => Fault::Refused("200 OK", "signed"),
        false => Fault::None,
    }),
    ("signed addresses", "warning", "are answered 403: use --redirect never", |_, path| match path.contains("X-Amz-Signature") {
        true => Fault::Refused("403 Forbidden", ""),
        false => Fault::None,
    }),
    ("access without a key", "FINDING", "open to everybody who reaches it", |method, path| match is_get_of(method, path, "signed") {
        true => Fault::Refused("200 OK", "signed"),
        false => Fault::None,
    }),
    ("cleaning up", "FINDING", "deleting objects", |method, path| match method == "POST" && path.contains("?delete") {
        true => Fault::Refused("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
        false => Fault::None,
    }),
    ("lifecycle rules", "FINDING", "a rule deletes objects by their age", |_, path| match path.contains("?lifecycle") {
        true => Fault::Refused("200 OK", "<LifecycleConfiguration><Rule><Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>"),
        false => Fault::None,
    }),
    ("lifecycle rules", "unknown", "allow s3:GetLifecycleConfiguration", |_, path| match path.contains("?lifecycle") {
        true => Fault::Refused("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
        false => Fault::None,
    }),
    ("versioning", "warning", "is on: what is deleted stays and costs", |_, path| match path.contains("?versioning") {
        true => Fault::Refused("200 OK", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
        false => Fault::None,
    }),
    ("Object Lock", "warning", "keeps every object for a time", |_, path| match path.contains("?object-lock") {
        true => Fault::Refused("200 OK", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"),
        false => Fault::None,
    }),
    ("unfinished uploads", "warning", "allow s3:ListBucketMultipartUploads", |_, path| match path.contains("?uploads") && path.contains("prefix") {
        true => Fault::Refused("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
        false => Fault::None,
    }),
];

/// Each lie is told by a proxy before an honest server. It is found, said in its line, and nothing else is blamed; what
/// makes the store unfit ends with exit code 1.
#[test]
fn check_store_finds_each_lie_of_a_store() {
    let Some(server) = Seaweed::shared() else {
        return skipped("check_store_finds_each_lie_of_a_store", "SeaweedFS");
    };
    let store = format!("s3://{}/x", server.bucket());
    for (check, outcome, words, lie) in LIES {
        let proxy = Proxy::before(&server.endpoint());
        proxy.set(|method, path, _| lie(method, path));
        let mut variables = server.variables();
        variables.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
        variables.push(("AWS_ENDPOINT_URL", proxy.endpoint()));
        let output = run(&["check-store", &store], variables);
        let report = String::from_utf8(output.stdout).unwrap();
        let told = format!("{check}, {words}: {report}{}", String::from_utf8_lossy(&output.stderr));
        assert!(proxy.clear() > 0, "the lie was not told: {told}");
        let line = report.lines().find(|line| line.starts_with(outcome) && line.contains(check));
        assert!(line.is_some_and(|line| line.contains(words)), "{told}");
        let findings = report.lines().filter(|line| line.starts_with("FINDING")).count();
        let is_finding = *outcome == "FINDING";
        assert_eq!(output.status.code(), Some(i32::from(is_finding)), "{told}");
        // What hinders deletions hinders the cleaning up.
        assert!(findings == usize::from(is_finding) || *check == "cleaning up" && findings == 2, "{told}");
        assert!(report.lines().last().is_some_and(|line| line.contains(&format!("{findings} findings"))), "{told}");
    }
}

#[test]
fn check_store_finds_a_bucket_that_is_open_to_all() {
    let Some(server) = Seaweed::shared() else {
        return skipped("check_store_finds_a_bucket_that_is_open_to_all", "SeaweedFS");
    };
    let output = run(&["check-store", &format!("s3://{}/x", Seaweed::OPEN_BUCKET)], server.variables());
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    let line = report.lines().find(|line| line.contains("access without a key")).unwrap_or_default();
    assert!(line.starts_with("FINDING"), "{report}");
}
