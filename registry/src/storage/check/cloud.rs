//! What a store in the cloud can be asked: who may do what, signed addresses, and settings of the bucket.

use std::time::{Duration, SystemTime};

use http::Request;
use object_store::ObjectStoreExt;
use object_store::client::HttpRequestBody;
use object_store::signer::Url;

use super::super::cloud::{Order, chain};
use super::super::{Cloud, CloudError, CloudSettings, Port, Provider};
use super::probes::Probes;
use super::{Outcome, StoreReport, below};
use crate::protocol::Nonce;

pub(super) async fn check(settings: &CloudSettings, nonce: &Nonce, report: &mut StoreReport) -> Result<(), CloudError> {
    let cloud = Cloud::connect(settings).await?;
    cloud.reach().await?;
    report.add("access", Outcome::Passed, format!("{} answers", cloud.endpoint()));

    let probes = Probes::new(&cloud, nonce, cloud.permissions());
    order(&cloud, &probes, report).await;
    probes.run(report).await;
    signing(&cloud, nonce, report).await;
    unfinished(&cloud, report).await;
    if cloud.address().provider == Provider::Azure {
        let detail = "lifecycle rules, versioning and immutability are not told by Azure's storage API: look at them in the portal";
        report.add("bucket settings", Outcome::Unknown, detail);
        return Ok(());
    }
    lifecycle(&cloud, report).await;
    versioning(&cloud, report).await;
    if cloud.address().provider == Provider::S3 {
        object_lock(&cloud, report).await;
    }
    Ok(())
}

/// How lists are sorted, which the other checks have to know.
async fn order(cloud: &Cloud, probes: &Probes<'_>, report: &mut StoreReport) {
    for name in ["order/a/b", "order/a!"] {
        if probes.put(name, "x").await.is_err() {
            // The check of objects says why.
            return;
        }
    }
    match probes.page("order/", None, 10).await {
        Ok((names, _)) if names == ["order/a!", "order/a/b"] => cloud.assume(Order::Bytes),
        Ok(_) => {
            cloud.assume(Order::Other);
            report.add(
                "order of lists",
                Outcome::Warning,
                "lists come by segments, not by bytes, and are sorted here: a list of N keys costs N/1000 requests a page",
            );
        }
        Err(error) => report.add("order of lists", Outcome::Finding, error),
    }
}

async fn signing(cloud: &Cloud, nonce: &Nonce, report: &mut StoreReport) {
    const NAME: &str = "signed addresses";
    const UNSIGNED: &str = "access without a key";
    let key = format!("{}signed", below(nonce));
    let Ok(path) = crate::storage::keys::path(&key) else { return };
    if cloud.put(&path, "signed".into()).await.is_err() {
        return;
    }
    let url = match cloud.presign(&path, Duration::from_secs(300)).await {
        Ok(Some(url)) => Some(url),
        Ok(None) => {
            report.add(
                NAME,
                Outcome::Unknown,
                "requests to this store are not signed: blobs are served by the registry itself",
            );
            None
        }
        Err(error) => {
            let detail = format!("cannot be made ({}): blobs are served by the registry itself", chain(&error));
            report.add(NAME, Outcome::Warning, detail);
            None
        }
    };
    if let Some(url) = url {
        let mut unsigned = url.clone();
        unsigned.set_query(None);
        match fetch(cloud, &unsigned).await {
            Ok(status @ 200..=299) => report.add(
                UNSIGNED,
                Outcome::Finding,
                format!("an object is read without any signature (answer {status}): the bucket is open to everybody who reaches it: take public access away"),
            ),
            Ok(status) => report.add(UNSIGNED, Outcome::Passed, format!("is refused ({status})")),
            Err(error) => report.add(UNSIGNED, Outcome::Unknown, format!("cannot be tried ({error})")),
        }
        // What the signature covers, changed in one place.
        let mut altered = url.clone();
        let text = altered.path().trim_end_matches("signed").to_owned();
        altered.set_path(&format!("{text}object"));
        let (good, bad) = (fetch(cloud, &url).await, fetch(cloud, &altered).await);
        let public = match cloud.endpoint_is_public() {
            true => "clients are sent there for large blobs",
            false => "clients are sent there only when --redirect-endpoint says where they reach it",
        };
        match (good, bad) {
            (Ok(200), Ok(400..=499)) => {
                report.add(NAME, Outcome::Passed, format!("work, and only for what they name; {public}"))
            }
            (Ok(200), _) => report.add(
                NAME,
                Outcome::Finding,
                "work, and altered ones do too: this store does not check signatures, so whoever was sent to one blob can read all",
            ),
            (Ok(status), _) => {
                report.add(NAME, Outcome::Warning, format!("are answered {status}: use --redirect never"))
            }
            (Err(error), _) => {
                report.add(NAME, Outcome::Warning, format!("cannot be fetched ({error}): use --redirect never"))
            }
        }
    }
    let _ = cloud.delete(&path).await;
}

async fn fetch(cloud: &Cloud, url: &Url) -> Result<u16, String> {
    let request = Request::get(url.as_str()).body(HttpRequestBody::empty()).map_err(|error| error.to_string())?;
    cloud.http().execute(request).await.map(|response| response.status().as_u16()).map_err(|error| chain(&error))
}

async fn unfinished(cloud: &Cloud, report: &mut StoreReport) {
    const NAME: &str = "unfinished uploads";
    match cloud.unfinished_multiparts("data/", None).await {
        Ok(Some(found)) => {
            let day = Duration::from_secs(24 * 3600);
            let old =
                found.iter().filter(|upload| SystemTime::now().duration_since(upload.since).is_ok_and(|age| age > day));
            let detail = format!("can be listed: {}, of which {} are older than a day", found.len(), old.count());
            report.add(NAME, Outcome::Passed, detail);
        }
        Ok(None) if cloud.address().provider == Provider::Azure => {
            report.add(NAME, Outcome::Passed, "Azure drops them after a week by itself");
        }
        Ok(None) => report.add(
            NAME,
            Outcome::Unknown,
            "cannot be asked for without signing: add a lifecycle rule that ends them after 2 days or more",
        ),
        Err(error) => {
            let advice = match cloud.address().provider {
                Provider::S3 => {
                    "allow s3:ListBucketMultipartUploads on the bucket, or add a lifecycle rule that ends them after 2 days or more"
                }
                _ => "add a lifecycle rule that ends them after 2 days or more",
            };
            report.add(
                NAME,
                Outcome::Warning,
                format!("cannot be listed ({}), so what a crash leaves stays and costs: {advice}", chain(&error)),
            );
        }
    }
}

/// The answer to a question about the bucket, when there is one.
async fn ask(
    cloud: &Cloud,
    about: &str,
    name: &'static str,
    permission: &str,
    report: &mut StoreReport,
) -> Option<(u16, String)> {
    let detail = match cloud.ask(about).await {
        Ok(Some(answer)) if matches!(answer.status, 200 | 404) => return Some((answer.status, answer.body)),
        Ok(Some(answer)) if answer.status == 403 => {
            format!("may not be asked for: allow {permission} to have it checked")
        }
        Ok(Some(answer)) => format!("the store answers {} to the question", answer.status),
        Ok(None) => "cannot be asked for without signing".to_owned(),
        Err(error) => format!("cannot be asked for: {}", chain(&error)),
    };
    report.add(name, Outcome::Unknown, detail);
    None
}

async fn lifecycle(cloud: &Cloud, report: &mut StoreReport) {
    const NAME: &str = "lifecycle rules";
    let Some((status, body)) = ask(cloud, "lifecycle", NAME, "s3:GetLifecycleConfiguration", report).await else {
        return;
    };
    let (outcome, detail) = judge_lifecycle(status, &body);
    report.add(NAME, outcome, detail);
}

/// Rules that delete or move objects by their age take away what images still need.
fn judge_lifecycle(status: u16, body: &str) -> (Outcome, &'static str) {
    // Of S3, and of the older API of GCS.
    let rules = body.split("<Rule>").skip(1).map(|rule| rule.split("</Rule>").next().unwrap_or_default());
    let active: Vec<&str> = rules.filter(|rule| !rule.contains("<Status>Disabled</Status>")).collect();
    let has = |words: &[&str]| active.iter().any(|rule| words.iter().any(|word| rule.contains(word)));
    if status == 404 || active.is_empty() {
        (Outcome::Passed, "there are none")
    } else if has(&["<Expiration>", "<Delete/>", "<Delete>", "<Delete />"]) {
        (
            Outcome::Finding,
            "a rule deletes objects by their age, which images still need: remove it, or restrict it to prefixes that the registry does not have",
        )
    } else if has(&["<Transition>", "<SetStorageClass>"]) {
        (
            Outcome::Warning,
            "a rule moves objects to another class by their age: none of an archive, from which nothing is read at once",
        )
    } else {
        (Outcome::Passed, "none deletes or moves objects")
    }
}

async fn versioning(cloud: &Cloud, report: &mut StoreReport) {
    const NAME: &str = "versioning";
    let Some((_, body)) = ask(cloud, "versioning", NAME, "s3:GetBucketVersioning", report).await else { return };
    match body.contains("<Status>Enabled</Status>") {
        true => report.add(NAME, Outcome::Warning, "is on: what is deleted stays and costs, also what was deleted because it is secret: add a lifecycle rule for noncurrent versions, or turn it off"),
        false => report.add(NAME, Outcome::Passed, "is off"),
    }
}

async fn object_lock(cloud: &Cloud, report: &mut StoreReport) {
    const NAME: &str = "Object Lock";
    let Some((status, body)) = ask(cloud, "object-lock", NAME, "s3:GetBucketObjectLockConfiguration", report).await
    else {
        return;
    };
    match status == 200 && body.contains("<DefaultRetention>") {
        true => report.add(
            NAME,
            Outcome::Warning,
            "keeps every object for a time: deletes and collection free nothing before",
        ),
        false => report.add(NAME, Outcome::Passed, "keeps nothing by default"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_take_images_away_are_found() {
        let judge =
            |rules: &str| judge_lifecycle(200, &format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")).0;
        let rule =
            |status: &str, what: &str| format!("<Rule><ID>1</ID><Filter/><Status>{status}</Status>{what}</Rule>");
        let expiration = "<Expiration><Days>30</Days></Expiration>";
        let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
        let noncurrent =
            "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
        assert_eq!(judge_lifecycle(404, "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>").0, Outcome::Passed);
        assert_eq!(judge(""), Outcome::Passed);
        assert_eq!(judge(&rule("Enabled", abort)), Outcome::Passed);
        assert_eq!(judge(&rule("Enabled", noncurrent)), Outcome::Passed);
        assert_eq!(judge(&rule("Enabled", expiration)), Outcome::Finding);
        assert_eq!(judge(&rule("Disabled", expiration)), Outcome::Passed);
        assert_eq!(judge(&(rule("Disabled", abort) + &rule("Enabled", expiration))), Outcome::Finding);
        assert_eq!(judge(&rule("Enabled", "<Transition><Days>1</Days></Transition>")), Outcome::Warning);
        assert_eq!(
            judge("<Rule><Action><Delete/></Action><Condition><Age>30</Age></Condition></Rule>"),
            Outcome::Finding
        );
    }
}
